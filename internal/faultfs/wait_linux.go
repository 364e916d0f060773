package faultfs

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/proc"
)

const (
	// Tail is slept by the kernel's timer instead of Go's, which wakes up to
	// 1.7 ms late (p99). It is short, since a goroutine in a system call keeps
	// its P until the runtime takes it away, and others may need that.
	Tail = 2 * time.Millisecond
	// spin is how much of a delay is not slept at all: the kernel's timer wakes
	// 50 µs late at the median, with the least slack.
	spin = 70 * time.Microsecond
	// look is how often a caller that was interrupted is looked at.
	look = 5 * time.Millisecond
)

// holdBack lets pass what keeps an operation from beginning: a hang, those
// before it, and its own delay. It ends early with EINTR if the caller was
// killed, and without an error if waits are released.
func (s *Server) holdBack(ctx context.Context, op Op, d Decision, begin time.Time) syscall.Errno {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	w := waiter{s: s, ctx: ctx, release: *s.release.Load()}
	if d.Hang {
		never := begin.Add(100 * 365 * 24 * time.Hour)
		if errno := w.until(never, func(e *Engine) bool { return e.Hangs(op) }); errno != 0 || w.released {
			return errno
		}
	}
	if d.Until > 0 {
		if errno := w.until(s.epoch.Add(d.Until), func(e *Engine) bool { return e.Limited(op) }); errno != 0 || w.released {
			return errno
		}
	}
	if d.Delay > 0 {
		return w.until(time.Now().Add(d.Delay), nil)
	}
	return 0
}

// A waiter is one operation that waits.
type waiter struct {
	s        *Server
	ctx      context.Context
	release  chan struct{}
	released bool
}

// until waits for a time, or as long as still says so of the rules in force;
// nil goes on when they change.
func (w *waiter) until(end time.Time, still func(*Engine) bool) syscall.Errno {
	for left := time.Until(end); left > Tail; left = time.Until(end) {
		change := *w.s.change.Load() // before the rules are looked at
		if still == nil {
			change = nil
		} else if !still(w.s.engine.Load()) {
			return 0
		}
		interrupted := w.ctx.Done()
		pause := left - Tail
		if w.ctx.Err() != nil {
			// Any signal interrupts, once: those by which Go preempts a thread, and
			// the freezer's, too. Only who is being killed does not wait on; the
			// kernel does not tell us of a later SIGKILL, so we have to look.
			if killed(w.ctx) {
				w.s.killed.Add(1)
				return syscall.EINTR
			}
			interrupted, pause = nil, min(pause, look)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-interrupted:
			t.Stop()
		case <-change:
			t.Stop()
		case <-w.release:
			t.Stop()
			w.s.released.Add(1)
			w.released = true
			return 0
		case <-w.s.done:
			t.Stop()
			return syscall.EINTR
		}
	}
	Precise(end)
	return 0
}

// Precise returns at end, which is at most [Tail] away: it keeps its thread.
func Precise(end time.Time) {
	// 1 ns instead of 50 µs of slack. It is the thread's, and stays; harmless.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for left := time.Until(end) - spin; left > 0; left = time.Until(end) - spin {
		ts := unix.NsecToTimespec(int64(left))
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // EINTR: look again
	}
	for time.Now().Before(end) {
	}
}

// killed says whether the thread that waits for us has a SIGKILL to take. One
// that is gone has. If it cannot be told (no /proc, a caller of another PID
// namespace), it has not: an interrupted call that nobody killed would be a
// fault that was not asked for, a wait that goes on ends within [MaxDelay].
func killed(ctx context.Context) bool {
	caller, ok := fuse.FromContext(ctx)
	if !ok || caller.Pid == 0 {
		return false
	}
	st, err := proc.ReadStatus(int(caller.Pid)) // the pid is the thread's
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	return (st.SigPending|st.SharedPending)&(1<<(syscall.SIGKILL-1)) != 0
}
