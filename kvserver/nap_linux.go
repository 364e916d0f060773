package kvserver

import (
	"time"

	"golang.org/x/sys/unix"
)

// nap keeps its thread asleep for d, or until a signal comes.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil)
}
