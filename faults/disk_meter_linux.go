package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/faultfs"
)

// A hangMeter has an operation that shall not return, and beside it one that
// shall: of another class, or, where all hang, on the disk below.
type hangMeter struct {
	stuck, free diskProbers // by node
	looks       spans
}

// meterHang measures hangs that end by themselves as the delays that they are.
func meterHang(b *bench, site Site, d Dose) (Meter, error) {
	op := diskOp(d)
	if each := d.Duration("each"); each > 0 {
		return newDiskMeter(b, site, op, faultfs.Delay{Add: each})
	}
	nodes, err := b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	m := &hangMeter{}
	for _, n := range nodes {
		free := newDiskProber(n, faultfs.Write)
		switch op {
		case faultfs.Write:
			free.op = faultfs.Open
		case faultfs.All:
			free = newProberAt(n, n.Dir(), faultfs.Fsync)
		}
		stuck := newDiskProber(n, op)
		stuck.bare = op == faultfs.All // what comes before the operation would hang as well
		m.stuck, m.free = append(m.stuck, stuck), append(m.free, free)
	}
	return m, nil
}

func (m *hangMeter) Baseline(ctx context.Context) (Reading, error) {
	w, err := slices.Concat(m.stuck, m.free).baseline(ctx)
	if err != nil {
		return Reading{}, err
	}
	var all []time.Duration
	for i, p := range m.stuck {
		p.calm()
		m.free[i].calm()
		took, _, _ := p.look(w)
		all = append(all, took...)
	}
	return Reading{map[string]any{"p50_ns": int64(quantile(all, 0.5)), "n": len(all)}}, nil
}

func (m *hangMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	from := time.Now()
	<-ctx.Done()
	now := time.Now()
	m.looks.add(from, now)
	var bad []string
	least, others, ended := m.looks.length()+time.Second, 0, 0
	for i, p := range m.stuck {
		took, on, err := p.look(m.looks)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		ended += len(took)
		least = min(least, on)
		switch {
		case len(took) > 0:
			bad = append(bad, fmt.Sprintf("%s: %d of a probe's %s returned", p.node, len(took), p.op))
		case on < now.Sub(from)/2:
			bad = append(bad, fmt.Sprintf("%s: a probe's %s is on for %s only", p.node, p.op, short(on)))
		}
		beside, on, err := m.free[i].look(m.looks)
		others += len(beside)
		if err != nil || len(beside) == 0 {
			bad = append(bad, fmt.Sprintf("%s: %s beside it does not return either (on for %s, %v)", p.node, m.free[i].op, short(on), err))
		}
	}
	values := Reading{map[string]any{"on_ns": int64(least), "returned": ended, "others_n": others}}
	why := fmt.Sprintf("a probe's %s has not returned for %s, while %d of %s did", m.stuck[0].op, short(least), others, m.free[0].op)
	if bad != nil {
		return values, Answer{false, strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

func (m *hangMeter) Healed(ctx context.Context) (Reading, Answer, error) { return m.stuck.healthy(ctx) }

func (m *hangMeter) Close() error { slices.Concat(m.stuck, m.free).close(); return nil }

// healthy looks whether operations return, and are good.
func (ps diskProbers) healthy(ctx context.Context) (Reading, Answer, error) {
	from := time.Now()
	sleep(ctx, diskBase)
	w := spans{{from, time.Now()}}
	var all []time.Duration
	for _, p := range ps {
		seen, on, err := p.probes(w)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		if len(seen) == 0 {
			return Reading{map[string]any{"n": 0}}, Answer{false, fmt.Sprintf("%s: no %s of a probe returned (one is on for %s)", p.node, p.op, short(on))}, nil
		}
		for _, x := range seen {
			if x.note != nil {
				return Reading{map[string]any{"n": len(seen)}}, Answer{false, fmt.Sprintf("%s: %s: %v", p.node, p.op, x.note)}, nil
			}
			all = append(all, x.to.Sub(x.from))
		}
	}
	return Reading{map[string]any{"p50_ns": int64(quantile(all, 0.5)), "n": len(all)}}, Answer{true, fmt.Sprintf("all %d of a probe's %s were well, half within %s", len(all), ps[0].op, short(quantile(all, 0.5)))}, nil
}

// A limitMeter measures bytes or operations per second by trains of operations,
// one right after the other: the limit shows in the time from the end of the
// first to that of the last. It takes a fifth of what is allowed, and less when
// it has seen enough.
//
// A node that takes much of it leaves less to the probe. Then what the file
// system itself counts during the trains tells whether they had as much as
// allowed together.
type limitMeter struct {
	nodes   []*cluster.Node
	probers diskProbers
	limit   float64 // per second, in unit
	each    float64 // of one operation, in unit
	unit    string
	op      faultfs.Op
	looks   spans
	base    float64
}

const (
	limitTolerance = 0.08
	limitTrain     = 120 * time.Millisecond
	limitEnough    = 12 // trains
)

func meterDiskRate(b *bench, site Site, d Dose) (Meter, error) {
	limit := d.Float("limit_bytes_per_s")
	size := int(min(max(limit*limitTrain.Seconds()/6, 4096), 1<<20))
	op := faultfs.Op(d.String("op"))
	if b.ownDisks(site) {
		size = (min(int(limit*throttleShare), 1<<20) + throttlePage) &^ (throttlePage - 1)
		return newThrottleMeter(b, site, &throttleMeter{limit: limit, size: float64(size), unit: "bytes", op: op}, size)
	}
	return newLimitMeter(b, site, &limitMeter{limit: limit, each: float64(size), unit: "bytes", op: op}, size, 6)
}

func meterIOPS(b *bench, site Site, d Dose) (Meter, error) {
	limit := d.Float("limit")
	if b.ownDisks(site) {
		return newThrottleMeter(b, site, &throttleMeter{limit: limit, size: 1, unit: "ops", op: faultfs.Op(d.String("op"))}, throttlePage)
	}
	return newLimitMeter(b, site, &limitMeter{limit: limit, each: 1, unit: "ops", op: faultfs.Op(d.String("op"))}, 64, int(min(max(limit*limitTrain.Seconds(), 3), 200)))
}

func newLimitMeter(b *bench, site Site, m *limitMeter, size, train int) (_ Meter, err error) {
	if m.limit <= 0 {
		return nil, fmt.Errorf("a limit of %v %s/s", m.limit, m.unit)
	}
	if m.nodes, err = b.nodes(site.Nodes); err != nil {
		return nil, err
	}
	for _, n := range m.nodes {
		op := m.op
		if op == faultfs.All || op == "" {
			op = faultfs.Write
		}
		p := newDiskProber(n, op)
		p.bare, p.size, p.train = true, size, train
		p.count = func() float64 { return m.counts(n) }
		m.probers = append(m.probers, p)
	}
	return m, nil
}

// counts are the operations of a class that the file system counted, in unit.
func (m *limitMeter) counts(n *cluster.Node) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, err := n.DiskStats(ctx)
	if err != nil {
		return math.NaN()
	}
	sum := 0.0
	for op, s := range st.Ops {
		if m.op != op && m.op != faultfs.All && m.op != "" {
			continue
		}
		if m.unit == "bytes" {
			sum += float64(s.Bytes)
		} else {
			sum += float64(s.N) - float64(st.Waiting)
		}
	}
	return sum
}

// rates are what the trains got, per second, and what all had meanwhile, both
// in order.
func (m *limitMeter) rates(p *diskProber, w spans) (own, all []float64, on time.Duration, err error) {
	seen, on, err := p.probes(w)
	for _, x := range seen {
		if t := x.to.Sub(x.from).Seconds(); t > 0 {
			own = append(own, m.each*float64(p.train-1)/t)
			if counted, _ := x.note.(float64); !math.IsNaN(counted) {
				all = append(all, counted/t)
			}
		}
	}
	slices.Sort(own)
	slices.Sort(all)
	return own, all, on, err
}

func (m *limitMeter) Baseline(ctx context.Context) (Reading, error) {
	w, err := m.probers.baseline(ctx)
	if err != nil {
		return Reading{}, err
	}
	m.base = math.Inf(1)
	for _, p := range m.probers {
		rs, _, _, _ := m.rates(p, w)
		m.base = min(m.base, rs[len(rs)/2])
		train := time.Duration(m.each * float64(p.train) / m.limit * float64(time.Second))
		p.setPace(min(max(4*train, diskFast), 2*time.Second))
	}
	return Reading{map[string]any{m.unit + "_per_s": m.base}}, nil
}

func (m *limitMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	from := time.Now()
	<-ctx.Done()
	m.looks.add(from, time.Now())
	var bad, words []string
	n, typical := 0, math.Inf(1)
	for _, p := range m.probers {
		rs, all, on, err := m.rates(p, m.looks)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		n += len(rs)
		if len(rs) == 0 {
			bad = append(bad, fmt.Sprintf("%s: no train of %d operations has ended (one is on for %s)", p.node, p.train, short(on)))
			continue
		}
		if len(rs) >= limitEnough {
			p.setPace(time.Second)
		}
		best, most := rs[len(rs)*9/10], rs[len(rs)-1]
		together := math.NaN()
		if len(all) > 0 {
			together = all[len(all)/2]
		}
		shown := best
		if best < m.limit*(1-limitTolerance) {
			shown = together
		}
		typical = min(typical, shown)
		words = append(words, fmt.Sprintf("%s: %s by the best tenth of %d trains, at most %s, half %s", p.node, m.print(best), len(rs), m.print(most), m.print(rs[len(rs)/2])))
		switch {
		case most > m.limit*(1+limitTolerance) && best > m.limit*(1+limitTolerance):
			bad = append(bad, fmt.Sprintf("%s got %s, more than the limit of %s, tolerance %.0f %%", p.node, m.print(best), m.print(m.limit), 100*limitTolerance))
		case best >= m.limit*(1-limitTolerance):
		case math.Abs(together/m.limit-1) <= limitTolerance:
			words = append(words, fmt.Sprintf("with the node's, %s by the file system's own count", m.print(together)))
		default:
			bad = append(bad, fmt.Sprintf("%s got %s, less than the limit of %s, and with the node's the file system counts %s", p.node, m.print(best), m.print(m.limit), m.print(together)))
		}
	}
	values := Reading{map[string]any{"n": n}}
	if n > 0 {
		values.Values[m.unit+"_per_s"] = typical
	}
	if m.base < m.limit*(1+limitTolerance) {
		bad = append(bad, fmt.Sprintf("without the fault it was %s, hardly more than the limit of %s: it cannot be felt", m.print(m.base), m.print(m.limit)))
	}
	why := fmt.Sprintf("limit %s; %s; before it %s", m.print(m.limit), strings.Join(words, "; "), m.print(m.base))
	if bad != nil {
		return values, Answer{false, strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

func (m *limitMeter) print(v float64) string {
	if m.unit == "ops" {
		return fmt.Sprintf("%.4g ops/s", v)
	}
	return bytesPerSecond(v)
}

func bytesPerSecond(v float64) string {
	if v >= 1<<20 {
		return fmt.Sprintf("%.4g MiB/s", v/(1<<20))
	}
	return fmt.Sprintf("%.4g KiB/s", v/(1<<10))
}

func (m *limitMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	for _, p := range m.probers {
		p.setPace(diskFast)
	}
	from := time.Now()
	sleep(ctx, diskBase)
	w := spans{{from, time.Now()}}
	least := math.Inf(1)
	for _, p := range m.probers {
		rs, _, on, err := m.rates(p, w)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		if len(rs) == 0 {
			return Reading{}, Answer{false, fmt.Sprintf("%s: no train has ended (one is on for %s)", p.node, short(on))}, nil
		}
		least = min(least, rs[len(rs)-1])
	}
	// What a host leaves to one train varies; above the limit is above the limit.
	least1 := min(m.limit*2, m.limit+(m.base-m.limit)/4)
	values := Reading{map[string]any{m.unit + "_per_s": least}}
	if least < least1 {
		return values, Answer{false, fmt.Sprintf("%s, not %s again", m.print(least), m.print(least1))}, nil
	}
	return values, Answer{true, fmt.Sprintf("%s again, before the fault %s", m.print(least), m.print(m.base))}, nil
}

func (m *limitMeter) Close() error { m.probers.close(); return nil }

// A diskShareMeter counts operations that are not well.
type diskShareMeter struct {
	probers diskProbers
	want    float64 // share that is to be bad; 1 with after
	after   bool    // all from some time on
	pace    time.Duration
	what    string
	looks   spans
}

// diskErrorPace bounds the probe to 500 operations a second: a share needs many.
// Where nobody is disturbed there is no such bound.
const diskErrorPace = 2 * time.Millisecond

// A wrong is an operation that ended otherwise than the fault says.
type wrong struct{ why string }

func meterDiskErrors(b *bench, site Site, d Dose) (Meter, error) {
	want, ok := errnos[d.String("errno")]
	if !ok {
		want = syscall.EIO
	}
	m := &diskShareMeter{want: d.Float("percent") / 100, what: "fail with " + unix.ErrnoName(want)}
	if d.Has("after") {
		m.want, m.after = 1, true
	}
	return m.with(b, site, diskOp(d), func(_, _ []byte, err error) any {
		switch {
		case err == nil:
			return nil
		case errors.Is(err, want):
			return unix.ErrnoName(want)
		}
		return wrong{err.Error()}
	})
}

func meterFull(b *bench, site Site, d Dose) (Meter, error) {
	m := &diskShareMeter{want: 1, after: true, what: "appends fail with ENOSPC"}
	return m.with(b, site, grow, func(_, _ []byte, err error) any {
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.ENOSPC):
			return "ENOSPC"
		}
		return wrong{err.Error()}
	})
}

func meterBitFlips(b *bench, site Site, d Dose) (Meter, error) {
	flips := max(int(d.Float("bits")), 1)
	m := &diskShareMeter{want: d.Float("percent") / 100, what: fmt.Sprintf("bring bytes with %d bits flipped", flips)}
	return m.with(b, site, faultfs.Read, func(data, written []byte, err error) any {
		if err != nil {
			return wrong{err.Error()}
		}
		if bytes.Equal(data, written) {
			return nil
		}
		n := 0
		for i := range data {
			n += bits.OnesCount8(data[i] ^ written[i])
		}
		// One that is flipped twice is not flipped.
		if n > flips || (flips-n)%2 != 0 {
			return wrong{fmt.Sprintf("%d bits are flipped", n)}
		}
		return fmt.Sprintf("%d bits are flipped", n)
	})
}

func (m *diskShareMeter) with(b *bench, site Site, op faultfs.Op, judge func(data, written []byte, err error) any) (Meter, error) {
	nodes, err := b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	if m.pace = diskErrorPace; b.idle {
		m.pace = 0
	}
	for _, n := range nodes {
		p := newDiskProber(n, op)
		p.bare, p.size = true, 4096
		p.judge = func(data []byte, err error) any { return judge(data, p.block, err) }
		m.probers = append(m.probers, p)
	}
	return m, nil
}

func (m *diskShareMeter) Baseline(ctx context.Context) (Reading, error) {
	w, err := m.probers.baseline(ctx)
	if err != nil {
		return Reading{}, err
	}
	n := 0
	for _, p := range m.probers {
		seen, _, _ := p.probes(w)
		for _, x := range seen {
			if x.note != nil {
				return Reading{}, fmt.Errorf("%s: %s of a probe without the fault: %v", p.node, p.op, x.note)
			}
		}
		n += len(seen)
		if m.after {
			p.calm()
		} else {
			p.setPace(m.pace)
		}
	}
	return Reading{map[string]any{"percent": 0.0, "n": n}}, nil
}

func (m *diskShareMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	from := time.Now()
	<-ctx.Done()
	m.looks.add(from, time.Now())
	var bad []string
	hits, n, wrongs := 0, 0, 0
	for _, p := range m.probers {
		seen, on, err := p.probes(m.looks)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		if m.after { // what came before counts for nothing
			if i := slices.IndexFunc(seen, func(x diskProbe) bool { return x.note != nil }); i >= 0 {
				seen = seen[i:]
			}
		}
		hit := 0
		for _, x := range seen {
			switch w := x.note.(type) {
			case nil:
			case wrong:
				wrongs++
				bad = append(bad, fmt.Sprintf("%s: %s of a probe: %s", p.node, p.op, w.why))
			default:
				hit++
			}
		}
		hits, n = hits+hit, n+len(seen)
		if why := m.judge(hit, len(seen)); why != "" {
			bad = append(bad, fmt.Sprintf("%s: %s (one is on for %s)", p.node, why, short(on)))
		}
	}
	values := Reading{map[string]any{"n": n, "hits": hits, "others": wrongs}}
	share := 0.0
	if n > 0 {
		share = float64(hits) / float64(n)
		values.Values["percent"], values.Values["sigma_percent"] = 100*share, 100*sigma(m.want, n)
	}
	why := fmt.Sprintf("%.4g %% asked, %.4g %% of %d of a probe's %s %s", 100*m.want, 100*share, n, m.probers[0].op, m.what)
	if bad != nil {
		return values, Answer{false, why + ": " + strings.Join(bad[:min(len(bad), 3)], "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

// judge says why hits of n are not the share asked for, "" if they are: within
// a twentieth of it, or what chance explains.
func (m *diskShareMeter) judge(hits, n int) string {
	const least = 5
	if n < least {
		return fmt.Sprintf("only %d operations seen", n)
	}
	got := float64(hits) / float64(n)
	tol := max(0.05*m.want, 3.5*math.Sqrt(m.want*(1-m.want)/float64(n)))
	switch {
	case hits == 0:
		return fmt.Sprintf("none of %d", n)
	case math.Abs(got-m.want) > tol:
		return fmt.Sprintf("%.4g %% of %d, tolerance %.3g %%", 100*got, n, 100*tol)
	}
	return ""
}

func (m *diskShareMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	for _, p := range m.probers {
		p.setPace(diskFast)
	}
	return m.probers.healthy(ctx)
}

func (m *diskShareMeter) Close() error { m.probers.close(); return nil }
