package faults

import (
	"context"
	"fmt"
	"slices"
	"time"

	"brownout/internal/sys/cgroup"
)

// Undone reads the quota back from the kernel, and who is under it. Where a
// freezer gives the quota, there is nothing to be read.
func (m *quotaMeter) Undone(_ context.Context, d Dose) string {
	q, err := quotaOf(d, m.b.lastDemand())
	if err != nil {
		return ""
	}
	for _, n := range m.nodes {
		own, err := q.of(n.Name())
		if err != nil {
			continue
		}
		now, err := n.Group().CPUQuota()
		switch {
		case err != nil:
			continue
		case now.Quota >= 0:
			m.byController = true
		case !m.byController:
			continue
		}
		if now.Percent() > own.percent*(1+quotaShare) {
			return fmt.Sprintf("the kernel grants %s's cgroup %s, not %.4g %%", n.Name(), now, own.percent)
		}
	}
	return ""
}

const (
	takeLook = 250 * time.Millisecond // over which burners are looked at: some of their periods
	takeGap  = 3 * standEvery         // between two calls, within which a look goes on
)

// Undone looks whether the run still uses, beside its nodes, a quarter of what
// is to be taken.
func (m *takeMeter) Undone(_ context.Context, d Dose) string {
	now := make([]sharesOf, len(m.nodes))
	for i, n := range m.nodes {
		var err error
		if now[i], err = m.shares(n); err != nil {
			return ""
		}
	}
	was, called := m.watched, m.called
	m.called = now[0].when
	switch {
	case was == nil || m.called.Sub(called) > takeGap: // not asked for a while: it was not in force
		m.watched, m.verdict = now, ""
		return ""
	case m.called.Sub(was[0].when) < takeLook:
		return m.verdict
	}
	m.watched, m.verdict = now, ""
	for i, n := range m.nodes {
		cpus := m.cpus[n.Name()]
		asked, err := m.expect(d, n, cpus)
		if err != nil {
			return ""
		}
		used := (100*float64(now[i].others-was[i].others)/float64(now[i].when.Sub(was[i].when)) - m.idle) / float64(cpus)
		if used < asked/4 {
			m.verdict = fmt.Sprintf("%s: burners used %.1f %% of a CPU, not %.4g %%", n.Name(), max(used, 0), asked)
		}
	}
	return m.verdict
}

// Undone asks the kernel where the node's threads may run.
func (m *pinMeter) Undone(_ context.Context, d Dose) string {
	want, err := cpuList(d.String("cpus"))
	if err != nil {
		return ""
	}
	for _, n := range m.nodes {
		list, err := allowedCPUs(n)
		if err != nil { // it may have no process just now
			continue
		}
		cpus, err := parseCPUs(list)
		if err == nil && slices.ContainsFunc(cpus, func(c int) bool { return !slices.Contains(want, c) }) && m.b.pins.alone(n.Name()) {
			return fmt.Sprintf("%s may run on CPUs %s", n.Name(), list)
		}
	}
	return ""
}

// Undone reads the limit back from the kernel.
func (m *capMeter) Undone(_ context.Context, d Dose) string {
	for _, n := range m.nodes {
		now, err := n.Group().MemoryLimit()
		if want := int64(d.Float("limit_bytes")); err == nil && (now == cgroup.NoLimit || now > want) {
			return fmt.Sprintf("%s's cgroup may hold %s, not %.1f MiB", n.Name(), bytesOf(now), float64(want)/(1<<20))
		}
	}
	return ""
}

// Undone looks whether there is a limit at all: what it is follows the node.
func (m *pressureMeter) Undone(context.Context, Dose) string {
	for _, n := range m.nodes {
		if now, err := n.Group().MemoryLimit(); err == nil && now == cgroup.NoLimit {
			return n.Name() + "'s cgroup has no limit"
		}
	}
	return ""
}

func bytesOf(limit int64) string {
	if limit == cgroup.NoLimit {
		return "what it wants"
	}
	return fmt.Sprintf("%.1f MiB", float64(limit)/(1<<20))
}
