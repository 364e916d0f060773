package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"brownout/internal/sys/netns"
	"brownout/kvserver/kvload"
)

// A lockProbe is a client of one node who writes, and reads that node's own
// state, one request at a time, from the clients' place on the network. A write
// takes until the leader has answered or, if that is another node, until it can be
// read at this one: what keeps this node from applying, or from reading, is felt.
type lockProbe struct {
	ns     *os.File
	node   string   // its clients' address
	all    []string // all nodes'
	key    string
	pause  time.Duration // between requests
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu            sync.Mutex
	reads, writes series
	err           error // the last
}

// A series are requests of one kind, one after the other.
type series struct {
	done []asked
	now  time.Time // since when one is under way; zero: none is
}

// asked is one request.
type asked struct {
	at   time.Time
	took time.Duration
}

// lockProbes numbers the probes: two must not write to one key.
var lockProbes atomic.Int64

// maxAsked bounds the memory of a probe; later requests push out earlier ones.
const maxAsked = 1 << 15

func startLockProbe(ns *os.File, ip netip.Addr, all []netip.Addr, pause time.Duration) *lockProbe {
	ctx, cancel := context.WithCancel(context.Background())
	p := &lockProbe{ns: ns, node: clientAddr(ip), key: fmt.Sprintf("brownout:probe:%d", lockProbes.Add(1)), pause: pause, cancel: cancel}
	for _, a := range all {
		p.all = append(p.all, clientAddr(a))
	}
	p.again(ctx, &p.reads, p.keepReading)
	p.again(ctx, &p.writes, p.keepWriting)
	return p
}

func clientAddr(ip netip.Addr) string { return netip.AddrPortFrom(ip, clientPort).String() }

// again does what ends with an error, again and again until ctx ends.
func (p *lockProbe) again(ctx context.Context, s *series, do func(context.Context) error) {
	p.wg.Go(func() {
		for ctx.Err() == nil {
			err := do(ctx)
			p.mu.Lock()
			p.err, s.now = err, time.Time{}
			p.mu.Unlock()
			sleep(ctx, max(p.pause, 5*time.Millisecond))
		}
	})
}

func (p *lockProbe) close() {
	p.cancel()
	p.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), dialWithin)
	defer cancel()
	if c, err := p.leader(ctx); err == nil { // it would be in nobody's way
		c.Close()
	}
}

func (p *lockProbe) keepReading(ctx context.Context) error {
	c, err := p.dial(ctx, p.node)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.do("READONLY"); err != nil {
		return err
	}
	for {
		p.begin(&p.reads)
		if _, err := c.do("GET", p.key); err != nil {
			return err
		}
		p.end(&p.reads)
		if !sleep(ctx, p.pause) {
			return ctx.Err()
		}
	}
}

func (p *lockProbe) keepWriting(ctx context.Context) error {
	lead, err := p.leader(ctx)
	if err != nil {
		return err
	}
	defer lead.Close()
	here, err := p.dial(ctx, p.node)
	if err != nil {
		return err
	}
	defer here.Close()
	if _, err := here.do("READONLY"); err != nil {
		return err
	}
	for n := time.Now().UnixNano(); ; n += 2 {
		p.begin(&p.writes)
		if _, err := lead.do("SET", p.key, strconv.FormatInt(n, 10)); err != nil {
			return err
		}
		if lead.addr != p.node {
			// A follower hears with the next entry that the last one is committed.
			if _, err := lead.do("SET", p.key, strconv.FormatInt(n+1, 10)); err != nil {
				return err
			}
			for got := int64(0); got < n; {
				text, err := here.do("GET", p.key)
				if err != nil {
					return err
				}
				got, _ = strconv.ParseInt(text, 10, 64) // nothing is there at first
			}
		}
		p.end(&p.writes)
		if !sleep(ctx, p.pause) {
			return ctx.Err()
		}
	}
}

// leader returns a connection to the node that takes writes, where the key has
// been deleted.
func (p *lockProbe) leader(ctx context.Context) (*line, error) {
	err := errors.New("no nodes")
	for _, addr := range p.all {
		for range 2 { // there, and where it points to
			var c *line
			if c, err = p.dial(ctx, addr); err != nil {
				break
			}
			if _, err = c.do("DEL", p.key); err == nil {
				return c, nil
			}
			c.Close()
			f := strings.Fields(err.Error())
			if len(f) != 3 || f[0] != "MOVED" {
				break
			}
			addr = f[2]
		}
	}
	return nil, fmt.Errorf("find who takes writes: %w", err)
}

func (p *lockProbe) begin(s *series) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.now = time.Now()
}

func (p *lockProbe) end(s *series) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(s.done) == maxAsked {
		s.done = append(s.done[:0], s.done[maxAsked/2:]...)
	}
	s.done = append(s.done, asked{s.now, time.Since(s.now)})
	s.now = time.Time{}
}

// took returns how long the requests took that were begun in a time. If none has
// come to its end, it is the one under way, with the time it has taken so far, and
// the last error, if there is none.
func (p *lockProbe) took(s *series, from, to time.Time) (ds []time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range s.done {
		if !a.at.Before(from) && a.at.Before(to) {
			ds = append(ds, a.took)
		}
	}
	switch {
	case ds != nil:
		return ds, nil
	case !s.now.IsZero() && s.now.Before(to):
		return []time.Duration{to.Sub(s.now)}, nil
	}
	return nil, p.err
}

// A line is a connection that speaks the Redis protocol. It closes with its ctx.
type line struct {
	net.Conn
	addr string
	in   *bufio.Reader
	out  []byte
	stop func() bool
}

func (p *lockProbe) dial(ctx context.Context, addr string) (*line, error) {
	within, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	c, err := netns.Dial(within, p.ns, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &line{Conn: c, addr: addr, in: bufio.NewReader(c), stop: context.AfterFunc(ctx, func() { c.Close() })}, nil
}

func (l *line) Close() error {
	l.stop()
	return l.Conn.Close()
}

// do asks, and returns the text of the answer; an error is one.
func (l *line) do(words ...string) (string, error) {
	l.out = kvload.Append(l.out[:0], words...)
	if _, err := l.Write(l.out); err != nil {
		return "", err
	}
	head, err := l.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	head = strings.TrimSpace(head)
	switch {
	case head == "":
		return "", errors.New("an empty answer")
	case head[0] == '-':
		return "", errors.New(head[1:])
	case head[0] != '$' || head == "$-1":
		return head[1:], nil
	}
	n, err := strconv.Atoi(head[1:])
	if err != nil || n < 0 || n > 1<<10 {
		return "", fmt.Errorf("answer %.20q is not of a probe's", head)
	}
	text := make([]byte, n+2)
	if _, err := io.ReadFull(l.in, text); err != nil {
		return "", err
	}
	return string(text[:n]), nil
}
