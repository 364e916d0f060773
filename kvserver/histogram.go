package kvserver

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram counts durations in buckets that are an eighth of their value
// wide. The zero value is ready, and all methods may be called concurrently.
type histogram struct {
	count, sum, max atomic.Int64
	bucket          [8 * 61]atomic.Int64
}

func (h *histogram) record(d time.Duration) { h.add(d, 1) }

// add records d as often as n.
func (h *histogram) add(d time.Duration, n int64) {
	v := max(int64(d), 0)
	h.count.Add(n)
	h.sum.Add(n * v)
	for {
		m := h.max.Load()
		if v <= m || h.max.CompareAndSwap(m, v) {
			break
		}
	}
	h.bucket[bucketOf(uint64(v))].Add(n)
}

func bucketOf(v uint64) int {
	if v < 8 {
		return int(v)
	}
	e := bits.Len64(v) - 4 // v>>e is in 8..15
	return 8*e + int(v>>e)
}

// bucketTop returns the largest value that falls in bucket i.
func bucketTop(i int) int64 {
	if i < 16 {
		return int64(i)
	}
	e := i/8 - 1
	return int64(uint64(i%8+9)<<e - 1)
}

// A Latency summarizes durations; quantiles are exact within an eighth.
type Latency struct {
	Count  int64 `json:"count"`
	SumNS  int64 `json:"sum_ns"`
	MeanNS int64 `json:"mean_ns"`
	P50NS  int64 `json:"p50_ns"`
	P99NS  int64 `json:"p99_ns"`
	MaxNS  int64 `json:"max_ns"`
}

func (h *histogram) summary() Latency { return summaryOf(h) }

// summaryOf summarizes what several histograms have counted.
func summaryOf(all ...*histogram) Latency {
	var counts [8 * 61]int64
	var total, sum, most int64
	for _, h := range all {
		for i := range counts {
			n := h.bucket[i].Load()
			counts[i] += n
			total += n
		}
		sum += h.sum.Load()
		most = max(most, h.max.Load())
	}
	if total == 0 {
		return Latency{}
	}
	quantile := func(permille int64) int64 {
		rank := (total*permille + 999) / 1000
		for i, n := range counts {
			if rank -= n; rank <= 0 {
				return min(bucketTop(i), most)
			}
		}
		return most
	}
	return Latency{Count: total, SumNS: sum, MeanNS: sum / total, P50NS: quantile(500), P99NS: quantile(990), MaxNS: most}
}
