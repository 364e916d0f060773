package faults

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/proc"
)

// Undone reads the quota back from the kernel, and who is under it. Where a
// freezer gives the quota, what the node uses tells.
func (m *quotaMeter) Undone(_ context.Context, d Dose) string {
	q, err := quotaOf(d, m.b.lastDemand())
	if err != nil {
		return ""
	}
	if why := m.insiders.escaped(m.nodes); why != "" {
		return why
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
			if why := m.overdrawn(n, own); why != "" {
				return why
			}
			continue
		}
		if now.Percent() > own.percent*(1+quotaShare) {
			return fmt.Sprintf("the kernel grants %s's cgroup %s, not %.4g %%", n.Name(), now, own.percent)
		}
	}
	return ""
}

// overdrawLook is over how long what a node uses is compared with a freezer's
// quota: what overruns a period is repaid in the next ones.
const overdrawLook = time.Second

// overdrawn says that a node that a freezer holds back uses more than its quota.
func (m *quotaMeter) overdrawn(n *cluster.Node, own quota) string {
	used, err := n.Group().CPUUsage()
	if err != nil {
		return ""
	}
	now := time.Now()
	w, ok := m.draws[n.Name()]
	switch took := now.Sub(w.from); {
	case !ok || now.Sub(w.called) > takeGap: // not asked for a while: it was not in force
		w = draw{from: now, used: used}
	case took >= max(overdrawLook, 10*own.period):
		share, why := 100*float64(used-w.used)/float64(took), ""
		if share > own.percent+2*quotaTolerance(own.percent) {
			why = fmt.Sprintf("%s used %.1f %% of a CPU in %s, not %.4g %%", n.Name(), share, short(took), own.percent)
		}
		w = draw{from: now, used: used, why: why}
	}
	w.called = now
	if m.draws == nil {
		m.draws = map[string]draw{}
	}
	m.draws[n.Name()] = w
	return w.why
}

// A draw is what a node has used of a quota since a time.
type draw struct {
	from, called time.Time
	used         time.Duration
	why          string // what the time before that showed
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
	if why := m.insiders.escaped(m.nodes); why != "" {
		return why
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
	if why := m.insiders.escaped(m.nodes); why != "" {
		return why
	}
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
	if why := m.insiders.escaped(m.nodes); why != "" {
		return why
	}
	for _, n := range m.nodes {
		if now, err := n.Group().MemoryLimit(); err == nil && now == cgroup.NoLimit {
			return n.Name() + "'s cgroup has no limit"
		}
	}
	return ""
}

// pauseSlack is how much later than due a pause may come: who makes it has to
// get a CPU first.
const pauseSlack = time.Second

// Undone looks whether pauses that come again and again still do.
func (m *pauseMeter) Undone(context.Context, Dose) string {
	if m.every <= 0 {
		return "" // its length tells
	}
	now := time.Now()
	if now.Sub(m.called) > takeGap { // not asked for a while: it was not in force
		m.asked = now
	}
	m.called = now
	for i, n := range m.pingers.nodes {
		gaps, _, last := m.ps[i].state(m.asked)
		if now.Sub(last) >= m.length/2 { // in one
			continue
		}
		from := m.asked
		for _, g := range gaps {
			if g.to.Sub(g.from) >= m.length/2 && g.to.After(from) {
				from = g.to
			}
		}
		if since := now.Sub(from); since > m.every+pauseSlack {
			return fmt.Sprintf("%s did not pause for %s, every %s was asked", n.Name(), short(since), short(m.every))
		}
	}
	return ""
}

// Undone looks whether the ballast, once it was there, still is in memory.
func (m *stormMeter) Undone(_ context.Context, d Dose) string {
	heap := d.Float("heap_bytes")
	if m.grown == nil {
		m.grown = map[string]bool{}
	}
	for i, n := range m.nodes {
		rss, err := resident(n)
		if err != nil {
			continue
		}
		switch more := float64(rss - m.before[i].rss); {
		case more >= (1-ballastShare)*heap:
			m.grown[n.Name()] = true
		case m.grown[n.Name()] && more < heap/2:
			return fmt.Sprintf("%s has %.1f MiB more in memory than before, not %.0f MiB", n.Name(), more/(1<<20), heap/(1<<20))
		}
	}
	return ""
}

// Undone asks the kernel by how much the clocks of nodes' programs are off.
func (m *offsetMeter) Undone(_ context.Context, d Dose) string {
	want := signed(d)
	for _, n := range m.nodes {
		pids, err := n.Pids()
		if err != nil || !m.b.clocks.alone(n.Name()) {
			continue
		}
		for _, pid := range pids { // none if it is down just now
			if !inBox(n, pid) { // a probe of another fault
				continue
			}
			off, err := proc.ClockOffset(pid)
			if err == nil && off != want {
				return fmt.Sprintf("the kernel has the clocks of %s's process %d off by %s, not %s", n.Name(), pid, off, want)
			}
		}
	}
	return ""
}

// inBox says whether a process in a node's cgroup is the node's own.
func inBox(n *cluster.Node, pid int) bool {
	own, err1 := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", n.InitPid()))
	its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return err1 == nil && err2 == nil && own == its
}

func bytesOf(limit int64) string {
	if limit == cgroup.NoLimit {
		return "what it wants"
	}
	return fmt.Sprintf("%.1f MiB", float64(limit)/(1<<20))
}
