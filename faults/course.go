package faults

import (
	"context"
	"fmt"
	"sync"
	"time"

	"brownout/internal/plan"
	"brownout/internal/run"
)

// A course is an injection whose severity follows a profile from the fault's
// start. It is healthy at severity 0: the mechanism is taken away then, and
// applied anew after.
type course struct {
	n    *Nemesis
	l    *life
	site Site
	kind plan.Kind
	stop context.CancelFunc
	done chan struct{} // closed when it follows no longer

	mu       sync.Mutex
	inj      Injection // nil while healthy
	severity float64
	change   chan struct{} // closed and replaced when the severity changes
	err      error         // why it stopped before its end
}

// inject applies a fault's dose, or starts its course.
func (n *Nemesis) inject(ctx context.Context, l *life, site Site) (Injection, error) {
	if l.Profile == nil {
		return l.by.Inject(ctx, site, l.Params)
	}
	kind, ok := plan.KindNamed(l.Kind)
	if !ok {
		return nil, fmt.Errorf("no kind %s", l.Kind)
	}
	c := &course{n: n, l: l, site: site, kind: kind, done: make(chan struct{}), change: make(chan struct{})}
	severity, until := l.Profile.At(max(n.clock.Now()-l.Start, 0))
	if err := c.be(ctx, severity); err != nil {
		return nil, err
	}
	ctx, c.stop = context.WithCancel(ctx)
	go c.follow(ctx, until)
	return c, nil
}

// follow changes the severity when the profile says so.
func (c *course) follow(ctx context.Context, until time.Duration) {
	defer close(c.done)
	// What would change at the fault's very end is left to the heal.
	for until > 0 && (c.l.endless || c.l.Start+until < c.l.End) && c.n.sleepUntil(ctx, c.l.Start+until) {
		var severity float64
		severity, until = c.l.Profile.At(max(c.n.clock.Now()-c.l.Start, until))
		if err := c.be(ctx, severity); err != nil && ctx.Err() == nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			c.n.emit(run.Event{T: c.n.now(), Type: run.FaultFailed, Fault: c.l.ID, Kind: c.l.Kind, Text: fmt.Sprintf("its profile stopped: %v", err)})
			return
		}
	}
}

// be puts a severity in force.
func (c *course) be(ctx context.Context, severity float64) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case severity == c.severity:
		return nil
	case severity == 0:
		err = c.inj.Heal(context.WithoutCancel(ctx))
		if err == nil {
			c.inj = nil
		}
	case c.inj == nil:
		c.inj, err = c.l.by.Inject(ctx, c.site, c.kind.At(c.l.Params, severity))
		if err != nil {
			c.inj = nil
		}
	default:
		err = c.inj.Set(ctx, c.kind.At(c.l.Params, severity))
	}
	if err != nil {
		return fmt.Errorf("severity %.0f%%: %w", severity*100, err)
	}
	c.severity = severity
	close(c.change)
	c.change = make(chan struct{})
	c.n.changed(c.l, severity)
	return nil
}

// changed tells of a new severity, and all that wait for the faults in force.
func (n *Nemesis) changed(l *life, severity float64) {
	n.mu.Lock()
	l.severity = severity
	close(n.change)
	n.change = make(chan struct{})
	n.mu.Unlock()
	select {
	case <-l.fired:
	default: // it is about to be told
		return
	}
	n.emit(run.Event{T: n.now(), Type: run.FaultChanged, Fault: l.ID, Kind: l.Kind, Data: map[string]any{"severity": severity}})
}

// Set is not for a course: its profile alone decides.
func (c *course) Set(context.Context, Dose) error {
	return fmt.Errorf("a fault with a profile cannot be set")
}

func (c *course) Heal(ctx context.Context) error {
	c.stop()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inj == nil {
		return nil
	}
	return c.inj.Heal(ctx)
}

// window waits until the severity is its peak, or 0 if turns are wanted, and
// returns a context that ends when it no longer is.
func (c *course) window(ctx context.Context) (_ context.Context, healthy bool, _ context.CancelFunc) {
	for {
		c.mu.Lock()
		severity, change := c.severity, c.change
		c.mu.Unlock()
		if severity == c.l.Profile.Peak() || severity == 0 {
			ctx, cancel := context.WithCancel(ctx)
			go func() {
				select {
				case <-change:
					cancel()
				case <-ctx.Done():
				}
			}()
			return ctx, severity == 0, cancel
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx, false, func() {}
		}
	}
}

// turns counts what was seen while a flapping fault was to be away.
type turns struct {
	away, still int
	why         string
}

// look asks the meter whether the fault is away, in a window in which it is to be.
func (t *turns) look(ctx context.Context, m Meter) {
	if !sleep(ctx, settle) {
		return
	}
	_, answer, err := m.Healed(ctx)
	switch {
	case err != nil || ctx.Err() != nil: // the window was too short to know
	case answer.Yes:
		t.away++
	default:
		t.still++
		t.why = answer.Why
	}
	<-ctx.Done()
}

// judge corrects a look by what was seen between a flapping fault's turns.
func (t *turns) judge(seen *look) {
	switch {
	case t.still > t.away && seen.bit == run.BitYes:
		seen.bit = run.BitNo
		seen.why += fmt.Sprintf("; but between its turns it was still there, %d of %d times: %s", t.still, t.still+t.away, t.why)
	case t.still+t.away > 0:
		seen.why += fmt.Sprintf("; away between its turns %d of %d times", t.away, t.away+t.still)
	}
}
