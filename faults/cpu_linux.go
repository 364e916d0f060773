package faults

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"brownout/internal/sys/cgroup"
)

var cpuRows = []row{
	{"cpu.quota", meterQuota, []source{{"cgroup2", newQuota(2)}, {"cgroup1", newQuota(1)}}},
}

// A quota is a share of CPU time; the zero value is no limit.
type quota struct {
	percent float64 // of one CPU
	period  time.Duration
}

// lowestQuota is what several quotas on one node are together.
func lowestQuota(qs []quota) quota {
	var low quota
	for _, q := range qs {
		if low.percent == 0 || q.percent < low.percent {
			low = q
		}
	}
	return low
}

func quotaOf(d Dose) (quota, error) {
	q := quota{d.Float("percent"), d.Duration("period")}
	if q.period == 0 {
		q.period = 100 * time.Millisecond
	}
	_, err := cgroup.QuotaFor(q.percent, q.period)
	return q, err
}

// A quotaFault throttles by the bandwidth controller of one version of cgroups.
type quotaFault struct {
	b       *bench
	version int
}

func newQuota(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &quotaFault{b, version} }
}

func (f *quotaFault) Probe(context.Context) error {
	h, err := cgroup.Discover()
	if err != nil {
		return err
	}
	c, err := h.Controller("cpu")
	if err != nil {
		return err
	}
	what := fmt.Sprintf("cpu.quota by cgroup v%d", f.version)
	if c.Version != f.version {
		return &Unsupported{
			What: what, Why: fmt.Sprintf("the cpu controller of this host is v%d's", c.Version),
			Cure: fmt.Sprintf("provider: cgroup%d", c.Version),
		}
	}
	return withProbeGroup(h, func(g *cgroup.Group) error {
		if err := g.SetCPUQuota(50, 100*time.Millisecond); err != nil {
			return &Unsupported{What: what, Why: err.Error(), Cure: "a kernel with CONFIG_CFS_BANDWIDTH"}
		}
		return g.ClearCPUQuota()
	})
}

var probes atomic.Int64

// withProbeGroup makes a cgroup of no processes for a probe and takes it away.
func withProbeGroup(h *cgroup.Host, f func(*cgroup.Group) error) error {
	g, err := h.Create(probeGroup + strconv.Itoa(os.Getpid()) + "x" + strconv.FormatInt(probes.Add(1), 10))
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = g.Delete(ctx) // an empty group in the worst case
	}()
	return f(g)
}

const probeGroup = "bo-probe"

func (f *quotaFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.quotas.inject(ctx, site.Nodes, d, quotaOf)
}

// setQuota limits a node; the cgroup package reads back what it wrote.
func (b *bench) setQuota(_ context.Context, node string, asked []quota) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	q := lowestQuota(asked)
	if q.percent == 0 {
		return n.Group().ClearCPUQuota()
	}
	return n.Group().SetCPUQuota(q.percent, q.period)
}
