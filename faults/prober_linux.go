package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"brownout/cluster"
	"brownout/internal/sys/stamp"
)

// Probes are UDP datagrams between sockets opened inside the very namespaces
// whose links are hurt. They carry their number; the time at which they arrived
// is the receiving kernel's (SO_TIMESTAMPNS), so that it does not matter how late
// this process is told. Both times are the host's clock.
const (
	probeMagic  = 0xb0b0_0001
	probeHead   = 12                    // bytes of payload that name the probe; the others are a pattern
	probeSize   = 64                    // bytes of payload
	maxProbes   = 1 << 16               // kept for each link, by default; older ones are forgotten
	probeSkip   = time.Millisecond      // before the end of a look: on their way when it ended
	probeRead   = 10 * time.Millisecond // between two looks at what arrived
	probeBuffer = 4 << 20               // of a receiver, for what arrives in between
	segmentFrom = 32 << 10              // bytes from which on a train is sent in few calls: a busy host would tear it
	// headers of a probe: Ethernet, IPv4, UDP.
	headers = 14 + 20 + 8
	mtu     = 1500
)

// A prober sends probes on links and keeps what became of them. One socket at
// each end serves all its links.
type prober struct {
	links []Link
	ends  map[string]*stamp.Socket

	mu    sync.Mutex
	sent  [][]datagram // by link
	keep  int          // of them, of each link
	first []uint32     // number of the first probe that is kept
	bytes int64        // sent in all, Ethernet headers included

	// owed is how many ticks that were missed, because this process was late, are
	// made up for at once.
	owed int

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// A datagram is one probe and its fate.
type datagram struct {
	sent    time.Time     // monotonic
	wall    time.Duration // CLOCK_REALTIME
	arrived time.Duration // CLOCK_REALTIME, of the first copy; 0 while none has
	copies  int
	damaged bool // arrived, and is not what was sent
}

func (p *datagram) lost() bool           { return p.arrived == 0 }
func (p *datagram) delay() time.Duration { return p.arrived - p.wall }

// endpoints are where the ends of links are.
type endpoints interface {
	// endpoint returns the port on the switch and the namespace of a node or of the client.
	endpoint(name string) (index int, ns *os.File, err error)
}

// openProbes opens sockets at all ends of links, at the same time.
func openProbes(at endpoints, links []Link) (_ *prober, err error) {
	p := &prober{
		links: links, ends: map[string]*stamp.Socket{},
		sent: make([][]datagram, len(links)), first: make([]uint32, len(links)), keep: maxProbes,
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for _, l := range links {
		p.ends[l.From], p.ends[l.To] = nil, nil
	}
	var g errgroup.Group
	var mu sync.Mutex
	for name := range p.ends {
		index, ns, err := at.endpoint(name)
		if err != nil {
			return nil, err
		}
		g.Go(func() error {
			s, err := stamp.Open(ns, cluster.IP4(index), probeBuffer)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			p.ends[name] = s
			return nil
		})
	}
	return p, g.Wait()
}

// start collects what arrives, and sends with tick, which is called so many
// times a second, one goroutine for all links.
func (p *prober) start(perSecond float64, tick func(n int)) {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.wg.Go(func() {
		for sleep(ctx, probeRead) {
			p.read()
		}
	})
	p.wg.Go(func() {
		every := time.Duration(float64(time.Second) / perSecond)
		t := time.NewTicker(every)
		defer t.Stop()
		due := time.Now().Add(every)
		for n := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			now := time.Now()
			for made := 0; made == 0 || made <= p.owed && !due.After(now); made++ {
				tick(n)
				n++
				due = due.Add(every)
			}
			if due.Before(now) {
				due = now // no more is made up for
			}
		}
	})
}

func (p *prober) close() {
	if p.cancel != nil {
		p.cancel()
	}
	p.wg.Wait()
	for _, s := range p.ends {
		if s != nil {
			s.Close()
		}
	}
}

func wallNow() time.Duration { return time.Duration(time.Now().UnixNano()) }

// send sends count probes with size bytes of payload on link i, back to back,
// and returns the number of the first. One that cannot be sent is one that does
// not arrive.
func (p *prober) send(i, size, count int) uint32 {
	l := p.links[i]
	p.mu.Lock()
	if len(p.sent[i])+count > p.keep {
		p.sent[i] = append(p.sent[i][:0], p.sent[i][p.keep/2:]...)
		p.first[i] += uint32(p.keep / 2)
	}
	number := p.first[i] + uint32(len(p.sent[i]))
	all := make([]byte, size*count)
	frames := make([][]byte, count)
	for k := range frames {
		b := all[k*size : (k+1)*size]
		binary.BigEndian.PutUint32(b[0:], probeMagic)
		binary.BigEndian.PutUint32(b[4:], uint32(i))
		binary.BigEndian.PutUint32(b[8:], number+uint32(k))
		for j := probeHead; j < size; j++ {
			b[j] = pattern(number+uint32(k), j)
		}
		frames[k] = b
	}
	p.bytes += int64(count * (size + headers))
	now := time.Now()
	for range count {
		p.sent[i] = append(p.sent[i], datagram{sent: now, wall: time.Duration(now.UnixNano())})
	}
	p.mu.Unlock()
	if count*size < segmentFrom || !p.ends[l.From].SendSegments(p.ends[l.To].Addr(), all, size) {
		p.ends[l.From].Send(p.ends[l.To].Addr(), frames)
	}
	return number
}

// pattern is byte j of probe number: what checksums let through damaged is seen.
func pattern(number uint32, j int) byte { return byte(number) ^ byte(j*31) }

// read takes all that has arrived.
func (p *prober) read() {
	for name, s := range p.ends {
		s.Receive(func(d []byte, at time.Duration) { p.take(name, d, at) })
	}
}

// take notes the arrival of a datagram at an end. What is not ours, or came to a
// wrong place, is nobody's.
func (p *prober) take(name string, d []byte, at time.Duration) {
	if len(d) < probeHead || binary.BigEndian.Uint32(d) != probeMagic {
		return
	}
	if at == 0 {
		at = wallNow()
	}
	i, number := int(binary.BigEndian.Uint32(d[4:])), binary.BigEndian.Uint32(d[8:])
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(p.links) || p.links[i].To != name || number < p.first[i] || number-p.first[i] >= uint32(len(p.sent[i])) {
		return
	}
	pr := &p.sent[i][number-p.first[i]]
	pr.copies++
	if pr.lost() || at < pr.arrived {
		pr.arrived = at
	}
	for j := probeHead; j < len(d); j++ {
		if d[j] != pattern(number, j) {
			pr.damaged = true
			return
		}
	}
}

// look returns the probes of a link that were sent within one of the spans, and
// had patience to arrive in it: of those that were sent later, the fast would be
// counted and the slow not.
func (p *prober) look(i int, w spans, patience time.Duration) (out []datagram) {
	p.read()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pr := range p.sent[i] {
		if w.hold(pr.sent, pr.sent.Add(patience)) {
			out = append(out, pr)
		}
	}
	return out
}

// delays are those of probes that arrived.
func delays(ps []datagram) (ds []time.Duration) {
	for _, p := range ps {
		if !p.lost() {
			ds = append(ds, p.delay())
		}
	}
	return ds
}

// beyond takes a delay away from each.
func beyond(ds []time.Duration, base time.Duration) []time.Duration {
	out := make([]time.Duration, len(ds))
	for i, d := range ds {
		out[i] = d - base
	}
	return out
}

// addrOf is where a node or the client is on the network.
func addrOf(at endpoints, name string) (ip4, ip6 netip.Addr) {
	index, _, err := at.endpoint(name)
	if err != nil {
		return netip.Addr{}, netip.Addr{} // nobody is there
	}
	return cluster.IP4(index), cluster.IP6(index)
}
