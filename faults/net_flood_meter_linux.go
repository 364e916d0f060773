package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"brownout/internal/sys/netns"
)

// A floodMeter measures what comes in at the receivers' devices beyond what came
// in before, and what that costs those who were there first: the delay and the
// loss of probes.
type floodMeter struct {
	linkMeter
	capacity float64 // bits per second of the slowest link, if trains can tell; else 0
	shape    trainShape
	receive  []place
	load     []float64 // before, bits per second, by receiver
	sum      flooded
}

// Flooded is what was counted over all looks.
type flooded struct {
	came []float64 // bits at each receiver
	took time.Duration
	sent float64 // bits that the switch saw on the links; 0 if it does not count
}

func meterFlood(b *bench, site Site, d Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	if err != nil {
		return nil, err
	}
	f := &floodMeter{linkMeter: m, shape: trainsFor(d.Float("limit_bits_per_s"), 0)}
	seen := map[string]bool{}
	for _, l := range m.links {
		if seen[l.To] {
			continue
		}
		seen[l.To] = true
		_, ns, err := b.endpoint(l.To)
		if err != nil {
			return nil, err
		}
		f.receive = append(f.receive, place{l.To, ns})
	}
	f.sum.came = make([]float64, len(f.receive))
	return f, nil
}

const (
	floodShare  = 0.2 // of the dose that may be missing
	floodFaster = 1.2 // times the limit, above which a link's own capacity does not matter
)

func (m *floodMeter) Baseline(ctx context.Context) (Reading, error) {
	from := time.Now()
	bits, err := m.came()
	if err != nil {
		return Reading{}, err
	}
	r, err := m.begin(ctx, pace(len(m.links)+len(m.others), probePaceLo, probePace/2, probeSum), 1, probeSize)
	if err != nil {
		return r, err
	}
	after, err := m.came()
	if err != nil {
		return r, err
	}
	for i := range after {
		m.load = append(m.load, (after[i]-bits[i])/time.Since(from).Seconds())
	}
	// After that, so that the trains are no load.
	for i, l := range m.links {
		c, err := m.train(ctx, i)
		if err != nil {
			return r, fmt.Errorf("%s: %w", l, err)
		}
		if m.capacity == 0 || c < m.capacity {
			m.capacity = c
		}
	}
	r.Values["capacity_bits_per_s"] = m.capacity
	return r, nil
}

// train measures the capacity of a link before the flood.
func (m *floodMeter) train(ctx context.Context, i int) (float64, error) {
	const tries = 3
	var got []float64
	for range tries {
		first := m.probes.send(i, m.shape.size, m.shape.count)
		for end := time.Now().Add(time.Second); ; {
			m.probes.read()
			m.probes.mu.Lock()
			at := int(first - m.probes.first[i])
			run := append([]datagram(nil), m.probes.sent[i][at:at+m.shape.count]...)
			m.probes.mu.Unlock()
			here := len(delays(run))
			if here == len(run) || here > 0 && time.Since(run[0].sent) > arriveBy {
				if r, ok := dispersion(run, m.shape.size+headers); ok {
					got = append(got, r)
				}
				break
			}
			if time.Now().After(end) || !sleep(ctx, time.Millisecond) {
				break
			}
		}
	}
	if got == nil {
		return 0, errors.New("no train of probes arrived before the flood")
	}
	return median(got), ctx.Err()
}

// came is how many bits came in at each receiver's device, ever.
func (m *floodMeter) came() (bits []float64, err error) {
	for _, p := range m.receive {
		n, err := received(p.ns)
		if err != nil {
			return nil, fmt.Errorf("count what came in at %s: %w", p.name, err)
		}
		bits = append(bits, 8*float64(n))
	}
	return bits, nil
}

// offered is how many bits the switch saw on the links; 0 if it does not count.
func (m *floodMeter) offered() (bits float64) {
	for _, l := range m.links {
		from, _, err1 := m.b.endpoint(l.From)
		to, _, err2 := m.b.endpoint(l.To)
		if errors.Join(err1, err2) != nil {
			return 0
		}
		c, err := m.b.Cluster.Switch().Counters(from, to)
		if err != nil {
			return 0
		}
		bits += 8 * float64(c.Bytes)
	}
	return bits
}

func (m *floodMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	from, sent := time.Now(), m.offered()
	before, err := m.came()
	if err != nil {
		return Reading{}, Answer{}, err
	}
	m.watch(ctx)
	after, err := m.came()
	if err != nil {
		return Reading{}, Answer{}, err
	}
	took := time.Since(from)
	m.sum.took += took
	m.sum.sent += m.offered() - sent
	links := map[string]int{}
	for _, l := range m.links {
		links[l.To]++
	}
	limit := d.Float("limit_bits_per_s")
	each := limit
	if m.capacity < floodFaster*limit { // no more can get through
		each = m.capacity
	}
	seconds := m.sum.took.Seconds()
	var goodput, asked float64
	var bad []string
	for i, p := range m.receive {
		m.sum.came[i] += after[i] - before[i]
		got, want := m.sum.came[i]/seconds, each*float64(links[p.name])
		extra := got - m.load[i]
		if each < limit {
			extra = got // the flood and those before it share what there is
		}
		goodput, asked = goodput+extra, asked+want
		if extra < (1-floodShare)*want {
			bad = append(bad, fmt.Sprintf("%s got %s of flood, wanted %s", p.name, rate(extra), rate(want)))
		}
	}
	var late []time.Duration
	var gone share
	for i := range m.links {
		seen := m.probes.look(i, m.looks, time.Second/2)
		s := shareOf(seen, (*datagram).lost)
		gone.k, gone.n = gone.k+s.k, gone.n+s.n
		late = append(late, beyond(delays(seen), quantile(m.base[i], 0.5))...)
	}
	values := map[string]any{
		"bits_per_s": goodput, "asked_bits_per_s": asked, "sent_bits_per_s": m.sum.sent / seconds, "capacity_bits_per_s": m.capacity,
		"p50_ns": int64(quantile(late, 0.5)), "p99_ns": int64(quantile(late, 0.99)), "lost_percent": 100 * gone.of(), "n": gone.n,
	}
	why := fmt.Sprintf("%s of flood came in, %s asked, on links of %s; probes are slower by %s (p50, p99 %s) and %d of %d lost%s",
		rate(goodput), rate(limit*float64(len(m.links))), rate(m.capacity), short(quantile(late, 0.5)), short(quantile(late, 0.99)), gone.k, gone.n, m.tcp.measured(values))
	if each < limit {
		taken := 100 * goodput / (each * float64(len(m.links)))
		values["taken_percent"] = taken
		why += fmt.Sprintf("; %.0f %% of what the links carry is taken", taken)
	}
	return verdict(values, why, bad)
}

func (m *floodMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	before, err := m.came()
	if err != nil {
		return Reading{}, Answer{}, err
	}
	from := time.Now()
	r, answer, err := m.healed(ctx, 10*time.Millisecond)
	if err != nil || !answer.Yes {
		return r, answer, err
	}
	after, err := m.came()
	if err != nil {
		return r, answer, err
	}
	for i, p := range m.receive {
		// A target that is let go may send more than before for a while.
		if got, was := (after[i]-before[i])/time.Since(from).Seconds(), m.sum.came[i]/max(m.sum.took.Seconds(), 1e-3); got > max(was, 2*m.load[i])/2+1e6 {
			return r, Answer{false, fmt.Sprintf("%s still gets %s", p.name, rate(got))}, nil
		}
	}
	return r, answer, nil
}

// received is how many bytes came in at the devices of a namespace but loopback.
func received(ns *os.File) (n int64, err error) {
	err = netns.Do(ns, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err == nil {
			n, err = receivedIn(string(b))
		}
		return err
	})
	return n, err
}

// receivedIn reads /proc/net/dev.
func receivedIn(text string) (sum int64, err error) {
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		if f := strings.Fields(rest); ok && strings.TrimSpace(name) != "lo" && len(f) > 0 {
			n, err := strconv.ParseInt(f[0], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("bytes of device %s: %w", strings.TrimSpace(name), err)
			}
			sum += n
		}
	}
	return sum, nil
}
