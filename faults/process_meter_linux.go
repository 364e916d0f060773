package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/proc"
)

// Tolerances of pauses. One that is too short is not what was asked for. On a
// busy host one may get longer: who is to end it has to get a CPU first, and who
// is paused has to catch up. After a stop-the-world the collection itself goes
// on beside the program (up to 60 ms were seen with heaps of 130 MB), which the
// runtime's own account does not count.
const (
	pauseEarlyShare = 0.05
	pauseEarlyLeast = 10 * time.Millisecond
	pauseLateShare  = 0.15
	pauseLateLeast  = 20 * time.Millisecond
	gcLate          = 60 * time.Millisecond
	gcOwnShare      = 0.03
	gcOwnLeast      = 5 * time.Millisecond

	accountTries, accountPause = 5, 40 * time.Millisecond

	healedPause = 200 * time.Millisecond // looked at after the heal
)

// A pauseMeter watches programs stand still: from outside by pings, and from
// inside by the Go runtime's account of its collector. A frozen process must
// not show in that account, a stop-the-world must.
//
// It disturbs each node with 200 to 1000 PINGs a second.
type pauseMeter struct {
	b      *bench
	nodes  []string
	gc     bool // the pause is to be the collector's
	length time.Duration
	every  time.Duration
	draw   func() time.Duration // the lengths that were drawn, one after the other; nil if all are the same
	drawn  []time.Duration

	pingers
	before []gcAccount // of each node; nil where it has none
	begun  time.Time   // baseline ended

	asked, called time.Time // of Undone: since when it is in force, and the last time
}

func meterPause(b *bench, site Site, d Dose) (Meter, error) { return newPauseMeter(b, site, d, false) }

func meterGCPause(b *bench, site Site, d Dose) (Meter, error) { return newPauseMeter(b, site, d, true) }

func newPauseMeter(b *bench, site Site, d Dose, gc bool) (Meter, error) {
	if len(site.Nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	m := &pauseMeter{b: b, nodes: site.Nodes, gc: gc, length: d.Duration("length"), every: d.Duration("every")}
	if d.String("dist") == "pareto" {
		lengths := b.pauseLengths(site.Nodes)
		m.draw = func() time.Duration { return lengths(d) }
	}
	return m, nil
}

func (m *pauseMeter) Baseline(ctx context.Context) (Reading, error) {
	every := min(max(m.length/50, time.Millisecond), 5*time.Millisecond)
	if err := m.start(ctx, m.b, m.nodes, every, max(m.length/4, 2*every)); err != nil {
		m.close()
		return Reading{}, err
	}
	m.before = make([]gcAccount, len(m.pingers.nodes))
	for i, n := range m.pingers.nodes {
		acc, err := accountOf(ctx, n)
		if err != nil && m.gc {
			m.close()
			return Reading{}, fmt.Errorf("read %s's account of GC pauses: %w", n.Name(), err)
		}
		m.before[i] = acc
	}
	m.begun = time.Now()
	_, usual, _ := m.ps[0].state(m.begun)
	return Reading{map[string]any{"gap_p50_ns": int64(usual)}}, nil
}

func accountOf(ctx context.Context, n *cluster.Node) (gcAccount, error) {
	a := adminOf(n)
	defer a.close()
	return a.gcAccount(ctx)
}

// want is the q-quantile of the first n pauses that were asked for.
func (m *pauseMeter) want(q float64, n int) time.Duration {
	if m.draw == nil {
		return m.length
	}
	for len(m.drawn) < n {
		m.drawn = append(m.drawn, m.draw())
	}
	return quantile(m.drawn[:n], q)
}

func (m *pauseMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	<-ctx.Done()
	end := time.Now()
	// A node that stands still right now cannot tell; it has a moment.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	var all, own []time.Duration
	var bad []string
	for i, n := range m.pingers.nodes {
		m.ps[i].settled(ctx, end)
		gaps, usual, last := m.ps[i].state(m.begun)
		look := pauseLook{node: n.Name(), usual: usual}
		for _, g := range gaps {
			look.gaps = append(look.gaps, g.to.Sub(g.from))
		}
		outside := look.pauses(m.length, m.every, end.Sub(m.begun))
		all = append(all, outside...)
		var inside []time.Duration
		acc, err := accountOf(ctx, n)
		for try := 0; err == nil; try++ {
			inside = acc.since(m.before[i], m.length/2)
			// The runtime writes a pause down when its cycle is over, which is
			// later than the pause.
			if !m.gc || len(inside) >= len(outside) || try == accountTries || !sleep(ctx, accountPause) {
				break
			}
			acc, err = accountOf(ctx, n)
		}
		own = append(own, inside...)
		why := m.judge(outside, inside, err, end.Sub(last))
		if why != "" {
			bad = append(bad, n.Name()+": "+why)
		}
	}
	values := map[string]any{
		"p50_ns": int64(quantile(all, 0.5)), "max_ns": int64(quantile(all, 1)), "n": len(all), "runtime_n": len(own),
	}
	if len(own) > 0 {
		values["runtime_p50_ns"] = int64(quantile(own, 0.5))
	}
	if bad != nil {
		return Reading{values}, Answer{false, strings.Join(bad, "; ")}, nil
	}
	why := fmt.Sprintf("%s asked, %s measured by pings from outside (p50, n=%d)", short(m.want(0.5, len(all))), short(quantile(all, 0.5)), len(all))
	if m.draw != nil {
		why = fmt.Sprintf("heavy-tailed: %s at most asked, %s measured; p50 ", short(m.want(1, len(all))), short(quantile(all, 1))) + why
		values["asked_p50_ns"], values["asked_max_ns"] = int64(m.want(0.5, len(all))), int64(m.want(1, len(all)))
	}
	if m.gc {
		why += fmt.Sprintf(", %s by the runtime's own account (p50, n=%d)", short(quantile(own, 0.5)), len(own))
	} else {
		why += ", none of it in the runtime's account"
		for _, n := range m.pingers.nodes {
			if stuck, _ := m.b.stuck.Load(n.Name()); stuck != nil && stuck != "" {
				why += fmt.Sprintf("; beside it the freeze waits for %s, which runs nothing before it is frozen", stuck)
			}
		}
	}
	return Reading{values}, Answer{true, why}, nil
}

// judge says why what was seen of one node is not the pause that was asked for, "" if it is.
func (m *pauseMeter) judge(outside, inside []time.Duration, noAccount error, silent time.Duration) string {
	if len(outside) == 0 {
		why := fmt.Sprintf("%s asked, no gap between pings of half of that", short(m.length))
		if silent >= m.length/2 {
			why += fmt.Sprintf(" has ended yet (silent for %s)", short(silent))
		}
		return why
	}
	for _, q := range m.quantiles() {
		got, want := quantile(outside, q), m.want(q, len(outside))
		early, late := tolerance(want, pauseEarlyShare, pauseEarlyLeast), tolerance(want, pauseLateShare, pauseLateLeast)
		if m.gc {
			late = max(late, gcLate)
		}
		if got < want-early || got > want+late {
			return fmt.Sprintf("%s asked, %s measured by pings (%s, n=%d), tolerance -%s +%s", short(want), short(got), quantileName(q), len(outside), short(early), short(late))
		}
	}
	switch {
	case !m.gc && len(inside) > 0:
		return fmt.Sprintf("the runtime reports %d GC pauses of up to %s: not a mere freeze", len(inside), short(slices.Max(inside)))
	case !m.gc:
		return ""
	case noAccount != nil:
		return fmt.Sprintf("the runtime's account cannot be read: %v", noAccount)
	case len(inside) == 0:
		return fmt.Sprintf("pings stopped for %s, but the runtime reports no GC pause of half of %s", short(quantile(outside, 0.5)), short(m.length))
	}
	for _, q := range m.quantiles() {
		got, want := quantile(inside, q), m.want(q, len(inside))
		early, late := tolerance(want, gcOwnShare, gcOwnLeast), tolerance(want, pauseLateShare, pauseLateLeast)
		if got < want-early || got > want+late {
			return fmt.Sprintf("%s asked, the runtime reports %s (%s, n=%d), tolerance -%s +%s", short(want), short(got), quantileName(q), len(inside), short(early), short(late))
		}
	}
	return ""
}

// quantiles are those that are compared: of a heavy tail also its end.
func (m *pauseMeter) quantiles() []float64 {
	if m.draw == nil {
		return []float64{0.5}
	}
	return []float64{0.5, 1}
}

func quantileName(q float64) string {
	if q == 1 {
		return "max"
	}
	return fmt.Sprintf("p%g", 100*q)
}

// since returns the pauses of at least least of the cycles after an earlier account.
func (a gcAccount) since(before gcAccount, least time.Duration) (out []time.Duration) {
	fresh := a.cycles - before.cycles
	if fresh < 0 { // another process
		fresh = a.cycles
	}
	for i, p := range a.pauses {
		if int64(i) >= fresh {
			break
		}
		if p.length >= least {
			out = append(out, p.length)
		}
	}
	return out
}

func (m *pauseMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	return m.alive(ctx, max(m.length/4, 5*pauseEarlyLeast))
}

// alive looks whether all nodes answer pings again, without gaps of limit.
func (g *pingers) alive(ctx context.Context, limit time.Duration) (Reading, Answer, error) {
	since := time.Now()
	sleep(ctx, healedPause)
	now := time.Now()
	var worst time.Duration
	node := ""
	for i, p := range g.ps {
		gaps, _, last := p.state(since)
		longest := now.Sub(last)
		for _, x := range gaps {
			if x.from.After(since) {
				longest = max(longest, x.to.Sub(x.from))
			}
		}
		if longest > worst || node == "" {
			worst, node = longest, g.nodes[i].Name()
		}
	}
	values := Reading{map[string]any{"max_ns": int64(worst)}}
	if worst > limit {
		return values, Answer{false, fmt.Sprintf("%s did not answer pings for %s, more than %s", node, short(worst), short(limit))}, nil
	}
	return values, Answer{true, fmt.Sprintf("all answer pings, longest gap %s in %s", short(worst), short(now.Sub(since)))}, nil
}

func (m *pauseMeter) Close() error { m.close(); return nil }

// A killMeter looks whether processes really died, and others took their place.
type killMeter struct {
	b       *bench
	names   []string
	restart time.Duration

	pingers
	old    []*proc.Pidfd // of the processes before the kill
	whose  []string      // node of each
	downs  []*downWatch  // of each node
	cancel context.CancelFunc
	wg     sync.WaitGroup
	begun  time.Time
}

func meterKill(b *bench, site Site, d Dose) (Meter, error) {
	if len(site.Nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	return &killMeter{b: b, names: site.Nodes, restart: d.Duration("restart")}, nil
}

const (
	killPing = 2 * time.Millisecond

	// Tolerances of a downtime. Whoever is to start the node has to get a CPU
	// first, and may have had data to put in their place.
	downEarlyShare = 0.02
	downEarlyLeast = 10 * time.Millisecond
	downLateShare  = 0.15
	downLateLeast  = 100 * time.Millisecond
)

func (m *killMeter) Baseline(ctx context.Context) (Reading, error) {
	if err := m.start(ctx, m.b, m.names, killPing, 10*killPing); err != nil {
		m.Close()
		return Reading{}, err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.cancel = cancel
	for _, n := range m.pingers.nodes {
		pids, err := n.Pids()
		if err == nil && len(pids) == 0 {
			err = errors.New("it has no processes")
		}
		w := &downWatch{n: n}
		for _, pid := range pids {
			var fd *proc.Pidfd
			if fd, err = proc.Open(pid); err != nil {
				break
			}
			m.old, m.whose = append(m.old, fd), append(m.whose, n.Name())
			w.old = append(w.old, fd)
		}
		if err != nil {
			m.Close()
			return Reading{}, fmt.Errorf("open processes of %s: %w", n.Name(), err)
		}
		m.downs = append(m.downs, w)
		m.wg.Go(func() { w.run(own) })
	}
	m.begun = time.Now()
	return Reading{map[string]any{"n": len(m.old)}}, nil
}

func (m *killMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	<-ctx.Done()
	end := time.Now()
	killed := map[string]bool{}
	var alive []string
	for i, fd := range m.old {
		if fd.Ended() {
			killed[m.whose[i]] = true
		} else {
			alive = append(alive, fmt.Sprintf("%s: process %d lives", m.whose[i], fd.PID()))
		}
	}
	var down, silent []time.Duration
	for i, p := range m.ps {
		longest := end.Sub(m.lastOf(i))
		gaps, _, _ := p.state(m.begun)
		for _, g := range gaps {
			longest = max(longest, g.to.Sub(g.from))
		}
		without, over := m.downs[i].down()
		down, silent = append(down, without), append(silent, longest)
		if !killed[m.pingers.nodes[i].Name()] {
			continue
		}
		if longest < 10*killPing {
			alive = append(alive, fmt.Sprintf("%s: answered pings all the time", m.pingers.nodes[i].Name()))
		}
		// A downtime that lasts says nothing yet of how long it will be.
		early, late := tolerance(m.restart, downEarlyShare, downEarlyLeast), tolerance(m.restart, downLateShare, downLateLeast)
		if m.restart > 0 && (over && without < m.restart-early || without > m.restart+late) {
			alive = append(alive, fmt.Sprintf("%s: without a process for %s, %s asked, tolerance -%s +%s",
				m.pingers.nodes[i].Name(), short(without), short(m.restart), short(early), short(late)))
		}
	}
	values := Reading{map[string]any{"n": len(killed), "down_ns": int64(quantile(down, 1)), "silent_ns": int64(quantile(silent, 1)), "processes": len(m.old)}}
	if alive != nil {
		return values, Answer{false, strings.Join(alive, "; ")}, nil
	}
	return values, Answer{true, fmt.Sprintf("%d processes of %d nodes ended (seen by pidfd), no new process for %s, no answer to pings for %s so far",
		len(m.old), len(killed), short(quantile(down, 1)), short(quantile(silent, 1)))}, nil
}

func (m *killMeter) lastOf(i int) time.Time {
	_, _, last := m.ps[i].state(time.Time{})
	return last
}

func (m *killMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	reading, answer, err := m.alive(ctx, 25*killPing)
	var why []string
	for i, n := range m.pingers.nodes {
		pids, perr := n.Pids()
		switch {
		case perr != nil:
			err = cmp.Or(err, perr)
		case len(pids) == 0:
			why = append(why, n.Name()+" has no process")
		}
		for _, st := range m.b.Cluster.Statuses(ctx) {
			if st.Node == n.Name() && !st.Ready {
				why = append(why, fmt.Sprintf("%s is not ready: %v", n.Name(), st.Err))
			}
		}
		gaps, _, _ := m.ps[i].state(m.begun)
		var silent time.Duration
		for _, g := range gaps {
			silent = max(silent, g.to.Sub(g.from))
		}
		without, _ := m.downs[i].down()
		reading.Values["down_ns"] = max(asInt(reading.Values["down_ns"]), int64(without))
		reading.Values["silent_ns"] = max(asInt(reading.Values["silent_ns"]), int64(silent))
	}
	for i, fd := range m.old {
		if !fd.Ended() {
			why = append(why, fmt.Sprintf("%s: its old process %d lives", m.whose[i], fd.PID()))
		}
	}
	if why != nil {
		answer = Answer{false, strings.Join(why, "; ")}
	} else if answer.Yes {
		answer.Why = fmt.Sprintf("new processes are ready; none for %s, no answer to pings for %s in all; %s",
			short(time.Duration(asInt(reading.Values["down_ns"]))), short(time.Duration(asInt(reading.Values["silent_ns"]))), answer.Why)
	}
	return reading, answer, err
}

func asInt(v any) int64 { n, _ := v.(int64); return n }

func (m *killMeter) Close() error {
	if m.cancel != nil {
		m.cancel()
	}
	m.wg.Wait() // they hold the pidfds
	m.close()
	var errs []error
	for _, fd := range m.old {
		errs = append(errs, fd.Close())
	}
	m.old = nil
	return errors.Join(errs...)
}
