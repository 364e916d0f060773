package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/proc"
)

// Tolerances of a quota. The kernel lets a group overrun by up to a tick in
// each period.
const (
	quotaPoints = 3.0 // percentage points, or
	quotaShare  = 0.1
	spinLength  = 500 * time.Millisecond

	// A node that is held back in nearly all periods is a spinning process itself,
	// and can be looked at for longer: half a second of a probe is a few periods,
	// each of which may overrun and be repaid in the next.
	busyShare   = 0.9
	busyPeriods = 10
)

// A quotaMeter asks two questions: whether a process that wants everything gets
// just the quota, and whether the node itself was held back by it. A quota that
// the node never reached did nothing to it.
//
// The first is asked by a process of ours in the node's cgroup, right after the
// injection and for at most half a second; the node shares its quota with it
// for as long. The second is nr_throttled, outside of that time.
type quotaMeter struct {
	b      *bench
	nodes  []*cluster.Node
	dose   Dose
	asked  []float64 // of each node, in percent of one CPU; known once it is in force
	period time.Duration

	spins []spinLook // one a node, when they were made
	since []counted  // after them
	last  []counted

	// Of Undone.
	byController bool // a quota was read back
	insiders     insiders
	draws        map[string]draw // by node
}

func quotaTolerance(percent float64) float64 {
	return max(min(quotaPoints, percent), quotaShare*percent)
}

// counted are a group's counters at a time. Where the kernel does not count
// throttling, its periods are looks at the group's freezers.
type counted struct {
	when      time.Time
	usage     time.Duration
	periods   uint64
	throttled uint64
	stalled   time.Duration
}

func meterQuota(b *bench, site Site, d Dose) (Meter, error) {
	q, err := quotaOf(d, nil)
	if err != nil {
		return nil, err
	}
	nodes, err := b.nodes(site.Nodes)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no nodes")
	}
	return &quotaMeter{b: b, nodes: nodes, dose: d, period: q.period}, err
}

func count(n *cluster.Node) (counted, error) {
	st, err := n.Group().Stat()
	if err == nil && !st.Has.CPU {
		err = fmt.Errorf("%s: its CPU time is not counted", n.Name())
	}
	return counted{time.Now(), st.Usage, st.Periods, st.Throttled, st.ThrottledTime}, err
}

// Baseline reads what the nodes use unthrottled, for the report only.
func (m *quotaMeter) Baseline(ctx context.Context) (Reading, error) {
	var sum float64
	for _, n := range m.nodes {
		a, err := count(n)
		if err != nil {
			return Reading{}, err
		}
		sleep(ctx, 300*time.Millisecond/time.Duration(len(m.nodes)))
		b, err := count(n)
		if err != nil {
			return Reading{}, err
		}
		sum += 100 * float64(b.usage-a.usage) / float64(b.when.Sub(a.when))
	}
	return Reading{map[string]any{"percent": round1(sum / float64(len(m.nodes)))}}, ctx.Err()
}

func round1(x float64) float64 { return math.Round(10*x) / 10 }

func (m *quotaMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	if m.spins == nil {
		q, err := quotaOf(d, m.b.lastDemand())
		if err != nil {
			return Reading{}, Answer{}, err
		}
		m.dose, m.asked = d, nil
		length := spinLength
		if at, ok := ctx.Deadline(); ok {
			length = min(length, time.Until(at)/3)
		}
		for _, n := range m.nodes {
			own, err := q.of(n.Name())
			if err != nil {
				return Reading{}, Answer{}, err
			}
			m.asked = append(m.asked, own.percent)
			// What overruns a freezer's quota is repaid over several periods.
			if k, err := n.Group().CPUQuota(); err != nil || k.Quota < 0 {
				if at, ok := ctx.Deadline(); ok {
					length = max(length, min(time.Until(at)*2/3/time.Duration(len(m.nodes)), 3*spinLength))
				}
			}
			look, err := spin(ctx, m.b.Exe, n, spinThreads(own.percent), length, nil, 0)
			if err != nil && ctx.Err() == nil {
				return Reading{}, Answer{}, err
			}
			if err == nil {
				m.spins = append(m.spins, look)
			}
			c, err := count(n)
			if err != nil {
				return Reading{}, Answer{}, err
			}
			m.since, m.last = append(m.since, c), append(m.last, c)
		}
		if len(m.spins) < len(m.nodes) {
			m.spins = nil
			return Reading{}, Answer{}, errors.New("too short to measure: the probe did not end")
		}
	}
	frozen := m.lookFrozen(ctx)
	for i, n := range m.nodes {
		c, err := count(n)
		c.periods, c.throttled = c.periods+frozen[i].looks, c.throttled+frozen[i].yes
		if err != nil {
			return Reading{}, Answer{}, err
		}
		m.last[i] = c
	}
	return m.judge()
}

// frozenLooks are how often a group was looked at, and found frozen.
type frozenLooks struct{ looks, yes uint64 }

// lookFrozen waits for ctx's end, and looks meanwhile whether nodes that no
// bandwidth controller holds back are frozen from time to time.
func (m *quotaMeter) lookFrozen(ctx context.Context) []frozenLooks {
	out := make([]frozenLooks, len(m.nodes))
	const every = 7 * time.Millisecond // out of step with any period
	for sleep(ctx, every) {
		for i, n := range m.nodes {
			if q, err := n.Group().CPUQuota(); err == nil && q.Quota >= 0 {
				continue
			}
			out[i].looks++
			for _, v := range []int{2, 1} {
				f, err := n.Group().Freezer(v)
				if err != nil {
					continue
				}
				if is, _ := f.Frozen(); is {
					out[i].yes++
					break
				}
			}
		}
	}
	return out
}

func (m *quotaMeter) judge() (Reading, Answer, error) {
	var want, got, used float64
	var throttled, periods uint64
	var stalled time.Duration
	var bad []string
	for i, n := range m.nodes {
		asked := m.asked[i]
		tol := quotaTolerance(asked)
		s := m.spins[i]
		want += asked / float64(len(m.nodes))
		a, b := m.since[i], m.last[i]
		share := 100 * float64(b.usage-a.usage) / float64(max(b.when.Sub(a.when), 1))
		used += share / float64(len(m.nodes))
		nodeThrottled, nodePeriods := b.throttled-a.throttled, b.periods-a.periods
		throttled, periods, stalled = throttled+nodeThrottled, periods+nodePeriods, stalled+b.stalled-a.stalled
		busy := nodePeriods >= busyPeriods && float64(nodeThrottled) >= busyShare*float64(nodePeriods)
		best := s.percent
		if busy { // it wanted more all the time, and what was too much for the probe is repaid later
			best = percentOf(s.usage+b.usage-a.usage, s.wall+b.when.Sub(a.when))
		}
		got += best / float64(len(m.nodes))
		switch {
		case busy && math.Abs(best-asked) <= tol:
		case s.percent > asked+tol:
			bad = append(bad, fmt.Sprintf("%s: a spinning process got %.1f %% of a CPU, more than %.4g %%, tolerance %.1f", n.Name(), s.percent, asked, tol))
		case s.percent < asked-tol && s.throttled == 0 && nodeThrottled == 0:
			bad = append(bad, fmt.Sprintf("%s: this host gave a spinning process %.1f %% of a CPU, so that %.4g %% never bound", n.Name(), s.percent, asked))
		case s.percent < asked-tol:
			bad = append(bad, fmt.Sprintf("%s: a spinning process got %.1f %% of a CPU, less than %.4g %%, tolerance %.1f", n.Name(), s.percent, asked, tol))
		case nodeThrottled == 0:
			bad = append(bad, fmt.Sprintf("%s: a quota of %.4g %% never bound: the node used %.1f %%", n.Name(), asked, share))
		}
	}
	values := Reading{map[string]any{
		"percent": round1(got), "asked_percent": round1(want), "node_percent": round1(used), "n": int(m.spins[0].wall / m.period),
		"throttled_periods": int64(throttled), "periods": int64(periods), "throttled_ns": int64(stalled),
	}}
	why := fmt.Sprintf("%.4g %% of a CPU asked, %.1f %% got by a process that wants all (n=%d periods of %s); the node itself was throttled in %d of %d periods and got %.1f %%",
		want, got, int(m.spins[0].wall/m.period), m.period, throttled, periods, used)
	if m.dose.Has("of_demand") {
		why = fmt.Sprintf("%.4g %% of the demand in the baseline: ", m.dose.Float("of_demand")) + why
	}
	if bad != nil {
		m.spins, m.since, m.last = nil, nil, nil // to be looked at again
		return values, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

// Healed lets a process spin once more: nothing may throttle it.
func (m *quotaMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	var got float64
	for _, n := range m.nodes {
		look, err := spin(ctx, m.b.Exe, n, 1, max(2*m.period, 100*time.Millisecond), nil, 0)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		got = look.percent
		values := Reading{map[string]any{"percent": round1(got), "throttled_periods": int64(look.throttled)}}
		if why := stopped(n); why != "" {
			return values, Answer{false, n.Name() + ": " + why}, nil
		}
		if look.throttled > 0 {
			return values, Answer{false, fmt.Sprintf("%s: a spinning process is throttled in %d of %d periods", n.Name(), look.throttled, look.periods)}, nil
		}
	}
	return Reading{map[string]any{"percent": round1(got), "throttled_periods": int64(0)}},
		Answer{true, fmt.Sprintf("a spinning process got %.1f %% and was not throttled", got)}, nil
}

func (m *quotaMeter) Close() error { return nil }

// stopped says by which freezer a node is frozen, "" if by none.
func stopped(n *cluster.Node) string {
	for _, v := range []int{2, 1} {
		f, err := n.Group().Freezer(v)
		if err != nil {
			continue
		}
		if is, _ := f.Frozen(); is {
			return fmt.Sprintf("it is frozen by cgroup v%d", v)
		}
	}
	return ""
}

// Tolerances of what burners leave of a CPU: in percentage points of one CPU, or
// as a share of what they take.
const (
	takePoints = 3.0
	takeShare  = 0.1
)

// A takeMeter has a process spin in each node's cgroup, as the node would if it
// wanted all, and says what it no longer gets. None of it may be throttling.
//
// Where weights decide, the other nodes have theirs, too. So there it is what
// the run's cgroup used beside its nodes that is compared with what the node got.
type takeMeter struct {
	b      *bench
	nodes  []*cluster.Node
	ratio  bool                                            // compare the two
	expect func(Dose, *cluster.Node, int) (float64, error) // taken of each of so many CPUs, in percent

	cpus  map[string]int // on how many a node is while it lasts
	spins []spinLook
	taken []float64 // of what the node and the burners had, in percent
	ours  []float64 // what the burners used of each of the node's CPUs, in percent
	base  float64   // what a process got before
	since []counted
	waits []schedWait

	idle    float64    // what the run used beside its nodes before, in percent of a CPU
	watched []sharesOf // of Undone, when it looked last
	verdict string     // and what it found
	called  time.Time  // when it was asked last
}

// A schedWait is how long a node's threads had waited to run, at a time.
type schedWait struct {
	when time.Time
	wait time.Duration
}

func meterSteal(b *bench, site Site, d Dose) (Meter, error) {
	if _, err := stealOf(d); err != nil {
		return nil, err
	}
	return newTakeMeter(b, site, d, false, func(d Dose, _ *cluster.Node, _ int) (float64, error) { return d.Float("percent"), nil })
}

// stealPeriod is the time in which a steal takes its share once; 0 of what is none.
func stealPeriod(d Dose) time.Duration {
	w, err := stealOf(d)
	if err != nil {
		return 0
	}
	_, period := w.quota(1)
	return period
}

// whole is about a time, in whole periods: a part of one would have the share of
// that part. It is one at least; of no period, the time as it is.
func whole(d, period time.Duration) time.Duration {
	if period <= 0 {
		return d
	}
	return max(d/period, 1) * period
}

func meterContend(b *bench, site Site, d Dose) (Meter, error) {
	return newTakeMeter(b, site, d, true, func(d Dose, n *cluster.Node, cpus int) (float64, error) {
		w, err := contentionOf(d)
		if err != nil {
			return 0, err
		}
		own, err := n.Group().CPUShares()
		// Fewer burners than CPUs leave some alone, of which the node takes the best.
		reach := min(float64(w.threads)/float64(cpus), 1)
		return reach * 100 * float64(w.shares) / float64(w.shares+own), err
	})
}

func newTakeMeter(b *bench, site Site, d Dose, ratio bool, expect func(Dose, *cluster.Node, int) (float64, error)) (Meter, error) {
	nodes, err := b.nodes(site.Nodes)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no nodes")
	}
	if err != nil {
		return nil, err
	}
	at, err := places(site.Nodes, d.String("cpus"))
	if err != nil {
		return nil, err
	}
	m := &takeMeter{b: b, nodes: nodes, ratio: ratio, expect: expect, cpus: map[string]int{}}
	for name, list := range at {
		cpus, err := parseCPUs(list)
		if err != nil {
			return nil, err
		}
		m.cpus[name] = len(cpus)
	}
	return m, nil
}

const (
	baseSpin   = 150 * time.Millisecond // before and after
	takeLength = 1500 * time.Millisecond

	// What weights come to is known to the kernel once its averages of load have
	// settled, which have a half-life of 32 ms: before, who is new gets another share.
	weighSettle = 500 * time.Millisecond
)

func (m *takeMeter) Baseline(ctx context.Context) (Reading, error) {
	look, err := spin(ctx, m.b.Exe, m.nodes[0], 1, baseSpin, m.others, 0)
	if err != nil {
		return Reading{}, err
	}
	m.base, m.idle = look.percent, percentOf(look.beside, look.wall)
	return Reading{map[string]any{"percent": round1(m.base)}}, nil
}

func percentOf(used, of time.Duration) float64 { return 100 * float64(used) / float64(max(of, 1)) }

func waitOf(n *cluster.Node) (schedWait, error) {
	pids, err := n.Pids()
	w := schedWait{when: time.Now()}
	for _, pid := range pids {
		s, err := proc.ReadSchedStats(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return w, err
		}
		w.wait += s.Wait
	}
	return w, err
}

// sharesOf are what a node used and what the run did beside its nodes.
type sharesOf struct {
	when         time.Time
	node, others time.Duration
}

func (m *takeMeter) shares(n *cluster.Node) (s sharesOf, err error) {
	s.when = time.Now()
	if s.others, err = m.others(); err == nil {
		s.node, err = n.Group().CPUUsage()
	}
	return s, err
}

// others are what the run used beside its nodes, but for tenants of other faults.
func (m *takeMeter) others() (time.Duration, error) {
	sum, err := m.b.Cluster.Group().CPUUsage()
	sum -= m.b.besides.used()
	for _, o := range m.b.Cluster.Boxes() {
		used, e := o.Group().CPUUsage()
		sum, err = sum-used, cmp.Or(err, e)
	}
	return sum, err
}

func (m *takeMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	if m.spins == nil {
		length := takeLength
		if at, ok := ctx.Deadline(); ok {
			length = min(length, time.Until(at)*3/4/time.Duration(len(m.nodes)))
		}
		settle := time.Duration(0)
		if m.ratio {
			settle = min(weighSettle, length/2)
			length -= settle
		} else {
			length = whole(length, stealPeriod(d))
		}
		m.since, m.waits = nil, nil
		for _, n := range m.nodes {
			before, err := count(n)
			if err != nil {
				return Reading{}, Answer{}, err
			}
			look, err := spin(ctx, m.b.Exe, n, m.cpus[n.Name()], length, m.others, settle)
			if err != nil {
				m.spins, m.taken, m.ours = nil, nil, nil
				if ctx.Err() != nil {
					err = errors.New("too short to measure: the probe did not end")
				}
				return Reading{}, Answer{}, err
			}
			wait, err := waitOf(n)
			if err != nil {
				return Reading{}, Answer{}, err
			}
			taken := 100 - look.percent/float64(m.cpus[n.Name()])
			if m.ratio {
				taken = percentOf(look.beside, look.beside+look.usage)
			}
			m.taken = append(m.taken, taken)
			// Less what the run used beside its nodes before: that is not burnt.
			burnt := percentOf(look.beside, look.wall) - m.idle
			m.ours = append(m.ours, burnt/float64(m.cpus[n.Name()]))
			m.spins, m.since, m.waits = append(m.spins, look), append(m.since, before), append(m.waits, wait)
		}
	}
	<-ctx.Done()
	var got, want, waited, missing float64
	var throttled uint64
	var bad []string
	for i, n := range m.nodes {
		cpus := m.cpus[n.Name()]
		asked, err := m.expect(d, n, cpus)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		taken := m.taken[i]
		c, err := count(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		wait, err := waitOf(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		waited += 100 * float64(wait.wait-m.waits[i].wait) / float64(max(wait.when.Sub(m.waits[i].when), 1)) / float64(len(m.nodes))
		throttled += c.throttled - m.since[i].throttled
		had := taken
		if !m.ratio { // what they used is the dose; what is missing has the host's noise in it
			had, missing = m.ours[i], missing+taken/float64(len(m.nodes))
		}
		got, want = got+had/float64(len(m.nodes)), want+asked/float64(len(m.nodes))
		if tol := max(takePoints, takeShare*asked); math.Abs(taken-asked) > tol {
			bad = append(bad, fmt.Sprintf("%s: %.1f %% of a CPU were taken from a spinning process, not %.4g %%, tolerance %.1f", n.Name(), taken, asked, tol))
		} else if !m.ratio && math.Abs(m.ours[i]-asked) > tol {
			bad = append(bad, fmt.Sprintf("%s: others of this host took it: what the run has beside its nodes used %.1f %% of a CPU", n.Name(), m.ours[i]))
		}
	}
	if throttled > 0 {
		bad = append(bad, fmt.Sprintf("%d periods were throttled: that is a quota", throttled))
	}
	values := Reading{map[string]any{
		"percent": round1(got), "asked_percent": round1(want), "node_wait_percent": round1(max(waited, 0)), "throttled_periods": int64(throttled), "n": len(m.spins),
	}}
	if !m.ratio {
		values.Values["missing_percent"] = round1(missing)
	}
	why := fmt.Sprintf("%.4g %% of a CPU to be taken from a spinning process, %.1f %% were (it got %.1f %% before); the node's own threads waited %.1f %% of the time, none was throttled",
		want, got, m.base, max(waited, 0))
	if !m.ratio {
		why += fmt.Sprintf("; %.1f %% were missing to it", missing)
	}
	if bad != nil {
		m.spins, m.taken, m.ours = nil, nil, nil // to be looked at again
		return values, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

// Healed lets a process spin where the node is now: it must get about what it
// got before, or nearly all of a CPU.
func (m *takeMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	values := Reading{map[string]any{}}
	for _, n := range m.nodes {
		look, err := spin(ctx, m.b.Exe, n, 1, baseSpin, nil, 0)
		if err != nil {
			return values, Answer{}, err
		}
		values.Values["percent"] = round1(look.percent)
		if least := min(m.base, 100) * 0.9; look.percent < least {
			return values, Answer{false, fmt.Sprintf("%s: a spinning process got %.1f %% of a CPU, less than the %.1f %% before", n.Name(), look.percent, m.base)}, nil
		}
		if cpus, err := allowedCPUs(n); err == nil && cpus != formatCPUs(usableCPUs()) && !m.b.pins.asked(n.Name()) {
			return values, Answer{false, fmt.Sprintf("%s may run on CPUs %s only", n.Name(), cpus)}, nil
		}
	}
	return values, Answer{true, fmt.Sprintf("a spinning process got %v %% of a CPU, %.1f %% before", values.Values["percent"], m.base)}, nil
}

func (m *takeMeter) Close() error { return nil }
