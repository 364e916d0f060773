package faults

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// A stander is a meter that can tell at any moment whether its fault is still in
// force, by what the kernel says of the place. Meters that look for the dose
// once, since their probe disturbs the node, have it: what is undone after that
// must not pass.
type stander interface {
	// Undone says why the fault is no longer in force with the dose d, "" if it
	// is or if that is not known. It is called by one goroutine, beside Measure.
	Undone(ctx context.Context, d Dose) string
}

const (
	standEvery = 50 * time.Millisecond
	standTwice = 2 // looks in a row: a mechanism may be changed in steps
)

// stand watches a fault from its injection until ctx ends. The function that it
// returns waits for the last look and says when and why the fault was undone,
// "" if it was not.
func (n *Nemesis) stand(ctx context.Context, l *life, a *aim, c *course) func() string {
	m, ok := a.meter.(stander)
	if !ok {
		return func() string { return "" }
	}
	began := n.clock.Now()
	var said atomic.Pointer[string]
	done := make(chan struct{})
	go func() {
		defer close(done)
		for gone := 0; sleep(ctx, standEvery); {
			dose := l.Params
			if c != nil {
				if dose, ok = c.atPeak(); !ok {
					gone = 0
					continue
				}
			}
			now := n.clock.Now()
			why := m.Undone(ctx, dose)
			if ctx.Err() != nil { // it may be healed by now
				return
			}
			if why == "" {
				gone = 0
				continue
			}
			if gone++; gone == standTwice {
				text := fmt.Sprintf("undone %s after it began, by somebody else: %s", short(now-began), why)
				said.Store(&text)
				return
			}
		}
	}()
	return func() string {
		<-done
		if s := said.Load(); s != nil {
			return *s
		}
		return ""
	}
}

// atPeak returns the dose while the severity is at its peak.
func (c *course) atPeak() (Dose, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	peak := c.l.Profile.Peak()
	return c.kind.At(c.l.Params, peak), c.severity == peak
}
