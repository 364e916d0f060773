package timerfd

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Timer serves one goroutine at a time.
type Timer struct {
	f   *os.File
	buf [8]byte
}

// New returns a timer of CLOCK_MONOTONIC.
func New() (*Timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create timerfd: %w", err)
	}
	return &Timer{f: os.NewFile(uintptr(fd), "timerfd")}, nil
}

// Close lets go of the timer.
func (t *Timer) Close() error { return t.f.Close() }

// Sleep waits until an instant, or until ctx ends and then returns its error.
func (t *Timer) Sleep(ctx context.Context, until time.Time) error {
	d := time.Until(until)
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	conn, err := t.f.SyscallConn()
	if err != nil {
		return fmt.Errorf("set timerfd: %w", err)
	}
	var errno error
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if err := conn.Control(func(fd uintptr) { errno = unix.TimerfdSettime(int(fd), 0, &spec, nil) }); err != nil || errno != nil {
		return fmt.Errorf("set timerfd: %w", cmp.Or(err, errno))
	}
	// Short waits are not worth the price of watching ctx: its end is seen right after.
	if d > 50*time.Millisecond {
		cut := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			_ = t.f.SetReadDeadline(time.Unix(1, 0))
			close(cut)
		})
		defer func() {
			if !stop() {
				<-cut // else it would cut the next sleep
				_ = t.f.SetReadDeadline(time.Time{})
			}
		}()
	}
	if _, err := t.f.Read(t.buf[:]); err != nil && ctx.Err() == nil {
		return fmt.Errorf("wait for timerfd: %w", err)
	}
	return ctx.Err()
}
