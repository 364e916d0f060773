package kvserver

import (
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stopTheWorld makes the runtime's own stop-the-world last d, and returns how
// long it was from the demand for a collection to the end of the hold.
//
// One thread holds its P in a raw nanosleep: the scheduler does not know that
// it is in the kernel, and with its signals blocked it cannot be preempted. Another
// goroutine demands a collection, whose sweep termination must stop every P
// and so waits for that one. The runtime reports it as a GC pause
// (/sched/pauses/total/gc:seconds, GODEBUG=gctrace=1).
func stopTheWorld(d time.Duration) (time.Duration, error) {
	// One at a time; and to change the number of Ps is a stop of the world, too,
	// which must not come between the hold and the demand.
	lending.Lock()
	defer lending.Unlock()
	if runtime.GOMAXPROCS(0) == 1 { // one to be held, another to demand the collection
		runtime.GOMAXPROCS(2)
		defer runtime.GOMAXPROCS(1)
	}
	// A collection that is under way would wait for the held P too, but in its
	// concurrent phases, without stopping the world. So there is none, and so
	// little garbage that none begins by itself.
	runtime.GC()
	var held atomic.Bool
	var until atomic.Int64 // CLOCK_MONOTONIC, ns; 0 until the collection is demanded
	ended := make(chan int64, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var old uint64
		all := ^uint64(0) // others may take the process' signals
		const setMask = 2 // SIG_SETMASK
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		held.Store(true) // from here to the end of the loop there is no preemption point
		var now, nap unix.Timespec
		for {
			unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&now)), 0)
			nap.Sec, nap.Nsec = 0, 20_000
			if end := until.Load(); end != 0 {
				left := end - (int64(now.Sec)*1e9 + int64(now.Nsec))
				if left <= 0 {
					break
				}
				nap = unix.Timespec{Sec: left / 1e9, Nsec: left % 1e9}
			}
			unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
		}
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
		ended <- int64(now.Sec)*1e9 + int64(now.Nsec)
	}()
	for !held.Load() {
		runtime.Gosched()
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		until.Store(1)
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	start := now.Nano()
	until.Store(start + int64(d)) // the hold counts from here, however late this goroutine has come
	runtime.GC()
	return time.Duration(<-ended - start), nil
}
