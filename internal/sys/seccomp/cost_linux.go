package seccomp

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Cost is how much longer a trapped call takes that nothing is done to: the
// median of n, on a file in memory, on a thread that ends with it.
func Cost(n int) (cost time.Duration, err error) {
	onThreadOfItsOwn(func() { cost, err = costHere(max(n, 1)) })
	return cost, err
}

func costHere(n int) (time.Duration, error) {
	fd, err := unix.MemfdCreate("trap", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("make a file in memory: %w", err)
	}
	defer unix.Close(fd)
	median := func() time.Duration {
		took := make([]time.Duration, n)
		for i := range took {
			begin := time.Now()
			_ = unix.Fdatasync(fd)
			took[i] = time.Since(begin)
		}
		slices.Sort(took)
		return took[n/2]
	}
	plain := median()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("set no_new_privs: %w", err)
	}
	l, err := Install(Syncs)
	if err != nil {
		return 0, err
	}
	go func() { // ends with this thread
		defer l.Close()
		_ = l.Serve(func(c Call) { l.Continue(c.ID) })
	}()
	return median() - plain, nil
}

// onThreadOfItsOwn runs f on a thread that ends with it, which the main thread
// cannot.
func onThreadOfItsOwn(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: what f does to the thread stays with it
		if unix.Gettid() == os.Getpid() {
			onThreadOfItsOwn(f) // while this goroutine keeps the main thread busy
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}
