package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"brownout/internal/faultfs"
	"brownout/internal/sys/seccomp"
)

// A trap stops the target's own file operations, in init, by the rules that a
// slowfs has: for targets that are to use their disk itself. It cannot be taken
// away while the target runs; without rules each trapped call costs some
// microseconds.
type trap struct {
	classes []faultfs.Op
	calls   map[int]faultfs.Op
	epoch   time.Time
	engine  atomic.Pointer[faultfs.Engine]
	change  atomic.Pointer[chan struct{}] // closed when the rules change
}

// newTrap returns the trap for classes of operations; All is all that can be
// trapped.
func newTrap(classes []faultfs.Op) *trap {
	t := &trap{classes: classes, calls: map[int]faultfs.Op{}, epoch: time.Now()}
	add := func(op faultfs.Op, nrs []int) {
		if slices.Contains(classes, op) || slices.Contains(classes, faultfs.All) {
			for _, nr := range nrs {
				t.calls[nr] = op
			}
		}
	}
	add(faultfs.Fsync, seccomp.Syncs)
	add(faultfs.Write, seccomp.Writes)
	add(faultfs.Read, seccomp.Reads)
	add(faultfs.Open, keys(seccomp.Opens))
	add(faultfs.Rename, keys(seccomp.Renames))
	change := make(chan struct{})
	t.change.Store(&change)
	_ = t.set(faultfs.Rules{}) // they are valid
	return t
}

func keys[V any](m map[int]V) (ks []int) {
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

func (t *trap) set(r faultfs.Rules) error {
	if len(r.Limit)+len(r.Corrupt)+len(r.Full) > 0 {
		return fmt.Errorf("a trap gives delays, hangs and errors only")
	}
	e, err := faultfs.NewEngine(r, t.engine.Load())
	if err != nil {
		return err
	}
	t.engine.Store(e)
	next := make(chan struct{})
	close(*t.change.Swap(&next))
	return nil
}

// install has this thread, and what it starts, trapped, and serves it until
// all of them are gone.
func (t *trap) install() error {
	nrs := keys(t.calls)
	l, err := seccomp.Install(nrs)
	if err != nil {
		return err
	}
	go func() {
		defer l.Close()
		_ = l.Serve(func(c seccomp.Call) { t.decide(l, c) }) // it ends with the target
	}()
	return nil
}

func (t *trap) decide(l *seccomp.Listener, c seccomp.Call) {
	op := t.calls[c.NR]
	e := t.engine.Load()
	if !e.Touches(op) {
		l.Continue(c.ID)
		return
	}
	go func() {
		// What is not on the disk is nobody's business: sockets, pipes, logs.
		if where, err := c.Where(); err != nil || where != "/data" && !strings.HasPrefix(where, "/data/") {
			l.Continue(c.ID)
			return
		}
		d := e.Decide(op, 0, time.Since(t.epoch))
		begin := time.Now()
		switch {
		case d.Hang:
			t.wait(l, c.ID, begin.Add(100*365*24*time.Hour), func(e *faultfs.Engine) bool { return e.Hangs(op) })
		case d.Delay > 0:
			t.wait(l, c.ID, begin.Add(d.Delay), func(e *faultfs.Engine) bool { return e.Touches(op) })
		}
		if d.Errno != 0 {
			l.Fail(c.ID, d.Errno)
			return
		}
		l.Continue(c.ID)
	}()
}

// wait lets time pass until end, or the rules no longer say so, or the caller
// is gone.
func (t *trap) wait(l *seccomp.Listener, id uint64, end time.Time, still func(*faultfs.Engine) bool) {
	const look = 200 * time.Millisecond // for callers that were killed
	for left := time.Until(end); left > faultfs.Tail; left = time.Until(end) {
		change := *t.change.Load()
		if !still(t.engine.Load()) || !l.Waits(id) {
			return
		}
		timer := time.NewTimer(min(left-faultfs.Tail, look))
		select {
		case <-timer.C:
		case <-change:
			timer.Stop()
		}
	}
	faultfs.Precise(end)
}

// SetTrap puts rules in force for the target's own calls, in place of those
// before. It matches [errors.ErrUnsupported] if the target was started without
// a trap; see [Config.Trap].
func (n *Node) SetTrap(ctx context.Context, r faultfs.Rules) error {
	if len(n.box.c.cfg.Trap) == 0 {
		return fmt.Errorf("trap calls of %s: %w", n.name, errNoTrap)
	}
	if _, err := n.box.call(ctx, order{Verb: verbTrap, Rules: &r}); err != nil {
		return fmt.Errorf("trap calls of %s: %w", n.name, err)
	}
	return nil
}

var errNoTrap = fmt.Errorf("it was started without a trap, which cannot be had later: %w", syscall.ENOTSUP)

// Trapped returns the classes of operations that are trapped.
func (n *Node) Trapped() []faultfs.Op { return n.box.c.cfg.Trap }

// StartBeside runs a program in the node's box as the target's user, with its
// trap but outside its cgroup, and returns its pid there.
func (n *Node) StartBeside(ctx context.Context, cmd Command) (pid int, err error) {
	r, err := n.box.call(ctx, order{Verb: verbBeside, Run: &cmd})
	if err != nil {
		return 0, fmt.Errorf("start %s on %s: %w", strings.Join(cmd.Argv, " "), n.name, err)
	}
	return r.PID, nil
}

// KillBeside kills a program that [Node.StartBeside] started.
func (n *Node) KillBeside(ctx context.Context, pid int) error {
	_, err := n.box.call(ctx, order{Verb: verbKill, PID: pid})
	return err
}
