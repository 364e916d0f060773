package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/sys/cgroup"
)

// Tolerances of a limit: the kernel charges in batches, so that a group never
// reaches it to the page.
const (
	limitShare = 0.05
	limitLeast = 1 << 20
)

// A memoryMeter reads what the kernel counts of nodes' memory.
type memoryMeter struct {
	b      *bench
	nodes  []*cluster.Node
	before []memoryLook

	insiders insiders // of Undone
}

// A memoryLook is what is known of a group's memory at a time.
type memoryLook struct {
	when time.Time
	cgroup.Memory
	stalled time.Duration // PSI, some; 0 where it is not counted
}

func lookAtMemory(n *cluster.Node) (memoryLook, error) {
	l := memoryLook{when: time.Now()}
	var err error
	if l.Memory, err = n.Group().Memory(); err != nil {
		return l, err
	}
	st, err := n.Group().Stat()
	l.stalled = st.Memory.Some.Total
	return l, err
}

func newMemoryMeter(b *bench, site Site) (memoryMeter, error) {
	nodes, err := b.nodes(site.Nodes)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no nodes")
	}
	return memoryMeter{b: b, nodes: nodes}, err
}

func (m *memoryMeter) Baseline(context.Context) (Reading, error) {
	m.before = nil
	for _, n := range m.nodes {
		l, err := lookAtMemory(n)
		if err != nil {
			return Reading{}, err
		}
		m.before = append(m.before, l)
	}
	return Reading{map[string]any{"used_bytes": m.before[0].Usage, "hits": int64(m.before[0].Hits)}}, nil
}

func (m *memoryMeter) Close() error { return nil }

// A capMeter has a process fill the node's cgroup with page cache, and looks
// how much there comes to be.
type capMeter struct {
	memoryMeter
	limit int64
	peaks []int64      // by node, when they were looked for
	since []memoryLook // after that
}

func meterLimit(b *bench, site Site, d Dose) (Meter, error) {
	ask, err := limitOf(d)
	if err != nil {
		return nil, err
	}
	m, err := newMemoryMeter(b, site)
	return &capMeter{memoryMeter: m, limit: ask.limit}, err
}

const (
	fillPoll = time.Millisecond
	fillRest = 50 * time.Millisecond // without growth, after which it is full if it holds as much as it should
	fillMost = 3 * time.Second
)

// below is what the group may hold less than its limit.
func below(limit int64) int64 { return max(int64(limitShare*float64(limit)), limitLeast) }

// fill reads a file of some size in a node's group and returns what the group
// held at most. A disk may take its time.
func (m *capMeter) fill(ctx context.Context, n *cluster.Node, size int64) (peak int64, err error) {
	least := m.limit - below(m.limit)
	f, err := m.b.scratchFile(n, size)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	t, err := m.b.startTenant(n.Group(), appetite{churn: size}, nil, f)
	if err != nil {
		return 0, err
	}
	defer t.end()
	if err := t.begin(); err != nil {
		return 0, err
	}
	for begun, last := time.Now(), time.Now(); (peak < least || time.Since(last) < fillRest) && time.Since(begun) < fillMost; {
		if !sleep(ctx, fillPoll) {
			return peak, ctx.Err()
		}
		now, err := n.Group().Memory()
		if err != nil {
			return peak, err
		}
		if now.Usage > peak {
			peak, last = now.Usage, time.Now()
		}
	}
	return peak, nil
}

func (m *capMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	m.limit = int64(d.Float("limit_bytes"))
	if m.peaks == nil {
		for _, n := range m.nodes {
			peak, err := m.fill(ctx, n, m.limit+m.limit/4+16<<20)
			if err != nil {
				m.peaks = nil
				if ctx.Err() != nil {
					err = errors.New("too short to measure: the group was not full yet")
				}
				return Reading{}, Answer{}, err
			}
			l, err := lookAtMemory(n)
			if err != nil {
				return Reading{}, Answer{}, err
			}
			m.peaks, m.since = append(m.peaks, peak), append(m.since, l)
		}
	}
	<-ctx.Done()
	values := map[string]any{"n": len(m.nodes)}
	var bad, whys []string
	for i, n := range m.nodes {
		now, err := lookAtMemory(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		peak, hits := max(m.peaks[i], now.Usage), now.Hits-m.since[i].Hits
		values["bytes"], values["used_bytes"], values["hits"] = peak, now.Usage, int64(hits)
		whys = append(whys, fmt.Sprintf("%s: a limit of %.1f MiB asked; a process that fills the group with page cache got it to %.1f MiB; the node held %.1f MiB before and runs into the limit %d times",
			n.Name(), float64(m.limit)/(1<<20), float64(peak)/(1<<20), float64(m.before[i].Usage)/(1<<20), hits))
		switch tol := below(m.limit); {
		case peak > m.limit || peak < m.limit-tol:
			bad = append(bad, fmt.Sprintf("%s: tolerance -%.1f MiB", n.Name(), float64(tol)/(1<<20)))
		case hits == 0 && m.before[i].Usage <= m.limit:
			bad = append(bad, n.Name()+": it never bound the node itself")
		}
		if now.OOMKills > m.before[i].OOMKills {
			whys = append(whys, fmt.Sprintf("%s: the kernel killed %d processes for memory", n.Name(), now.OOMKills-m.before[i].OOMKills))
		}
	}
	why := strings.Join(whys, "; ")
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

// Healed fills the group again: it must get beyond the limit.
func (m *capMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	values := map[string]any{}
	for _, n := range m.nodes {
		peak, err := m.fill(ctx, n, m.limit+m.limit/4+16<<20)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		values["bytes"] = peak
		if peak <= m.limit {
			return Reading{values}, Answer{false, fmt.Sprintf("%s: its group holds %.1f MiB at most", n.Name(), float64(peak)/(1<<20))}, nil
		}
	}
	return Reading{values}, Answer{true, "a process filled the group with page cache beyond the limit"}, nil
}

// A pressureMeter counts how often nodes ran into their limits, how long
// somebody waited for memory, and how much room there was.
type pressureMeter struct {
	memoryMeter
	rooms []roomLook
	since []memoryLook // the first in force
}

// A roomLook is what a group held beyond what it could not give back.
type roomLook struct{ most, n int64 }

func meterPressure(b *bench, site Site, d Dose) (Meter, error) {
	if _, err := roomOf(d); err != nil {
		return nil, err
	}
	m, err := newMemoryMeter(b, site)
	return &pressureMeter{memoryMeter: m}, err
}

const (
	roomPoll      = 5 * time.Millisecond
	pressureHits  = 5.0 // a second
	pressureShare = 0.15
)

func (m *pressureMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	if m.since == nil {
		for _, n := range m.nodes {
			l, err := lookAtMemory(n)
			if err != nil {
				return Reading{}, Answer{}, err
			}
			m.since, m.rooms = append(m.since, l), append(m.rooms, roomLook{})
		}
	}
	settled := time.Now().Add(roomEvery) // the room has to be filled first
	for sleep(ctx, roomPoll) {
		for i, n := range m.nodes {
			now, err := n.Group().Memory()
			if err != nil {
				return Reading{}, Answer{}, err
			}
			if time.Now().After(settled) {
				m.rooms[i].most = max(m.rooms[i].most, now.Usage-held(now))
				m.rooms[i].n++
			}
		}
	}
	room := d.Float("limit_bytes")
	values := map[string]any{}
	var bad, whys []string
	for i, n := range m.nodes {
		now, err := lookAtMemory(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		took := now.when.Sub(m.since[i].when).Seconds()
		rate := float64(now.Hits-m.since[i].Hits) / took
		stalled := 100 * (now.stalled - m.since[i].stalled).Seconds() / took
		got := float64(m.rooms[i].most)
		values["hits_per_s"], values["stalled_percent"], values["bytes"], values["n"] = round1(rate), round1(stalled), int64(got), int(m.rooms[i].n)
		values["oom_kills"] = int64(now.OOMKills - m.before[i].OOMKills)
		whys = append(whys, fmt.Sprintf("%s: %.1f MiB of room asked, %.1f MiB of pages at most were there to give back (n=%d); it ran into the limit %.0f times a second, and somebody waited for memory for %.1f %% of the time",
			n.Name(), room/(1<<20), got/(1<<20), m.rooms[i].n, rate, stalled))
		if rate < pressureHits {
			bad = append(bad, n.Name()+": that is no pressure")
		}
		if tol := max(pressureShare*room, 2*limitLeast); got > room+tol || got < room-tol {
			bad = append(bad, fmt.Sprintf("%s: not the room asked for, tolerance %.1f MiB", n.Name(), tol/(1<<20)))
		}
	}
	why := strings.Join(whys, "; ")
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

func (m *pressureMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	values := map[string]any{}
	for _, n := range m.nodes {
		a, err := lookAtMemory(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		sleep(ctx, healedPause/2)
		b, err := lookAtMemory(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		values["hits"] = int64(b.Hits - a.Hits)
		limit, err := n.Group().MemoryLimit()
		if err != nil {
			return Reading{}, Answer{}, err
		}
		if b.Hits != a.Hits || limit != cgroup.NoLimit && !m.b.memory.asked(n.Name()) {
			return Reading{values}, Answer{false, fmt.Sprintf("%s: limited to %d bytes, ran into it %d times in %s", n.Name(), limit, b.Hits-a.Hits, short(b.when.Sub(a.when)))}, nil
		}
	}
	return Reading{values}, Answer{true, "nobody runs into a limit"}, nil
}

// An oomMeter is a killMeter that also asks the kernel what the nodes died of.
type oomMeter struct {
	*killMeter
	kills []uint64
}

func meterOOM(b *bench, site Site, d Dose) (Meter, error) {
	m, err := meterKill(b, site, d)
	if err != nil {
		return nil, err
	}
	return &oomMeter{killMeter: m.(*killMeter)}, nil
}

func (m *oomMeter) Baseline(ctx context.Context) (Reading, error) {
	r, err := m.killMeter.Baseline(ctx)
	if err != nil {
		return r, err
	}
	for _, n := range m.pingers.nodes {
		k, err := n.Group().OOMKills()
		if err != nil {
			m.Close()
			return r, err
		}
		m.kills = append(m.kills, k)
	}
	return r, nil
}

func (m *oomMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	r, a, err := m.killMeter.Measure(ctx, d)
	if err != nil {
		return r, a, err
	}
	var sum int64
	for i, n := range m.pingers.nodes {
		k, err := n.Group().OOMKills()
		if err != nil {
			return r, a, err
		}
		sum += int64(k - m.kills[i])
		if k == m.kills[i] && a.Yes {
			a = Answer{false, n.Name() + " died, but the kernel counts no kill for want of memory"}
		}
	}
	r.Values["oom_kills"] = sum
	if a.Yes {
		a.Why += fmt.Sprintf("; the kernel counts %d kills for want of memory in their cgroups", sum)
	}
	return r, a, nil
}

// A stallMeter has a process in each node's cgroup that needs new memory all
// the time, and pings the nodes from outside.
type stallMeter struct {
	b     *bench
	names []string

	length, every time.Duration
	pingers
	probes []*stallProbe
	before []memoryLook
	begun  time.Time
}

// A stallProbe is a process that takes memory, and what it had to wait.
type stallProbe struct {
	t  *tenant
	wg sync.WaitGroup

	mu   sync.Mutex
	gaps []memoryGap
}

func meterStall(b *bench, site Site, d Dose) (Meter, error) {
	if len(site.Nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	return &stallMeter{b: b, names: site.Nodes, length: d.Duration("length"), every: d.Duration("every")}, nil
}

func (b *bench) startStallProbe(n *cluster.Node) (*stallProbe, error) {
	t, err := b.startTenant(n.Group(), appetite{probe: true}, nil)
	if err != nil {
		return nil, err
	}
	p := &stallProbe{t: t}
	p.wg.Go(func() {
		for {
			var g memoryGap
			if binary.Read(t.out, binary.NativeEndian, &g) != nil {
				return
			}
			p.mu.Lock()
			p.gaps = append(p.gaps, g)
			p.mu.Unlock()
		}
	})
	return p, t.begin()
}

func (p *stallProbe) end() {
	p.t.end()
	p.wg.Wait()
}

// since are the gaps of at least least that ended after a time.
func (p *stallProbe) since(from int64, least time.Duration) (out []time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.gaps {
		if d := time.Duration(g.To - g.From); g.To > from && d >= least {
			out = append(out, d)
		}
	}
	return out
}

func (m *stallMeter) Baseline(ctx context.Context) (Reading, error) {
	every := min(max(m.length/50, time.Millisecond), 5*time.Millisecond)
	if err := m.start(ctx, m.b, m.names, every, max(m.length/4, 2*every)); err != nil {
		m.Close()
		return Reading{}, err
	}
	for _, n := range m.nodes {
		l, err := lookAtMemory(n)
		var p *stallProbe
		if err == nil {
			p, err = m.b.startStallProbe(n)
		}
		if p != nil {
			m.probes = append(m.probes, p)
		}
		if err != nil {
			m.Close()
			return Reading{}, err
		}
		m.before = append(m.before, l)
	}
	sleep(ctx, 30*time.Millisecond) // until they have begun
	m.begun = time.Now()
	return Reading{map[string]any{"used_bytes": m.before[0].Usage}}, nil
}

func monotonic() int64 { return kernelClock(unix.CLOCK_MONOTONIC) }
func boottime() int64  { return kernelClock(unix.CLOCK_BOOTTIME) }

func kernelClock(id int32) int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts) // cannot fail
	return ts.Nano()
}

func (m *stallMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	begun := monotonic() - int64(time.Since(m.begun))
	<-ctx.Done()
	end := time.Now()
	var all []time.Duration
	var bad, whys []string
	values := map[string]any{}
	for i, n := range m.nodes {
		gaps := m.probes[i].since(begun, m.length/2)
		all = append(all, gaps...)
		m.ps[i].settled(context.WithoutCancel(ctx), end)
		pings, usual, last := m.ps[i].state(m.begun)
		var longest time.Duration
		for _, g := range pings {
			longest = max(longest, g.to.Sub(g.from)-usual)
		}
		longest = max(longest, end.Sub(last)-usual)
		now, err := lookAtMemory(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		values["ping_gap_max_ns"], values["hits"] = int64(longest), int64(now.Hits-m.before[i].Hits)
		if !m.probes[i].t.alive() {
			bad = append(bad, n.Name()+": the probe died")
			continue
		}
		got := quantile(gaps, 0.5)
		whys = append(whys, fmt.Sprintf("%s: %s asked, a process that needs memory waited %s (p50, n=%d); the node itself did not answer pings for %s at most", n.Name(), short(m.length), short(got), len(gaps), short(longest)))
		early, late := tolerance(m.length, pauseEarlyShare, pauseEarlyLeast), tolerance(m.length, pauseLateShare, pauseLateLeast)
		switch {
		case len(gaps) == 0 || got < m.length-early || got > m.length+late:
			bad = append(bad, fmt.Sprintf("%s: tolerance -%s +%s", n.Name(), short(early), short(late)))
		case longest < m.length/4:
			bad = append(bad, n.Name()+": the node itself never waited: it needed no new memory")
		}
	}
	values["p50_ns"], values["max_ns"], values["n"] = int64(quantile(all, 0.5)), int64(quantile(all, 1)), len(all)
	why := strings.Join(whys, "; ")
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

func (m *stallMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	from := monotonic()
	r, a, err := m.alive(ctx, max(m.length/4, 5*pauseEarlyLeast))
	if err != nil || !a.Yes {
		return r, a, err
	}
	for i, n := range m.nodes {
		if gaps := m.probes[i].since(from, 5*pauseEarlyLeast); len(gaps) > 0 {
			return r, Answer{false, fmt.Sprintf("%s: a process waited %s for memory", n.Name(), short(gaps[0]))}, nil
		}
		if now, err := lookAtMemory(n); err != nil || now.UnderOOM {
			return r, Answer{false, fmt.Sprintf("%s: somebody waits for memory (%v)", n.Name(), err)}, nil
		}
	}
	return r, a, nil
}

func (m *stallMeter) Close() error {
	for _, p := range m.probes {
		p.end()
	}
	m.probes = nil
	m.close()
	return nil
}
