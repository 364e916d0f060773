// Package stats turns latencies and completions into the few numbers that a
// verdict rests on: quantiles, whether a baseline was steady, and how long a
// system took to recover.
//
// Its one rule is that quantiles are taken of observations and never of other
// quantiles: distributions are merged, then asked. It knows nothing of
// operations and files; times are ns on any one clock.
package stats

import (
	"math"
	"slices"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// exact is how many values a Hist keeps as they are; beyond, it becomes a
// histogram with three significant digits (error below 0.1 %).
const exact = 4096

// longest is the largest value of a histogram, in ns; larger ones count as it,
// but Max stays exact.
const longest = int64(24 * 3600 * 1e9)

// A Hist is a distribution of times in ns. The zero value is empty.
type Hist struct {
	raw    []int64
	sorted bool
	hdr    *hdr.Histogram
	n, max int64
}

// Record adds one value; negative ones count as 0.
func (h *Hist) Record(v int64) {
	v = max(v, 0)
	h.n++
	h.max = max(h.max, v)
	if h.hdr == nil && len(h.raw) < exact {
		h.raw = append(h.raw, v)
		h.sorted = false
		return
	}
	h.spill()
	_ = h.hdr.RecordValue(min(v, longest)) // cannot be out of range
}

func (h *Hist) spill() {
	if h.hdr != nil {
		return
	}
	h.hdr = hdr.New(1, longest, 3)
	for _, v := range h.raw {
		_ = h.hdr.RecordValue(min(v, longest))
	}
	h.raw = nil
}

// Merge adds all values of other.
func (h *Hist) Merge(other *Hist) {
	if other.hdr == nil {
		for _, v := range other.raw {
			h.Record(v)
		}
		return
	}
	h.spill()
	h.hdr.Merge(other.hdr)
	h.n += other.n
	h.max = max(h.max, other.max)
}

// N is the number of values.
func (h *Hist) N() int64 { return h.n }

// Max is the largest value, exactly; 0 if there is none.
func (h *Hist) Max() int64 { return h.max }

// Quantile returns the smallest value that at least the share q of all values
// do not exceed (nearest rank); 0 if there is none. q beyond 0..1 is clamped.
func (h *Hist) Quantile(q float64) int64 {
	if h.n == 0 {
		return 0
	}
	q = min(max(q, 0), 1)
	if h.hdr == nil {
		if !h.sorted {
			slices.Sort(h.raw)
			h.sorted = true
		}
		return h.raw[rank(q, len(h.raw))]
	}
	if q == 1 {
		return h.max
	}
	// The library rounds ranks to the nearest; by asking for an exact rank ours are kept.
	k := float64(rank(q, int(h.n)) + 1)
	return min(h.hdr.ValueAtPercentile(k/float64(h.n)*100), h.max)
}

// rank is the index of quantile q among n sorted values, by nearest rank. The
// small subtraction keeps 0.99 × 100 from becoming 100.
func rank(q float64, n int) int {
	return min(max(int(math.Ceil(q*float64(n)-1e-9))-1, 0), n-1)
}
