package kvserver

import (
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var oneStop sync.Mutex

// stopTheWorld makes the runtime's own stop-the-world last d, and returns how
// long it was from the demand for a collection to the end of the hold.
//
// One thread holds its P in a raw nanosleep: the scheduler does not know that
// it is in the kernel, and with SIGURG blocked it cannot be preempted. Another
// goroutine demands a collection, whose sweep termination must stop every P
// and so waits for that one. The runtime reports it as a GC pause
// (/sched/pauses/total/gc:seconds, GODEBUG=gctrace=1).
func stopTheWorld(d time.Duration) (time.Duration, error) {
	oneStop.Lock()
	defer oneStop.Unlock()
	held := make(chan struct{})
	ended := make(chan time.Time, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		set := uint64(1) << (uint(syscall.SIGURG) - 1)
		var old uint64
		const blockSig, setMask = 0, 2 // SIG_BLOCK, SIG_SETMASK
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, blockSig, uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		ts := unix.NsecToTimespec(int64(d))
		close(held)
		unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
		end := time.Now()
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
		ended <- end
	}()
	<-held
	start := time.Now()
	runtime.GC()
	return (<-ended).Sub(start), nil
}
