//go:build !linux

package stages

import "time"

var started = time.Now()

// monotonic counts from this process's start: there is no cluster on one host to compare with.
func monotonic() int64 { return int64(time.Since(started)) }

func clockOffset() (int64, error) { return 0, nil }
