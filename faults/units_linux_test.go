package faults

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/faultfs"
	"brownout/internal/plan"
)

func TestTheTableHasARowForEveryKind(t *testing.T) {
	var rows, kinds []string
	for _, r := range table {
		rows = append(rows, r.kind)
		if len(r.sources) == 0 || r.meter == nil || grid[r.kind].doses == nil {
			t.Errorf("%s: no provider, no meter or no grid", r.kind)
		}
	}
	for _, k := range plan.Kinds {
		kinds = append(kinds, k.Name)
	}
	if diff := cmp.Diff(kinds, rows); diff != "" {
		t.Error(diff)
	}
}

func TestDelaysOfADiskAddUp(t *testing.T) {
	const s = time.Millisecond
	add := func(op faultfs.Op, d time.Duration) faultfs.Rules {
		return faultfs.Rules{Delay: map[faultfs.Op][]faultfs.Delay{op: {{Add: d}}}}
	}
	got := diskRules([]faultfs.Rules{add(faultfs.Fsync, 5*s), add(faultfs.All, 2*s), add(faultfs.Fsync, s)})
	e, err := faultfs.NewEngine(got, nil)
	if err != nil {
		t.Fatal(err)
	}
	for op, want := range map[faultfs.Op]time.Duration{faultfs.Fsync: 8 * s, faultfs.Write: 2 * s, faultfs.Meta: 2 * s} {
		if got := e.Decide(op, 0, 0).Delay; got != want {
			t.Errorf("delay of %s = %v, want %v", op, got, want)
		}
	}
	if got.Release {
		t.Error("waits are let go while faults are in force")
	}
	if r := diskRules(nil); !r.Release {
		t.Errorf("healthy rules = %+v, want all waits let go", r)
	}
	e, err = faultfs.NewEngine(diskRules([]faultfs.Rules{add(faultfs.All, faultfs.MaxDelay), add(faultfs.All, faultfs.MaxDelay)}), nil)
	if err != nil {
		t.Errorf("two of the longest delays: %v", err)
	} else if got := e.Decide(faultfs.Fsync, 0, 0).Delay; got != faultfs.MaxDelay {
		t.Errorf("two of the longest delays = %v", got)
	}
}

func TestTheLowestQuotaWins(t *testing.T) {
	a, b := quota{percent: 50, period: time.Second}, quota{percent: 20, period: time.Millisecond}
	if got := lowestQuota([]quota{a, b}); got.percent != b.percent || got.period != b.period {
		t.Errorf("lowest = %v", got)
	}
	if got := lowestQuota(nil); got.percent != 0 {
		t.Errorf("of none = %v", got)
	}
}

func TestParseGCAccount(t *testing.T) {
	const text = "heap profile: 1: 2 [3: 4] @ heap/1048576\n# runtime.MemStats\n# Alloc = 1\n# LastGC = 9\n# PauseNs = [100 200 300 0]\n# PauseEnd = [11 12 13 0]\n# NumGC = 3\n"
	acc, err := parseGCAccount(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := acc.since(gcAccount{cycles: 1}, 150); !slices.Equal(got, []time.Duration{300, 200}) {
		t.Errorf("since cycle 1 = %v, want 300 and 200", got)
	}
	if got := acc.since(gcAccount{cycles: 9}, 0); len(got) != 3 {
		t.Errorf("of a process that was restarted = %v, want all 3", got)
	}
	for _, bad := range []string{"", "# NumGC = x\n", "# NumGC = 1\n# PauseNs = [1]\n# PauseEnd = []\n"} {
		if _, err := parseGCAccount(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func FuzzParseGCAccount(f *testing.F) {
	f.Add("# PauseNs = [100 200 300 0]\n# PauseEnd = [11 12 13 0]\n# NumGC = 3\n")
	f.Add("# PauseNs = [1]\n# PauseEnd = [1]\n# NumGC = 9223372036854775807\n")
	f.Fuzz(func(t *testing.T, text string) {
		if acc, err := parseGCAccount(text); err == nil && int64(len(acc.pauses)) > max(acc.cycles, 0) {
			t.Fatalf("%d pauses of %d cycles", len(acc.pauses), acc.cycles)
		}
	})
}

func TestPausesAreNoMoreThanWereMade(t *testing.T) {
	const s = time.Millisecond
	l := pauseLook{gaps: []time.Duration{30 * s, 103 * s, 55 * s, 101 * s, 104 * s}, usual: 2 * s}
	for _, tt := range []struct {
		name          string
		every, looked time.Duration
		want          []time.Duration
	}{
		{"one was asked for", 0, time.Second, []time.Duration{102 * s}},
		{"one each 400 ms in a second: three at most", 400 * s, time.Second, []time.Duration{102 * s, 101 * s, 99 * s}},
		{"what is shorter than half is noise", 10 * s, time.Second, []time.Duration{102 * s, 101 * s, 99 * s, 53 * s}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := l.pauses(100*s, tt.every, tt.looked); !slices.Equal(got, tt.want) {
				t.Errorf("pauses = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestHeavyTailedPausesHaveTheMedianAskedFor(t *testing.T) {
	b := newBench(Bed{Seed: 7})
	const median = 40 * time.Millisecond
	d := Dose{"length_ns": int64(median), "dist": "pareto"}
	draw, again := b.pauseLengths([]string{"n1"}), b.pauseLengths([]string{"n1"})
	var all []time.Duration
	for range 20_000 {
		x := draw(d)
		if y := again(d); x != y {
			t.Fatalf("drawn %v, then %v", x, y)
		}
		all = append(all, x)
	}
	if got := quantile(all, 0.5); !within(got, median, 0.03, 0) {
		t.Errorf("median %v, want %v", got, median)
	}
	if got := quantile(all, 1); got > paretoCut*median*102/100 || got < 10*median {
		t.Errorf("longest %v, want up to %v", got, paretoCut*median)
	}
	if got, want := quantile(all, 0.95), time.Duration(float64(median)*math.Pow(0.1, -1/paretoShape)); !within(got, want, 0.06, 0) {
		t.Errorf("p95 %v, want %v", got, want)
	}
	d["dist"] = "constant"
	if got := draw(d); got != median {
		t.Errorf("constant: %v", got)
	}
}

func TestCalibratedRows(t *testing.T) {
	for _, tt := range []struct {
		kind   string
		dose   Dose
		values map[string]any
		want   Row
	}{
		{
			"net.delay",
			Dose{"add_ns": int64(20e6)},
			map[string]any{"p50_ns": int64(20_030_000), "p99_ns": int64(20_110_000), "n": 2000},
			Row{Kind: "net.delay", Provider: "p", Requested: "20ms", MeasuredP50: "20.03ms", MeasuredP99: "20.11ms", N: 2000, ErrorPct: 0.15, ErrorNS: 30_000, Verdict: RowOK},
		},
		{
			"net.rate",
			Dose{"limit_bits_per_s": int64(10e6)},
			map[string]any{"bits_per_s": 9.9e6, "n": 3},
			Row{Kind: "net.rate", Provider: "p", Requested: "10 Mbit/s", MeasuredP50: "9.9 Mbit/s", N: 3, ErrorPct: -1, Verdict: RowOK},
		},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, calibrated(tt.kind, "p", tt.dose, Reading{tt.values}, Answer{Yes: true})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSharesAreJudgedBySampleSize: what chance explains is no miss, and no hit either.
func TestSharesAreJudgedBySampleSize(t *testing.T) {
	for _, tt := range []struct {
		name           string
		row            Row
		missed, unsure bool
	}{
		{"exact enough", Row{ErrorPct: 4, SigmaPct: 2.5}, false, false},
		{"no share", Row{ErrorPct: 6}, true, false},
		{"chance may be all of it", Row{ErrorPct: -9, SigmaPct: 6}, false, true},
		{"chance explains a part only", Row{ErrorPct: -20, SigmaPct: 6}, true, false},
		{"near by chance", Row{ErrorPct: 1, SigmaPct: 6}, false, true},
		{"a pause's own goal", Row{Kind: "process.pause", ErrorPct: 20, ErrorNS: 4e6}, false, false},
		{"beyond a pause's goal", Row{Kind: "process.pause", ErrorPct: 4, ErrorNS: 8e6}, true, false},
		{"a target that starts slowly", Row{InjectNS: 150e6, InjectUpNS: 120e6}, false, false},
		{"a slow injection", Row{InjectNS: 150e6, InjectUpNS: 90e6}, true, false},
	} {
		if m, u := tt.row.Missed(), tt.row.Unshown(); (m != "") != tt.missed || (u != "") != tt.unsure {
			t.Errorf("%s: missed %q, unshown %q", tt.name, m, u)
		}
	}
	for p, want := range map[float64]float64{0.01: 158_400, 0.5: 1600, 1: 0} {
		if n := sampleFor(p); math.Abs(n-want) > 1 {
			t.Errorf("share %v: a sample of %v, want %v", p, n, want)
		}
		if e := 2 * sigma(p, int(want)) / p; want > 0 && math.Abs(e-GoalPct/100) > 1e-4 {
			t.Errorf("share %v: chance is %v of it", p, e)
		}
	}
}

func TestWholePeriods(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct{ d, period, want time.Duration }{
		{1000 * ms, 300 * ms, 900 * ms}, {100 * ms, 300 * ms, 300 * ms}, {100 * ms, 0, 100 * ms},
	} {
		if got := whole(tt.d, tt.period); got != tt.want {
			t.Errorf("%s in periods of %s: %s, want %s", tt.d, tt.period, got, tt.want)
		}
	}
}

func TestStallsThatMemoryHighGives(t *testing.T) {
	for _, tt := range []struct {
		version int
		length  time.Duration
		ok      bool
	}{
		{1, 10 * time.Millisecond, true},
		{1, 2500 * time.Millisecond, true},
		{2, 10 * time.Millisecond, false},
		{2, 200 * time.Millisecond, false},
		{2, 1900 * time.Millisecond, true}, // within the tolerance of a pause
		{2, 2 * time.Second, true},
		{2, 2001 * time.Millisecond, false}, // who wakes up just before its end sleeps once more
		{2, 3 * time.Second, false},
		{2, 4 * time.Second, true},
	} {
		err := canStall(tt.version, tt.length)
		if (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), "2s or a multiple of it") {
			t.Errorf("stalls of %v by cgroup v%d: %v, want possible: %t", tt.length, tt.version, err, tt.ok)
		}
	}
	if doses, hold := gridOf("memory.stall", "cgroup2"); len(doses) == 0 || canStall(2, doses[0].Duration("length")) != nil || hold <= doses[len(doses)-1].Duration("length") {
		t.Errorf("memory.stall by memory.high is calibrated at %v, held for %v", doses, hold)
	}
}

// TestAStallIsNotChangedToWhatCannotBe: nor by a ramp, nor by `brownout fault`.
func TestAStallIsNotChangedToWhatCannotBe(t *testing.T) {
	p := &pulses{may: func(d Dose) error { return canStall(2, d.Duration("length")) }}
	good := Dose{"length_ns": int64(2 * highSleep)}
	if err := p.Set(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for _, length := range []time.Duration{0, 3 * time.Second} {
		if err := p.Set(t.Context(), Dose{"length_ns": int64(length)}); err == nil {
			t.Errorf("a length of %v was taken", length)
		}
	}
	if got := p.dose.Duration("length"); got != 2*highSleep {
		t.Errorf("the length is %v after what was refused, want %v", got, 2*highSleep)
	}
}
