package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"brownout/internal/faultfs"
)

// Tolerance of file operations: see [diskMeter.tolerance].
const (
	diskShare     = 0.05
	diskLeast     = 500 * time.Microsecond
	diskBase      = 350 * time.Millisecond
	diskBaseMost  = 4 * time.Second // for so many operations of each node to end:
	diskBaseLeast = 10
	diskFast      = 10 * time.Millisecond // between two probes of the baseline,
	diskPace      = 50 * time.Millisecond // and later
	maxDisk       = 1 << 17               // probes kept
	diskFloor     = 0.1                   // quantile that is judged
)

// A diskMeter uses files on the node's own disk, through its own file system,
// and takes the time. It judges by the fastest tenth of the operations: a delay
// shifts them all, while what a busy host does to some of them only ever adds.
// It disturbs that disk with up to 20 small writes and as
// many fsyncs a second, and with five times as many for the third of a second
// before the fault.
type diskMeter struct {
	op      faultfs.Op
	delay   faultfs.Delay
	add     time.Duration // expected at the first decile
	probers diskProbers
	base    []time.Duration // median, by prober
	floor   []time.Duration // first decile
	scatter []time.Duration // from there to the median
	looks   spans
}

func meterDisk(b *bench, site Site, d Dose) (Meter, error) {
	delay, err := diskDelayOf(d)
	if err != nil {
		return nil, err
	}
	return newDiskMeter(b, site, diskOp(d), delay)
}

func newDiskMeter(b *bench, site Site, op faultfs.Op, delay faultfs.Delay) (Meter, error) {
	nodes, err := b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	m := &diskMeter{op: op, delay: delay, add: delay.Quantile(diskFloor)}
	for _, n := range nodes {
		m.probers = append(m.probers, newDiskProber(n, op))
	}
	return m, nil
}

func (m *diskMeter) Baseline(ctx context.Context) (Reading, error) {
	w, err := m.probers.baseline(ctx)
	if err != nil {
		return Reading{}, err
	}
	var all []time.Duration
	for _, p := range m.probers {
		took, _, _ := p.look(w)
		if !m.varies() { // else a distribution is to be seen, which takes many
			p.calm()
		}
		m.base = append(m.base, quantile(took, 0.5))
		m.floor = append(m.floor, quantile(took, diskFloor))
		m.scatter = append(m.scatter, quantile(took, 0.5)-quantile(took, diskFloor))
		all = append(all, took...)
	}
	return Reading{map[string]any{"p50_ns": int64(quantile(all, 0.5)), "n": len(all)}}, ctx.Err()
}

func (m *diskMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	from := time.Now()
	<-ctx.Done()
	m.looks.add(from, time.Now())
	var all, floors []time.Duration
	var bad []string
	var errs []error
	for i, p := range m.probers {
		took, on, err := p.look(m.looks)
		errs = append(errs, err)
		for _, t := range took {
			all = append(all, t-m.base[i])
		}
		got, tol := quantile(took, diskFloor)-m.floor[i], m.tolerance(i)
		floors = append(floors, got)
		switch {
		case len(took) == 0 && on > 0:
			bad = append(bad, fmt.Sprintf("%s: a probe's %s is on for %s, none has ended", p.node, p.op, short(on)))
		case len(took) < 3:
			bad = append(bad, fmt.Sprintf("%s: only %d probes in %s", p.node, len(took), short(m.looks.length())))
		case (got - m.add).Abs() > tol+m.spread(diskFloor, len(took)):
			bad = append(bad, fmt.Sprintf("%s: the fastest tenth is slower by %s, tolerance %s (n=%d)", p.node, short(got), short(tol+m.spread(diskFloor, len(took))), len(took)))
		case m.varies():
			bad = append(bad, m.judgeSpread(i, took)...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Reading{}, Answer{}, err
	}
	values := Reading{map[string]any{
		"p50_ns": int64(quantile(all, 0.5)), "p99_ns": int64(quantile(all, 0.99)), "p10_ns": int64(slices.Min(floors)), "n": len(all),
	}}
	why := fmt.Sprintf("%s added to %s asked, %s measured by a probe on the node's disk (p50, fastest tenth %s, p99 %s, n=%d, beyond a baseline of %s)",
		m.asked(), m.op, short(quantile(all, 0.5)), short(slices.Min(floors)), short(quantile(all, 0.99)), len(all), short(slices.Max(m.base)))
	if bad != nil {
		return values, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

// tolerance is a share of the delay; or what the disk below varies by on its
// own, which differs when the node writes less: half of what its fastest take,
// or how much slower the median is. It is never more than half of the delay.
func (m *diskMeter) tolerance(i int) time.Duration {
	own := max(diskLeast, m.floor[i]/2, m.scatter[i])
	return max(tolerance(m.add, diskShare, 0), min(own, m.delay.Quantile(0.9)/2))
}

// varies reports whether not all delays are the same.
func (m *diskMeter) varies() bool { return m.delay.Jitter > 0 || m.delay.Trace != nil }

// judgeSpread looks at the rest of a distribution: its middle, its end, and
// whether all of them together are anything near what was asked for.
func (m *diskMeter) judgeSpread(i int, took []time.Duration) (bad []string) {
	own := max(diskLeast, m.base[i]/2, m.scatter[i])
	for _, q := range []float64{0.5, 0.9} {
		got, want := quantile(took, q)-m.base[i], m.delay.Quantile(q)
		if tol := max(tolerance(want, diskShare, 0), own) + m.spread(q, len(took)); (got - want).Abs() > tol {
			bad = append(bad, fmt.Sprintf("%s: the %.0fth percentile is slower by %s, not %s, tolerance %s (n=%d)", m.probers[i].node, 100*q, short(got), short(want), short(tol), len(took)))
		}
	}
	var sum, want time.Duration
	for _, t := range took {
		sum += t - m.base[i]
	}
	for q := range 10 {
		want += m.delay.Quantile((float64(q) + 0.5) / 10)
	}
	if mean := sum / time.Duration(len(took)); mean < want/10/2 {
		bad = append(bad, fmt.Sprintf("%s: slower by %s on average, not half of %s (n=%d)", m.probers[i].node, short(mean), short(want/10), len(took)))
	}
	return bad
}

// spread is by how much a quantile of so many draws may be off: three
// deviations of its rank.
func (m *diskMeter) spread(q float64, n int) time.Duration {
	if !m.varies() {
		return 0
	}
	off := 3 * math.Sqrt(q*(1-q)/float64(max(n, 1)))
	at := m.delay.Quantile(q)
	return max(at-m.delay.Quantile(max(q-off, 0)), m.delay.Quantile(min(q+off, 0.999))-at)
}

func (m *diskMeter) asked() string {
	switch {
	case m.delay.Trace != nil:
		return fmt.Sprintf("a trace of %d delays (a tenth up to %s, half up to %s)", len(m.delay.Trace), short(m.add), short(m.delay.Quantile(0.5)))
	case m.delay.Jitter > 0:
		return fmt.Sprintf("%s ± %s %s", short(m.delay.Add), short(m.delay.Jitter), m.delay.Dist)
	}
	return short(m.add)
}

func (m *diskMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	from := time.Now()
	sleep(ctx, diskBase)
	var w spans
	w.add(from, time.Now())
	for i, p := range m.probers {
		took, on, err := p.look(w)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		got := quantile(took, diskFloor)
		// What the node has to catch up makes its disk slower than before.
		most := max(m.floor[i]*2, m.floor[i]+max(m.add/4, diskLeast))
		values := Reading{map[string]any{"p10_ns": int64(got - m.floor[i]), "n": len(took)}}
		if len(took) == 0 {
			return values, Answer{false, fmt.Sprintf("%s: no %s of a probe ended (one is on for %s)", p.node, p.op, short(on))}, nil
		}
		if got > most {
			return values, Answer{false, fmt.Sprintf("%s: %s takes %s (fastest tenth, n=%d), more than %s", p.node, p.op, short(got), len(took), short(most))}, nil
		}
		if i == len(m.probers)-1 {
			return values, Answer{true, fmt.Sprintf("%s takes %s (fastest tenth, n=%d), %s before the fault", p.op, short(got), len(took), short(m.floor[i]))}, nil
		}
	}
	return Reading{}, Answer{}, errors.New("no probes")
}

func (m *diskMeter) Close() error { m.probers.close(); return nil }
