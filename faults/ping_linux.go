package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"brownout/cluster"
	"brownout/internal/stats"
	"brownout/internal/sys/netns"
)

// clientPort is the port on which targets serve their clients.
const clientPort = 6379

const ping = "*1\r\n$4\r\nPING\r\n"

// A pinger asks a node's program for a sign of life, from the clients' place
// on the network, on the clients' port (PING of the Redis protocol), again as
// soon as the last was answered and a pause has passed. What it keeps are the
// gaps between answers: a program that stands still answers nobody.
type pinger struct {
	ns    *os.File
	addr  string
	every time.Duration
	least time.Duration // gaps shorter than this are only counted

	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	last    time.Time // answer
	usual   stats.Hist
	gaps    []gap
	refused int // connections
}

// A gap is a time without answers.
type gap struct {
	from, to time.Time
}

// maxGaps bounds the memory of a pinger; later gaps push out earlier ones.
const maxGaps = 1 << 14

// startPing begins to ping. Gaps of at least least are kept one by one.
func startPing(ns *os.File, ip netip.Addr, every, least time.Duration) *pinger {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pinger{
		ns: ns, addr: netip.AddrPortFrom(ip, clientPort).String(), every: every, least: least,
		cancel: cancel, done: make(chan struct{}),
	}
	go func() {
		defer close(p.done)
		p.run(ctx)
	}()
	return p
}

func (p *pinger) close() {
	p.cancel()
	<-p.done
}

func (p *pinger) run(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := p.dial(ctx)
		if err == nil {
			p.talk(ctx, c)
			c.Close()
		} else {
			p.mu.Lock()
			p.refused++
			p.mu.Unlock()
		}
		sleep(ctx, p.every)
	}
}

// dialWithin bounds one attempt: a packet that is lost on the way to a node
// that is just coming up is sent again by the kernel only after a second.
const dialWithin = 200 * time.Millisecond

func (p *pinger) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	return netns.Dial(ctx, p.ns, "tcp", p.addr)
}

// talk pings on one connection until it breaks.
func (p *pinger) talk(ctx context.Context, c net.Conn) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	in := bufio.NewReader(c)
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		if _, err := c.Write([]byte(ping)); err != nil {
			return
		}
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if line[0] == '+' || line[0] == '-' { // an error is an answer, too
			p.answered(time.Now())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *pinger) answered(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() {
		d := now.Sub(p.last)
		if d >= p.least {
			if len(p.gaps) == maxGaps {
				p.gaps = append(p.gaps[:0], p.gaps[maxGaps/2:]...)
			}
			p.gaps = append(p.gaps, gap{p.last, now})
		} else {
			p.usual.Record(int64(d))
		}
	}
	p.last = now
}

// state returns the gaps of at least p.least that ended after since, the
// usual gap, and the time of the last answer.
func (p *pinger) state(since time.Time) (gaps []gap, usual time.Duration, last time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.gaps {
		if g.to.After(since) {
			gaps = append(gaps, g)
		}
	}
	return gaps, time.Duration(p.usual.Quantile(0.5)), p.last
}

// settled waits a little for the answer that a pause which has just ended owes.
func (p *pinger) settled(ctx context.Context, end time.Time) {
	for range 25 {
		if _, _, last := p.state(end); !last.Before(end) || !sleep(ctx, time.Millisecond) {
			return
		}
	}
}

// Pingers are one for each node of a site.
type pingers struct {
	nodes []*cluster.Node
	ps    []*pinger
}

// pingBase is how long the usual gap is looked at.
const pingBase = 350 * time.Millisecond

// start pings all nodes, and returns when it knows what is usual.
func (g *pingers) start(ctx context.Context, b *bench, names []string, every, least time.Duration) error {
	var err error
	if g.nodes, err = b.nodes(names); err != nil {
		return err
	}
	for _, n := range g.nodes {
		g.ps = append(g.ps, startPing(b.Cluster.ClientNetNS(), n.IP4(), every, least))
	}
	if !sleep(ctx, pingBase) {
		return ctx.Err()
	}
	var errs []error
	for i, p := range g.ps {
		if _, _, last := p.state(time.Time{}); last.IsZero() {
			errs = append(errs, fmt.Errorf("%s does not answer PING on port %d", g.nodes[i].Name(), clientPort))
		}
	}
	return errors.Join(errs...)
}

func (g *pingers) close() {
	for _, p := range g.ps {
		p.close()
	}
	g.ps = nil
}
