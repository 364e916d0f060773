package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/unsupported"
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

// Bounds of a group's CPU weight, in v1's unit.
const (
	MinShares     = 2
	DefaultShares = 1024
	MaxShares     = 262144
)

// SetCPUShares sets what the group weighs among its siblings when all of them
// want the CPU, in v1's unit (1024 is what a group weighs by itself). On v2 it
// is the nearest weight of 1 to 10000.
func (g *Group) SetCPUShares(shares int) error {
	if shares < MinShares || shares > MaxShares {
		return fmt.Errorf("cpu shares of %d: the kernel takes %d to %d", shares, MinShares, MaxShares)
	}
	dir, version, err := g.Dir("cpu")
	if err != nil {
		return err
	}
	file := "cpu.shares"
	if version == 2 {
		file, shares = "cpu.weight", min(max(shares*100/DefaultShares, 1), 10_000)
	}
	if err := write(filepath.Join(dir, file), strconv.Itoa(shares)); err != nil {
		return fmt.Errorf("set cpu shares of group %s: %w", g.name, err)
	}
	if got, err := readInt(filepath.Join(dir, file)); err != nil || got != int64(shares) {
		return fmt.Errorf("set cpu shares of group %s to %d: the kernel made it %d (%w)", g.name, shares, got, err)
	}
	return nil
}

// CPUShares reads what [Group.SetCPUShares] set.
func (g *Group) CPUShares() (int, error) {
	dir, version, err := g.Dir("cpu")
	if err != nil {
		return 0, err
	}
	if version == 1 {
		n, err := readInt(filepath.Join(dir, "cpu.shares"))
		return int(n), err
	}
	n, err := readInt(filepath.Join(dir, "cpu.weight"))
	return int(n) * DefaultShares / 100, err
}

// SetCPUBurst lets the group save up unused quota, at most so much, and spend it
// later beyond its quota. The kernel takes no more than the quota itself
// (Documentation/scheduler/sched-bwc.rst; Linux 5.14).
func (g *Group) SetCPUBurst(burst time.Duration) error {
	dir, version, err := g.Dir("cpu")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "cpu.cfs_burst_us")
	if version == 2 {
		file = filepath.Join(dir, "cpu.max.burst")
	}
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) && burst == 0 {
		return nil
	} else if err != nil {
		return &unsupported.Error{What: "cpu burst", Why: err.Error(), Cure: "Linux 5.14 or later, or no burst"}
	}
	if err := write(file, strconv.FormatInt(burst.Microseconds(), 10)); err != nil {
		return fmt.Errorf("set cpu burst of group %s to %v: %w", g.name, burst, err)
	}
	if got, err := readInt(file); err != nil || got != burst.Microseconds() {
		return fmt.Errorf("set cpu burst of group %s to %v: the kernel made it %d µs (%w)", g.name, burst, got, err)
	}
	return nil
}

// SetCPUs lets the group run on a list of CPUs only, as in "0" or "0-2,4".
func (g *Group) SetCPUs(list string) error {
	dir, version, err := g.Dir("cpuset")
	if err != nil {
		return err
	}
	if err := write(filepath.Join(dir, "cpuset.cpus"), list); err != nil {
		return fmt.Errorf("let group %s run on CPUs %s: %w", g.name, list, err)
	}
	if version == 2 { // it takes any list, and what comes of it is another file
		got, err := g.CPUs()
		if err != nil {
			return err
		}
		if got != list {
			return fmt.Errorf("let group %s run on CPUs %s: the kernel made it %s", g.name, list, got)
		}
	}
	return nil
}

// ClearCPUs lets the group run wherever its parent may.
func (g *Group) ClearCPUs() error {
	dir, version, err := g.Dir("cpuset")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "cpuset.cpus")
	if version == 2 {
		// Kernels may refuse to forget the list of a group that has processes, and take the whole one.
		if err = write(file, "\n"); !errors.Is(err, unix.ENOSPC) {
			return g.anywhere(err)
		}
	}
	from := map[int]string{1: "cpuset.cpus", 2: "cpuset.cpus.effective"}[version]
	list, err := readSmall(filepath.Join(filepath.Dir(dir), from))
	if err != nil {
		return g.anywhere(err)
	}
	return g.anywhere(write(file, strings.TrimSpace(string(list))+"\n"))
}

func (g *Group) anywhere(err error) error {
	if err != nil {
		return fmt.Errorf("let group %s run anywhere: %w", g.name, err)
	}
	return nil
}

// CPUs returns the list of CPUs that the group may run on.
func (g *Group) CPUs() (string, error) {
	dir, version, err := g.Dir("cpuset")
	if err != nil {
		return "", err
	}
	file := map[int]string{1: "cpuset.cpus", 2: "cpuset.cpus.effective"}[version]
	b, err := readSmall(filepath.Join(dir, file))
	return strings.TrimSpace(string(b)), err
}
