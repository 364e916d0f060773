package cgroup

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// SetCPUQuota lets the group run for percent of one CPU, enforced in periods: it
// stalls for the rest of each period in which it used its share up. See
// [QuotaFor] for the limits and [Quota.Fair] for what they do not say.
func (g *Group) SetCPUQuota(percent float64, period time.Duration) error {
	q, err := QuotaFor(percent, period)
	if err != nil {
		return err
	}
	return g.setQuota(q)
}

// ClearCPUQuota lifts the limit. The period stays.
func (g *Group) ClearCPUQuota() error {
	q, err := g.CPUQuota()
	if err != nil {
		return err
	}
	return g.setQuota(Quota{Quota: -1, Period: q.Period})
}

func (g *Group) setQuota(q Quota) error {
	dir, version, err := g.Dir("cpu")
	if err != nil {
		return err
	}
	if version == 2 {
		err = g.setQuota2(q)
	} else {
		err = g.setQuota1(dir, q)
	}
	if err != nil {
		return fmt.Errorf("set cpu quota of group %s to %v: %w", g.name, q, err)
	}
	got, err := g.CPUQuota()
	if err != nil {
		return err
	}
	if got != q && (q.Quota >= 0 || got.Quota >= 0) {
		return fmt.Errorf("set cpu quota of group %s to %v: the kernel made it %v", g.name, q, got)
	}
	return nil
}

func (g *Group) setQuota2(q Quota) error {
	period := uint64(q.Period.Microseconds())
	var quota *int64
	if q.Quota >= 0 {
		us := q.Quota.Microseconds()
		quota = &us
	}
	return g.uni.Update(&cgroup2.Resources{CPU: &cgroup2.CPU{Max: cgroup2.NewCPUMax(quota, &period)}})
}

// setQuota1 takes three writes: quota and period are two files in v1, and the
// kernel checks each write against the other's old value and against the
// parent's ratio. Without a quota every period is fine. One update of
// containerd/cgroups writes period before quota, but does not clear first.
func (g *Group) setQuota1(dir string, q Quota) error {
	none, period, quota := int64(-1), uint64(q.Period.Microseconds()), q.Quota.Microseconds()
	steps := []*specs.LinuxCPU{{Quota: &none}, {Period: &period}}
	if q.Quota >= 0 {
		steps = append(steps, &specs.LinuxCPU{Quota: &quota})
	}
	for _, s := range steps {
		if g.lib != nil && standard(g.host.v1("cpu")) {
			if err := g.lib.Update(&specs.LinuxResources{CPU: s}); err != nil {
				return err
			}
			continue
		}
		if s.Quota != nil {
			if err := write(filepath.Join(dir, "cpu.cfs_quota_us"), strconv.FormatInt(*s.Quota, 10)); err != nil {
				return err
			}
		}
		if s.Period != nil {
			if err := write(filepath.Join(dir, "cpu.cfs_period_us"), strconv.FormatUint(*s.Period, 10)); err != nil {
				return err
			}
		}
	}
	return nil
}

// CPUQuota reads the limit in force on the group itself. Those of its parents
// hold, too.
func (g *Group) CPUQuota() (Quota, error) {
	dir, version, err := g.Dir("cpu")
	if err != nil {
		return Quota{}, err
	}
	var quota, period int64
	if version == 2 {
		b, err := readSmall(filepath.Join(dir, "cpu.max"))
		if err != nil {
			return Quota{}, fmt.Errorf("read cpu quota: %w", err)
		}
		if quota, period, err = parseCPUMax(string(b)); err != nil {
			return Quota{}, err
		}
	} else {
		if quota, err = readInt(filepath.Join(dir, "cpu.cfs_quota_us")); err != nil {
			return Quota{}, fmt.Errorf("read cpu quota: %w", err)
		}
		if period, err = readInt(filepath.Join(dir, "cpu.cfs_period_us")); err != nil {
			return Quota{}, fmt.Errorf("read cpu quota: %w", err)
		}
	}
	q := Quota{Quota: -1, Period: time.Duration(period) * time.Microsecond}
	if quota >= 0 {
		q.Quota = time.Duration(quota) * time.Microsecond
	}
	return q, nil
}

func readInt(file string) (int64, error) {
	b, err := readSmall(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse %s: %w", file, err)
	}
	return n, nil
}
