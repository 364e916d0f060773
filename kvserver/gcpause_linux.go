package kvserver

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var oneStop sync.Mutex

// stopTheWorld makes the runtime's own stop-the-world last d, and returns how
// long it was from the demand for a collection to the end of the hold.
//
// One thread holds its P in a raw nanosleep: the scheduler does not know that
// it is in the kernel, and with its signals blocked it cannot be preempted. Another
// goroutine demands a collection, whose sweep termination must stop every P
// and so waits for that one. The runtime reports it as a GC pause
// (/sched/pauses/total/gc:seconds, GODEBUG=gctrace=1).
func stopTheWorld(d time.Duration) (time.Duration, error) {
	oneStop.Lock()
	defer oneStop.Unlock()
	var held atomic.Bool
	ended := make(chan time.Time, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var old uint64
		all := ^uint64(0)                     // others may take the process' signals
		const setMask = 2                     // SIG_SETMASK
		left := unix.NsecToTimespec(int64(d)) // the kernel writes back what is left
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		held.Store(true) // from here to the end of the loop there is no preemption point
		for {
			_, _, errno := unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&left)), uintptr(unsafe.Pointer(&left)), 0)
			if errno != unix.EINTR {
				break
			}
		}
		end := time.Now()
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
		ended <- end
	}()
	for !held.Load() {
		runtime.Gosched()
	}
	start := time.Now()
	runtime.GC()
	return (<-ended).Sub(start), nil
}
