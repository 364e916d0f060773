//go:build !linux

package clock

import "time"

var start = time.Now()

// pair has no shared clock to read here: only the judging half runs on other
// systems, and it never reads the time of a run.
func pair() (time.Time, int64) {
	now := time.Now()
	return now, int64(now.Sub(start))
}
