package scenarios

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/plan"
	"brownout/internal/workload"
)

var update = flag.Bool("update", false, "write the golden files")

func mustParse(t testing.TB, src string) *Scenario {
	t.Helper()
	s, err := Parse([]byte(src), "small.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPlanBytesStay pins the bytes of plan.json: a change of them is a change
// of every recorded run's meaning and needs a reason. Only the head and the
// first operations are kept; the digest covers the others.
func TestPlanBytesStay(t *testing.T) {
	p, err := Resolve(mustParse(t, small), 7, "v0")
	if err != nil {
		t.Fatal(err)
	}
	p.Ops.Rows = p.Ops.Rows[:12]
	got := Encode(p)
	const golden = "testdata/small.plan.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestPlanDependsOnScenarioAndSeedAlone(t *testing.T) {
	s := mustParse(t, small)
	var plans []*plan.Plan
	for _, seed := range []uint64{7, 7, 8} {
		p, err := Resolve(s, seed, "v0")
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, p)
	}
	a, b, c := plans[0], plans[1], plans[2]
	if !bytes.Equal(Encode(a), Encode(b)) {
		t.Error("the same seed gave different bytes")
	}
	if a.Ops.SHA256 == c.Ops.SHA256 {
		t.Error("another seed gave the same operations")
	}
	if diff := cmp.Diff(a.Faults, c.Faults); diff != "" {
		t.Errorf("another seed moved the faults:\n%s", diff)
	}
	// The order of fields, comments and spaces say nothing.
	other := mustParse(t, strings.Replace(small, "load: {rate: 100/s}", "mix: {put: 50%, get: 50%}   # swapped\n  load: {rate: 0.1k/s}", 1))
	d, err := Resolve(other, 7, "v0")
	if err != nil {
		t.Fatal(err)
	}
	if d.Ops.SHA256 != a.Ops.SHA256 || d.SHA256 == a.SHA256 {
		t.Errorf("operations %s and %s, scenarios %s and %s", a.Ops.SHA256, d.Ops.SHA256, a.SHA256, d.SHA256)
	}
}

func TestEncodedPlanDecodesToThePlan(t *testing.T) {
	p, err := Resolve(mustParse(t, small), 7, "v0")
	if err != nil {
		t.Fatal(err)
	}
	b := Encode(p)
	var back plan.Plan
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Encode(&back), b) {
		t.Error("encoding what was decoded gives other bytes")
	}
	if n := bytes.Count(b, []byte("\n      {\"op\":")); n != len(p.Ops.Rows) {
		t.Errorf("%d lines of operations, want %d", n, len(p.Ops.Rows))
	}
	p.Ops.Rows = nil
	if err := json.Unmarshal(Encode(p), &back); err != nil {
		t.Errorf("without operations: %v", err)
	}
}

func TestPhasesFollowEachOther(t *testing.T) {
	const s = time.Second
	fault := func(at, length time.Duration) Fault {
		return Fault{At: at, For: length, Kind: "disk.delay", On: "leader", Params: plan.Params{"add_ns": int64(1e6)}}
	}
	kill := Fault{At: 2 * s, Kind: "process.kill", On: "leader", Params: plan.Params{"restart_ns": int64(3e9)}}
	pause := Fault{At: s, Kind: "process.pause", On: "leader", Params: plan.Params{"length_ns": int64(5e8)}}
	for _, tt := range []struct {
		name string
		in   Timeline
		want []plan.Phase
	}{
		{"all four", Timeline{s, 2 * s, []Fault{fault(0, s), fault(3*s, 2*s)}, 4 * s}, []plan.Phase{{Name: "warmup", End: s}, {Name: "baseline", Start: s, End: 3 * s}, {Name: "fault", Start: 3 * s, End: 8 * s}, {Name: "recovery", Start: 8 * s, End: 12 * s}}},
		{"the longest fault counts", Timeline{0, s, []Fault{fault(0, 9*s), fault(s, s)}, 0}, []plan.Phase{{Name: "baseline", End: s}, {Name: "fault", Start: s, End: 10 * s}}},
		{"no fault", Timeline{0, s, nil, s}, []plan.Phase{{Name: "baseline", End: s}, {Name: "recovery", Start: s, End: 2 * s}}},
		{"a kill lasts until the restart", Timeline{0, s, []Fault{kill}, s}, []plan.Phase{{Name: "baseline", End: s}, {Name: "fault", Start: s, End: 6 * s}, {Name: "recovery", Start: 6 * s, End: 7 * s}}},
		{"a single pause lasts its length", Timeline{0, s, []Fault{pause}, s}, []plan.Phase{{Name: "baseline", End: s}, {Name: "fault", Start: s, End: 2500 * time.Millisecond}, {Name: "recovery", Start: 2500 * time.Millisecond, End: 3500 * time.Millisecond}}},
	} {
		p, err := Resolve(&Scenario{Name: "x", Timeline: tt.in}, 1, "v0")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, p.Phases); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

func TestDefaultsOfFaultsAreInThePlan(t *testing.T) {
	for _, k := range plan.Kinds {
		f := Fault{At: 0, For: time.Second, Kind: k.Name, Params: plan.Params{}}
		switch k.Where {
		case plan.OnNodes:
			f.On = "leader"
		default:
			f.From = "leader"
		}
		for _, p := range k.Params {
			for _, text := range []string{p.Min, p.Max, p.Default} {
				if text == "" {
					continue
				}
				if _, err := parseParam(p, text); err != nil {
					t.Errorf("%s %s: %v", k.Name, p.Name, err)
				}
			}
			if p.Required || len(k.OneOf) > 0 && k.OneOf[0] == p.Name || len(k.AnyOf) > 0 && k.AnyOf[0] == p.Name {
				v, err := parseParam(p, paramExample(p))
				if err != nil {
					t.Fatal(err)
				}
				f.Params[p.Key()] = v
			}
		}
		p, err := Resolve(&Scenario{Name: "x", Timeline: Timeline{Faults: []Fault{f}}}, 1, "v0")
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		for _, param := range k.Params {
			if (param.Default != "" || param.Required) && !p.Faults[0].Params.Has(param.Key()) {
				t.Errorf("%s: no %s in the plan", k.Name, param.Key())
			}
		}
	}
}

func TestLiteralsAreCheckedAsFilesAre(t *testing.T) {
	ok := Scenario{Name: "x", Timeline: Timeline{Baseline: time.Second}}
	if _, err := Resolve(&ok, 1, "v0"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Scenario)
		want   string
	}{
		{"name", func(s *Scenario) { s.Name = "" }, "name: name"},
		{"target", func(s *Scenario) { s.Target.Kind = "etcd" }, "target.kind: target etcd is not in this version"},
		{"nodes", func(s *Scenario) { s.Target.Nodes = 99 }, "target.nodes: 99 nodes"},
		{"config", func(s *Scenario) { s.Target.Config = map[string]string{"x": "y"} }, "target.config.x: unknown setting"},
		{"config value", func(s *Scenario) { s.Target.Config = map[string]string{"log": "y"} }, "target.config.log:"},
		{"lock shards without their lock", func(s *Scenario) { s.Target.Config = map[string]string{"lock_shards": "4"} }, "target.config.lock_shards: lock_shards are locks of lock: sharded"},
		{"downstream", func(s *Scenario) { s.Target.Downstream = map[string]string{"x": "y"} }, "target.downstream.x: unknown setting"},
		{"downstream value", func(s *Scenario) { s.Target.Downstream = map[string]string{"mode": "later"} }, "target.downstream.mode:"},
		{"a cache that is not there", func(s *Scenario) {
			s.Timeline.Faults = []Fault{{Kind: "process.pause", On: "cache", Params: plan.Params{"length_ns": 1e6}}}
		}, "there is no cache"},
		{"keys", func(s *Scenario) { s.Workload.Keys.Count = -1 }, "workload.keys.count: -1 keys"},
		{"mix", func(s *Scenario) { s.Workload.Mix = []plan.Share{{Kind: "scan", P: 1}} }, `workload.mix: share 1 of "scan"`},
		{"mix twice", func(s *Scenario) { s.Workload.Mix = []plan.Share{{Kind: "get", P: .5}, {Kind: "get", P: .5}} }, "get twice"},
		{"rate", func(s *Scenario) { s.Workload.Load.Rate = -1 }, "workload.load.rate: -1/s"},
		{"two loads", func(s *Scenario) { s.Workload.Load = Offer{Rate: 5, OfMax: 5} }, "workload.load:"},
		{"timeout", func(s *Scenario) { s.Workload.Timeout = time.Hour }, "workload.timeout:"},
		{"warmup", func(s *Scenario) { s.Timeline.Warmup = -1 }, "timeline.warmup: -1ns is negative"},
		{"nothing", func(s *Scenario) { s.Timeline = Timeline{} }, "timeline: the timeline is empty"},
		{"unknown fault", func(s *Scenario) { s.Timeline.Faults = []Fault{{Kind: "disk.dely"}} }, "timeline.faults[0]: unknown fault"},
		{"parameter", func(s *Scenario) {
			s.Timeline.Faults = []Fault{{Kind: "disk.delay", On: "n1", For: 1e9, Params: plan.Params{"add_ms": 5}}}
		}, `has no parameter "add_ms"`},
		{"on of a link", func(s *Scenario) {
			s.Timeline.Faults = []Fault{{Kind: "net.delay", On: "n1", From: "n1", For: 1e9, Params: plan.Params{"add_ns": 1e6}}}
		}, "net.delay has no on"},
		{"from of a node", func(s *Scenario) {
			s.Timeline.Faults = []Fault{{Kind: "disk.delay", On: "n1", From: "n1", For: 1e9, Params: plan.Params{"add_ns": 1e6}}}
		}, "disk.delay has no from"},
		{"sentence", func(s *Scenario) { s.Expect = []Expectation{{Text: "p99 < 5"}} }, "expect[0]: 5 what?"},
	} {
		s := ok
		tt.change(&s)
		_, err := Resolve(&s, 1, "v0")
		var errs Errors
		if !errors.As(err, &errs) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// FuzzParse: no input panics or takes long; every mistake has a place; what parses resolves
// twice to the same bytes.
func FuzzParse(f *testing.F) {
	f.Add(small)
	f.Add(styled)
	for _, name := range names() {
		src, _ := builtin(name)
		f.Add(string(src))
	}
	for _, m := range mistakes {
		f.Add(strings.Replace(small, m.old, m.new, 1))
	}
	f.Fuzz(func(t *testing.T, src string) {
		began := time.Now()
		s, err := Parse([]byte(src), "x.yaml")
		if d := time.Since(began); d > 10*time.Second {
			t.Fatalf("took %v", d)
		}
		if err != nil {
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("%T %v", err, err)
			}
			for _, e := range errs {
				if e.Line < 1 || e.Col < 1 || e.Msg == "" || strings.Contains(e.Excerpt, "\x1b") {
					t.Fatalf("%#v", e)
				}
			}
			return
		}
		if s.Workload.Keys.Count > 10_000 { // zipf's table is slow to make
			return
		}
		few := func(l plan.Load, seed uint64) plan.Ops { // the whole digest takes most of the time
			ops, stream := plan.Ops{}, workload.NewStream(l, seed)
			for range 20 {
				ops.Rows = append(ops.Rows, stream.Next())
			}
			return ops
		}
		a, err := resolve(s, s.Seed, "v0", few)
		if err != nil {
			t.Fatalf("parsed, but: %v\n%s", err, src)
		}
		b, err := resolve(s, s.Seed, "v0", few)
		if err != nil || !bytes.Equal(Encode(a), Encode(b)) {
			t.Fatalf("resolved twice to different bytes: %v", err)
		}
	})
}
