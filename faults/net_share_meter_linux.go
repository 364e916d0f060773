package faults

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"brownout/internal/sys/netns"
)

// A shareMeter measures what happens to a share of the packets: loss,
// duplicates, overtaking, damage. It counts probes, which are sent in bursts so
// that those who hold them wake up seldom.
type shareMeter struct {
	linkMeter
	kind    shareKind
	want    float64 // 0..1
	stretch float64 // of the error of a mean, by correlation from packet to packet
	rate    float64 // probes a second on each link
	damage  *damage // for corruption only
}

// A shareKind is what is counted, and of how much of it something can be said.
type shareKind struct {
	word string // of a probe that it happened to
	of   func([]datagram) share
	// expected is the share that is seen where p is asked for.
	expected func(p float64) float64
}

// burst is the number of probes sent back to back.
const burst = 10

func asIs(p float64) float64 { return p }

var (
	kindLost = shareKind{"lost", func(ps []datagram) share { return shareOf(ps, (*datagram).lost) }, asIs}
	kindTwin = shareKind{"duplicated", func(ps []datagram) (s share) {
		for _, p := range ps {
			if !p.lost() {
				s.n++
				if p.copies > 1 {
					s.k++
				}
			}
		}
		return s
	}, asIs}
	kindAhead = shareKind{"overtaking", overtaking, overtakes}
)

// overtaking counts probes that arrived before one of the same burst that was
// sent earlier. The first of a burst has nobody to overtake.
func overtaking(ps []datagram) (s share) {
	var latest time.Duration // arrival in this burst so far
	for i, p := range ps {
		if i == 0 || p.wall != ps[i-1].wall {
			latest = 0
		}
		if p.lost() {
			continue
		}
		if latest > 0 {
			s.n++
			if p.arrived < latest {
				s.k++
			}
		}
		latest = max(latest, p.arrived)
	}
	return s
}

// overtakes is the share of all but the first of a burst that overtake one,
// where each skips the delay with probability p: it is seen unless all before
// it skipped as well.
func overtakes(p float64) (mean float64) {
	for i := 1; i < burst; i++ {
		mean += p * (1 - math.Pow(p, float64(i))) / (burst - 1)
	}
	return mean
}

// Paces of bursts, in probes a second: to see a share of p within some seconds
// takes so many, on one link, at least and at most, and on all of them.
const (
	shareSeen  = 40.0
	sharePace  = 2000
	sharePaceL = 400
	shareSum   = 4000
	shareIdle  = 16_000  // where nobody is disturbed,
	shareOwed  = 32      // with bursts that a busy host delays sent together,
	shareKeep  = 1 << 19 // and all of them kept
	shareCount = 8       // of expected hits are the fewest that tell
	shareLeast = 0.002   // of all probes: what a busy host does by itself
)

func newShareMeter(b *bench, site Site, kind shareKind, d Dose) (*shareMeter, error) {
	m, err := newLinkMeter(b, site)
	if err != nil {
		return nil, err
	}
	s := &shareMeter{linkMeter: m, kind: kind}
	if err := s.asks(d); err != nil {
		return nil, err
	}
	s.rate = min(pace(len(m.links)+len(m.others), 50, sharePace, shareSum), max(sharePaceL, shareSeen/s.want))
	if b.idle {
		s.rate, s.owed, s.keep = shareIdle, shareOwed, shareKeep
	}
	return s, nil
}

// asks notes what share a dose asks for. In bursts, the state of the link at one
// packet tells of the next, which widens the error of a mean of n.
func (m *shareMeter) asks(d Dose) error {
	m.want, m.stretch = d.Float("percent")/100, 1
	if m.kind.word == kindLost.word && m.damage == nil {
		imp, err := lossOf(d)
		if err != nil {
			return err
		}
		m.want = imp.Loss
		if imp.LossEvery > 0 {
			m.want = 1 / float64(imp.LossEvery)
		}
		if g := imp.GE; g.ToBad > 0 {
			m.want = 1 - (1-m.want)*(1-g.Mean())
			keep := max(1-g.ToBad-g.ToGood, 0)
			m.stretch = math.Sqrt((1 + keep) / (1 - keep))
		}
	}
	if !(m.want > 0 && m.want <= 1) {
		return fmt.Errorf("a share of %v of the packets cannot be measured", m.want)
	}
	return nil
}

func (m *shareMeter) Baseline(ctx context.Context) (Reading, error) {
	size := probeSize
	if m.damage != nil {
		size = damageSize
	}
	r, err := m.begin(ctx, m.rate, burst, size)
	if err == nil && m.damage != nil {
		err = m.damage.begin(m.b, m.links)
	}
	return r, err
}

func (m *shareMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	if err := m.asks(d); err != nil {
		return Reading{}, Answer{}, err
	}
	m.watch(ctx)
	var all share
	var want float64
	var bad []string
	var way []time.Duration
	for i, l := range m.links {
		seen := m.look(i)
		if s := shareOf(seen, func(p *datagram) bool { return p.damaged }); s.k > 0 {
			bad = append(bad, fmt.Sprintf("%s: %d probes arrived damaged, and no checksum told", l, s.k))
		}
		s := m.kind.of(seen)
		all.k, all.n = all.k+s.k, all.n+s.n
		way = append(way, delays(seen)...)
		expect := m.kind.expected(m.want)
		err := m.stretch * sigma(expect, s.n)
		if m.kind.word == kindLost.word { // what was lost before is known no better than it was measured
			expect = m.before[i].and(m.want)
			err = math.Hypot(m.stretch*sigma(expect, s.n), sigma(m.before[i].of(), m.before[i].n))
		}
		want += expect * float64(s.n)
		tol := 4*err + shareLeast
		switch {
		case len(m.base[i]) == 0:
			bad = append(bad, fmt.Sprintf("%s: no probe arrived before the fault", l))
		case float64(s.n)*expect < shareCount/float64(len(m.links)):
			bad = append(bad, fmt.Sprintf("%s: %d probes in %s are too few to see %.3g %% of them", l, s.n, short(m.looks.length()), 100*expect))
		case math.Abs(s.of()-expect) > tol || s.k == 0 && float64(s.n)*expect > shareCount:
			bad = append(bad, fmt.Sprintf("%s: %d of %d %s (%.3g %%), wanted %.3g %%, tolerance %.2g", l, s.k, s.n, m.kind.word, 100*s.of(), 100*expect, 100*tol))
		}
	}
	want /= float64(max(all.n, 1))
	err := m.stretch * sigma(want, all.n)
	if bad == nil && float64(all.n)*want < shareCount {
		bad = append(bad, fmt.Sprintf("%d probes are too few to see %.3g %% of them", all.n, 100*want))
	}
	m.elsewhere(&bad)
	values := map[string]any{
		"percent": 100 * all.of(), "hits": all.k, "n": all.n, "expected_percent": 100 * want, "sigma_percent": 100 * err,
		"off_sigmas": (all.of() - want) / max(err, 1e-9), "p50_ns": int64(quantile(way, 0.5)),
	}
	why := fmt.Sprintf("%.4g %% asked, %d of %d probes %s (%.4g %%, %.3g %% expected, sigma %.2g, %d links)%s",
		100*m.want, all.k, all.n, m.kind.word, 100*all.of(), 100*want, 100*err, len(m.links), m.tcp.measured(values))
	if m.damage != nil {
		m.damage.judge(all.k, values, &bad)
	}
	return verdict(values, why, bad)
}

// look waits for no probe longer than the links were slow before.
func (m *shareMeter) look(i int) []datagram {
	return m.probes.look(i, m.looks, arriveBy+2*quantile(m.base[i], 1))
}

// elsewhere looks at the links that are to be left alone.
func (m *shareMeter) elsewhere(bad *[]string) {
	for j, l := range m.others {
		i := len(m.links) + j
		s := m.kind.of(m.look(i))
		if base := m.before[i].of(); s.of() > base+m.want/2 && s.k >= shareCount && !m.b.asked(l) {
			*bad = append(*bad, fmt.Sprintf("%s, which was to be left alone: %d of %d %s", l, s.k, s.n, m.kind.word))
		}
	}
}

func (m *shareMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	var w spans
	from := time.Now()
	// Long enough to see the share if it were still there.
	expect := m.kind.expected(m.want)
	need := time.Duration(2 * shareCount / (expect * m.rate * float64(len(m.links))) * float64(time.Second))
	sleep(ctx, min(max(need, netHeal), 4*time.Second)+arriveBy)
	w.add(from, time.Now())
	var all share
	var before float64
	for i := range m.links {
		s := m.kind.of(m.probes.look(i, w, arriveBy))
		all.k, all.n = all.k+s.k, all.n+s.n
		if m.kind.word == kindLost.word {
			before += m.before[i].of() / float64(len(m.links))
		}
	}
	values := Reading{map[string]any{"percent": 100 * all.of(), "n": all.n}}
	why := fmt.Sprintf("%d of %d probes %s", all.k, all.n, m.kind.word)
	return values, Answer{all.n > 0 && all.of() <= before+expect/2, why}, nil
}

func meterDuplicate(b *bench, site Site, d Dose) (Meter, error) {
	return newShareMeter(b, site, kindTwin, d)
}

func meterReorder(b *bench, site Site, d Dose) (Meter, error) {
	return newShareMeter(b, site, kindAhead, d)
}

// meterCorrupt measures damage as loss, and looks that it is checksums who do it.
func meterCorrupt(b *bench, site Site, d Dose) (Meter, error) {
	m, err := newShareMeter(b, site, kindLost, d)
	if err != nil {
		return nil, err
	}
	m.damage = new(damage)
	return m, nil
}

// meterLoss measures loss by its mean.
func meterLoss(b *bench, site Site, d Dose) (Meter, error) {
	imp, err := lossOf(d)
	if err != nil {
		return nil, err
	}
	if imp.LossFirst > 0 {
		m, err := newLinkMeter(b, site)
		return &firstMeter{linkMeter: m, first: int(imp.LossFirst)}, err
	}
	return newShareMeter(b, site, kindLost, d)
}

// A firstMeter measures a loss of the first packets and no more: probes share
// them with the link's own traffic, so at least one of a fast train and at most
// all are lost, none of them late.
type firstMeter struct {
	linkMeter
	first int
	from  time.Time // the baseline's end
}

func (m *firstMeter) Baseline(ctx context.Context) (Reading, error) {
	r, err := m.begin(ctx, pace(len(m.links)+len(m.others), 50, sharePace, shareSum), 1, probeSize)
	m.from = time.Now()
	return r, err
}

func (m *firstMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	<-ctx.Done()
	var w spans
	w.add(m.from, time.Now().Add(-probeSkip))
	var all share
	var bad []string
	for i, l := range m.links {
		seen := m.probes.look(i, w, arriveBy+2*quantile(m.base[i], 1))
		lost, last := 0, -1
		for j, p := range seen {
			if p.lost() {
				lost, last = lost+1, j
			}
		}
		all.k, all.n = all.k+lost, all.n+len(seen)
		switch {
		case lost == 0:
			bad = append(bad, fmt.Sprintf("%s: none of %d probes lost", l, len(seen)))
		case lost > m.first:
			bad = append(bad, fmt.Sprintf("%s: %d probes lost of the first %d packets", l, lost, m.first))
		case len(seen)-1-last < lost && len(seen) > 2*m.first:
			bad = append(bad, fmt.Sprintf("%s: probe %d of %d is still lost", l, last+1, len(seen)))
		}
	}
	values := map[string]any{"hits": all.k, "n": all.n}
	return verdict(values, fmt.Sprintf("the first %d packets asked, %d of %d probes lost (%d links)", m.first, all.k, all.n, len(m.links)), bad)
}

func (m *firstMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	return m.healed(ctx, delayLeast)
}

// damage counts what the receivers' kernels threw away because a checksum was
// wrong, and what their checksums let through.
type damage struct {
	at     []place
	before int64
}

type place struct {
	name string
	ns   *os.File
}

// damageSize is the payload of a probe that is to be damaged: of one this long
// nearly all bits are UDP's.
const damageSize = 512

func (d *damage) begin(b *bench, links []Link) error {
	seen := map[string]bool{}
	for _, l := range links {
		if seen[l.To] {
			continue
		}
		seen[l.To] = true
		_, ns, err := b.endpoint(l.To)
		if err != nil {
			return err
		}
		d.at = append(d.at, place{l.To, ns})
	}
	var err error
	d.before, err = d.count()
	return err
}

func (d *damage) count() (sum int64, err error) {
	for _, p := range d.at {
		n, err := checksumErrors(p.ns)
		if err != nil {
			return 0, fmt.Errorf("count what %s threw away: %w", p.name, err)
		}
		sum += n
	}
	return sum, nil
}

// judge compares lost probes with what checksums caught since the baseline.
func (d *damage) judge(lost int, values map[string]any, bad *[]string) {
	now, err := d.count()
	if err != nil {
		*bad = append(*bad, err.Error())
		return
	}
	caught := now - d.before
	values["checksum_errors"] = caught
	if caught*2 < int64(lost) {
		*bad = append(*bad, fmt.Sprintf("%d probes are gone, but checksums caught only %d frames", lost, caught))
	}
}

// checksumErrors are the IPv4 and UDP packets that a namespace threw away as damaged.
func checksumErrors(ns *os.File) (n int64, err error) {
	err = netns.Do(ns, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		n = snmp(string(b), "Ip", "InHdrErrors") + snmp(string(b), "Ip", "InAddrErrors") + snmp(string(b), "Udp", "InErrors")
		b, err = os.ReadFile("/proc/thread-self/net/netstat")
		if err == nil {
			n += snmp(string(b), "IpExt", "InCsumErrors")
		}
		return err
	})
	return n, err
}

// snmp returns a counter of /proc/net/snmp or netstat: of each group there is a
// line of names and a line of numbers. 0 if it is not there.
func snmp(text, group, name string) int64 {
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != group+":" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i := range min(len(f), len(names)) {
			if names[i] == name {
				v, _ := strconv.ParseInt(f[i], 10, 64)
				return v
			}
		}
	}
	return 0
}
