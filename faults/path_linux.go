package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A Place is an end of links: a node or the client.
type Place struct {
	Index int      // port on the switch
	NetNS *os.File // where it is
}

// Places are those of one cluster, by name.
type Places map[string]Place

func (p Places) endpoint(name string) (int, *os.File, error) {
	at, ok := p[name]
	if !ok {
		return 0, nil, fmt.Errorf("no place %q on the switch", name)
	}
	return at.Index, at.NetNS, nil
}

// A Path is what probes say of one directed link.
type Path struct {
	From       string  `json:"from"`
	To         string  `json:"to"`
	Sent       int     `json:"sent"`
	Lost       int     `json:"lost"`
	Duplicated int     `json:"duplicated"`
	Overtaken  int     `json:"overtaken"` // arrived after one that was sent later
	Damaged    int     `json:"damaged"`   // arrived, and no checksum caught it
	Min        int64   `json:"min_ns"`
	P50        int64   `json:"p50_ns"`
	P90        int64   `json:"p90_ns"`
	P99        int64   `json:"p99_ns"`
	Max        int64   `json:"max_ns"`
	Deviation  int64   `json:"sd_ns"`
	Goodput    float64 `json:"goodput_bits_per_s,omitempty"` // of one TCP connection
	Measured   int64   `json:"goodput_over_ns,omitempty"`
	Retrans    int     `json:"goodput_retrans,omitempty"` // segments sent again for it
	RTT        int64   `json:"goodput_rtt_ns,omitempty"`  // round trip that it saw, with its own queue
}

// PathOptions say how long to look. A time of 0 means not at all.
type PathOptions struct {
	Ping    time.Duration // one-way probes in both directions at once
	Pace    int           // probes a second; default 200
	Goodput time.Duration // one TCP connection as fast as it goes, one direction after the other
}

// ProbePath measures the links between two places, there and back.
func ProbePath(ctx context.Context, at Places, a, b string, opt PathOptions) ([]Path, error) {
	if a == b {
		return nil, fmt.Errorf("probe %s to itself: no link between them", a)
	}
	links := []Link{{a, b}, {b, a}}
	var out []Path
	for _, l := range links {
		out = append(out, Path{From: l.From, To: l.To})
	}
	if opt.Ping > 0 {
		p, err := openProbes(at, links)
		if err != nil {
			return nil, err
		}
		defer p.close()
		perSecond := 2 * cmp.Or(opt.Pace, probePace)
		p.start(float64(perSecond), func(n int) {
			if n < int(opt.Ping.Seconds()*float64(perSecond)) {
				p.send(n%2, probeSize, 1)
			}
		})
		if !sleep(ctx, opt.Ping) {
			return nil, ctx.Err()
		}
		p.settle(ctx)
		for i := range out {
			p.mu.Lock()
			out[i].fill(p.sent[i])
			p.mu.Unlock()
		}
	}
	for i, l := range links {
		if opt.Goodput <= 0 {
			break
		}
		if err := out[i].stream(ctx, at, l, opt.Goodput); err != nil {
			return out, fmt.Errorf("measure goodput %s: %w", l, err)
		}
	}
	return out, nil
}

// settle waits for probes that are on their way, as long as some still come in.
func (p *prober) settle(ctx context.Context) {
	const patience = 300 * time.Millisecond
	last, at := -1, time.Now()
	for time.Since(at) < patience && sleep(ctx, probeRead) {
		p.read()
		p.mu.Lock()
		came, all := 0, 0
		for _, ps := range p.sent {
			came, all = came+len(delays(ps)), all+len(ps)
		}
		p.mu.Unlock()
		if came == all {
			return
		}
		if came != last {
			last, at = came, time.Now()
		}
	}
}

func (x *Path) fill(ps []datagram) {
	var latest time.Duration
	for _, p := range ps {
		x.Sent++
		switch {
		case p.lost():
			x.Lost++
			continue
		case p.arrived < latest:
			x.Overtaken++
		}
		latest = max(latest, p.arrived)
		if p.copies > 1 {
			x.Duplicated++
		}
		if p.damaged {
			x.Damaged++
		}
	}
	ds := delays(ps)
	at := func(q float64) int64 { return int64(quantile(ds, q)) }
	x.Min, x.P50, x.P90, x.P99, x.Max = at(0), at(0.5), at(0.9), at(0.99), at(1)
	x.Deviation = int64(deviation(ds))
}

// stream sends on one TCP connection, and counts what the other end reads after
// the first quarter of the time, which belongs to slow start.
func (x *Path) stream(ctx context.Context, at endpoints, l Link, length time.Duration) error {
	c, err := newCanary(ctx, at, l)
	if err != nil {
		return err
	}
	defer c.close()
	near, far, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer near.Close()
	defer far.Close()
	end := time.Now().Add(length)
	if err := errors.Join(near.SetDeadline(end), far.SetDeadline(end)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()
	w := watchTCP(at, []Link{l})
	defer w.close()
	go sendTCP(near)
	begin := end.Add(-length * 3 / 4)
	var bytes int64
	var first, last time.Time
	for buf := make([]byte, 256<<10); ; {
		n, err := far.Read(buf)
		now := time.Now()
		if n > 0 && !first.IsZero() {
			bytes, last = bytes+int64(n), now
		}
		if n > 0 && first.IsZero() && now.After(begin) {
			first = now
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	for _, conn := range w.conns() {
		if conn.Local.String() == near.LocalAddr().String() {
			x.Retrans, x.RTT = int(conn.Retrans), int64(conn.RTT)
		}
	}
	if took := last.Sub(first); took > 0 {
		x.Goodput, x.Measured = 8*float64(bytes)/took.Seconds(), int64(took)
	}
	return nil
}
