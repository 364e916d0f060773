package faultfs

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats are what a server did since it was mounted, as seen by itself: a
// server's own account is not the measurement of a dose.
type Stats struct {
	Ops         map[Op]OpStats `json:"ops"`
	Waiting     int64          `json:"waiting"`     // operations that are being delayed now
	Killed      uint64         `json:"killed"`      // waits ended because the caller was killed
	Released    uint64         `json:"released"`    // waits ended by Rules.Release
	Passthrough int64          `json:"passthrough"` // open files whose reads and writes we do not see
	Panics      uint64         `json:"panics"`      // handlers that failed; their callers got EIO
}

// OpStats are the operations of one class.
type OpStats struct {
	N          uint64        `json:"n"`
	Errors     uint64        `json:"errors"` // of the backing file system
	Bytes      uint64        `json:"bytes"`  // read or written
	Delayed    uint64        `json:"delayed"`
	Delay      time.Duration `json:"delay_ns"` // sum of the waits as they were, not as they were asked for
	MaxDelay   time.Duration `json:"max_delay_ns"`
	Backing    time.Duration `json:"backing_ns"` // sum of the time in the backing file system
	MaxBacking time.Duration `json:"max_backing_ns"`
	Delays     Histogram     `json:"delays,omitempty"`
	Backings   Histogram     `json:"backings,omitempty"`
}

// A Histogram counts durations in buckets, each 1/8 of a power of two wide, in
// ascending order; empty ones are left out.
type Histogram []Bucket

// A Bucket counts what is less than Below and in no bucket before.
type Bucket struct {
	Below time.Duration `json:"below_ns"`
	N     uint64        `json:"n"`
}

// Sub returns what was added since an earlier reading.
func (h Histogram) Sub(earlier Histogram) Histogram {
	before := map[time.Duration]uint64{}
	for _, b := range earlier {
		before[b.Below] = b.N
	}
	var d Histogram
	for _, b := range h {
		if n := b.N - before[b.Below]; n > 0 {
			d = append(d, Bucket{b.Below, n})
		}
	}
	return d
}

// Quantile returns the upper bound of the bucket that holds the q-quantile: at
// most 1/8 too much. It is 0 for an empty histogram.
func (h Histogram) Quantile(q float64) time.Duration {
	var n uint64
	for _, b := range h {
		n += b.N
	}
	rank := uint64(q * float64(n))
	for _, b := range h {
		if b.N > rank {
			return b.Below
		}
		rank -= b.N
	}
	if len(h) == 0 {
		return 0
	}
	return h[len(h)-1].Below
}

// What is shorter than 1 µs is in the first bucket, longer than 18 minutes in the last.
const (
	minExp  = 10
	maxExp  = 40
	buckets = 1 + (maxExp-minExp)*8 + 1
)

func bucketOf(d time.Duration) int {
	if d < 1<<minExp {
		return 0
	}
	e := bits.Len64(uint64(d)) - 1
	if e >= maxExp {
		return buckets - 1
	}
	return 1 + (e-minExp)*8 + int(d>>(e-3))&7
}

// below is the exclusive upper bound of a bucket.
func below(i int) time.Duration {
	if i == 0 {
		return 1 << minExp
	}
	i--
	e, sub := i/8+minExp, i%8
	return time.Duration(8+sub+1) << (e - 3)
}

// An account is a histogram with sum and maximum, written by many.
type account struct {
	n, sum, max atomic.Int64
	in          [buckets]atomic.Uint64
}

func (a *account) add(d time.Duration) {
	a.n.Add(1)
	a.sum.Add(int64(d))
	a.in[bucketOf(d)].Add(1)
	for {
		m := a.max.Load()
		if int64(d) <= m || a.max.CompareAndSwap(m, int64(d)) {
			return
		}
	}
}

func (a *account) histogram() Histogram {
	var h Histogram
	for i := range a.in {
		if n := a.in[i].Load(); n > 0 {
			h = append(h, Bucket{below(i), n})
		}
	}
	return h
}

// counters are the operations of one class, written by many.
type counters struct {
	n, errors, bytes atomic.Uint64
	delays, backings account
}

func (c *counters) stats() OpStats {
	return OpStats{
		N: c.n.Load(), Errors: c.errors.Load(), Bytes: c.bytes.Load(),
		Delayed: uint64(c.delays.n.Load()), Delay: time.Duration(c.delays.sum.Load()), MaxDelay: time.Duration(c.delays.max.Load()),
		Backing: time.Duration(c.backings.sum.Load()), MaxBacking: time.Duration(c.backings.max.Load()),
		Delays: c.delays.histogram(), Backings: c.backings.histogram(),
	}
}
