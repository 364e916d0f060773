package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"brownout/cluster"
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
	b       *bench
	nodes   []*cluster.Node
	percent float64
	period  time.Duration

	spins []spinLook // one a node, when they were made
	since []counted  // after them
	last  []counted
}

// counted are a group's counters at a time.
type counted struct {
	when      time.Time
	usage     time.Duration
	periods   uint64
	throttled uint64
	stalled   time.Duration
}

func meterQuota(b *bench, site Site, d Dose) (Meter, error) {
	q, err := quotaOf(d)
	if err != nil {
		return nil, err
	}
	nodes, err := b.nodes(site.Nodes)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no nodes")
	}
	return &quotaMeter{b: b, nodes: nodes, percent: q.percent, period: q.period}, err
}

func count(n *cluster.Node) (counted, error) {
	st, err := n.Group().Stat()
	if err == nil && !(st.Has.CPU && st.Has.Throttling) {
		err = fmt.Errorf("%s: throttling is not counted", n.Name())
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
		m.percent = d.Float("percent")
		length := spinLength
		if at, ok := ctx.Deadline(); ok {
			length = min(length, time.Until(at)/3)
		}
		for _, n := range m.nodes {
			look, err := spin(ctx, m.b.Exe, n, spinThreads(m.percent), length)
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
	<-ctx.Done()
	for i, n := range m.nodes {
		c, err := count(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		m.last[i] = c
	}
	return m.judge()
}

func (m *quotaMeter) judge() (Reading, Answer, error) {
	tol := max(quotaPoints, quotaShare*m.percent)
	var got, used float64
	var throttled, periods uint64
	var stalled time.Duration
	var bad []string
	for i, n := range m.nodes {
		s := m.spins[i]
		got += s.percent / float64(len(m.nodes))
		a, b := m.since[i], m.last[i]
		share := 100 * float64(b.usage-a.usage) / float64(max(b.when.Sub(a.when), 1))
		used += share / float64(len(m.nodes))
		nodeThrottled, nodePeriods := b.throttled-a.throttled, b.periods-a.periods
		throttled, periods, stalled = throttled+nodeThrottled, periods+nodePeriods, stalled+b.stalled-a.stalled
		busy := nodePeriods >= busyPeriods && float64(nodeThrottled) >= busyShare*float64(nodePeriods)
		switch {
		case busy && math.Abs(share-m.percent) <= tol:
		case s.percent > m.percent+tol:
			bad = append(bad, fmt.Sprintf("%s: a spinning process got %.1f %% of a CPU, more than %.4g %%, tolerance %.1f", n.Name(), s.percent, m.percent, tol))
		case s.percent < m.percent-tol && s.throttled == 0:
			bad = append(bad, fmt.Sprintf("%s: this host gave a spinning process %.1f %% of a CPU, so that %.4g %% never bound", n.Name(), s.percent, m.percent))
		case s.percent < m.percent-tol:
			bad = append(bad, fmt.Sprintf("%s: a spinning process got %.1f %% of a CPU, less than %.4g %%, tolerance %.1f", n.Name(), s.percent, m.percent, tol))
		case nodeThrottled == 0:
			bad = append(bad, fmt.Sprintf("%s: a quota of %.4g %% never bound: the node used %.1f %%", n.Name(), m.percent, share))
		}
	}
	values := Reading{map[string]any{
		"percent": round1(got), "node_percent": round1(used), "n": int(m.spins[0].periods),
		"throttled_periods": int64(throttled), "periods": int64(periods), "throttled_ns": int64(stalled),
	}}
	why := fmt.Sprintf("%.4g %% of a CPU asked, %.1f %% got with a spinning process (n=%d periods of %s); the node itself was throttled in %d of %d periods and got %.1f %%",
		m.percent, got, m.spins[0].periods, m.period, throttled, periods, used)
	if bad != nil {
		return values, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

// Healed lets a process spin once more: nothing may throttle it.
func (m *quotaMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	var got float64
	for _, n := range m.nodes {
		look, err := spin(ctx, m.b.Exe, n, 1, max(2*m.period, 100*time.Millisecond))
		if err != nil {
			return Reading{}, Answer{}, err
		}
		got = look.percent
		values := Reading{map[string]any{"percent": round1(got), "throttled_periods": int64(look.throttled)}}
		if look.throttled > 0 {
			return values, Answer{false, fmt.Sprintf("%s: a spinning process is throttled in %d of %d periods", n.Name(), look.throttled, look.periods)}, nil
		}
	}
	return Reading{map[string]any{"percent": round1(got), "throttled_periods": int64(0)}},
		Answer{true, fmt.Sprintf("a spinning process got %.1f %% and was not throttled", got)}, nil
}

func (m *quotaMeter) Close() error { return nil }
