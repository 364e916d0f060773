package kvserver

import "golang.org/x/sys/unix"

// kernelClocks reads the clocks that a time namespace may shift.
func kernelClocks() (monotonic, boottime int64) {
	var m, b unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &m) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &b) != nil {
		return 0, 0
	}
	return m.Nano(), b.Nano()
}
