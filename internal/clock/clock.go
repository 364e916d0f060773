// Package clock gives every process of one run the same time line.
//
// Go's monotonic clock is CLOCK_MONOTONIC, which all processes of a host share
// outside time namespaces. A run's zero is one raw reading of it; each process
// anchors that reading to its own [time.Now] once and subtracts, so that two
// processes agree to within the cost of one clock read (well under 1 µs).
package clock

import "time"

// A Clock tells the time since the zero of a run. The zero value is not usable.
type Clock struct {
	anchor time.Time     // carries a monotonic reading
	offset time.Duration // run time at anchor
	zero   int64
}

// At returns the clock whose zero is the raw CLOCK_MONOTONIC reading zero, in ns.
func At(zero int64) Clock {
	anchor, raw := pair()
	return Clock{anchor: anchor, offset: time.Duration(raw - zero), zero: zero}
}

// Raw reads CLOCK_MONOTONIC in ns.
func Raw() int64 { _, raw := pair(); return raw }

// Zero returns the raw reading that is the run's zero, to hand to another process.
func (c Clock) Zero() int64 { return c.zero }

// Now returns the time since the run's zero; it is negative before it.
func (c Clock) Now() time.Duration { return time.Since(c.anchor) + c.offset }

// Time converts a run time to a [time.Time] usable with timers of this process.
func (c Clock) Time(t time.Duration) time.Time { return c.anchor.Add(t - c.offset) }
