package faultfs

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDecide(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name  string
		rules string
		want  map[Op]time.Duration
	}{
		{"no rules", `{}`, map[Op]time.Duration{}},
		{"one class", `{"delay":{"fsync":[{"add_ns":5000000}]}}`, map[Op]time.Duration{Fsync: 5 * ms}},
		{"all classes", `{"delay":{"all":[{"add_ns":1000000}]}}`, map[Op]time.Duration{Read: ms, Write: ms, Fsync: ms, Open: ms, Rename: ms, Meta: ms}},
		{
			"a class of its own beside all", `{"delay":{"all":[{"add_ns":1000000}],"read":[{"add_ns":0}],"write":[{"add_ns":3000000}]}}`,
			map[Op]time.Duration{Write: 3 * ms, Fsync: ms, Open: ms, Rename: ms, Meta: ms},
		},
		{"constant by name", `{"delay":{"rename":[{"add_ns":1000000,"dist":"constant"}]}}`, map[Op]time.Duration{Rename: ms}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r Rules
			if err := json.Unmarshal([]byte(tt.rules), &r); err != nil {
				t.Fatal(err)
			}
			e, err := NewEngine(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range Ops {
				if got := e.Decide(op, 0, 0).Delay; got != tt.want[op] {
					t.Errorf("%s waits %v, want %v", op, got, tt.want[op])
				}
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rules Rules
		want  []string // parts of the error
	}{
		{"nothing", Rules{}, nil},
		{"the longest", Rules{Delay: map[Op][]Delay{All: {{Add: MaxDelay}}}}, nil},
		{"a class that is none", Rules{Delay: map[Op][]Delay{"sync": {{}}}}, []string{`delay "sync": no such class of operations; there are [read write fsync open rename meta] and all`}},
		{
			"out of range, everything at once",
			Rules{Delay: map[Op][]Delay{Read: {{Add: -1}}, Write: {{Add: time.Hour}}, Open: {{Jitter: time.Hour}}}},
			[]string{"delay open: jitter 1h0m0s is not in 0s..1m0s", "delay read: add -1ns", "delay write: add 1h0m0s"},
		},
		{"a distribution that is none", Rules{Delay: map[Op][]Delay{Read: {{Dist: "cauchy"}}}}, []string{`"cauchy" is none of constant, uniform, normal, pareto`}},
		{"constant with jitter", Rules{Delay: map[Op][]Delay{Read: {{Dist: Constant, Jitter: 1}}}}, []string{"constant with a jitter"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.rules.Validate()
			if (err == nil) != (tt.want == nil) {
				t.Fatalf("Validate = %v, want %q", err, tt.want)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("Validate = %v, want %q in it", err, w)
				}
			}
			if _, err := NewEngine(tt.rules, nil); (err == nil) != (tt.want == nil) {
				t.Errorf("NewEngine = %v", err)
			}
		})
	}
}

func TestRulesSurviveJSON(t *testing.T) {
	r := Rules{Seed: 7, Delay: map[Op][]Delay{Fsync: {{Add: 5 * time.Millisecond, Jitter: time.Millisecond, Dist: Pareto}}}, Release: true}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"seed":7,"delay":{"fsync":[{"add_ns":5000000,"jitter_ns":1000000,"dist":"pareto"}]},"release":true}`; string(b) != want {
		t.Errorf("rules are written as %s, want %s", b, want)
	}
	var again Rules
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, again); d != "" {
		t.Error(d)
	}
}

func TestDistributions(t *testing.T) {
	const n, add, jitter = 20000, 20 * time.Millisecond, 2 * time.Millisecond
	for _, tt := range []struct {
		dist        Dist
		mean, sigma float64 // of one draw, ns; sigma 0: has none
		median      float64
		min, max    time.Duration
	}{
		{Uniform, 20e6, 2e6 / math.Sqrt(3), 20e6, 18 * time.Millisecond, 22 * time.Millisecond},
		{Normal, 20e6, 2e6, 20e6, 0, MaxDelay},
		{Pareto, 0, 0, 20e6 + 2e6*(math.Pow(2, 1/1.5)-1), add, MaxDelay},
	} {
		t.Run(string(tt.dist), func(t *testing.T) {
			rules := Rules{Seed: 1, Delay: map[Op][]Delay{Write: {{Add: add, Jitter: jitter, Dist: tt.dist}}}}
			draw := func() []float64 {
				e, err := NewEngine(rules, nil)
				if err != nil {
					t.Fatal(err)
				}
				xs := make([]float64, n)
				for i := range xs {
					d := e.Decide(Write, 0, 0).Delay
					if d < tt.min || d > tt.max {
						t.Fatalf("delay %v is not in %v..%v", d, tt.min, tt.max)
					}
					xs[i] = float64(d)
				}
				return xs
			}
			xs := draw()
			if !slices.Equal(xs, draw()) {
				t.Error("the same seed gave other delays")
			}
			if tt.sigma > 0 {
				sum := 0.0
				for _, x := range xs {
					sum += x
				}
				if mean, tol := sum/n, 4*tt.sigma/math.Sqrt(n); math.Abs(mean-tt.mean) > tol {
					t.Errorf("mean = %.0f, want %.0f ± %.0f", mean, tt.mean, tol)
				}
			}
			below := 0
			for _, x := range xs {
				if x < tt.median {
					below++
				}
			}
			if sigma := math.Sqrt(n) / 2; math.Abs(float64(below)-n/2) > 4*sigma {
				t.Errorf("%d of %d are below the median, want %d ± %.0f", below, n, n/2, 4*sigma)
			}
		})
	}
}

func TestBuckets(t *testing.T) {
	last := time.Duration(0)
	for i := range buckets {
		if below(i) <= last {
			t.Fatalf("bucket %d ends at %v, before it %v", i, below(i), last)
		}
		last = below(i)
	}
	for _, d := range []time.Duration{0, 1, 1023, 1024, 1025, 1151, 1152, 5e6, 20e6, time.Minute} {
		i := bucketOf(d)
		if d >= below(i) || i > 0 && d < below(i-1) {
			t.Errorf("%v is in bucket %d, %v to %v", d, i, below(max(i-1, 0)), below(i))
		}
		if i > 0 && float64(below(i)) > float64(d)*1.13 {
			t.Errorf("%v counts as up to %v", d, below(i))
		}
	}
	if i := bucketOf(time.Hour); i != buckets-1 {
		t.Errorf("an hour is in bucket %d of %d", i, buckets)
	}
}

func TestHistogram(t *testing.T) {
	var a account
	for i := range 100 {
		a.add(time.Duration(i+1) * time.Millisecond)
	}
	h := a.histogram()
	for _, q := range []float64{0, 0.5, 0.99, 1} {
		exact := time.Duration(min(q*100+1, 100)) * time.Millisecond
		if got := h.Quantile(q); got < exact || float64(got) > 1.13*float64(exact) {
			t.Errorf("quantile %v = %v, want %v to 1/8 more", q, got, exact)
		}
	}
	a.add(time.Second)
	if d := a.histogram().Sub(h); len(d) != 1 || d[0].N != 1 || d[0].Below <= time.Second {
		t.Errorf("since then = %v", d)
	}
	if got := Histogram(nil).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
	}
	if a.max.Load() != int64(time.Second) {
		t.Errorf("max = %d", a.max.Load())
	}
}

// The law: rules that are valid decide within bounds, and survive JSON.
func FuzzRules(f *testing.F) {
	f.Add([]byte(`{"seed":1,"delay":{"fsync":[{"add_ns":5000000,"jitter_ns":1000,"dist":"normal"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Rules
		if json.Unmarshal(b, &r) != nil || r.Validate() != nil {
			return
		}
		e, err := NewEngine(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range Ops {
			if d := e.Decide(op, 0, 0).Delay; d < 0 || d > MaxDelay {
				t.Fatalf("%s waits %v by %s", op, d, b)
			}
		}
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again Rules
		if err := json.Unmarshal(out, &again); err != nil || again.Validate() != nil {
			t.Fatalf("%s became %s: %v", b, out, err)
		}
	})
}
