package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/sys/netns"
)

// Probes are UDP datagrams between sockets opened inside the very namespaces
// whose links are hurt. They carry the time at which they were sent; the time at
// which they arrived is the receiving kernel's (SO_TIMESTAMPNS), so that it does
// not matter how late this process is told. Both are the host's clock.
const (
	probeMagic  = 0xb0b0_0001
	probeSize   = 64                    // bytes of payload
	maxProbes   = 1 << 14               // kept for each link; older ones are forgotten
	probePace   = 100                   // probes a second on a link,
	probeSum    = 1000                  // and on all links of a fault together
	probeSkip   = time.Millisecond      // before the end of a look: on their way when it ended
	probeRead   = 10 * time.Millisecond // between two looks at what arrived
	probeBuffer = 2 << 20               // of a receiver, for what arrives in between
)

// A prober sends probes on links and keeps what became of them.
type prober struct {
	links []Link
	ends  map[string]*end

	mu    sync.Mutex
	sent  [][]datagram // by link
	first []uint32     // number of the first probe that is kept
	bytes int64        // sent in all, Ethernet headers included

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type datagram struct {
	sent    time.Time     // monotonic
	wall    time.Duration // CLOCK_REALTIME
	arrived time.Duration // CLOCK_REALTIME; 0 while it has not
}

// An end is one socket for all probes from and to one endpoint. It is not the
// runtime's: nobody waits for it, because the kernel stamps what arrives, and
// to be woken by every probe would cost more, and disturb more, than the probe.
type end struct {
	name string
	addr unix.SockaddrInet4
	mu   sync.Mutex // one reader at a time
	fd   int
}

// openProbes opens sockets at all ends of links.
func openProbes(b *bench, links []Link) (_ *prober, err error) {
	p := &prober{
		links: links, ends: map[string]*end{},
		sent: make([][]datagram, len(links)), first: make([]uint32, len(links)),
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for _, l := range links {
		for _, name := range []string{l.From, l.To} {
			if p.ends[name] != nil {
				continue
			}
			index, ns, err := b.endpoint(name)
			if err != nil {
				return nil, err
			}
			e := &end{name: name, addr: unix.SockaddrInet4{Addr: cluster.IP4(index).As4()}}
			if err := netns.Do(ns, e.open); err != nil {
				return nil, fmt.Errorf("open probe at %s: %w", name, err)
			}
			p.ends[name] = e
		}
	}
	return p, nil
}

// open makes the socket in the namespace of the calling thread, and asks the
// kernel for the time at which each datagram came in.
func (e *end) open() (err error) {
	e.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, probeBuffer),
		unix.Bind(e.fd, &e.addr),
	)
	if err == nil {
		var at unix.Sockaddr
		if at, err = unix.Getsockname(e.fd); err == nil {
			e.addr = *at.(*unix.SockaddrInet4)
		}
	}
	if err != nil {
		unix.Close(e.fd)
	}
	return err
}

// start collects what arrives, and sends with tick, which is called so many
// times a second.
func (p *prober) start(perSecond float64, tick func(n int)) {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.wg.Go(func() {
		for sleep(ctx, probeRead) {
			p.read()
		}
	})
	p.wg.Go(func() {
		t := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
		defer t.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				tick(n)
			}
		}
	})
}

func (p *prober) close() {
	if p.cancel != nil {
		p.cancel()
	}
	p.wg.Wait()
	for _, e := range p.ends {
		unix.Close(e.fd)
	}
}

func wallNow() time.Duration { return time.Duration(time.Now().UnixNano()) }

// send sends one probe of size bytes of payload on link i. One that cannot be
// sent is one that does not arrive.
func (p *prober) send(i, size int) {
	l := p.links[i]
	var buf [1472]byte
	p.mu.Lock()
	if len(p.sent[i]) == maxProbes {
		p.sent[i] = append(p.sent[i][:0], p.sent[i][maxProbes/2:]...)
		p.first[i] += maxProbes / 2
	}
	number := p.first[i] + uint32(len(p.sent[i]))
	binary.BigEndian.PutUint32(buf[0:], probeMagic)
	binary.BigEndian.PutUint32(buf[4:], uint32(i))
	binary.BigEndian.PutUint32(buf[8:], number)
	p.sent[i] = append(p.sent[i], datagram{sent: time.Now(), wall: wallNow()})
	p.bytes += int64(size + headers)
	p.mu.Unlock()
	to := p.ends[l.To].addr // a copy: the library writes into it
	_ = unix.Sendto(p.ends[l.From].fd, buf[:size], unix.MSG_DONTWAIT, &to)
}

// headers of a probe: Ethernet, IPv4, UDP.
const headers = 14 + 20 + 8

// read takes all that has arrived.
func (p *prober) read() {
	for _, e := range p.ends {
		p.readEnd(e)
	}
}

func (p *prober) readEnd(e *end) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var buf [1500]byte
	var oob [128]byte
	for {
		n, oobn, _, _, err := unix.Recvmsg(e.fd, buf[:], oob[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNREFUSED): // of a probe to a place that is closed
			continue
		case err != nil:
			return
		case n < 12 || binary.BigEndian.Uint32(buf[:]) != probeMagic:
			continue // somebody else's
		}
		at := arrivalOf(oob[:oobn])
		i, number := int(binary.BigEndian.Uint32(buf[4:])), binary.BigEndian.Uint32(buf[8:])
		p.mu.Lock()
		if i < len(p.links) && p.links[i].To == e.name && number >= p.first[i] && number-p.first[i] < uint32(len(p.sent[i])) {
			if d := &p.sent[i][number-p.first[i]]; d.arrived == 0 { // the first copy counts
				d.arrived = at
			}
		}
		p.mu.Unlock()
	}
}

// arrivalOf returns the kernel's time stamp, or now.
func arrivalOf(oob []byte) time.Duration {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(data) >= 16 {
			return time.Duration(binary.NativeEndian.Uint64(data))*time.Second + time.Duration(binary.NativeEndian.Uint64(data[8:]))
		}
		oob = rest
	}
	return wallNow()
}

// look returns the probes of a link that were sent within w, and either
// arrived within it or had patience to do so.
func (p *prober) look(i int, w spans, patience time.Duration) (out []owd) {
	p.read()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pr := range p.sent[i] {
		o := owd{sent: pr.sent, delay: pr.arrived - pr.wall, lost: pr.arrived == 0}
		if o.lost {
			o.delay = patience
		}
		if w.hold(pr.sent, pr.sent.Add(o.delay)) {
			out = append(out, o)
		}
	}
	return out
}

// A linkMeter is what the meters of delays and partitions have in common: it
// sends probes on every link of the site and on its reverse from the baseline
// to the end.
type linkMeter struct {
	b       *bench
	links   []Link // of the fault
	reverse []Link // that are not
	probes  *prober
	base    [][]time.Duration // delays before the fault, by link
	looks   spans
}

func newLinkMeter(b *bench, site Site) (linkMeter, error) {
	m := linkMeter{b: b, links: site.Links}
	if len(m.links) == 0 {
		return m, errors.New("no links")
	}
	for _, l := range m.links {
		if r := (Link{l.To, l.From}); !slices.Contains(m.links, r) {
			m.reverse = append(m.reverse, r)
		}
	}
	return m, nil
}

const netBase = 400 * time.Millisecond

func (m *linkMeter) Baseline(ctx context.Context) (Reading, error) {
	var err error
	if m.probes, err = openProbes(m.b, slices.Concat(m.links, m.reverse)); err != nil {
		return Reading{}, err
	}
	all := len(m.probes.links)
	pace := min(probePace, max(10, probeSum/float64(all)))
	began := time.Now()
	// One link after the other, so that the probes of a fault are no burst.
	m.probes.start(pace*float64(all), func(n int) { m.probes.send(n%all, probeSize) })
	if !sleep(ctx, netBase) {
		return Reading{}, ctx.Err()
	}
	var w spans
	w.add(began, time.Now())
	var sum []time.Duration
	for i := range m.probes.links {
		seen := m.probes.look(i, w, netBase)
		m.base = append(m.base, arrived(seen))
		sum = append(sum, arrived(seen)...)
	}
	return Reading{map[string]any{"p50_ns": int64(quantile(sum, 0.5)), "n": len(sum)}}, nil
}

func (m *linkMeter) Close() error {
	if m.probes != nil {
		m.probes.close()
	}
	return nil
}

// watch waits for the end of ctx and notes the span.
func (m *linkMeter) watch(ctx context.Context) {
	from := time.Now()
	<-ctx.Done()
	m.looks.add(from, time.Now().Add(-probeSkip))
}

func (l Link) String() string { return l.From + ">" + l.To }

// Tolerances of one-way delays. The wire is late by tens of microseconds, the
// probes' own way varies as much on a busy host.
const (
	delayShare  = 0.05
	delayLeast  = 300 * time.Microsecond
	jitterShare = 0.3 // of a standard deviation, with
	jitterN     = 50  // probes at least
	reverseMost = time.Millisecond
)

// A delayMeter measures one-way delays.
type delayMeter struct {
	linkMeter
	dose Dose
}

func meterDelay(b *bench, site Site, d Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	return &delayMeter{m, d}, err
}

func (m *delayMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	m.watch(ctx)
	want, sd, sure := expectedDelay(d)
	patience := 2*want + 6*sd + 100*time.Millisecond
	var sum []time.Duration
	var bad []string
	var spread time.Duration
	n, gone := 0, 0
	for i, l := range m.links {
		base := quantile(m.base[i], 0.5)
		seen := m.probes.look(i, m.looks, patience)
		var extra []time.Duration
		for _, d := range arrived(seen) {
			extra = append(extra, d-base)
		}
		gone += lost(seen)
		n += len(seen)
		sum = append(sum, extra...)
		if len(m.base[i]) == 0 {
			bad = append(bad, fmt.Sprintf("%s: no probe arrived before the fault", l))
			continue
		}
		if len(extra) < 3 {
			bad = append(bad, fmt.Sprintf("%s: %d of %d probes arrived in %s", l, len(extra), len(seen), short(m.looks.length())))
			continue
		}
		got, s := quantile(extra, 0.5), deviation(extra)
		spread = max(spread, s)
		// The median of n probes is itself only so sure (1.25 σ/√n).
		tol := tolerance(want, delayShare, delayLeast) + time.Duration(4*float64(sd)/float64(isqrt(len(extra))))
		if sure && (got-want).Abs() > tol || !sure && got <= delayLeast {
			bad = append(bad, fmt.Sprintf("%s: %s measured (p50, n=%d), tolerance %s", l, short(got), len(extra), short(tol)))
		}
		// A heavy tail's deviation is that of its rarest values: not judged.
		if sure && sd > 0 && d.String("dist") != "pareto" && len(extra) >= jitterN && !within(s, sd, jitterShare, delayLeast) {
			bad = append(bad, fmt.Sprintf("%s: standard deviation %s, wanted %s", l, short(s), short(sd)))
		}
	}
	back := m.backwards(&bad)
	values := map[string]any{"p50_ns": int64(quantile(sum, 0.5)), "p99_ns": int64(quantile(sum, 0.99)), "n": len(sum)}
	if sd > 0 {
		values["jitter_sd_ns"] = int64(spread)
	}
	if gone > 0 {
		values["lost"] = gone
	}
	if m.reverse != nil {
		values["reverse_p50_ns"] = int64(back)
	}
	why := fmt.Sprintf("%s asked one way, %s measured by UDP probes (p50, p99 %s, n=%d, %d links)",
		short(want), short(quantile(sum, 0.5)), short(quantile(sum, 0.99)), len(sum), len(m.links))
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	if m.reverse != nil {
		why += fmt.Sprintf("; %s in the other direction", short(back))
	}
	return Reading{values}, Answer{true, why}, nil
}

func isqrt(n int) int {
	r := 0
	for (r+1)*(r+1) <= n {
		r++
	}
	return max(r, 1)
}

// backwards looks at the other directions, which the fault must leave alone
// unless another one is there, and returns their median beyond the baseline.
func (m *linkMeter) backwards(bad *[]string) time.Duration {
	var sum []time.Duration
	for j, l := range m.reverse {
		i := len(m.links) + j
		base := quantile(m.base[i], 0.5)
		var extra []time.Duration
		for _, d := range arrived(m.probes.look(i, m.looks, netBase)) {
			extra = append(extra, d-base)
		}
		sum = append(sum, extra...)
		if got := quantile(extra, 0.5); got > reverseMost && !m.b.asked(l) {
			*bad = append(*bad, fmt.Sprintf("%s, which was to be left alone, is slower by %s", l, short(got)))
		}
	}
	return quantile(sum, 0.5)
}

func (m *delayMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	want, _, _ := expectedDelay(m.dose)
	return m.healed(ctx, max(min(want/4, 10*time.Millisecond), delayLeast))
}

// healed looks whether probes arrive again and within most of the baseline.
func (m *linkMeter) healed(ctx context.Context, most time.Duration) (Reading, Answer, error) {
	from := time.Now()
	sleep(ctx, netBase/2)
	var w spans
	w.add(from, time.Now())
	var sum []time.Duration
	for i, l := range m.links {
		seen := m.probes.look(i, w, netBase/4)
		var extra []time.Duration
		for _, d := range arrived(seen) {
			extra = append(extra, d-quantile(m.base[i], 0.5))
		}
		sum = append(sum, extra...)
		values := Reading{map[string]any{"p50_ns": int64(quantile(extra, 0.5)), "n": len(extra)}}
		switch got := quantile(extra, 0.5); {
		case len(extra) == 0 || lost(seen)*2 > len(seen):
			return values, Answer{false, fmt.Sprintf("%s: %d of %d probes arrived", l, len(extra), len(seen))}, nil
		case got > most:
			return values, Answer{false, fmt.Sprintf("%s: still slower than before by %s (p50, n=%d), more than %s", l, short(got), len(extra), short(most))}, nil
		}
	}
	return Reading{map[string]any{"p50_ns": int64(quantile(sum, 0.5)), "n": len(sum)}},
		Answer{true, fmt.Sprintf("as before: %s beyond the baseline (p50, n=%d)", short(quantile(sum, 0.5)), len(sum))}, nil
}

// A partitionMeter looks whether nothing passes.
type partitionMeter struct{ linkMeter }

func meterPartition(b *bench, site Site, _ Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	return &partitionMeter{m}, err
}

const (
	partitionPatience = 50 * time.Millisecond // more than a healthy link takes
	reverseArrives    = 0.9                   // of the probes, in directions that are not cut
)

func (m *partitionMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	m.watch(ctx)
	n, through := 0, 0
	var bad []string
	for i, l := range m.links {
		patience := max(partitionPatience, 3*quantile(m.base[i], 1))
		seen := m.probes.look(i, m.looks, patience)
		came := len(arrived(seen))
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
	back, backN := 0, 0
	for j, l := range m.reverse {
		i := len(m.links) + j
		seen := m.probes.look(i, m.looks, max(partitionPatience, 3*quantile(m.base[i], 1)))
		came := len(arrived(seen))
		back, backN = back+came, backN+len(seen)
		if float64(came) < reverseArrives*float64(len(seen)) && !m.b.asked(l) {
			bad = append(bad, fmt.Sprintf("%s, which was to pass, lost %d of %d", l, len(seen)-came, len(seen)))
		}
	}
	values := map[string]any{"lost_percent": 100 * float64(n-through) / float64(max(n, 1)), "n": n}
	why := fmt.Sprintf("%d of %d probes lost on %d links", n-through, n, len(m.links))
	if m.reverse != nil {
		why += fmt.Sprintf("; %d of %d arrived in the other direction", back, backN)
	}
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

func (m *partitionMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	return m.healed(ctx, 10*time.Millisecond)
}

// A rateMeter measures the rate of a link by the dispersion of packet trains:
// packets sent back to back leave a queue at its rate, whatever else is in it
// (C. Dovrolis et al., IEEE/ACM Trans. Networking 12(6), 2004).
type rateMeter struct {
	linkMeter
	limit  float64 // bits per second
	before float64 // the same, at the baseline
	size   int     // bytes of payload of each packet
	count  int     // packets of a train
	starts [][]train
	mu     sync.Mutex // guards starts
	one    sync.Mutex // train at a time
}

// A train is a run of probes of one link.
type train struct {
	sent  time.Time
	first uint32
}

// Trains are long enough to be timed, and take at most a twentieth of the link.
const (
	trainLasts = 2 * time.Millisecond
	trainLeast = 5
	trainMost  = 64 << 10 // bytes
	trainShare = 0.05
	rateShare  = 0.05
)

func meterRate(b *bench, site Site, d Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	if err != nil {
		return nil, err
	}
	m.reverse = nil
	r := &rateMeter{linkMeter: m, limit: d.Float("limit_bits_per_s"), size: 1200, starts: make([][]train, len(m.links))}
	if r.limit < 1e6 {
		r.size = 200
	}
	room := trainMost
	if q := int(d.Float("queue_bytes")); q > 0 {
		room = min(room, q/2)
	}
	frame := r.size + headers
	r.count = max(int(r.limit*trainLasts.Seconds()/8)/frame+2, trainLeast)
	r.count = max(min(r.count, room/frame), 2)
	return r, nil
}

func (m *rateMeter) Baseline(ctx context.Context) (Reading, error) {
	var err error
	if m.probes, err = openProbes(m.b, m.links); err != nil {
		return Reading{}, err
	}
	bits := float64(m.count * (m.size + headers) * 8)
	perSecond := min(max(m.limit*trainShare/bits, 1), 20)
	began := time.Now()
	m.train() // so that there is a baseline even if trains are rare
	m.probes.start(max(perSecond, 5), func(n int) {
		if perSecond >= 5 || n%int(5/perSecond) == 0 {
			m.train()
		}
	})
	if !sleep(ctx, netBase) {
		return Reading{}, ctx.Err()
	}
	var w spans
	w.add(began, time.Now())
	got := m.rates(w)
	if m.before = middle(got); m.before == 0 {
		return Reading{}, errors.New("no train of probes arrived whole")
	}
	return Reading{map[string]any{"bits_per_s": m.before, "n": len(got)}}, nil
}

// train sends one on every link.
func (m *rateMeter) train() {
	m.one.Lock()
	defer m.one.Unlock()
	for i := range m.links {
		m.probes.mu.Lock()
		first := m.probes.first[i] + uint32(len(m.probes.sent[i]))
		m.probes.mu.Unlock()
		m.mu.Lock()
		if len(m.starts[i]) == maxProbes {
			m.starts[i] = append(m.starts[i][:0], m.starts[i][maxProbes/2:]...)
		}
		m.starts[i] = append(m.starts[i], train{time.Now(), first})
		m.mu.Unlock()
		for range m.count {
			m.probes.send(i, m.size)
		}
	}
}

// rates are what the trains say that were sent and arrived whole within w.
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
		if slices.ContainsFunc(run, func(p datagram) bool { return p.arrived == 0 }) {
			continue
		}
		first, last := run[0], run[len(run)-1]
		if !w.hold(t.sent, last.sent.Add(last.arrived-last.wall)) || last.arrived <= first.arrived {
			continue
		}
		bits := float64((m.count - 1) * (m.size + headers) * 8)
		out = append(out, bits/(last.arrived-first.arrived).Seconds())
	}
	return out
}

func middle(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	xs = slices.Sorted(slices.Values(xs))
	return xs[(len(xs)-1)/2]
}

func (m *rateMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	m.watch(ctx)
	all := m.rates(m.looks)
	m.probes.mu.Lock()
	bytes := m.probes.bytes
	m.probes.mu.Unlock()
	values := Reading{map[string]any{"bits_per_s": middle(all), "n": len(all), "probe_bytes": bytes}}
	why := fmt.Sprintf("%s asked, %s measured by the dispersion of %d trains of %d packets (%d bytes sent in all)",
		rate(m.limit), rate(middle(all)), len(all), m.count, bytes)
	var bad []string
	if m.before < m.limit*(1+2*rateShare) {
		bad = append(bad, fmt.Sprintf("trains leave this host at %s at best, too slow to tell", rate(m.before)))
	}
	for i, l := range m.links {
		got := m.ratesOf(i, m.looks)
		switch r := middle(got); {
		case len(got) == 0:
			bad = append(bad, fmt.Sprintf("%s: no train arrived whole in %s", l, short(m.looks.length())))
		case r > m.limit*(1+rateShare) || r < m.limit*(1-rateShare):
			bad = append(bad, fmt.Sprintf("%s: %s (p50, n=%d), tolerance %.0f %%", l, rate(r), len(got), 100*rateShare))
		}
	}
	if bad != nil {
		return values, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

func (m *rateMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	var w spans
	from := time.Now()
	for range 3 {
		m.train()
		sleep(ctx, 30*time.Millisecond)
	}
	w.add(from, time.Now())
	all := m.rates(w)
	values := Reading{map[string]any{"bits_per_s": middle(all), "n": len(all)}}
	for i, l := range m.links {
		need := min(2*m.limit, m.before/2)
		if got := middle(m.ratesOf(i, w)); got < need || got == 0 {
			return values, Answer{false, fmt.Sprintf("%s: %s, less than %s (n=%d)", l, rate(got), rate(need), len(all))}, nil
		}
	}
	return values, Answer{true, fmt.Sprintf("%s by trains, limit was %s (n=%d)", rate(middle(all)), rate(m.limit), len(all))}, nil
}
