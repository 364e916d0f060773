package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	ms = int64(time.Millisecond)
	s  = int64(time.Second)
)

func TestQuantilesOfSmallSetsAreExact(t *testing.T) {
	var h Hist
	for v := int64(100); v >= 1; v-- {
		h.Record(v)
	}
	for _, tt := range []struct {
		q    float64
		want int64
	}{{0, 1}, {0.5, 50}, {0.9, 90}, {0.99, 99}, {0.999, 100}, {1, 100}, {-1, 1}, {2, 100}} {
		if got := h.Quantile(tt.q); got != tt.want {
			t.Errorf("Quantile(%v) of 1..100 = %d, want %d", tt.q, got, tt.want)
		}
	}
	if h.N() != 100 || h.Max() != 100 {
		t.Errorf("N, Max = %d, %d; want 100, 100", h.N(), h.Max())
	}
	var none Hist
	if none.Quantile(0.5) != 0 || none.Max() != 0 {
		t.Error("an empty distribution has quantiles")
	}
	none.Record(-5)
	if none.Max() != 0 || none.N() != 1 {
		t.Error("a negative value must count as 0")
	}
}

func TestMergedIsTheSameAsRecordedTogether(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var all, merged Hist
		var values []int64
		for range 1 + rng.IntN(5) {
			var part Hist
			for range rng.IntN(5000) {
				v := int64(math.Exp(rng.Float64() * 25))
				all.Record(v)
				part.Record(v)
				values = append(values, v)
			}
			merged.Merge(&part)
		}
		if len(values) == 0 {
			continue
		}
		slices.Sort(values)
		if merged.N() != int64(len(values)) || merged.Max() != values[len(values)-1] {
			t.Fatalf("N, Max = %d, %d; want %d, %d", merged.N(), merged.Max(), len(values), values[len(values)-1])
		}
		for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
			want := float64(values[rank(q, len(values))])
			for _, h := range []*Hist{&all, &merged} {
				if got := float64(h.Quantile(q)); math.Abs(got-want) > 0.001*want+1 {
					t.Errorf("Quantile(%v) of %d values = %v, want %v within 0.1 %%", q, len(values), got, want)
				}
			}
		}
	}
}

func TestAValueBeyondTheHistogramKeepsTheMaximum(t *testing.T) {
	var h Hist
	for range exact + 10 {
		h.Record(5)
	}
	h.Record(math.MaxInt64)
	if h.Max() != math.MaxInt64 || h.Quantile(1) != math.MaxInt64 || h.Quantile(0.5) != 5 {
		t.Errorf("Max, p100, p50 = %d, %d, %d", h.Max(), h.Quantile(1), h.Quantile(0.5))
	}
}

// load makes a Poisson stream over [0, end) whose response time is a function of time.
func load(rng *rand.Rand, rate float64, end int64, latency func(t int64) int64) []Sample {
	var out []Sample
	for t := 0.0; ; {
		if t += rng.ExpFloat64() / rate * 1e9; int64(t) >= end {
			return out
		}
		l := latency(int64(t)) + rng.Int64N(ms)
		out = append(out, Sample{Due: int64(t), Done: int64(t) + l, Latency: l, OK: true})
	}
}

func constant(l int64) func(int64) int64 { return func(int64) int64 { return l } }

func TestSteady(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	gap := func(from, to int64) []Sample {
		all := load(rng, 500, 8*s, constant(2*ms))
		return slices.DeleteFunc(all, func(x Sample) bool { return x.Due >= from && x.Due < to })
	}
	for _, tt := range []struct {
		name    string
		samples []Sample
		end     int64
		want    string // "" for steady
	}{
		{"an even Poisson stream", load(rng, 500, 8*s, constant(2*ms)), 8 * s, ""},
		{"a slow even stream, whose counts scatter by chance", load(rng, 20, 8*s, constant(2*ms)), 8 * s, ""},
		{"two seconds are enough", load(rng, 500, 2*s, constant(2*ms)), 2 * s, ""},
		{"half a second is not", load(rng, 500, s/2, constant(2*ms)), s / 2, "too short"},
		{"nothing at all", nil, 8 * s, "only 0 completions"},
		{"a standstill in the middle", gap(3*s, 5*s), 8 * s, "completions per 1s scatter"},
		{"latency that doubles steadily", load(rng, 500, 8*s, func(t int64) int64 { return 2*ms + t/4000 }), 8 * s, "median response time drifts"},
		{"latency that jumps to and fro", load(rng, 500, 8*s, func(t int64) int64 { return 2*ms + 20*ms*(t/s%2) }), 8 * s, "median response time per 1s scatters"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ok, why := Steady(tt.samples, 0, tt.end)
			if ok != (tt.want == "") || !strings.Contains(why, tt.want) {
				t.Errorf("Steady = %v, %q; want %q", ok, why, tt.want)
			}
		})
	}
}

func TestRecovery(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	const heal = 10 * s
	slowUntil := func(end int64) func(int64) int64 {
		return func(t int64) int64 {
			if t > 6*s && t < end {
				return 40 * ms
			}
			return 2 * ms
		}
	}
	for _, tt := range []struct {
		name     string
		samples  []Sample
		end      int64
		from, to int64
	}{
		{"at once", load(rng, 400, 16*s, slowUntil(heal)), 16 * s, 0, 200 * ms},
		{"two seconds later", load(rng, 400, 16*s, slowUntil(12*s)), 16 * s, 1900 * ms, 2200 * ms},
		{"never", load(rng, 400, 16*s, slowUntil(16*s)), 16 * s, -1, -1},
		{"a relapse within the second does not count", load(rng, 400, 16*s, func(t int64) int64 {
			if t > 6*s && t < heal || t > 10700*ms && t < 13*s {
				return 40 * ms
			}
			return 2 * ms
		}), 16 * s, 2900 * ms, 3200 * ms},
		{"too little time left to tell", load(rng, 400, 10700*ms, slowUntil(heal)), 10700 * ms, -1, -1},
		{"no operation in the baseline", slices.DeleteFunc(load(rng, 400, 16*s, constant(2*ms)), func(x Sample) bool { return x.Due < 6*s }), 16 * s, -1, -1},
		{"fast failures are no recovery", func() []Sample {
			all := load(rng, 400, 16*s, constant(2*ms))
			for i := range all {
				all[i].OK = all[i].Due < 6*s || all[i].Due > 12*s
			}
			return all
		}(), 16 * s, 1700 * ms, 2200 * ms},
		{"few operations widen the band", load(rng, 8, 16*s, slowUntil(heal)), 16 * s, 0, 1500 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Recovery(tt.samples, 0, 6*s, heal, tt.end)
			if got < tt.from || got > tt.to {
				t.Errorf("Recovery = %v, want %v to %v", time.Duration(got), time.Duration(tt.from), time.Duration(tt.to))
			}
		})
	}
}

func TestRecoveryDoesNotDependOnTheOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		bad := 6*s + rng.Int64N(5*s)
		all := load(rng, 200, 14*s, func(t int64) int64 {
			if t > 6*s && t < bad {
				return 30 * ms
			}
			return ms
		})
		want := Recovery(all, 0, 6*s, 8*s, 14*s)
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got := Recovery(all, 0, 6*s, 8*s, 14*s); got != want {
			t.Fatalf("Recovery of the shuffled samples = %v, want %v", got, want)
		}
	}
}
