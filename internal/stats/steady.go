package stats

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// A Sample is one operation as the tests of this package see it, in ns.
type Sample struct {
	Due     int64 // when it should have been sent
	Done    int64 // when its answer came
	Latency int64 // response time
	OK      bool
}

// Thresholds of [Steady].
const (
	maxRateCV   = 0.25 // coefficient of variation of completions per bucket, beyond counting noise
	maxMedianCV = 0.60 // of the medians of response time; loose, as a disk's mood swings
	maxDrift    = 0.50 // of a straight line through the buckets, end against start, relative to the mean
	minBuckets  = 4
)

// Steady tells whether the load that was due in [start, end) went evenly: whether
// completions and median response time neither scatter nor drift. why is empty
// if they do, and a sentence with the number that decided if they do not. Too few
// operations or too short an interval is not steady: nothing is known.
//
// (Scatter in the sense of Georges, Buytaert and Eeckhout 2007: the coefficient
// of variation over windows; here with the counting noise of random arrivals
// taken off, and with a trend test beside it.)
func Steady(samples []Sample, start, end int64) (ok bool, why string) {
	width := min(max((end-start)/8, int64(250*time.Millisecond)), int64(time.Second))
	n := int((end - start) / width)
	if n < minBuckets {
		return false, fmt.Sprintf("%v is too short to tell (at least %v)", time.Duration(end-start), time.Duration(minBuckets*width))
	}
	counts, latencies := make([]float64, n), make([]Hist, n)
	total := 0.0
	for _, s := range samples {
		if i := (s.Done - start) / width; s.OK && s.Done >= start && i < int64(n) {
			counts[i]++
			total++
		}
		if i := (s.Due - start) / width; s.Due >= start && i < int64(n) {
			latencies[i].Record(s.Latency)
		}
	}
	if total < 30 {
		return false, fmt.Sprintf("only %.0f completions", total)
	}
	mean := total / float64(n)
	if cv := excessCV(counts, mean); cv > maxRateCV {
		return false, fmt.Sprintf("completions per %v scatter by %.0f %% (limit %.0f %%)", time.Duration(width), cv*100, maxRateCV*100)
	}
	medians := make([]float64, 0, n)
	for i := range latencies {
		if latencies[i].N() > 0 {
			medians = append(medians, float64(latencies[i].Quantile(0.5)))
		}
	}
	mmean, cv := meanCV(medians)
	if cv > maxMedianCV {
		return false, fmt.Sprintf("the median response time per %v scatters by %.0f %% (limit %.0f %%)", time.Duration(width), cv*100, maxMedianCV*100)
	}
	if d := drift(medians); math.Abs(d) > maxDrift*mmean {
		return false, fmt.Sprintf("the median response time drifts by %+.0f %% (limit %.0f %%)", d/mmean*100, maxDrift*100)
	}
	if d := drift(counts); math.Abs(d) > maxDrift*mean+3*math.Sqrt(mean) {
		return false, fmt.Sprintf("the rate of completions drifts by %+.0f %% (limit %.0f %%)", d/mean*100, maxDrift*100)
	}
	return true, ""
}

func meanCV(xs []float64) (mean, cv float64) {
	for _, x := range xs {
		mean += x / float64(len(xs))
	}
	v := 0.0
	for _, x := range xs {
		v += (x - mean) * (x - mean) / float64(len(xs))
	}
	if mean == 0 {
		return 0, 0
	}
	return mean, math.Sqrt(v) / mean
}

// excessCV is the coefficient of variation of counts beyond what a Poisson
// stream of the same mean shows.
func excessCV(counts []float64, mean float64) float64 {
	_, cv := meanCV(counts)
	return math.Sqrt(max(cv*cv-1/mean, 0))
}

// drift is how much a straight line of robust slope (Theil and Sen: the median
// of the slopes of all pairs) changes from the first to the last value.
func drift(ys []float64) float64 {
	var slopes []float64
	for i := range ys {
		for j := i + 1; j < len(ys); j++ {
			slopes = append(slopes, (ys[j]-ys[i])/float64(j-i))
		}
	}
	if len(slopes) == 0 {
		return 0
	}
	slices.Sort(slopes)
	return slopes[len(slopes)/2] * float64(len(ys)-1)
}
