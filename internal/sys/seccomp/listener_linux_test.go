package seccomp

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trapped runs f on a thread that has a filter, and hands its calls to decide.
func trapped(t testing.TB, calls []int, decide func(*Listener, Call), f func()) {
	t.Helper()
	if err := Probe(); err != nil {
		t.Skip(err)
	}
	listener, done := make(chan *Listener, 1), make(chan struct{})
	go onThreadOfItsOwn(func() {
		defer close(done)
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
		l, err := Install(calls)
		listener <- l
		if err != nil {
			t.Error(err)
			return
		}
		f()
	})
	l := <-listener
	if l == nil {
		<-done
		t.FailNow()
	}
	served := make(chan error, 1)
	go func() { served <- l.Serve(func(c Call) { decide(l, c) }) }()
	<-done
	select {
	case err := <-served: // nobody is left who has the filter
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve does not end with the last thread")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestVerdicts(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	var where []string
	trapped(t, slices.Concat(Syncs, keys(Opens), keys(Renames)), func(l *Listener, c Call) {
		at, err := c.Where()
		if err != nil {
			t.Errorf("call %d: %v", c.NR, err)
		}
		where = append(where, at)
		if slices.Contains(Syncs, c.NR) {
			l.Fail(c.ID, syscall.EIO)
			return
		}
		l.Continue(c.ID)
	}, func() {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		if err := unix.Fdatasync(fd); !errors.Is(err, syscall.EIO) {
			t.Errorf("fdatasync = %v, want EIO", err)
		}
		if _, err := unix.Pwrite(fd, []byte("x"), 0); err != nil {
			t.Error("what is not trapped:", err)
		}
		dirfd, err := unix.Open(dir, unix.O_DIRECTORY, 0)
		if err := errors.Join(err, unix.Renameat(dirfd, "f", dirfd, "g"), unix.Close(dirfd), unix.Close(fd)); err != nil {
			t.Error(err)
		}
	})
	if want := []string{path, path, dir, path}; !slices.Equal(where, want) {
		t.Errorf("calls about %q, want %q", where, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "g")); err != nil {
		t.Error(err)
	}
}

func keys(m map[int]Path) (nrs []int) {
	for nr := range m {
		nrs = append(nrs, nr)
	}
	return nrs
}

// BenchmarkTrap is what a trapped call costs that nothing is done to.
func BenchmarkTrap(b *testing.B) {
	cost, err := Cost(b.N)
	if err != nil {
		b.Skip(err)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(cost.Nanoseconds()), "trap-p50-ns")
}
