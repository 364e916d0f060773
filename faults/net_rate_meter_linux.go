package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// A rateMeter measures the rate of a link by the dispersion of packet trains:
// packets sent back to back leave a queue at its rate, whatever else is in it
// (C. Dovrolis et al., IEEE/ACM Trans. Networking 12(6), 2004).
type rateMeter struct {
	linkMeter
	limit  float64 // bits per second
	before float64 // the same, at the baseline
	trainShape
	starts [][]train
	mu     sync.Mutex // guards starts
	one    sync.Mutex // train at a time
}

// A trainShape is how the trains for one rate are made.
type trainShape struct {
	size, count int     // bytes of payload of each packet, packets of a train
	perSecond   float64 // trains
}

// A train is a run of probes of one link.
type train struct {
	sent  time.Time
	first uint32
}

// Trains last long enough to be timed to a percent where the queue lets them,
// and take at most a twentieth of the link, but a tenth of a slow one.
const (
	trainLasts  = 5 * time.Millisecond
	trainLeast  = 4 // packets
	trainMost   = 1 << 20
	trainShare  = 0.05
	trainRarest = 2.0 // a second
	trainSlowly = 0.1
	rateShare   = 0.05
	rateTrains  = 3                      // are the fewest that tell
	trainTimed  = 100 * time.Microsecond // that the first or the last packet may be off
)

// trainsFor shapes the trains for a link of limit bits per second with a queue
// of so many bytes.
func trainsFor(limit float64, queue int) trainShape {
	const packet = mtu - 28
	bytes := limit * trainLasts.Seconds() / 8
	s := trainShape{size: packet}
	s.size = min(packet, max(int(bytes/8)-headers, 60-headers)) // eight packets, no shorter than Ethernet's
	frame := s.size + headers
	room := trainMost
	if queue > 0 {
		room = min(room, queue*2/3)
	}
	s.count = max(min(int(bytes)/frame+1, room/frame), trainLeast)
	bits := float64(s.count * frame * 8)
	s.perSecond = min(max(limit*trainShare/bits, min(trainRarest, limit*trainSlowly/bits)), 20)
	return s
}

// queueOf is how many bytes may wait before a limit; 0 if that is not said.
func queueOf(d Dose) int {
	if t := d.Duration("queue_time"); t > 0 {
		return int(d.Float("limit_bits_per_s") * t.Seconds() / 8)
	}
	return int(d.Float("queue_bytes"))
}

func meterRate(b *bench, site Site, d Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	if err != nil {
		return nil, err
	}
	m.others = nil
	limit := d.Float("limit_bits_per_s")
	return &rateMeter{
		linkMeter: m, limit: limit, trainShape: trainsFor(limit, queueOf(d)), starts: make([][]train, len(m.links)),
	}, nil
}

func (m *rateMeter) Baseline(ctx context.Context) (Reading, error) {
	if err := m.open(); err != nil {
		return Reading{}, err
	}
	m.trains()
	m.trains() // so that there is a baseline even if trains are rare
	perSecond := m.perSecond * float64(len(m.links))
	// On a link that is much faster than its limit will be, trains of the limit's
	// size are no burden: the baseline has more of them.
	m.probes.start(perSecond, func(n int) { m.train(n % len(m.links)) })
	for range 3 {
		if !sleep(ctx, netBase/4) {
			return Reading{}, ctx.Err()
		}
		m.trains()
	}
	if !sleep(ctx, netBase/4) {
		return Reading{}, ctx.Err()
	}
	var w spans
	w.add(m.began, time.Now())
	got := m.rates(w)
	if m.before = median(got); m.before == 0 {
		return Reading{}, errors.New("no train of probes arrived")
	}
	values := map[string]any{"bits_per_s": m.before, "n": len(got)}
	m.tcp.baseline(values)
	return Reading{values}, nil
}

// trains sends one on every link.
func (m *rateMeter) trains() {
	for i := range m.links {
		m.train(i)
	}
}

func (m *rateMeter) train(i int) {
	m.one.Lock()
	defer m.one.Unlock()
	t := train{sent: time.Now()}
	t.first = m.probes.send(i, m.size, m.count)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.starts[i]) == maxProbes/m.count+1 { // older ones are forgotten
		m.starts[i] = m.starts[i][1:]
	}
	m.starts[i] = append(m.starts[i], t)
}

// rates are what the trains say that were sent, and came in, within one span of
// w: how long they waited in the queue does not matter.
func (m *rateMeter) rates(w spans) (out []float64) {
	for i := range m.links {
		out = append(out, m.ratesOf(i, w)...)
	}
	return out
}

func (m *rateMeter) ratesOf(i int, w spans) (out []float64) {
	m.mu.Lock()
	starts := slices.Clone(m.starts[i])
	m.mu.Unlock()
	m.probes.read()
	m.probes.mu.Lock()
	defer m.probes.mu.Unlock()
	for _, t := range starts {
		at := int(t.first) - int(m.probes.first[i])
		if at < 0 || at+m.count > len(m.probes.sent[i]) {
			continue
		}
		run := m.probes.sent[i][at : at+m.count]
		took := quantile(delays(run), 1)
		if r, ok := dispersion(run, m.size+headers); ok && w.hold(t.sent, t.sent.Add(took)) {
			out = append(out, r)
		}
	}
	return out
}

// dispersion is the rate at which a train's packets of so many bytes came in.
// What a full queue dropped was never in it: those that passed left at its rate.
func dispersion(run []datagram, frame int) (bitsPerSec float64, ok bool) {
	var came int
	var first, last time.Duration
	for _, p := range run {
		if p.lost() {
			continue
		}
		if came++; first == 0 || p.arrived < first {
			first = p.arrived
		}
		last = max(last, p.arrived)
	}
	if came < 3 || came*2 < len(run) {
		return 0, false
	}
	const least = time.Microsecond // the kernel may hand a train over as one packet
	return float64((came-1)*frame*8) / max(last-first, least).Seconds(), true
}

func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	return nearest(slices.Sorted(slices.Values(xs)), 0.5)
}

// spreadOf is half the distance of the quartiles in standard deviations of a
// normal distribution: trains that a busy host tore apart do not count.
func spreadOf(xs []float64) float64 {
	if len(xs) < 4 {
		return 0
	}
	xs = slices.Sorted(slices.Values(xs))
	return (nearest(xs, 0.75) - nearest(xs, 0.25)) / 1.349
}

// tolerance is the share by which a link's median of n trains may be off: what
// their own scatter explains, and the timing of a train that is short.
func (m *rateMeter) tolerance(got []float64) float64 {
	lasts := float64((m.count-1)*(m.size+headers)*8) / m.limit
	scatter := 4 * 1.25 * spreadOf(got) / math.Sqrt(float64(max(len(got), 1))) / m.limit
	return min(rateShare+max(scatter, trainTimed.Seconds()/lasts), 2*rateShare)
}

func (m *rateMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	m.limit = d.Float("limit_bits_per_s")
	m.watch(ctx)
	all := m.rates(m.looks)
	m.probes.mu.Lock()
	bytes := m.probes.bytes
	m.probes.mu.Unlock()
	values := map[string]any{"bits_per_s": median(all), "sd_bits_per_s": spreadOf(all), "n": len(all), "packets": m.count, "probe_bytes": bytes}
	why := fmt.Sprintf("%s asked, %s measured by the dispersion of %d trains of %d packets (sd %s, %d bytes sent in all)%s",
		rate(m.limit), rate(median(all)), len(all), m.count, rate(spreadOf(all)), bytes, m.tcp.measured(values))
	var bad []string
	if m.before < m.limit*(1+2*rateShare) {
		bad = append(bad, fmt.Sprintf("trains leave this host at %s at best, too slow to tell", rate(m.before)))
	}
	for i, l := range m.links {
		got := m.ratesOf(i, m.looks)
		tol := m.tolerance(got)
		switch r := median(got); {
		case len(got) < rateTrains:
			bad = append(bad, fmt.Sprintf("%s: %d trains arrived in %s, too few to tell", l, len(got), short(m.looks.length())))
		case r > m.limit*(1+tol) || r < m.limit*(1-tol):
			bad = append(bad, fmt.Sprintf("%s: %s (p50, n=%d), tolerance %.2g %%", l, rate(r), len(got), 100*tol))
		}
	}
	return verdict(values, why, bad)
}

func (m *rateMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	var w spans
	from := time.Now()
	for range 3 {
		m.trains()
		sleep(ctx, 30*time.Millisecond)
	}
	w.add(from, time.Now())
	all := m.rates(w)
	values := Reading{map[string]any{"bits_per_s": median(all), "n": len(all)}}
	for i, l := range m.links {
		need := min(2*m.limit, (m.before+m.limit)/2)
		if got := median(m.ratesOf(i, w)); got < need || got == 0 {
			return values, Answer{false, fmt.Sprintf("%s: %s, less than %s (n=%d)", l, rate(got), rate(need), len(all))}, nil
		}
	}
	return values, Answer{true, fmt.Sprintf("%s by trains, limit was %s (n=%d)", rate(median(all)), rate(m.limit), len(all))}, nil
}
