package kvserver

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"
)

// A wallClock is what this node takes for the time of day, where it uses that:
// the TIME command, INFO, and leases of reads. It is the host's clock until it
// is told to be off, or to run fast or slow.
//
// A lease belongs on a monotonic clock. As long as nobody sets this one it is
// there: times of a clock that is right carry Go's monotonic reading.
type wallClock struct{ skew atomic.Pointer[clockSkew] }

// A clockSkew is how a clock is wrong.
type clockSkew struct {
	since  time.Time     // from here on it drifts
	offset time.Duration // already then
	rate   float64       // of drift, 0.1 gains a tenth
}

// at returns what the clock shows at a time of the host's.
func (c *wallClock) at(t time.Time) time.Time {
	s := c.skew.Load()
	if s == nil {
		return t
	}
	// Without the monotonic reading, by which Go would compare.
	return t.Round(0).Add(s.at(t))
}

func (s *clockSkew) at(t time.Time) time.Duration {
	return s.offset + time.Duration(float64(t.Sub(s.since))*s.rate)
}

func (c *wallClock) now() time.Time { return c.at(time.Now()) }

// Bounds of what a clock can be told.
const (
	maxOffset = 100 * 365 * 24 * time.Hour
	maxDrift  = 10.0
)

// ClockRequest sets a node's wall clock: off by so much, and gaining so much
// from now on. Nothing makes it right again.
type ClockRequest struct {
	OffsetNS int64   `json:"offset_ns"`
	Rate     float64 `json:"rate"` // 0.1 gains a tenth of the time that passes; more than -1
}

func (c *wallClock) serve(_ context.Context, in json.RawMessage) (any, error) {
	var req ClockRequest
	if err := json.Unmarshal(in, &req); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	if off := time.Duration(req.OffsetNS); off > maxOffset || off < -maxOffset || req.Rate <= -1 || req.Rate > maxDrift {
		return nil, fmt.Errorf("%w: offset_ns must be within ±%d, rate above -1 and up to %v", errBadRequest, int64(maxOffset), maxDrift)
	}
	if req == (ClockRequest{}) {
		c.skew.Store(nil)
		return done, nil
	}
	now := time.Now()
	next := &clockSkew{since: now, offset: time.Duration(req.OffsetNS), rate: req.Rate}
	// A drift that changes its rate keeps what it has gained.
	if was := c.skew.Load(); was != nil && was.rate != 0 && req.Rate != 0 {
		next.offset += was.at(now) - was.offset
	}
	c.skew.Store(next)
	return done, nil
}

// Clocks are what the clocks of a node's process show.
type Clocks struct {
	WallNS      int64 `json:"wall_ns"`
	MonotonicNS int64 `json:"monotonic_ns"` // CLOCK_MONOTONIC; 0 where there is none
	BoottimeNS  int64 `json:"boottime_ns"`  // CLOCK_BOOTTIME
}

func (c *wallClock) read(context.Context, json.RawMessage) (any, error) {
	mono, boot := kernelClocks()
	return Clocks{c.now().UnixNano(), mono, boot}, nil
}

// timeCommand answers TIME as Redis does: seconds, and microseconds within.
func timeCommand(f *front, w *respWriter, _ *client, _ [][]byte) {
	now := f.clock.now()
	w.array(2)
	w.bulk(fmt.Sprint(now.Unix()))
	w.bulk(fmt.Sprint(now.Nanosecond() / 1000))
}
