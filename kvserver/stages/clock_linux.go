package stages

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// monotonic reads CLOCK_MONOTONIC, which is Go's monotonic clock.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(fmt.Sprintf("stages: clock_gettime: %v", err)) // POSIX has it
	}
	return t.Nano()
}

// clockOffset is what this process's time namespace adds to the host's clock,
// see time_namespaces(7).
func clockOffset() (int64, error) {
	b, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil { // a kernel before 5.6, without time namespaces
		return 0, nil
	}
	for line := range strings.Lines(string(b)) {
		var clock string
		var s, ns int64
		if n, _ := fmt.Sscan(line, &clock, &s, &ns); n == 3 && clock == "monotonic" {
			return s*1e9 + ns, nil
		}
	}
	return 0, fmt.Errorf("/proc/self/timens_offsets has no monotonic clock: %q", b)
}
