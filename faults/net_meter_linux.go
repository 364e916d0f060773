package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/internal/plan"
	"brownout/internal/wire"
)

// A linkMeter is what the meters of links have in common: it sends probes on
// every link of the site, and on links that the fault must leave alone, from the
// baseline to the end.
type linkMeter struct {
	b      *bench
	links  []Link // of the fault
	others []Link // that are not
	probes *prober
	base   [][]time.Duration // delays before the fault, by link
	before []share           // of probes that were lost then, by link
	tcp    *tcpWatch
	looks  spans
	began  time.Time
	owed   int // see prober
	keep   int // as well; 0 for the default
}

// newLinkMeter looks at the site's links and their reverses.
func newLinkMeter(b *bench, site Site) (linkMeter, error) {
	m := linkMeter{b: b, links: site.Links}
	if len(m.links) == 0 {
		return m, errors.New("no links")
	}
	for _, l := range m.links {
		if r := (Link{l.To, l.From}); !slices.Contains(m.links, r) {
			m.others = append(m.others, r)
		}
	}
	return m, nil
}

const (
	netBase  = 400 * time.Millisecond
	netHeal  = 200 * time.Millisecond
	arriveBy = 100 * time.Millisecond // more than a healthy link takes on a busy host
)

// begin opens the probes and takes the baseline: batches of so many probes with
// size bytes of payload, so many probes a second on each link.
func (m *linkMeter) begin(ctx context.Context, perLink float64, batch, size int) (Reading, error) {
	if err := m.open(); err != nil {
		return Reading{}, err
	}
	all := len(m.probes.links)
	m.probes.owed, m.probes.keep = m.owed, cmp.Or(m.keep, maxProbes)
	// One link after the other, so that the probes of a fault are no burst.
	m.probes.start(perLink*float64(all)/float64(batch), func(n int) { m.probes.send(n%all, size, batch) })
	if !sleep(ctx, netBase) {
		return Reading{}, ctx.Err()
	}
	var w spans
	w.add(m.began, time.Now())
	var sum []time.Duration
	for i := range m.probes.links {
		seen := m.probes.look(i, w, netBase/8)
		m.base = append(m.base, delays(seen))
		m.before = append(m.before, shareOf(seen, (*datagram).lost))
		sum = append(sum, delays(seen)...)
	}
	values := map[string]any{"p50_ns": int64(quantile(sum, 0.5)), "n": len(sum)}
	m.tcp.baseline(values)
	return Reading{values}, nil
}

func (m *linkMeter) open() (err error) {
	if m.probes, err = openProbes(m.b, slices.Concat(m.links, m.others)); err != nil {
		return err
	}
	m.tcp = watchTCP(m.b, m.links)
	m.began = time.Now()
	return nil
}

func (m *linkMeter) Close() error {
	if m.probes != nil {
		m.probes.close()
	}
	m.tcp.close()
	return nil
}

// watch waits for the end of ctx and notes the span.
func (m *linkMeter) watch(ctx context.Context) {
	from := time.Now()
	<-ctx.Done()
	m.looks.add(from, time.Now().Add(-probeSkip))
}

// noise is what the host itself adds to delays now and then.
func (m *linkMeter) noise(i int) time.Duration {
	return min(quantile(m.base[i], 0.9)-quantile(m.base[i], 0.5), 2*time.Millisecond)
}

func (l Link) String() string { return l.From + ">" + l.To }

// few joins complaints; of a fault on many links the first tell enough.
func few(bad []string) string {
	const most = 4
	if len(bad) > most {
		bad = append(slices.Clone(bad[:most]), fmt.Sprintf("and %d more", len(bad)-most))
	}
	return strings.Join(bad, "; ")
}

// verdict ends a measurement: yes if nothing is bad.
func verdict(values map[string]any, why string, bad []string) (Reading, Answer, error) {
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + few(bad)}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

// Tolerances of one-way delays. The wire is late by tens of microseconds, the
// probes' own way varies as much on a busy host.
const (
	delayShare  = 0.05
	delayLeast  = 300 * time.Microsecond
	otherMost   = time.Millisecond // on links that are to be left alone
	probePace   = 200              // probes a second on a link,
	probeIdle   = 1000             // where nobody is disturbed,
	probePaceLo = 10
	probeSum    = 1000 // and on all links of a fault together
)

// pace shares so many probes a second among links.
func pace(links int, lo, hi, sum float64) float64 {
	return min(hi, max(lo, sum/float64(max(links, 1))))
}

// A law is the distribution of a delay, by its quantiles.
type law func(q float64) time.Duration

// lawOf returns what distribution a dose asks for, on a link that took base
// before: no packet arrives before it was sent, but it may be earlier than then.
func lawOf(d Dose, base time.Duration) law {
	add, jitter := d.Duration("add"), d.Duration("jitter")
	if trace, err := plan.ParseDurations(d.String("trace")); err == nil {
		slices.Sort(trace)
		return func(q float64) time.Duration { return nearest(trace, q) }
	}
	return func(q float64) time.Duration {
		q = min(max(q, 1e-6), 1-1e-6)
		var spread float64 // in units of jitter
		switch wire.Dist(d.String("dist")) {
		case wire.Normal:
			spread = math.Sqrt2 * math.Erfinv(2*q-1)
		case wire.Pareto: // shape 3, moved to mean 0 and standard deviation 1
			spread = (math.Cbrt(1/(1-q)) - 1.5) / (math.Sqrt(3) / 2)
		default:
			spread = 2*q - 1
		}
		return max(-base, add+time.Duration(spread*float64(jitter)))
	}
}

// corrOf is the correlation of a packet's delay with the next one's. A recorded
// trace changes slowly more often than not, and may be played only in part.
func corrOf(d Dose) float64 {
	const traces = 0.95
	if d.Has("trace") {
		return traces
	}
	return d.Float("corr") / 100
}

// fits compares delays with a law, quantile by quantile. The quantile of n
// delays lies where the law has it up to 3.5 standard errors of its rank, which
// correlation from one packet to the next makes larger; least comes on top.
func (want law) fits(got []time.Duration, corr float64, ordered bool, share float64, least time.Duration) (string, bool) {
	got = slices.Sorted(slices.Values(got))
	qs := []float64{0.5, 0.25, 0.75}
	if want(0.9)-want(0.1) > least { // it has a shape, whose upper end the host's own noise blurs
		qs = []float64{0.5, 0.02, 0.1, 0.25, 0.75, 0.9}
	}
	n := float64(len(got)) * (1 - corr) / (1 + corr)
	for _, q := range qs {
		err := 3.5 * math.Sqrt(q*(1-q)/n)
		tol := max(time.Duration(share*float64(want(q))), least)
		lo, hi := want(max(q-err, 0))-tol, want(min(q+err, 1))+tol
		if ordered { // behind slower ones of other traffic
			hi = want(1) + tol
		}
		if x := nearest(got, q); x < lo || x > hi {
			return fmt.Sprintf("p%.0f %s, wanted %s (%s to %s)", 100*q, short(x), short(want(q)), short(max(lo, 0)), short(hi)), false
		}
	}
	return "", true
}

// A delayMeter measures one-way delays and their distribution.
type delayMeter struct {
	linkMeter
	dose Dose
}

func meterDelay(b *bench, site Site, d Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	return &delayMeter{m, d}, err
}

func (m *delayMeter) Baseline(ctx context.Context) (Reading, error) {
	each := pace(len(m.links)+len(m.others), probePaceLo, probePace, probeSum)
	if m.b.idle {
		each = probeIdle
	}
	return m.begin(ctx, each, 1, probeSize)
}

func (m *delayMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	m.watch(ctx)
	want := lawOf(d, 0)
	patience := want(0.999) + arriveBy
	var sum []time.Duration
	var bad []string
	n, gone := 0, 0
	for i, l := range m.links {
		seen := m.probes.look(i, m.looks, patience)
		extra := beyond(delays(seen), quantile(m.base[i], 0.5))
		gone += len(seen) - len(extra)
		n += len(seen)
		sum = append(sum, extra...)
		switch {
		case len(m.base[i]) == 0:
			bad = append(bad, fmt.Sprintf("%s: no probe arrived before the fault", l))
		case len(extra) < 3:
			bad = append(bad, fmt.Sprintf("%s: %d of %d probes arrived in %s", l, len(extra), len(seen), short(m.looks.length())))
		default:
			if why, ok := lawOf(d, quantile(m.base[i], 0.5)).fits(extra, corrOf(d), d.String("order") == "keep", delayShare, delayLeast+m.noise(i)); !ok {
				bad = append(bad, fmt.Sprintf("%s: %s (n=%d)", l, why, len(extra)))
			}
		}
	}
	back := m.leftAlone(&bad)
	values := map[string]any{
		"p50_ns": int64(quantile(sum, 0.5)), "p99_ns": int64(quantile(sum, 0.99)), "max_ns": int64(quantile(sum, 1)),
		"sd_ns": int64(deviation(sum)), "n": len(sum),
	}
	if gone > 0 {
		values["lost"] = gone
	}
	if m.others != nil {
		values["reverse_p50_ns"] = int64(back)
	}
	why := fmt.Sprintf("%s asked one way, %s measured by UDP probes (p50, p99 %s, sd %s, n=%d, %d links)%s",
		short(want(0.5)), short(quantile(sum, 0.5)), short(quantile(sum, 0.99)), short(deviation(sum)), len(sum), len(m.links), m.tcp.measured(values))
	if d.String("order") == "keep" {
		why += "; order: keep, so packets wait for slower ones before them"
	}
	if m.others != nil && bad == nil {
		why += fmt.Sprintf("; %s in the other direction", short(back))
	}
	if bad != nil {
		bad[len(bad)-1] += fmt.Sprintf("; tolerance %.0f %% or %s, with the host's own noise", 100*delayShare, short(delayLeast))
	}
	return verdict(values, why, bad)
}

// leftAlone looks at links which the fault must leave alone unless another one
// is there, and returns their median beyond the baseline.
func (m *linkMeter) leftAlone(bad *[]string) time.Duration {
	var sum []time.Duration
	for j, l := range m.others {
		i := len(m.links) + j
		extra := beyond(delays(m.probes.look(i, m.looks, arriveBy)), quantile(m.base[i], 0.5))
		sum = append(sum, extra...)
		if got := quantile(extra, 0.5); got > otherMost+m.noise(i) && !m.b.asked(l) {
			*bad = append(*bad, fmt.Sprintf("%s, which was to be left alone, is slower by %s", l, short(got)))
		}
	}
	return quantile(sum, 0.5)
}

func (m *delayMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	return m.healed(ctx, max(min(lawOf(m.dose, 0)(0.5)/4, 10*time.Millisecond), delayLeast))
}

// healed looks whether probes arrive again and within most of the baseline.
func (m *linkMeter) healed(ctx context.Context, most time.Duration) (Reading, Answer, error) {
	var w spans
	from := time.Now()
	patience := min(arriveBy, most+netHeal/4)
	// So few probes pass on one of many links that it takes a while to see some.
	per := pace(len(m.links)+len(m.others), probePaceLo, probePace, probeSum)
	sleep(ctx, max(netHeal, time.Duration(4/per*float64(time.Second)))+patience)
	w.add(from, time.Now())
	var sum []time.Duration
	for i, l := range m.links {
		seen := m.probes.look(i, w, patience)
		extra := beyond(delays(seen), quantile(m.base[i], 0.5))
		sum = append(sum, extra...)
		values := Reading{map[string]any{"p50_ns": int64(quantile(extra, 0.5)), "n": len(extra)}}
		switch got := quantile(extra, 0.5); {
		case len(extra)*2 <= len(seen):
			return values, Answer{false, fmt.Sprintf("%s: %d of %d probes arrived", l, len(extra), len(seen))}, nil
		case got > most+m.noise(i):
			return values, Answer{false, fmt.Sprintf("%s: still slower than before by %s (p50, n=%d), more than %s", l, short(got), len(extra), short(most))}, nil
		}
	}
	return Reading{map[string]any{"p50_ns": int64(quantile(sum, 0.5)), "n": len(sum)}},
		Answer{true, fmt.Sprintf("as before: %s beyond the baseline (p50, n=%d)", short(quantile(sum, 0.5)), len(sum))}, nil
}

// A partitionMeter looks whether nothing passes where it is cut, and everything
// where it is not: it probes every pair of the cluster.
type partitionMeter struct{ linkMeter }

func meterPartition(b *bench, site Site, _ Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	if err != nil {
		return nil, err
	}
	names := []string{cluster.ClientName}
	for _, n := range b.Cluster.Boxes() {
		names = append(names, n.Name())
	}
	m.others = slices.DeleteFunc(appendLinks(nil, names, names), func(l Link) bool { return slices.Contains(m.links, l) })
	return &partitionMeter{m}, nil
}

const passes = 0.9 // of the probes arrive where nothing is cut

func (m *partitionMeter) Baseline(ctx context.Context) (Reading, error) {
	return m.begin(ctx, pace(len(m.links)+len(m.others), probePaceLo, probePace/2, probeSum), 1, probeSize)
}

func (m *partitionMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	m.watch(ctx)
	n, through, pass, passN := 0, 0, 0, 0
	var bad []string
	for i, l := range m.probes.links {
		seen := m.probes.look(i, m.looks, max(arriveBy/2, 2*quantile(m.base[i], 1)))
		came := len(delays(seen))
		if i >= len(m.links) {
			if m.b.asked(l) || len(m.base[i]) == 0 { // another fault's
				continue
			}
			pass, passN = pass+came, passN+len(seen)
			if float64(came) < passes*float64(len(seen)) {
				bad = append(bad, fmt.Sprintf("%s, which was to pass, lost %d of %d", l, len(seen)-came, len(seen)))
			}
			continue
		}
		n, through = n+len(seen), through+came
		switch {
		case len(m.base[i]) == 0:
			bad = append(bad, fmt.Sprintf("%s: nothing arrived before the fault either", l))
		case len(seen) < 3:
			bad = append(bad, fmt.Sprintf("%s: only %d probes in %s", l, len(seen), short(m.looks.length())))
		case came > 0:
			bad = append(bad, fmt.Sprintf("%s: %d of %d probes arrived", l, came, len(seen)))
		}
	}
	values := map[string]any{
		"lost_percent": 100 * float64(n-through) / float64(max(n, 1)), "n": n, "links": len(m.links), "passed": pass, "passed_n": passN,
	}
	why := fmt.Sprintf("%d of %d probes lost on %d links that are cut; %d of %d arrived on the others%s",
		n-through, n, len(m.links), pass, passN, m.tcp.measured(values))
	return verdict(values, why, bad)
}

func (m *partitionMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	return m.healed(ctx, 10*time.Millisecond)
}

// A share is k of n probes.
type share struct{ k, n int }

func shareOf(ps []datagram, is func(*datagram) bool) (s share) {
	for i := range ps {
		s.n++
		if is(&ps[i]) {
			s.k++
		}
	}
	return s
}

func (s share) of() float64 { return float64(s.k) / float64(max(s.n, 1)) }

// and merges what a baseline had with what is asked for on top.
func (s share) and(p float64) float64 { return 1 - (1-s.of())*(1-p) }

// sigma is the standard error of a share of n that p has.
func sigma(p float64, n int) float64 { return math.Sqrt(p * (1 - p) / float64(max(n, 1))) }
