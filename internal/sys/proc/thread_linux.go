package proc

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OnSpareThread runs f on a thread that ends with it, so that what f does to
// its thread for good (cgroups it joins, a time namespace for its children) stays
// with nobody else. It is never the process's main thread, which cannot end.
func OnSpareThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if unix.Gettid() == os.Getpid() {
			OnSpareThread(f) // while this goroutine keeps the main thread busy
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}
