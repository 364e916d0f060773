package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/plan"
)

var someLoad = plan.Load{
	Keys: 1000, Dist: "zipf", Zipf: 0.99, ValueSize: 256, Rate: 2000, Clients: 8, Timeout: time.Second,
	Mix: []plan.Share{{Kind: "get", P: 0.5}, {Kind: "put", P: 0.35}, {Kind: "cas", P: 0.05}, {Kind: "append", P: 0.05}, {Kind: "delete", P: 0.05}},
}

// The bytes of a plan must not change: not with the Go release, not with the
// processor, not with an innocent change of the stream.
func TestStreamIsGolden(t *testing.T) {
	l := someLoad
	l.Zipf = 1.2
	got := Describe(l, 42)
	want := []plan.Row{
		{Op: 1, Due: 121420, Kind: "cas", Key: "k20", Value: "v1"},
	}
	if diff := cmp.Diff(want, got.Rows[:1]); diff != "" {
		t.Errorf("first rows (-want +got):\n%s", diff)
	}
	if want := "ed00916d1ca70b06e064efcd7b055a1ece360795fa051b8a2b4cc944ee2ae73d"; got.SHA256 != want {
		t.Errorf("digest = %s, want %s", got.SHA256, want)
	}
}

func TestDigestCoversRowsAsJSON(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*plan.Load)
	}{
		{"an absolute rate", func(*plan.Load) {}},
		{"a share of the maximum", func(l *plan.Load) { l.Rate, l.OfMax = 0, 0.5 }},
		{"a closed loop", func(l *plan.Load) { l.Rate, l.Closed = 0, true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := someLoad
			tt.change(&l)
			s, h := NewStream(l, 7), sha256.New()
			for range HashedOps {
				line, err := json.Marshal(s.Next())
				if err != nil {
					t.Fatal(err)
				}
				h.Write(append(line, '\n'))
			}
			if got, want := Describe(l, 7).SHA256, hex.EncodeToString(h.Sum(nil)); got != want {
				t.Errorf("digest = %s, want that of the rows as encoding/json writes them, %s", got, want)
			}
		})
	}
}

func TestShareOfMaximumIsTheSameStreamInUnitsOfGaps(t *testing.T) {
	abs, rel := someLoad, someLoad
	rel.Rate, rel.OfMax = 0, 0.5
	a, r := NewStream(abs, 3), NewStream(rel, 3)
	for range 10_000 {
		x, y := a.Next(), r.Next()
		if due := math.Round(y.Due * 1e9 / abs.Rate); math.Abs(due-x.Due) > 1 {
			t.Fatalf("op %d due at %v ns, by gaps at %v ns", x.Op, x.Due, due)
		}
		if x.Due, y.Due = 0, 0; x != y {
			t.Fatalf("rows differ: %+v, %+v", x, y)
		}
	}
}

func TestStreamHasThePromisedDistribution(t *testing.T) {
	const n = 200_000
	within := func(t *testing.T, what string, got, p float64) {
		t.Helper()
		if sigma := math.Sqrt(n * p * (1 - p)); math.Abs(got-n*p) > 4.5*sigma {
			t.Errorf("%s: %.0f of %d, want %.0f ± %.0f", what, got, n, n*p, sigma)
		}
	}
	for _, dist := range []string{"uniform", "zipf", "sequential"} {
		t.Run(dist, func(t *testing.T) {
			l := someLoad
			l.Dist, l.Keys = dist, 50
			s := NewStream(l, 99)
			keys, kinds := map[string]float64{}, map[string]float64{}
			var last float64
			var short, square float64
			for range n {
				row := s.Next()
				keys[row.Key]++
				kinds[row.Kind]++
				gap := (row.Due - last) / (1e9 / l.Rate)
				last = row.Due
				square += gap * gap
				if gap < math.Ln2 { // the median of an exponential gap
					short++
				}
			}
			for _, share := range l.Mix {
				within(t, share.Kind, kinds[share.Kind], share.P)
			}
			var norm float64
			for i := range l.Keys {
				norm += math.Pow(float64(i+1), -l.Zipf)
			}
			for _, i := range []int{0, 1, 7, 49} {
				p := 1 / float64(l.Keys)
				if dist == "zipf" {
					p = math.Pow(float64(i+1), -l.Zipf) / norm
				}
				within(t, "k"+strconv.Itoa(i), keys["k"+strconv.Itoa(i)], p)
			}
			within(t, "gaps below the median", short, 0.5)
			if mean := last / n; math.Abs(mean*l.Rate/1e9-1) > 4.5/math.Sqrt(n) {
				t.Errorf("mean gap = %v ns, want %v", mean, 1e9/l.Rate)
			}
			if m2 := square / n; math.Abs(m2-2) > 4.5*math.Sqrt(20.0/n) { // E g² = 2, Var g² = 20
				t.Errorf("second moment of the gaps = %v, want 2", m2)
			}
		})
	}
}

func TestLogAndExpAgreeWithTheLibrary(t *testing.T) {
	for i := range 100_000 {
		x := float64(i+1) / 777
		if got, want := log(x), math.Log(x); math.Abs(got-want) > 4e-16*math.Max(1, math.Abs(want)) {
			t.Fatalf("log(%v) = %v, want %v", x, got, want)
		}
		if got, want := exp(-x), math.Exp(-x); math.Abs(got-want) > 1e-14*want {
			t.Fatalf("exp(%v) = %v, want %v", -x, got, want)
		}
	}
}

func TestCheckNamesEveryMistake(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*plan.Load)
		want   string
	}{
		{"a good load", func(*plan.Load) {}, ""},
		{"no keys", func(l *plan.Load) { l.Keys = 0 }, "keys: 0 is not in 1..10000000"},
		{"an unknown distribution", func(l *plan.Load) { l.Dist = "normal" }, `dist: "normal" is not uniform, zipf or sequential`},
		{"zipf without an exponent", func(l *plan.Load) { l.Zipf = 0 }, "zipf: exponent 0 is not in (0, 10]"},
		{"an unknown kind", func(l *plan.Load) { l.Mix = []plan.Share{{Kind: "scan", P: 1}} }, `mix: "scan" is not get, put, cas, append or delete`},
		{"shares short of one", func(l *plan.Load) { l.Mix = []plan.Share{{Kind: "get", P: 0.5}} }, "mix: shares sum to 0.5, not 1"},
		{"no mix at all", func(l *plan.Load) { l.Mix = nil }, "mix: shares sum to 0, not 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := someLoad
			tt.change(&l)
			got := ""
			if err := Check(l); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("Check = %q, want %q", got, tt.want)
			}
		})
	}
}

func BenchmarkStream(b *testing.B) {
	s := NewStream(someLoad, 1)
	for b.Loop() {
		s.Next()
	}
}

func BenchmarkDescribe(b *testing.B) {
	for b.Loop() {
		Describe(someLoad, 1)
	}
}
