package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/tcpdiag"
)

// A halfOpenFault has the switch drop the connections that are established when
// it begins. Each flow is a place of its own, so that two such faults compose.
type halfOpenFault struct{ b *bench }

func newHalfOpen(b *bench) Provider { return &halfOpenFault{b} }

func (f *halfOpenFault) Probe(ctx context.Context) error { return cluster.ProbeSwitch(ctx) }

// A portFlow is a flow at the port where it comes in.
type portFlow struct {
	port int
	cluster.Flow
}

func (f *halfOpenFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	if len(site.Links) == 0 {
		return nil, errors.New("no links whose connections could be cut")
	}
	flows, err := f.b.flowsOf(site.Links, d)
	if err != nil {
		return nil, err
	}
	return f.b.flows.inject(ctx, flows, d, func(Dose) (bool, error) { return true, nil })
}

// flowsOf lists what a half-open fault drops: the connections on the links,
// whoever opened them, and the beginnings of new ones if asked for.
func (b *bench) flowsOf(links []Link, d Dose) (flows []portFlow, err error) {
	oneWay := d.Bool("one_way")
	for _, l := range links {
		src, ns, err := b.endpoint(l.From)
		if err != nil {
			return nil, err
		}
		dst, _, err := b.endpoint(l.To)
		if err != nil {
			return nil, err
		}
		add := func(from, to netip.AddrPort) {
			flows = append(flows, portFlow{src, cluster.Flow{Src: from, Dst: to}})
			if !oneWay {
				flows = append(flows, portFlow{dst, cluster.Flow{Src: to, Dst: from}})
			}
		}
		peers := []netip.Addr{cluster.IP4(dst), cluster.IP6(dst)}
		conns, err := connsIn(ns)
		if err != nil {
			return nil, fmt.Errorf("list connections of %s: %w", l.From, err)
		}
		for _, c := range conns {
			if slices.Contains(peers, c.Remote.Addr().Unmap()) {
				add(netip.AddrPortFrom(c.Local.Addr().Unmap(), c.Local.Port()), netip.AddrPortFrom(c.Remote.Addr().Unmap(), c.Remote.Port()))
			}
		}
		if d.String("new") == "drop" {
			for i, mine := range []netip.Addr{cluster.IP4(src), cluster.IP6(src)} {
				add(netip.AddrPortFrom(mine, 0), netip.AddrPortFrom(peers[i], 0))
			}
		}
	}
	slices.SortFunc(flows, func(a, b portFlow) int { return cmp.Or(a.Src.Compare(b.Src), a.Dst.Compare(b.Dst)) })
	return slices.Compact(flows), nil
}

// setFlow has the switch drop a flow while anybody asks for it.
func (b *bench) setFlow(ctx context.Context, f portFlow, asked []bool) error {
	if len(asked) == 0 {
		return b.Cluster.Switch().HealFlow(f.Flow)
	}
	return b.Cluster.Switch().CutFlow(ctx, f.port, f.Flow)
}

// A halfOpenMeter has connections that were open before, looks whether they are
// silent without an end, and tries to make new ones.
type halfOpenMeter struct {
	linkMeter
	dose  Dose
	old   *flock
	fresh []*fresh
	stop  context.CancelFunc
	tries sync.WaitGroup
	mu    sync.Mutex
	dials []dial
}

// A dial is one attempt to connect anew.
type dial struct {
	from, to time.Time
	link     Link
	ok       bool
}

// A fresh connection is one that nothing was sent on while it was cut, so that no
// retransmission timer has backed off when it is to tell that it is healed.
type fresh struct {
	c         *canary
	near, far *net.TCPConn
}

func meterHalfOpen(b *bench, site Site, d Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	return &halfOpenMeter{linkMeter: m, dose: d}, err
}

const (
	dialPace   = 150 * time.Millisecond // between attempts on each link
	halfLate   = 2                      // bytes that were there before, and are read only now
	halfPasses = 0.8                    // of probes and attempts, where they are to pass
)

func (m *halfOpenMeter) Baseline(ctx context.Context) (r Reading, err error) {
	r, err = m.begin(ctx, pace(len(m.links)+len(m.others), probePaceLo, probePace/2, probeSum), 1, probeSize)
	if err != nil {
		return r, err
	}
	if m.old, err = release(ctx, m.b, m.links); err != nil { // after the real ones were counted
		return r, err
	}
	for _, l := range m.links {
		c, err := newCanary(ctx, m.b, l)
		if err != nil {
			return r, err
		}
		f := &fresh{c: c}
		m.fresh = append(m.fresh, f)
		near, far, err := c.connect(ctx)
		if err != nil {
			return r, fmt.Errorf("%s: %w", l, err)
		}
		f.near, f.far = near, far
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = cancel
	for _, l := range m.links {
		c, err := newCanary(ctx, m.b, l)
		if err != nil {
			return r, err
		}
		m.tries.Go(func() { defer c.close(); m.dialOn(own, c) })
	}
	return r, nil
}

// dialOn tries to connect anew, again and again.
func (m *halfOpenMeter) dialOn(ctx context.Context, c *canary) {
	for sleep(ctx, dialPace) {
		d := dial{from: time.Now(), link: c.link}
		near, far, err := c.connect(ctx)
		if d.ok = err == nil; d.ok {
			near.SetLinger(0) // leaves nothing behind
			near.Close()
			far.Close()
		}
		d.to = time.Now()
		m.mu.Lock()
		m.dials = append(m.dials, d)
		m.mu.Unlock()
	}
}

func (m *halfOpenMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	m.watch(ctx)
	var bad []string
	silent := 0
	for _, c := range m.old.birds {
		c.mu.Lock()
		there, back := m.looks.count(c.there), m.looks.count(c.back)
		switch {
		case there > halfLate:
			bad = append(bad, fmt.Sprintf("%s: %d bytes came through on its old connection", c.link, there))
		case back > halfLate && !d.Bool("one_way"):
			bad = append(bad, fmt.Sprintf("%s: %d bytes came back on its old connection", c.link, back))
		case len(c.ends) > 0:
			bad = append(bad, fmt.Sprintf("%s: an end of its old connection was told: %v here, %v there", c.link, c.ends[0].near, c.ends[0].far))
		default:
			silent++
		}
		c.mu.Unlock()
	}
	tried, made := 0, 0
	m.mu.Lock()
	for _, at := range m.dials {
		if m.looks.hold(at.from, at.to) {
			tried++
			if at.ok {
				made++
			}
		}
	}
	m.mu.Unlock()
	drop := d.String("new") == "drop"
	switch {
	case tried == 0:
		bad = append(bad, fmt.Sprintf("no attempt to connect in %s", short(m.looks.length())))
	case drop && made > 0:
		bad = append(bad, fmt.Sprintf("%d of %d attempts to connect succeeded", made, tried))
	case !drop && float64(made) < halfPasses*float64(tried):
		bad = append(bad, fmt.Sprintf("only %d of %d attempts to connect succeeded", made, tried))
	}
	var udp share
	for i, l := range m.probes.links {
		if m.b.asked(l) {
			continue
		}
		s := shareOf(m.probes.look(i, m.looks, arriveBy), func(p *datagram) bool { return !p.lost() })
		udp.k, udp.n = udp.k+s.k, udp.n+s.n
	}
	if udp.n > 0 && udp.of() < halfPasses {
		bad = append(bad, fmt.Sprintf("only %d of %d UDP probes passed: that is no half-open connection", udp.k, udp.n))
	}
	left := 0
	for _, c := range m.tcp.conns() {
		if _, was := m.tcp.base[c.Cookie]; was {
			left++
		}
	}
	values := map[string]any{
		"silent": silent, "n": len(m.old.birds), "connects": made, "connects_n": tried, "udp_passed": udp.k, "udp_n": udp.n,
		"tcp_conns": len(m.tcp.base), "tcp_open": left,
	}
	why := fmt.Sprintf("%d of %d connections of the meter's own are silent and open; %d of %d new ones were made, %d of %d UDP probes passed; of %d real ones that were established, %d are not closed yet",
		silent, len(m.old.birds), made, tried, udp.k, udp.n, len(m.tcp.base), left)
	return verdict(values, why, bad)
}

func (m *halfOpenMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	buf := make([]byte, 1)
	for _, f := range m.fresh {
		within := time.Now().Add(time.Second)
		f.near.SetDeadline(within)
		f.far.SetDeadline(within)
		_, err := f.near.Write([]byte{1})
		if err == nil {
			_, err = f.far.Read(buf)
		}
		if err == nil {
			_, err = f.far.Write(buf)
		}
		if err == nil {
			_, err = f.near.Read(buf)
		}
		if err != nil {
			return Reading{map[string]any{"n": len(m.fresh)}}, Answer{false, fmt.Sprintf("%s: a connection that was cut carries nothing: %v", f.c.link, err)}, nil
		}
	}
	return Reading{map[string]any{"n": len(m.fresh)}}, Answer{true, fmt.Sprintf("all %d connections that were cut and untouched since carry data again", len(m.fresh))}, ctx.Err()
}

func (m *halfOpenMeter) Close() error {
	if m.stop != nil {
		m.stop()
	}
	m.tries.Wait()
	m.old.close()
	for _, f := range m.fresh {
		if f.near != nil {
			f.near.Close()
			f.far.Close()
		}
		f.c.close()
	}
	return m.linkMeter.Close()
}

// connsIn lists the established connections of a namespace.
func connsIn(ns *os.File) ([]tcpdiag.Conn, error) {
	s, err := tcpdiag.Open(ns)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Conns()
}
