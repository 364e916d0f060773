package faults

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// spans are the times during which a meter looked.
type spans []struct{ from, to time.Time }

func (s *spans) add(from, to time.Time) { *s = append(*s, struct{ from, to time.Time }{from, to}) }

// hold reports whether all of from..to lies in one of the spans.
func (s spans) hold(from, to time.Time) bool {
	for _, w := range s {
		if !from.Before(w.from) && !to.After(w.to) {
			return true
		}
	}
	return false
}

// length is the time looked at in all.
func (s spans) length() (sum time.Duration) {
	for _, w := range s {
		sum += w.to.Sub(w.from)
	}
	return sum
}

// within reports whether got is want to within a share of it or an absolute
// tolerance, whichever is larger.
func within(got, want time.Duration, share float64, least time.Duration) bool {
	return (got - want).Abs() <= tolerance(want, share, least)
}

func tolerance(want time.Duration, share float64, least time.Duration) time.Duration {
	return max(time.Duration(share*float64(want)), least)
}

// quantile returns the q-quantile by nearest rank, 0 of none.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	return nearest(slices.Sorted(slices.Values(ds)), q)
}

// nearest is the q-quantile by nearest rank of what is sorted and not empty.
func nearest[T any](sorted []T, q float64) T {
	return sorted[min(max(int(math.Ceil(q*float64(len(sorted))))-1, 0), len(sorted)-1)]
}

func deviation(ds []time.Duration) time.Duration {
	if len(ds) < 2 {
		return 0
	}
	var mean, sum float64
	for _, d := range ds {
		mean += float64(d) / float64(len(ds))
	}
	for _, d := range ds {
		sum += (float64(d) - mean) * (float64(d) - mean)
	}
	return time.Duration(math.Sqrt(sum / float64(len(ds)-1)))
}

// short prints a time with three digits or so.
func short(d time.Duration) string {
	switch abs := d.Abs(); {
	case abs >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case abs >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case abs >= 100*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case abs >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(100 * time.Nanosecond).String()
	}
}

// rate prints bits per second.
func rate(bits float64) string {
	for _, u := range []struct {
		at   float64
		name string
	}{{1e9, "Gbit/s"}, {1e6, "Mbit/s"}, {1e3, "kbit/s"}} {
		if bits >= u.at {
			return fmt.Sprintf("%.4g %s", bits/u.at, u.name)
		}
	}
	return fmt.Sprintf("%.4g bit/s", bits)
}

// A pauseLook is what was seen of the pauses of one node.
type pauseLook struct {
	node  string
	gaps  []time.Duration // between answers, longest first, that may be pauses
	usual time.Duration   // gap between answers before the fault
}

// pauses are the gaps that were at least half as long as asked for, less what
// is usual, longest first. There can be no more than were begun in the time
// looked at; what else is as long is the host's noise.
func (l pauseLook) pauses(length, every, looked time.Duration) (out []time.Duration) {
	most := 1
	if every > 0 {
		most += int(looked / every)
	}
	gaps := slices.Clone(l.gaps)
	slices.SortFunc(gaps, func(a, b time.Duration) int { return int(b - a) })
	for _, g := range gaps {
		if g-l.usual >= length/2 && len(out) < most {
			out = append(out, g-l.usual)
		}
	}
	return out
}
