package judge

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"brownout/internal/foreign"
	"brownout/internal/history"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/kvserver/slots"
)

var update = flag.Bool("update", false, "write testdata again; look at what changed before committing it")

const (
	ms = int64(time.Millisecond)
	s  = int64(time.Second)
)

// A story is a run made up for a test: a healthy one, to be spoilt.
type story struct {
	manifest run.Manifest
	plan     plan.Plan
	ops      []history.Op
	events   []run.Event
}

// healthy is a run of 12 s on a correct store: 1 s of warm-up, 4 s of baseline, a
// fault from 5 s to 8 s that makes a put slow, and 4 s of recovery.
func healthy() *story {
	st := &story{
		manifest: run.Manifest{Schema: run.ManifestSchema, Run: "2026-01-02T03-04-05_slow-leader-disk_k7f2", Scenario: "slow-leader-disk", Seed: 7},
		plan: plan.Plan{
			Schema: plan.Schema, Scenario: "slow-leader-disk", File: "slow-leader-disk.yaml", Seed: 7,
			Target: plan.Target{Kind: "kvserver", Nodes: 3},
			Phases: []plan.Phase{
				{Name: "warmup", End: time.Second},
				{Name: "baseline", Start: time.Second, End: 5 * time.Second},
				{Name: "fault", Start: 5 * time.Second, End: 8 * time.Second},
				{Name: "recovery", Start: 8 * time.Second, End: 12 * time.Second},
			},
			Faults: []plan.Fault{{ID: "f1", Kind: "disk.delay", Start: 5 * time.Second, End: 8 * time.Second, On: "leader", Params: plan.Params{"op": "fsync", "add_ns": 20e6}, Line: 12}},
			Expect: []plan.Expectation{
				{Text: "linearizable", Line: 20, Col: 5},
				{Text: "no acknowledged write is lost", Line: 21, Col: 5},
				{Text: "p99(put) during disk.delay < 20x baseline", Line: 22, Col: 5},
				{Text: "throughput during disk.delay > 80% of baseline", Line: 23, Col: 5},
				{Text: "time_to_recover(disk.delay) < 2s", Line: 24, Col: 5},
			},
		},
		events: []run.Event{
			{T: -900 * ms, Type: run.LeaderChanged, Node: "n2", Data: map[string]any{"term": 2}},
			{T: -500 * ms, Type: run.HostNoise, Phase: "before", Data: map[string]any{"cpu_pressure": 0.02, "foreign_cpu": 0.04, "fsync_p50_ns": 900_000}},
			{T: -1, Type: run.LoadStarted, Data: map[string]any{"rate_per_s": 50.0, "max_per_s": 100.0, "clients": 8}},
			{T: 1, Type: run.PhaseStarted, Phase: "warmup"},
			{T: 1 * s, Type: run.PhaseStarted, Phase: "baseline"},
			{T: 5 * s, Type: run.PhaseStarted, Phase: "fault"},
			{T: 5*s + 2*ms, Type: run.FaultFired, Fault: "f1", Kind: "disk.delay", Nodes: []string{"n2"}, Provider: "fuse", Requested: map[string]any{"op": "fsync", "add_ns": 20e6}},
			{T: 6 * s, Type: run.FaultMeasured, Fault: "f1", Measured: map[string]any{"p50_ns": 20.1e6, "n": 61.0}, Bit: run.BitYes, Text: "61 fsyncs took 20.1 ms longer"},
			{T: 8 * s, Type: run.PhaseStarted, Phase: "recovery"},
			{T: 8*s + 3*ms, Type: run.FaultHealed, Fault: "f1"},
			{T: 8*s + 200*ms, Type: run.FaultVerified, Fault: "f1", Healed: run.HealedYes, Measured: map[string]any{"p50_ns": 0.9e6}},
			{T: 12*s + 10*ms, Type: run.LoadEnded, Data: map[string]any{"dropped": 0}},
			{T: 13 * s, Type: run.WireReport, Data: map[string]any{"lateness_p50_ns": 20_000, "lateness_p99_ns": 90_000, "lateness_max_ns": 400_000, "frames": 1234, "scheduling": "fifo"}},
			{T: 13 * s, Type: run.RunEnded},
		},
	}
	state := map[string]*string{}
	for i := range int64(600) {
		o := history.Op{ID: i + 1, Client: int(i % 8), Key: fmt.Sprintf("k%d", i%5), Kind: history.Put, Outcome: history.OK, Due: i * 20 * ms, Node: "n2"}
		o.Call = o.Due + 50_000 + i%7*1000
		took := 2*ms + i%11*100_000
		if o.Due >= 5*s && o.Due < 8*s && i%3 != 0 {
			took += 20 * ms
		}
		o.Return = o.Call + took
		if i%3 == 0 {
			o.Kind, o.Result = history.Get, state[o.Key]
		} else {
			v := fmt.Sprintf("v%d", i+1)
			o.Value, state[o.Key] = &v, &v
		}
		st.ops = append(st.ops, o)
	}
	for k := range 5 {
		o := history.Op{ID: int64(601 + k), Client: 100 + k, Key: fmt.Sprintf("k%d", k), Kind: history.Get, Outcome: history.OK, Due: 12500 * ms, Call: 12500 * ms, Return: 12501 * ms, Node: "n2", Phase: "final"}
		o.Result = state[o.Key]
		st.ops = append(st.ops, o)
	}
	return st
}

func (st *story) event(t run.EventType) *run.Event {
	for i := range st.events {
		if st.events[i].Type == t {
			return &st.events[i]
		}
	}
	panic("no event " + t)
}

func (st *story) without(t run.EventType) {
	st.events = slices.DeleteFunc(st.events, func(e run.Event) bool { return e.Type == t })
}

func (st *story) add(e run.Event) { st.events = append(st.events, e) }

// files writes the story as the files of a run.
func (st *story) files(t testing.TB) fstest.MapFS {
	t.Helper()
	doc := func(v any) *fstest.MapFile {
		b, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return &fstest.MapFile{Data: append(b, '\n')}
	}
	var events, hist bytes.Buffer
	enc := json.NewEncoder(&events)
	for _, e := range st.events {
		if err := enc.Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range st.ops {
		hist.Write(append(history.AppendJSON(nil, &st.ops[i]), '\n'))
	}
	return fstest.MapFS{
		run.ManifestFile: doc(st.manifest), run.PlanFile: doc(st.plan),
		run.EventsFile: {Data: events.Bytes()}, run.HistoryFile: {Data: hist.Bytes()},
	}
}

func judged(t *testing.T, fsys fs.FS) run.Result {
	t.Helper()
	res, err := Judge(t.Context(), fsys, Options{})
	if err != nil {
		t.Fatalf("Judge: %v", err)
	}
	return res
}

// stored are the runs in testdata, one for each verdict.
var stored = map[string]func(*story){
	"pass": func(*story) {},
	"fail": func(st *story) {
		st.plan.Expect[2].Text = "p99(put) during disk.delay < 3x baseline"
	},
	"violation": func(st *story) {
		// One read returns what was overwritten two writes before it.
		o := &st.ops[420]
		o.Result = st.ops[400].Value
		if o.Kind != history.Get || o.Result == nil || o.Key != st.ops[400].Key {
			panic("the story changed")
		}
	},
	"inconclusive": func(st *story) {
		e := st.event(run.FaultMeasured)
		e.Bit, e.Text, e.Measured = run.BitNo, "61 fsyncs took 0.1 ms longer, asked for 20ms", map[string]any{"p50_ns": 0.1e6, "n": 61.0}
	},
}

// compactJSON takes documents for the same that differ in white space.
var compactJSON = cmp.Transformer("compact", func(m json.RawMessage) string {
	var b bytes.Buffer
	_ = json.Compact(&b, m) // damaged ones are compared as far as they go
	return b.String()
})

func TestStoredRunsGetTheVerdictTheyHad(t *testing.T) {
	for name, spoil := range stored {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("testdata", name)
			if *update {
				st := healthy()
				spoil(st)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				for file, f := range st.files(t) {
					if err := os.WriteFile(filepath.Join(dir, file), f.Data, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				res := judged(t, os.DirFS(dir))
				res.Consistency.CPU = 0
				if err := run.WriteResult(dir, res); err != nil {
					t.Fatal(err)
				}
			}
			fsys := os.DirFS(dir)
			want, err := run.ReadResult(fsys)
			if err != nil {
				t.Fatal(err)
			}
			got := judged(t, fsys)
			if string(got.Verdict) != name || got.ExitCode != got.Verdict.ExitCode() {
				t.Errorf("verdict = %s (%s), exit code %d", got.Verdict, got.Why, got.ExitCode)
			}
			if d := cmp.Diff(want, got, cmpopts.IgnoreFields(run.Consistency{}, "CPU"), compactJSON); d != "" {
				t.Errorf("Judge of %s (-stored +now):\n%s", dir, d)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	starved := func(st *story) {
		for i := range st.ops {
			if st.ops[i].Phase == "" && st.ops[i].Outcome == history.OK {
				st.ops[i].Due -= 15 * ms // called 15 ms late, all of them
			}
		}
	}
	missed := func(st *story) { st.plan.Expect[2].Text = "p99(put) during disk.delay < 1x baseline" }
	for _, tt := range []struct {
		name  string
		spoil func(*story)
		want  run.Verdict
		why   string
	}{
		{"a healthy run passes", func(*story) {}, run.Pass, "5 of 5 expectations met, linearizable (605 operations, 5 keys), 400 acknowledged writes kept"},
		{"an expectation is missed", missed, run.Fail, "p99(put) during disk.delay < 1x baseline: "},
		{"an edited value is a violation", func(st *story) { st.ops[420].Result = st.ops[1].Value }, run.Violation, "not linearizable: phantom value: k0: "},
		{"a lost write is a violation, even where no expectation names it", func(st *story) {
			st.plan.Expect = nil
			st.ops[604].Result = st.ops[4].Value
		}, run.Violation, "not linearizable: lost acknowledged write: k4: "},
		{"a violation stands even if the testbed was starved", func(st *story) { starved(st); st.ops[420].Result = nil }, run.Violation, "not linearizable"},
		{"a missed expectation of a starved testbed proves nothing", func(st *story) { starved(st); missed(st) }, run.Inconclusive, "testbed starved: the load generator was late by 15.06ms at p99 (limit 10ms)"},
		{"dropped operations starve", func(st *story) { st.event(run.LoadEnded).Data["dropped"] = 20 }, run.Inconclusive, "testbed starved: 20 of 620 due operations were never sent"},
		{"a noisy host", func(st *story) {
			st.event(run.HostNoise).Data["foreign_cpu"] = 0.41
			st.event(run.HostNoise).Phase = "baseline"
			missed(st)
		}, run.Inconclusive, "host too noisy: others used 41 % of the host's CPU time in baseline (limit 30 %)"},
		{"a noisy host, where only the history is asked about", func(st *story) {
			st.event(run.HostNoise).Data["foreign_cpu"] = 0.41
			st.event(run.HostNoise).Phase = "baseline"
			starved(st)
			st.plan.Expect = st.plan.Expect[:2]
		}, run.Pass, "2 of 2 expectations met, linearizable"},
		{"a part of the testbed died, where only the history is asked about", func(st *story) {
			st.add(run.Event{T: 9 * s, Type: run.TestbedFailed, Text: "the wire exited"})
			st.plan.Expect = st.plan.Expect[:2]
		}, run.Inconclusive, "the testbed failed: the wire exited"},
		{"noise before anything is judged", func(st *story) {
			st.event(run.HostNoise).Data["foreign_cpu"] = 0.9
			st.event(run.HostNoise).Phase = "before"
		}, run.Pass, "5 of 5 expectations met"},
		{"a missed expectation on a host that is busy", func(st *story) {
			st.event(run.HostNoise).Data["foreign_cpu"] = 0.2
			st.event(run.HostNoise).Phase = "recovery"
			missed(st)
		}, run.Inconclusive, "p99(put) during disk.delay < 1x baseline: "},
		{"met expectations on a host that is busy", func(st *story) { st.event(run.HostNoise).Data["foreign_cpu"] = 0.2 }, run.Pass, "5 of 5 expectations met"},
		{"a late wire", func(st *story) { st.event(run.WireReport).Data["lateness_p99_ns"] = 7e6 }, run.Inconclusive, "testbed starved: the wire delivered 7ms late at p99 (limit 5ms)"},
		{"a wire that lost packets", func(st *story) { st.event(run.WireReport).Data["lost"] = 3.0 }, run.Inconclusive, "testbed starved: the wire could not keep up and lost 3 packets"},
		{"a part of the testbed died", func(st *story) { st.add(run.Event{T: 9 * s, Type: run.TestbedFailed, Text: "the wire exited"}) }, run.Inconclusive, "the testbed failed: the wire exited"},
		{"a part of the testbed died, and said more than a line", func(st *story) {
			st.add(run.Event{T: 9 * s, Type: run.TestbedFailed, Text: "n1 is not ready: it does not answer; the end of its log:\nline\nline"})
		}, run.Inconclusive, "the testbed failed: n1 is not ready: it does not answer"},
		{"a node that nobody killed died", func(st *story) {
			st.add(run.Event{T: 6 * s, Type: run.NodeExited, Node: "n2", Text: "exit code 2\npanic: boom", Data: map[string]any{"expected": false}})
			st.add(run.Event{T: 13 * s, Type: run.TestbedFailed, Text: "the nodes did not settle"})
			missed(st)
		}, run.Inconclusive, "n2 ended by itself after 6s: exit code 2; its log is in nodes/n2/"},
		{"a node that a fault killed died", func(st *story) {
			st.add(run.Event{T: 6 * s, Type: run.NodeExited, Node: "n2", Text: "killed by SIGKILL", Data: map[string]any{"expected": true}})
		}, run.Pass, "5 of 5"},
		{"interrupted", func(st *story) { st.add(run.Event{T: 9 * s, Type: run.Interrupted, Text: "Ctrl-C"}); missed(st) }, run.Inconclusive, "interrupted: Ctrl-C"},
		{"a run that never ended", func(st *story) { st.without(run.RunEnded) }, run.Inconclusive, "the run never ended"},
		{"a run that ended early", func(st *story) { st.event(run.RunEnded).Text = "no leader in 30s" }, run.Inconclusive, "the run ended early: no leader in 30s"},
		{"a fault that did not bite", func(st *story) { st.event(run.FaultMeasured).Bit = run.BitNo }, run.Inconclusive, "fault f1 disk.delay did not bite"},
		{"a fault without a measurement", func(st *story) { st.without(run.FaultMeasured) }, run.Inconclusive, "the dose of fault f1 disk.delay was not measured"},
		{"a fault that never fired", func(st *story) {
			st.plan.Faults = append(st.plan.Faults, plan.Fault{ID: "f2", Kind: "net.delay"})
		}, run.Inconclusive, "fault f2 net.delay never fired: it never fired"},
		{"a fault that was not seen healed", func(st *story) { st.event(run.FaultVerified).Healed = run.HealedNo }, run.Inconclusive, "fault f1 disk.delay was not seen healed"},
		{"a fault whose heal nobody looked at", func(st *story) { st.without(run.FaultVerified) }, run.Inconclusive, "fault f1 disk.delay was not seen healed"},
		{"no final read of a key", func(st *story) { st.ops = st.ops[:604] }, run.Inconclusive, "durability undecided: no final read of 1 keys with acknowledged writes: [k4]"},
		{"a workload that reads nothing", func(st *story) {
			for i := range st.ops {
				if o := &st.ops[i]; o.Phase == "" && (o.Kind == history.Get || o.Kind == history.CAS) {
					o.Outcome, o.Result, o.Swapped, o.Error = history.Fail, nil, false, "refused"
				}
			}
			st.plan.Expect = st.plan.Expect[:2]
		}, run.Inconclusive, "nothing observed: none of the workload's 600 operations was a completed read"},
		{"an empty history", func(st *story) { st.ops, st.plan.Expect = nil, nil }, run.Inconclusive, "nothing observed: the history is empty"},
		{"no completed read", func(st *story) {
			st.ops = slices.DeleteFunc(st.ops, func(o history.Op) bool { return o.Kind == history.Get })
		}, run.Inconclusive, "durability undecided: "},
		{"an unsteady baseline does not matter to what each third of it says alike", func(st *story) {
			st.plan.Expect = st.plan.Expect[:3]
			st.plan.Expect[2].Text = "p50(put) during disk.delay < 20x baseline"
			for i := range st.ops {
				if o := &st.ops[i]; o.Phase == "" && o.Due > 1*s && o.Due < 5*s {
					o.Return += 3 * ms * (o.Due / s) // drifts from 5 to 15 ms
				}
			}
		}, run.Pass, "3 of 3 expectations met"},
		{"an unsteady baseline matters where something is compared with it", func(st *story) {
			st.ops = slices.DeleteFunc(st.ops, func(o history.Op) bool { return o.Phase == "" && o.Due > 2*s && o.Due < 4*s && o.Kind == history.Get })
			for i := range st.ops {
				if o := &st.ops[i]; o.Due > 3*s && o.Due < 5*s {
					o.Return += 9 * ms
				}
			}
		}, run.Inconclusive, "the baseline was not steady: "},
		{"an expectation that nobody understands", func(st *story) { st.plan.Expect[2].Text = "p99(put) is nice" }, run.Inconclusive, "p99(put) is nice: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := healthy()
			tt.spoil(st)
			res := judged(t, st.files(t))
			if res.Verdict != tt.want || !strings.Contains(res.Why, tt.why) || strings.Contains(res.Why, "\n") {
				t.Errorf("verdict = %s: %s\nwant %s: %s", res.Verdict, res.Why, tt.want, tt.why)
			}
			if res.ExitCode != tt.want.ExitCode() {
				t.Errorf("exit code = %d, want %d", res.ExitCode, tt.want.ExitCode())
			}
		})
	}
}

// The command that repeats a run makes the same changes to its scenario.
func TestARunCanBeRepeated(t *testing.T) {
	st := healthy()
	st.ops[420].Result = st.ops[400].Value
	st.manifest.Argv = []string{"/opt/brownout", "run", "x.yaml", "--out", "o", "--set", "workload.load.rate=50% of max", "--nodes=5", "--keep", "--set", "a.b=it's"}
	res := judged(t, st.files(t))
	want := `brownout run slow-leader-disk.yaml --set 'workload.load.rate=50% of max' --nodes=5 --set 'a.b=it'\''s' --seed 7`
	if v := res.Consistency.Violations; len(v) == 0 || v[0].Again != want {
		t.Errorf("violations %+v, want again %s", v, want)
	}
}

// A run that a violation ended says how soon, and its last phase ends there. If the
// checker does not find it too, nothing is proven.
func TestAStoppedRun(t *testing.T) {
	st := healthy()
	st.add(run.Event{T: 7*s + 3*ms, Type: run.Violated, Text: "k0: …", Data: map[string]any{"op": 350, "returned_ns": 7 * s, "found_ns": 7*s + ms}})
	st.event(run.RunEnded).Text = "a violation was seen"
	res := judged(t, st.files(t))
	want := &run.Stopped{Why: "k0: …", Op: 350, Returned: 7 * s, Found: ms, StoppedIn: 3 * ms}
	if d := cmp.Diff(want, res.Stopped); d != "" {
		t.Errorf("stopped (-want +got):\n%s", d)
	}
	if last := res.Phases[len(res.Phases)-1]; last.End > max(last.Start, 7*s+3*ms) {
		t.Errorf("the last phase ends at %d", last.End)
	}
	if res.Verdict != run.Inconclusive || !strings.Contains(res.Why, "a violation was seen") {
		t.Errorf("%s: %s", res.Verdict, res.Why)
	}
}

func TestNumbers(t *testing.T) {
	res := judged(t, healthy().files(t))
	names := []string{}
	for _, p := range res.Phases {
		names = append(names, p.Name)
	}
	if d := cmp.Diff([]string{"warmup", "baseline", "fault", "recovery"}, names); d != "" {
		t.Fatal(d)
	}
	base, fault := res.Phases[1], res.Phases[2]
	if base.Start != s || base.End != 5*s || res.Phases[3].End != 12*s {
		t.Errorf("baseline %d to %d, recovery until %d", base.Start, base.End, res.Phases[3].End)
	}
	if all := base.Ops["all"]; all.OK != 200 || all.Response.N != 200 || all.Rate != 50 || base.Ops["put"].OK+base.Ops["get"].OK != 200 {
		t.Errorf("baseline = %+v, want 200 operations at 50/s", all)
	}
	if p := fault.Ops["put"].Response; p.P50 < 22*ms || p.P99 > 24*ms || fault.Ops["put"].Service.P50 >= p.P50 {
		t.Errorf("puts in the fault: %+v, service p50 %d", p, fault.Ops["put"].Service.P50)
	}
	f := res.Faults[0]
	if f.Recovery < 0 || f.Recovery > 300*ms || f.Bit != run.BitYes || f.Healed != run.HealedYes || f.Provider != "fuse" || f.Nodes[0] != "n2" {
		t.Errorf("fault = %+v", f)
	}
	if res.LeaderChanges != 0 || res.Load.OfferedPerS != 50 || res.Wire.Scheduling != "fifo" || res.Host.FsyncP50 != 900_000 {
		t.Errorf("leader changes %d, load %+v, wire %+v, host %+v", res.LeaderChanges, res.Load, res.Wire, res.Host)
	}
}

func TestLeaderChangesCountFromTheStartOfTheLoad(t *testing.T) {
	st := healthy() // n2 leads in term 2
	for i, e := range []struct {
		node string
		term float64
	}{{"n2", 2}, {"", 0}, {"n3", 3}, {"n3", 3}, {"", 0}, {"n3", 4}, {"n2", 5}} { // told again; lost, moved; told again; lost, elected again; moved
		st.add(run.Event{T: 6*s + int64(i)*ms, Type: run.LeaderChanged, Node: e.node, Data: map[string]any{"term": e.term}})
	}
	if got := judged(t, st.files(t)).LeaderChanges; got != 3 {
		t.Errorf("leader changes = %d, want 3", got)
	}
}

// TestNumbersOfAShard has only the keys of one shard slow while the fault lasts.
func TestNumbersOfAShard(t *testing.T) {
	st := healthy()
	sharded(st)
	slow := slots.ShardOf(st.ops[0].Key, 3)
	for i := range st.ops {
		o := &st.ops[i]
		if o.Due >= 5*s && o.Due < 8*s {
			took := 3 * ms
			if slots.ShardOf(o.Key, 3) == slow {
				took = 30 * ms
			}
			o.Return = o.Call + took
		}
	}
	st.plan.Expect = nil
	for shard := range 3 {
		st.plan.Expect = append(st.plan.Expect, plan.Expectation{Text: fmt.Sprintf("p50(put) of shard %d during disk.delay < 20ms", shard), Line: 30 + shard, Col: 5})
	}
	res := judged(t, st.files(t))
	for _, p := range res.Phases {
		sum := int64(0)
		for shard, o := range p.Shards {
			sum += o.Response.N
			if late := o.Response.P50 >= 20*ms; p.Name == "fault" && o.Response.N > 0 && late != (shard == slow) {
				t.Errorf("shard %d has a p50 of %d ns while the fault lasts; %d is the slow one", shard, o.Response.P50, slow)
			}
		}
		if len(p.Shards) != 3 || sum != p.Ops["all"].Response.N {
			t.Errorf("%s: %d operations on %d shards, want %d on 3", p.Name, sum, len(p.Shards), p.Ops["all"].Response.N)
		}
	}
	seen := map[run.Verdict]int{}
	for shard, e := range res.Expectations {
		want := run.Pass
		if shard == slow {
			want = run.Fail
		}
		if e.Verdict == run.Inconclusive && strings.Contains(e.Why, "no put operation") || strings.Contains(e.Why, "only 0") {
			continue // five keys need not be on all shards
		}
		if seen[e.Verdict]++; e.Verdict != want {
			t.Errorf("%s: %s (%s), want %s", e.Text, e.Verdict, e.Why, want)
		}
	}
	if seen[run.Fail] != 1 || seen[run.Pass] == 0 {
		t.Errorf("verdicts %v, want one fail and some passes", seen)
	}
}

func TestLeaderChangesOfShards(t *testing.T) {
	st := healthy()
	sharded(st)
	for i, e := range []struct {
		shard float64
		node  string
		term  float64
	}{{1, "n1", 2}, {2, "n3", 2}, {1, "n1", 2}, {0, "n2", 2}, {2, "n1", 3}} { // only the last is a change
		st.add(run.Event{T: 6*s + int64(i)*ms, Type: run.LeaderChanged, Node: e.node, Data: map[string]any{"term": e.term, "shard": e.shard}})
	}
	if got := judged(t, st.files(t)).LeaderChanges; got != 1 {
		t.Errorf("leader changes = %d, want 1", got)
	}
}

func TestJudgingTwiceGivesTheSame(t *testing.T) {
	st := healthy()
	st.ops[420].Result = nil
	fsys := st.files(t)
	a, b := judged(t, fsys), judged(t, fsys)
	a.Consistency.CPU, b.Consistency.CPU = 0, 0
	if d := cmp.Diff(a, b); d != "" {
		t.Error(d)
	}
}

func TestADamagedRunIsAnErrorThatNamesTheFile(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(fstest.MapFS)
		want  string
	}{
		{"no plan", func(f fstest.MapFS) { delete(f, run.PlanFile) }, "plan.json is missing: the run's directory is not whole"},
		{"no history", func(f fstest.MapFS) { delete(f, run.HistoryFile) }, "history.jsonl is missing"},
		{"no events", func(f fstest.MapFS) { delete(f, run.EventsFile) }, "events.jsonl is missing"},
		{"no manifest", func(f fstest.MapFS) { delete(f, run.ManifestFile) }, "manifest.json is missing"},
		{"a torn history", func(f fstest.MapFS) {
			f[run.HistoryFile].Data = f[run.HistoryFile].Data[:len(f[run.HistoryFile].Data)-20]
		}, "history.jsonl:605: the file ends in the middle of it"},
		{"a bad line", func(f fstest.MapFS) {
			f[run.HistoryFile].Data = bytes.Replace(f[run.HistoryFile].Data, []byte(`{"op":3,`), []byte(`{"op":"3",`), 1)
		}, "history.jsonl:3: op: "},
		{"an operation twice", func(f fstest.MapFS) {
			f[run.HistoryFile].Data = bytes.Replace(f[run.HistoryFile].Data, []byte(`{"op":4,`), []byte(`{"op":3,`), 1)
		}, "history.jsonl: line 4: operation 3: the number was used before"},
		{"a torn event", func(f fstest.MapFS) {
			f[run.EventsFile].Data = f[run.EventsFile].Data[:len(f[run.EventsFile].Data)-9]
		}, "events.jsonl:14: the line is cut off"},
		{"an unknown event", func(f fstest.MapFS) {
			f[run.EventsFile].Data = append(f[run.EventsFile].Data, `{"t_ns":1,"type":"party"}`...)
		}, `events.jsonl:15: unknown type of event "party"`},
		{"an unknown field", func(f fstest.MapFS) {
			f[run.EventsFile].Data = append(f[run.EventsFile].Data, `{"t_ns":1,"type":"note","colour":1}`...)
		}, `events.jsonl:15: json: unknown field "colour"`},
		{"a plan of another version", func(f fstest.MapFS) {
			f[run.PlanFile].Data = bytes.Replace(f[run.PlanFile].Data, []byte(plan.Schema), []byte("brownout.plan/9"), 1)
		}, `plan.json: schema "brownout.plan/9", this program reads "brownout.plan/1"`},
		{"a plan cut off", func(f fstest.MapFS) { f[run.PlanFile].Data = f[run.PlanFile].Data[:200] }, "plan.json:11: the file is cut off"},
		{"a manifest with something after it", func(f fstest.MapFS) {
			f[run.ManifestFile].Data = append(f[run.ManifestFile].Data, '{')
		}, "something after the document"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fsys := healthy().files(t)
			tt.spoil(fsys)
			_, err := Judge(t.Context(), fsys, Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Judge = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestALostTailIsDamage cuts whole lines off, which leaves a file in good order.
func TestALostTailIsDamage(t *testing.T) {
	st := healthy()
	st.event(run.LoadEnded).Data["sent"], st.event(run.LoadEnded).Data["unsent"] = 590, 10
	judged(t, st.files(t))
	st.ops = st.ops[5:]
	if _, err := Judge(t.Context(), st.files(t), Options{}); err == nil || !strings.Contains(err.Error(), "history.jsonl: 595 operations, but the load generator recorded 600") {
		t.Errorf("Judge = %v", err)
	}
	st.event(run.RunEnded).Text = "the load generator ended" // then its count is not the last word
	judged(t, st.files(t))
}

func TestResidueIsWhatTheJournalDoesNotUndo(t *testing.T) {
	fsys := healthy().files(t)
	if left := judged(t, fsys).Cleanup.Residue; len(left) != 0 {
		t.Errorf("without a journal: %q", left)
	}
	fsys[run.CleanupFile] = &fstest.MapFile{Data: []byte(`{"kind":"cgroup","name":"bo-a-1-2","run":"bo-a-1-2","state":"undone"}
{"kind":"mount","name":"/x","state":"failed","error":"device or resource busy"}
{"kind":"cgroup","name":"bo-b-1-2","state":"made"}
{"kind":"cgr`)}
	want := []string{
		"mount /x: device or resource busy",
		"cgroup bo-b-1-2: not undone when the record stops; brownout clean removes it if it is still there",
		"cleanup.json:4: the line is cut off",
	}
	if d := cmp.Diff(want, judged(t, fsys).Cleanup.Residue); d != "" {
		t.Error(d)
	}
}

func TestHistoryAlone(t *testing.T) {
	const put = `{"op":1,"client":1,"key":"k","kind":"put","value":"a","outcome":"ok","due_ns":0,"call_ns":0,"return_ns":1,"node":"n1"}` + "\n"
	get := func(v string) string {
		return `{"op":2,"client":1,"key":"k","kind":"get","result":` + v + `,"outcome":"ok","due_ns":2,"call_ns":2,"return_ns":3,"node":"n1"}` + "\n"
	}
	for _, tt := range []struct {
		name, in string
		want     run.Verdict
	}{
		{"a read of the write", put + get(`"a"`), run.Pass},
		{"a stale read", put + get(`null`), run.Violation},
		{"no read", put, run.Inconclusive},
		{"nothing", "", run.Inconclusive},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := History(t.Context(), strings.NewReader(tt.in), foreign.Options{}, Options{})
			if got := ConsistencyVerdict(c); err != nil || got != tt.want {
				t.Errorf("History = %s (%+v), %v; want %s", got, c, err, tt.want)
			}
		})
	}
	if _, err := History(t.Context(), strings.NewReader(put+put), foreign.Options{}, Options{}); err == nil || !strings.HasPrefix(err.Error(), "line 2: operation 1: ") {
		t.Errorf("History of a number used twice = %v", err)
	}
}

func TestTheCachesNumbersAreInTheResult(t *testing.T) {
	st := healthy()
	if got := judged(t, st.files(t)).Downstream; got != nil {
		t.Errorf("without a cache: %+v", got)
	}
	st.add(run.Event{T: 13 * s, Type: run.CacheReport, Data: map[string]any{
		"writes": 900.0, "failed": 7.0, "dropped": 2.0, "retried": 11.0, "late": 5.0, "wait_mean_ns": 3e6, "wait_max_ns": 9e6,
	}})
	want := run.Downstream{Writes: 900, Failed: 7, Dropped: 2, Retried: 11, Late: 5, WaitMean: 3e6, WaitMax: 9e6}
	if got := judged(t, st.files(t)).Downstream; got == nil || *got != want {
		t.Errorf("Downstream = %+v, want %+v", got, want)
	}
}
