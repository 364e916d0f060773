package report

import (
	"bytes"
	"encoding/xml"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/run"
)

var update = flag.Bool("update", false, "write testdata again; look at what changed before committing it")

func num(v float64) *float64 { return &v }

func ops(rate float64, p50, p99, max, n, fail, unknown int64) run.Ops {
	return run.Ops{OK: n - fail - unknown, Fail: fail, Unknown: unknown, Rate: rate, Response: run.Quantiles{P50: p50, P90: p50, P99: p99, P999: max, Max: max, N: n}}
}

func passed() run.Result {
	return run.Result{
		Schema: run.ResultSchema, Run: "2026-01-02T03-04-05_slow-leader-disk_k7f2", Scenario: "slow-leader-disk", Seed: 42,
		Verdict: run.Pass, Why: "3 of 3 expectations met, linearizable (1030000 operations, 128 keys), 500000 acknowledged writes kept",
		Target: run.Target{Kind: "kvserver", Nodes: 5},
		Phases: []run.Phase{
			{Name: "baseline", Start: 3e9, End: 13e9, Ops: map[string]run.Ops{"put": ops(10300, 620_000, 1_940_000, 12_300_000, 103_000, 0, 0), "get": ops(10310, 210_000, 980_000, 9_000_000, 103_100, 0, 0), "all": ops(20610, 400_000, 1_800_000, 12_300_000, 206_100, 0, 0)}},
			{Name: "fault", Start: 13e9, End: 28e9, Ops: map[string]run.Ops{"put": ops(10290, 640_000, 2_070_000, 104_000_000, 154_000, 3, 2), "all": ops(10290, 640_000, 2_070_000, 1_204_000_000, 154_000, 3, 2)}},
		},
		Faults: []run.Fault{{
			ID: "f1", Kind: "disk.delay", Nodes: []string{"n4"}, Provider: "fuse", Requested: map[string]any{"add_ns": 20e6, "op": "fsync"},
			Measured: map[string]any{"p50_ns": 20.1e6, "n": 487.0}, Bit: run.BitYes, Start: 13e9, End: 28e9, Healed: run.HealedYes, Recovery: 1_300_000_000,
			RoleMoved: "n4 became leader at 20.1s",
		}},
		Expectations: []run.Expectation{
			{Text: "linearizable", File: "slow-leader-disk.yaml", Line: 20, Verdict: run.Pass},
			{Text: "p99(put) during disk.delay < 3x baseline", File: "slow-leader-disk.yaml", Line: 21, Verdict: run.Pass, Observed: num(1.07), Limit: num(3), Unit: "x"},
			{Text: "time_to_recover(disk.delay) < 5s", File: "slow-leader-disk.yaml", Line: 24, Verdict: run.Pass, Observed: num(1.3e9), Limit: num(5e9), Unit: "ns"},
		},
		Consistency: run.Consistency{Model: "kv", Verdict: "ok", Engine: "porcupine", Ops: 1_030_000, Keys: 128, CPU: 2_100_000_000},
		Durability:  run.Durability{Verdict: "ok", Acknowledged: 500_000},
		Load:        run.Load{OfferedPerS: 20600, MaxPerS: 41200, Lateness: run.Quantiles{N: 600, P50: 50_000, P99: 400_000}, Verdict: "ok"},
		Host:        run.Noise{Noise: "quiet", ForeignCPU: 0.04, FsyncP50: 900_000},
		Wire:        run.Wire{Frames: 1234, LatenessP99: 90_000, LatenessMax: 7_200_000}, LeaderChanges: 1,
	}
}

func changed(v run.Verdict, why string, change func(*run.Result)) run.Result {
	r := passed()
	r.Verdict, r.ExitCode, r.Why = v, v.ExitCode(), why
	change(&r)
	return r
}

var results = map[string]run.Result{
	"pass": passed(),
	"fail": changed(run.Fail, "p99(put) during disk.delay < 3x baseline: 11.4x", func(r *run.Result) {
		r.Expectations[1].Verdict, r.Expectations[1].Observed = run.Fail, num(11.4)
		r.Expectations[1].Why = "baseline 1.94ms, during disk.delay 22.1ms"
		r.Faults[0].Recovery = -1
	}),
	"violation": changed(run.Violation, "not linearizable: stale read: k7: …", func(r *run.Result) {
		r.Consistency.Verdict, r.Consistency.Why = "illegal", "2 of 128 keys are not linearizable, 9 conflicts"
		for range 7 {
			r.Consistency.Violations = append(r.Consistency.Violations, run.Conflict{Key: "k7", Label: "stale read", Ops: []int64{17, 23}, Text: `k7: client 3's get (op 23, n2, 1.204000 to 1.206000 s) found "v<17>|" at least 14ms after …`})
		}
		r.Durability = run.Durability{Verdict: "lost", Acknowledged: 500_000, Lost: []run.LostWrite{{Op: 18, Key: "k7", Text: `k7: "v18" was acknowledged, but …`}}}
		r.Expectations[0].Verdict = run.Fail
	}),
	"inconclusive": changed(run.Inconclusive, "testbed starved: 300 of 2000 due operations were never sent (limit 0.1 %)", func(r *run.Result) {
		r.Load.Verdict, r.Load.Why, r.Load.Dropped = "starved", "300 of 2000 due operations were never sent (limit 0.1 %)", 300
		r.Expectations[1].Verdict, r.Expectations[1].Why = run.Inconclusive, "11.4x; but testbed starved"
		r.Faults[0].Bit, r.Faults[0].Healed, r.Faults[0].Why = run.BitUnmeasured, run.HealedNo, "the meter saw no fsync"
		r.Durability = run.Durability{Verdict: "unknown", Acknowledged: 5, Why: "no final read of 1 keys with acknowledged writes: [k4]"}
		r.Cleanup.Residue = []string{"cgroup bo-x1"}
	}),
	"empty": {Verdict: run.Inconclusive, ExitCode: 4, Why: "nothing observed: the history is empty", Consistency: run.Consistency{Verdict: "ok"}, Durability: run.Durability{Verdict: "ok"}, Load: run.Load{Verdict: "ok"}, Host: run.Noise{Noise: "quiet"}},
}

func TestReports(t *testing.T) {
	forms := map[string]func(io.Writer, fs.FS, run.Result) error{
		"txt":    func(w io.Writer, _ fs.FS, r run.Result) error { return Text(w, r, false) },
		"md":     Summary,
		"xml":    JUnit,
		"colour": func(w io.Writer, _ fs.FS, r run.Result) error { return Text(w, r, true) },
	}
	for name, r := range results {
		for ext, write := range forms {
			t.Run(name+" as "+ext, func(t *testing.T) {
				var b bytes.Buffer
				if err := write(&b, fstest.MapFS{}, r); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join("testdata", name+"."+ext)
				if *update {
					if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), b.String()); d != "" {
					t.Errorf("%s (-stored +now):\n%s", path, d)
				}
			})
		}
	}
}

func TestColourAddsNothingButColour(t *testing.T) {
	for name, r := range results {
		var plain, colour bytes.Buffer
		if err := Text(&plain, r, false); err != nil {
			t.Fatal(err)
		}
		if err := Text(&colour, r, true); err != nil {
			t.Fatal(err)
		}
		bare := strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "").Replace(colour.String())
		if bare != plain.String() {
			t.Errorf("%s: text without its colours differs:\n%s", name, cmp.Diff(plain.String(), bare))
		}
	}
}

func TestJUnitCountsAndStaysWellFormed(t *testing.T) {
	r := results["violation"]
	r.Consistency.Violations[0].Text = "bytes \x00\x1b\xff and ]]> and <tags>"
	var b bytes.Buffer
	if err := JUnit(&b, nil, r); err != nil {
		t.Fatal(err)
	}
	var s struct {
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Cases    []struct{} `xml:"testcase"`
	}
	if err := xml.Unmarshal(b.Bytes(), &s); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if s.Tests != 7 || len(s.Cases) != 7 || s.Failures != 4 || s.Errors != 0 {
		t.Errorf("suite = %+v, want 7 tests, 4 failures, no errors", s)
	}
}

func TestASummaryIsNeverTooLong(t *testing.T) {
	r := passed()
	for range 20_000 {
		r.Consistency.Violations = append(r.Consistency.Violations, run.Conflict{Label: "stale read", Text: strings.Repeat("a", 100)})
	}
	var b bytes.Buffer
	if err := Summary(&b, nil, r); err != nil {
		t.Fatal(err)
	}
	if b.Len() > maxSummary || !strings.HasSuffix(b.String(), "cut off here: the whole is in result.json)\n") {
		t.Errorf("summary has %d bytes and ends %q", b.Len(), b.String()[b.Len()-50:])
	}
}

func TestWriteMakesAllFiles(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, os.DirFS(dir), passed()); err != nil {
		t.Fatal(err)
	}
	got, err := run.ReadResult(os.DirFS(dir))
	if err != nil || got.Verdict != run.Pass {
		t.Errorf("ReadResult = %s, %v", got.Verdict, err)
	}
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if d := cmp.Diff([]string{run.JUnitFile, run.ResultFile, run.SummaryFile}, names); d != "" {
		t.Error(d)
	}
}

func TestDuration(t *testing.T) {
	for _, tt := range []struct {
		ns   int64
		want string
	}{{0, "0"}, {17, "17ns"}, {1500, "1.50µs"}, {20_100_000, "20.1ms"}, {999_900, "1000µs"}, {123_400_000, "123ms"}, {61e9, "61.0s"}, {-2e6, "-2.00ms"}} {
		if got := Duration(tt.ns); got != tt.want {
			t.Errorf("Duration(%d) = %q, want %q", tt.ns, got, tt.want)
		}
	}
}
