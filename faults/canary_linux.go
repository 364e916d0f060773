package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"brownout/internal/sys/netns"
)

// A canary is a TCP connection of a meter's own on a link, from inside the very
// namespaces: what becomes of it becomes of the real ones. It carries a byte
// now and then, which the far end sends back.
type canary struct {
	link   Link
	ns     *os.File // of the near end
	listen net.Listener

	mu    sync.Mutex
	up    bool
	there []time.Time // when bytes came in at the far end
	back  []time.Time // and back at the near one
	ends  []ending
}

// An ending is how a canary's connection ended.
type ending struct {
	at        time.Time
	near, far error // what the two programs were told
}

// reset reports whether the far end got RST, and not a polite end; where both
// ends are reset, its own kernel may have ended it before.
func (e ending) reset(both bool) bool {
	return errors.Is(e.far, syscall.ECONNRESET) || both && errors.Is(e.far, syscall.ECONNABORTED)
}

const (
	canaryPace   = 20 * time.Millisecond
	canaryDial   = 300 * time.Millisecond // bounds an attempt to connect
	canaryRedial = 5 * time.Millisecond
	canaryMost   = 1 << 14 // times kept
)

// newCanary listens at the far end of a link.
func newCanary(ctx context.Context, at endpoints, l Link) (*canary, error) {
	_, near, err := at.endpoint(l.From)
	if err != nil {
		return nil, err
	}
	_, far, err := at.endpoint(l.To)
	if err != nil {
		return nil, err
	}
	ip, _ := addrOf(at, l.To)
	ln, err := netns.Listen(ctx, far, "tcp4", netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", l.To, err)
	}
	return &canary{link: l, ns: near, listen: ln}, nil
}

func (c *canary) close() { c.listen.Close() }

// connect opens a connection and returns both ends of it.
func (c *canary) connect(ctx context.Context) (near, far *net.TCPConn, err error) {
	ctx, cancel := context.WithTimeout(ctx, canaryDial)
	defer cancel()
	conn, err := netns.Dial(ctx, c.ns, "tcp4", c.listen.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	near = conn.(*net.TCPConn)
	if err := c.listen.(*net.TCPListener).SetDeadline(time.Now().Add(canaryDial)); err != nil {
		near.Close()
		return nil, nil, err
	}
	for { // past those who were given up while they were on their way
		conn, err := c.listen.Accept()
		if err != nil {
			near.Close()
			return nil, nil, err
		}
		if conn.RemoteAddr().String() == near.LocalAddr().String() {
			return near, conn.(*net.TCPConn), nil
		}
		conn.Close()
	}
}

// keep has a connection until ctx ends, and another whenever it breaks. ready is
// called when there is the first.
func (c *canary) keep(ctx context.Context, ready func()) {
	for ctx.Err() == nil {
		near, far, err := c.connect(ctx)
		if err != nil {
			sleep(ctx, canaryRedial)
			continue
		}
		c.mu.Lock()
		c.up = true
		c.mu.Unlock()
		ready()
		e := c.talk(ctx, near, far)
		near.Close()
		far.Close()
		c.mu.Lock()
		c.up = false
		if ctx.Err() == nil {
			c.ends = append(c.ends, e)
		}
		c.mu.Unlock()
	}
}

// talk sends bytes there and back until either end is told of an end.
func (c *canary) talk(ctx context.Context, near, far *net.TCPConn) (e ending) {
	defer context.AfterFunc(ctx, func() { near.SetDeadline(time.Unix(1, 0)); far.SetDeadline(time.Unix(1, 0)) })()
	var once sync.Once
	over := make(chan struct{})
	note := func() { once.Do(func() { e.at = time.Now(); close(over) }) }
	// The other end may hear of it a moment later, or never.
	const later = 500 * time.Millisecond
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 64)
		for {
			n, err := far.Read(buf)
			if err == nil {
				c.note(&c.there)
				_, err = far.Write(buf[:n]) // whichever comes next hears of a reset, and only one of them
			}
			if err != nil {
				e.far = err
				break
			}
		}
		note()
		near.SetReadDeadline(time.Now().Add(later))
	})
	wg.Go(func() {
		buf := make([]byte, 64)
		for {
			if _, err := near.Read(buf); err != nil {
				e.near = err
				break
			}
			c.note(&c.back)
		}
		note()
		far.SetReadDeadline(time.Now().Add(later))
	})
	tick := time.NewTicker(canaryPace)
	defer tick.Stop()
	for {
		_, _ = near.Write([]byte{1}) // Read will tell
		select {
		case <-tick.C:
			continue
		case <-over:
		case <-ctx.Done():
		}
		break
	}
	wg.Wait()
	return e
}

func (c *canary) note(times *[]time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(*times) == canaryMost {
		*times = append((*times)[:0], (*times)[canaryMost/2:]...)
	}
	*times = append(*times, time.Now())
}

// within counts the times in w.
func (w spans) count(times []time.Time) (n int) {
	for _, t := range times {
		if w.hold(t, t) {
			n++
		}
	}
	return n
}

// A flock is a canary on each link.
type flock struct {
	birds  []*canary
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// release opens a connection on every link and returns when all are there.
func release(ctx context.Context, at endpoints, links []Link) (_ *flock, err error) {
	f := &flock{}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	var ready sync.WaitGroup
	for _, l := range links {
		c, err := newCanary(ctx, at, l)
		if err != nil {
			return nil, err
		}
		f.birds = append(f.birds, c)
		ready.Add(1)
		f.wg.Go(func() { c.keep(own, sync.OnceFunc(ready.Done)) })
	}
	all := make(chan struct{})
	go func() { ready.Wait(); close(all) }()
	select {
	case <-all:
		return f, nil
	case <-ctx.Done():
	}
	for _, c := range f.birds {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.up {
			return nil, fmt.Errorf("%s: no connection: %w", c.link, ctx.Err())
		}
	}
	return nil, ctx.Err()
}

func (f *flock) close() {
	if f == nil {
		return
	}
	f.cancel()
	f.wg.Wait()
	for _, c := range f.birds {
		c.close()
	}
}
