package stats

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Windows of [Recovery].
const (
	window = int64(500 * time.Millisecond)
	step   = int64(100 * time.Millisecond)
	hold   = int64(time.Second) // the band must be kept for this long
	slack  = 1.25               // latencies may exceed the baseline's worst window by this
)

// never is what Recovery returns if the band was not reached and kept.
const never = -1

// A band is what the baseline's windows looked like: the largest median and p99
// of response time, and the fewest completions, each with its slack. Windows are
// compared with windows of the same length, so small numbers of operations
// widen the band by themselves.
type band struct {
	p50, p99 int64
	fewest   float64
	empty    bool // the baseline had no operations
}

// Recovery tells how long after heal the system was as in the baseline again:
// from heal to the first instant from which, for at least a second, median and
// p99 of response time of the operations due and the number of completions stay
// within the band of the baseline's own windows. -1: not before end, or the
// baseline is no base. The resolution is 100 ms. Samples may be in any order.
func Recovery(samples []Sample, baseStart, baseEnd, heal, end int64) int64 {
	due := slices.Clone(samples)
	slices.SortFunc(due, func(a, b Sample) int { return cmp.Compare(a.Due, b.Due) })
	done := make([]int64, 0, len(samples))
	for _, s := range samples {
		if s.OK {
			done = append(done, s.Done)
		}
	}
	slices.Sort(done)
	b := baseline(due, done, baseStart, baseEnd)
	if b.empty || heal < 0 {
		return never
	}
	good := int64(0) // how many windows in a row
	for t := heal; t+window <= end; t += step {
		if !b.holds(due, done, t) {
			good = 0
			continue
		}
		good++
		if (good-1)*step+window >= hold {
			return t - (good-1)*step - heal
		}
	}
	return never
}

func baseline(due []Sample, done []int64, start, end int64) band {
	b := band{fewest: math.Inf(1), empty: true}
	for t := start; t+window <= end; t += step {
		lat, count := measure(due, done, t)
		if lat.N() == 0 {
			continue
		}
		b.empty = false
		b.p50 = max(b.p50, lat.Quantile(0.5))
		b.p99 = max(b.p99, lat.Quantile(0.99))
		b.fewest = min(b.fewest, count)
	}
	b.p50 = int64(float64(b.p50) * slack)
	b.p99 = int64(float64(b.p99) * slack)
	b.fewest -= 2*math.Sqrt(b.fewest) + 0.1*b.fewest
	return b
}

func (b band) holds(due []Sample, done []int64, t int64) bool {
	lat, count := measure(due, done, t)
	if lat.N() == 0 {
		return b.fewest <= 0 // nothing was due here: quiet, but not broken
	}
	return count >= b.fewest && lat.Quantile(0.5) <= b.p50 && lat.Quantile(0.99) <= b.p99
}

// measure returns the response times of what was due in the window at t, and
// how many operations completed in it.
func measure(due []Sample, done []int64, t int64) (Hist, float64) {
	var h Hist
	from, _ := slices.BinarySearchFunc(due, t, func(s Sample, t int64) int { return cmp.Compare(s.Due, t) })
	for _, s := range due[from:] {
		if s.Due >= t+window {
			break
		}
		h.Record(s.Latency)
	}
	a, _ := slices.BinarySearch(done, t)
	b, _ := slices.BinarySearch(done, t+window)
	return h, float64(b - a)
}
