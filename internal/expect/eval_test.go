package expect

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/run"
)

const sec = int64(1e9)

// numbers are of a run whose fault f1 lasts from 10 s to 20 s. Latencies are
// 2 ms in the baseline and 22 ms while it lasts; every op counts 100 a second.
func numbers() Numbers {
	phases := []run.Phase{
		{Name: "warmup", Start: 0, End: 2 * sec},
		{Name: "baseline", Start: 2 * sec, End: 10 * sec},
		{Name: "fault", Start: 10 * sec, End: 30 * sec},
		{Name: "recovery", Start: 30 * sec, End: 36 * sec},
	}
	length := func(spans []Span) (ns int64) {
		for _, s := range spans {
			ns += s.End - s.Start
		}
		return ns
	}
	return Numbers{
		Phases: phases,
		Quantile: func(op Ops, service bool, q float64, spans []Span) (int64, int64) {
			v := int64(2e6)
			if op.Shard != "" {
				return v, length(spans) / 1e8
			}
			if spans[0].Start >= 10*sec && spans[0].Start < 30*sec {
				v = 22e6
			}
			if service {
				v /= 2
			}
			n := length(spans) / 1e7
			if op.Kind == "cas" {
				n = 15
			}
			return v, n
		},
		Count: func(op Ops, spans []Span) Counts {
			if op.Kind == "delete" {
				return Counts{}
			}
			return Counts{OK: length(spans)/1e7 - 3, Fail: 1, Unknown: 2}
		},
		Completed: func(op Ops, spans []Span) int64 {
			n := length(spans) / 1e7
			if spans[0].Start >= 10*sec && spans[0].Start < 30*sec {
				n = n * 9 / 10
			}
			return n
		},
		LeaderChanges: func(shard string, spans []Span) int { return len(spans) + len(shard) },
		Faults: []Fault{
			{run.Fault{ID: "f1", Kind: "disk.delay", Bit: run.BitYes, Healed: run.HealedYes, Start: 10 * sec, End: 20 * sec, Recovery: 15e8}, true},
			{run.Fault{ID: "f2", Kind: "net.delay", Bit: run.BitYes, Healed: run.HealedYes, Start: 15 * sec, End: 25 * sec, Recovery: 5e8, RoleMoved: "n1 no longer leads"}, true},
			{run.Fault{ID: "f3", Kind: "disk.delay", Bit: run.BitYes, Healed: run.HealedYes, Start: 18 * sec, End: 30 * sec, Recovery: 25e8}, true},
		},
		Consistency: run.Consistency{Verdict: "ok", Ops: 3600, Keys: 100},
		Durability:  run.Durability{Verdict: "ok", Acknowledged: 1700},
	}
}

func TestEval(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want run.Verdict
		why  string
	}{
		{"linearizable", run.Pass, "3600 operations on 100 keys"},
		{"no acknowledged write is lost", run.Pass, "1700 acknowledged writes are there"},
		{"p99(put) during f1 < 3x baseline", run.Fail, "p99(put) 22 ms during f1 (n=1000) against 2 ms in baseline (n=800): 11x, limit < 3x"},
		{"p99(put) during f1 < 12x baseline", run.Pass, "11x, limit < 12x"},
		{"p50(put) of shard 1 during f1 < 2x baseline", run.Pass, "p50(put) of shard 1 2 ms during f1 (n=100) against 2 ms in baseline (n=80): 1x, limit < 2x"},
		{"p999 of shard 1 during f1 < 2x baseline", run.Inconclusive, "only 100 operations of shard 1 during f1; p999 needs 1000"},
		{"leader_changes of shard 1 during f1 = 2", run.Pass, "2 leader changes of shard 1 during f1"},
		{"p50 during f1 > 20ms", run.Pass, "p50 22 ms during f1 (n=1000), limit > 20ms"},
		{"service p50 during f1 <= 11ms", run.Pass, "service p50 11 ms during f1 (n=1000), limit <= 11ms"},
		{"p99 during disk.delay < 30ms", run.Pass, "during disk.delay (n=2000)"}, // f1 and f3 overlap
		{"p99 < 30ms", run.Pass, "22 ms while faults lasted (n=2000)"},
		{"max in recovery < 3ms", run.Pass, "2 ms in recovery (n=600)"},
		{"max in run < 3ms", run.Pass, "2 ms in run (n=3400)"},
		{"p999 in recovery < 3ms", run.Inconclusive, "only 600 operations in recovery; p999 needs 1000"},
		{"p99(cas) in recovery < 3ms", run.Inconclusive, "only 15 cas operations in recovery; p99 needs 100"},
		{"throughput during f1 > 80% of baseline", run.Pass, "90/s during f1 (n=900) against 100/s in baseline (n=800): 90 %, limit > 80 %"},
		{"throughput during f1 > 95% of baseline", run.Fail, "90 %, limit > 95 %"},
		{"throughput(put) in recovery >= 100/s", run.Pass, "throughput(put) 100/s in recovery (n=600), limit >= 100/s"},
		{"throughput(delete) in recovery > 1/s", run.Inconclusive, "only 0 delete operations due in recovery"},
		{"errors = 0", run.Fail, "3 errors of 2000 operations while faults lasted, limit = 0"},
		{"errors during f2 is 3", run.Pass, "3 errors of 1000 operations during f2, limit = 3 (f2: n1 no longer leads)"},
		{"unknown during f1 < 0.5%", run.Pass, "2 unknown outcomes of 1000 operations during f1: 0.2 %, limit < 0.5 %"},
		{"fails during f1 < 1", run.Fail, "1 fail of 1000 operations during f1, limit < 1"},
		{"errors(delete) = 0", run.Inconclusive, "no delete operation was due"},
		{"leader_changes <= 1", run.Pass, "1 leader change while faults lasted, limit <= 1"},
		{"leader_changes in run = 0", run.Fail, "1 leader change in run, limit = 0"},
		{"time_to_recover(f1) < 2s", run.Pass, "f1: as in baseline 1.50 s after its heal, limit < 2s"},
		{"time_to_recover(disk.delay) < 2s", run.Fail, "f3: as in baseline 2.50 s after its heal, limit < 2s"},
		{"time_to_recover(process.kill) < 2s", run.Inconclusive, "there was no fault process.kill"},
		{"p99 during f9 < 2s", run.Inconclusive, "there was no fault f9"},
		{"diagnosis during f1 is disk@leader", run.Inconclusive, "no diagnosis was made"},
	} {
		s, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		got := Eval(s, numbers())
		if got.Verdict != tt.want || !strings.Contains(got.Why, tt.why) || got.Text != s.String() {
			t.Errorf("%s: %s, %s\nwant %s, %s", tt.in, got.Verdict, got.Why, tt.want, tt.why)
		}
	}
}

func TestEvalGivesBothNumbers(t *testing.T) {
	for _, tt := range []struct {
		in              string
		observed, limit float64
		unit            string
	}{
		{"p99(put) during f1 < 3x baseline", 11, 3, "x"},
		{"p99(put) during f1 < 300% of baseline", 1100, 300, "%"},
		{"p50 during f1 > 20ms", 22e6, 20e6, "ns"},
		{"throughput during f1 > 50/s", 90, 50, "per_s"},
		{"errors during f1 = 0", 3, 0, "count"},
		{"time_to_recover(f1) < 2s", 15e8, 2e9, "ns"},
	} {
		s, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		got := Eval(s, numbers())
		if got.Observed == nil || got.Limit == nil {
			t.Errorf("%s: %+v", tt.in, got)
			continue
		}
		if diff := cmp.Diff([]any{tt.observed, tt.limit, tt.unit}, []any{*got.Observed, *got.Limit, got.Unit}); diff != "" {
			t.Errorf("%s: %s", tt.in, diff)
		}
	}
}

// TestNothingKnownIsNeverAPass: for each way in which a run can fail to show
// something, every sentence that rests on it is inconclusive.
func TestNothingKnownIsNeverAPass(t *testing.T) {
	about := []string{
		"p99 during f1 < 1h", "p99 < 1h", "errors during disk.delay < 100%", "errors < 100%", "throughput > 0/s",
		"leader_changes < 100", "time_to_recover(f1) < 1h", "p99 in recovery < 1h", "errors in run < 100%", "diagnosis is disk",
	}
	untouched := []string{"p99 in baseline < 1h", "errors in warmup < 100%", "linearizable", "no acknowledged write is lost"}
	for _, tt := range []struct {
		name   string
		change func(*Fault)
		why    string
	}{
		{"never fired", func(f *Fault) { f.Fired = false; f.Why = "no node leads" }, "f1 disk.delay never fired: no node leads"},
		{"did not bite", func(f *Fault) { f.Bit = run.BitNo; f.Why = "saw 0.1 ms" }, "f1 disk.delay did not bite: saw 0.1 ms"},
		{"not measured", func(f *Fault) { f.Bit = run.BitUnmeasured }, "f1 disk.delay was not measured"},
	} {
		n := numbers()
		n.Diagnosis.Suspects = []run.Suspect{{Culprit: "disk"}}
		tt.change(&n.Faults[0])
		for _, in := range about {
			s, err := Parse(in)
			if err != nil {
				t.Fatal(err)
			}
			if got := Eval(s, n); got.Verdict != run.Inconclusive || got.Why != tt.why {
				t.Errorf("%s, %s: %s, %s; want inconclusive, %s", tt.name, in, got.Verdict, got.Why, tt.why)
			}
		}
		for _, in := range untouched {
			s, err := Parse(in)
			if err != nil {
				t.Fatal(err)
			}
			if got := Eval(s, n); got.Verdict != run.Pass {
				t.Errorf("%s, %s: %s, %s; want pass", tt.name, in, got.Verdict, got.Why)
			}
		}
	}
}

func TestEvalOfRunsThatLackSomething(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Numbers)
		in     string
		want   run.Verdict
		why    string
	}{
		{"no baseline", func(n *Numbers) { n.Phases = n.Phases[2:] }, "p99 < 3x baseline", run.Inconclusive, "the run has no baseline"},
		{"no baseline, recovery", func(n *Numbers) { n.Phases = n.Phases[2:] }, "time_to_recover(f1) < 3s", run.Inconclusive, "no baseline"},
		{"interrupted before the recovery", func(n *Numbers) { n.Phases = n.Phases[:3] }, "p99 in recovery < 3s", run.Inconclusive, "no such time"},
		{"no phases at all", func(n *Numbers) { n.Phases = nil }, "p99 < 3s", run.Inconclusive, "no such time"},
		{"checker unknown", func(n *Numbers) { n.Consistency = run.Consistency{Verdict: "unknown", Why: "budget spent"} }, "linearizable", run.Inconclusive, "budget spent"},
		{"checker silent", func(n *Numbers) { n.Consistency = run.Consistency{} }, "linearizable", run.Inconclusive, "no answer"},
		{"nothing checked", func(n *Numbers) { n.Consistency.Ops = 0 }, "linearizable", run.Inconclusive, "no operation"},
		{"violated", func(n *Numbers) {
			n.Consistency = run.Consistency{Verdict: "illegal", Violations: []run.Conflict{{Key: "k7", Label: "stale read"}, {}}}
		}, "linearizable", run.Fail, "stale read of k7, and 1 more"},
		{"lost", func(n *Numbers) {
			n.Durability = run.Durability{Verdict: "lost", Acknowledged: 9, Lost: []run.LostWrite{{Text: "put 3 of k1"}}}
		}, "no acknowledged write is lost", run.Fail, "1 of 9 acknowledged writes are lost: put 3 of k1"},
		{"final reads missing", func(n *Numbers) { n.Durability = run.Durability{Verdict: "unknown"} }, "no acknowledged write is lost", run.Inconclusive, "not known"},
		{"nothing acknowledged", func(n *Numbers) { n.Durability.Acknowledged = 0 }, "no acknowledged write is lost", run.Inconclusive, "no write"},
		{"not recovered, with time", func(n *Numbers) { n.Faults[0].Recovery = -1 }, "time_to_recover(f1) < 5s", run.Fail, "f1 had not recovered when the run ended 16 s after its heal"},
		{"not recovered, hoped so", func(n *Numbers) { n.Faults[0].Recovery = -1 }, "time_to_recover(f1) > 5s", run.Pass, "had not recovered"},
		{"not recovered, too short", func(n *Numbers) { n.Faults[0].Recovery = -1 }, "time_to_recover(f1) < 20s", run.Inconclusive, "the limit is 20s"},
		{"not healed", func(n *Numbers) { n.Faults[0].Healed = run.HealedNo }, "time_to_recover(f1) < 20s", run.Inconclusive, "was not seen to heal"},
		{"not healed, then", func(n *Numbers) { n.Faults[0].Healed = run.HealedNo }, "p99 during f1 < 20s", run.Pass, ""},
		{"diagnosed", func(n *Numbers) {
			n.Diagnosis.Suspects = []run.Suspect{{Culprit: "disk", Node: "n2", Role: "leader", Confidence: 0.9}}
		}, "diagnosis is disk@leader", run.Pass, "names disk@n2 (leader), confidence 0.90"},
		{"diagnosed by node", func(n *Numbers) { n.Diagnosis.Suspects = []run.Suspect{{Culprit: "disk", Node: "n2"}} }, "diagnosis is disk@n2", run.Pass, ""},
		{"diagnosed wrongly", func(n *Numbers) { n.Diagnosis.Suspects = []run.Suspect{{Culprit: "cpu", Node: "n2"}} }, "diagnosis is disk", run.Fail, "names cpu@n2"},
		{"diagnosed nothing", func(n *Numbers) { n.Diagnosis.Suspects = []run.Suspect{} }, "diagnosis is none", run.Pass, "nothing slow"},
		{"missed", func(n *Numbers) { n.Diagnosis.Suspects = []run.Suspect{} }, "diagnosis is disk", run.Fail, "nothing slow"},
	} {
		n := numbers()
		tt.change(&n)
		s, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := Eval(s, n); got.Verdict != tt.want || !strings.Contains(got.Why, tt.why) {
			t.Errorf("%s: %s: %s, %s\nwant %s, %s", tt.name, tt.in, got.Verdict, got.Why, tt.want, tt.why)
		}
	}
}

func TestUnion(t *testing.T) {
	got := Union([]Span{{5, 7}, {1, 3}, {2, 4}, {7, 9}, {20, 30}, {21, 22}})
	if diff := cmp.Diff([]Span{{1, 4}, {5, 9}, {20, 30}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNanoseconds(t *testing.T) {
	for _, tt := range []struct {
		in   float64
		want string
	}{{0, "0 ns"}, {999, "999 ns"}, {1940000, "1.94 ms"}, {22.1e6, "22.1 ms"}, {150e3, "150 µs"}, {12.34e9, "12.3 s"}, {1.5e9, "1.50 s"}} {
		if got := Nanoseconds(tt.in); got != tt.want {
			t.Errorf("Nanoseconds(%v) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
