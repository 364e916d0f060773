package faults_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/faults"
	"brownout/faults/faultstest"
	"brownout/internal/needs"
)

// TestMetersSeeThroughFaultsThatDoNothing is what makes a run inconclusive
// whose faults never bit.
func TestMetersSeeThroughFaultsThatDoNothing(t *testing.T) {
	c := up(t, 3)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	for _, tt := range []struct {
		kind string
		dose faults.Dose
		want string // part of the reason
	}{
		{"net.delay", faults.Dose{"add_ns": 5 * ms}, "tolerance"},
		{"net.rate", faults.Dose{"limit_bits_per_s": int64(10e6)}, "tolerance"},
		{"net.partition", faults.Dose{}, "arrived"},
		{"net.loss", faults.Dose{"percent": 20.0}, "lost"},
		{"net.loss", faults.Dose{"first": int64(50)}, "none of"},
		{"net.duplicate", faults.Dose{"percent": 20.0}, "duplicated"},
		{"net.reorder", faults.Dose{"percent": 20.0, "add_ns": 5 * ms}, "overtaking"},
		{"net.corrupt", faults.Dose{"percent": 20.0}, "lost"},
		{"net.reset", faults.Dose{"every_ns": 200 * ms}, "not reset"},
		{"net.halfopen", faults.Dose{"new": "pass"}, "came through"},
		{"net.flood", faults.Dose{"limit_bits_per_s": int64(20e6)}, "of flood, wanted"},
		{"cpu.quota", faults.Dose{"percent": 10.0, "period_ns": 50 * ms}, "more than 10 %"},
		{"disk.delay", faults.Dose{"op": "fsync", "add_ns": 10 * ms}, "tolerance"},
		{"gc.pause", faults.Dose{"length_ns": 200 * ms}, "no gap"},
		{"process.pause", faults.Dose{"length_ns": 200 * ms}, "no gap"},
		{"process.kill", faults.Dose{}, "lives"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			site := faults.Site{Nodes: []string{"n3"}}
			if strings.HasPrefix(tt.kind, "net.") {
				site = faults.Site{Links: []faults.Link{{From: "n1", To: "n3"}}}
			}
			notFooled(t, bench, tt.kind, site, tt.dose, time.Second, tt.want)
		})
	}
}

// TestAWrongMechanismIsSeen: a freeze is no GC pause, a GC pause is no freeze.
func TestAWrongMechanismIsSeen(t *testing.T) {
	c := up(t, 3)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	pause := faults.Dose{"length_ns": 200 * ms}
	for _, tt := range []struct {
		name, kind, provider string // what is done
		meter                string // of what
		dose                 faults.Dose
		want                 string
	}{
		{"a frozen process", "process.pause", "freezer2", "gc.pause", pause, "no GC pause"},
		{"a stopped world", "gc.pause", "agent", "process.pause", pause, "not a mere freeze"},
		{"a slow network", "net.delay", "wire", "lock.hold", faults.Dose{"add_ns": 20 * ms}, "the target's account says"},
		{"too short a downtime", "process.restart", "signal", "process.kill", faults.Dose{"down_ns": 100 * ms, "restart_ns": 500 * ms}, "without a process for"},
		{"pauses", "process.pause", "freezer2", "lock.convoy", faults.Dose{"length_ns": 40 * ms, "every_ns": 100 * ms, "hold_ns": 40 * ms, "period_ns": 100 * ms}, "by the target's account"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if raced && tt.kind == "gc.pause" {
				t.Skip("the target is built with the race detector")
			}
			site := faults.Site{Nodes: []string{"n3"}}
			p := bench.Source(tt.kind, tt.provider)
			if err := p.Probe(t.Context()); err != nil {
				t.Skip(err)
			}
			m, err := bench.Meter(tt.meter, site, tt.dose)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if _, err := m.Baseline(t.Context()); err != nil {
				t.Fatal(err)
			}
			where := site
			if strings.HasPrefix(tt.kind, "net.") {
				where = faults.Site{Links: []faults.Link{{From: "client", To: "n3"}}}
			}
			inj, err := p.Inject(t.Context(), where, tt.dose)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r, answer, err := m.Measure(ctx, tt.dose)
			if e := inj.Heal(t.Context()); e != nil {
				t.Error(e)
			}
			t.Log(r.Values, answer.Why)
			if err != nil || answer.Yes || !strings.Contains(answer.Why, tt.want) {
				t.Errorf("Measure = %v, %q, %v; want no, because of %q", answer.Yes, answer.Why, err, tt.want)
			}
		})
	}
}

// TestACacheIsReachedByName: the box beside the nodes is none of them, and can
// be hurt as they can.
func TestACacheIsReachedByName(t *testing.T) {
	c := upWith(t, 1, nil, func(cfg *cluster.Config) { cfg.Cache = true })
	if names := len(c.Nodes()); names != 1 || len(c.Boxes()) != 2 {
		t.Fatalf("%d nodes, %d boxes", names, len(c.Boxes()))
	}
	bench := faults.NewBench(faults.Bed{Cluster: c})
	for _, tt := range []struct {
		kind, provider string
		site           faults.Site
		dose           faults.Dose
	}{
		{"net.delay", "wire", faults.Site{Links: []faults.Link{{From: "n1", To: "cache"}}}, faults.Dose{"add_ns": 20 * ms}},
		{"process.pause", "sigstop", faults.Site{Nodes: []string{"cache"}}, faults.Dose{"length_ns": 100 * ms, "every_ns": 300 * ms}},
		{"disk.delay", "fuse", faults.Site{Nodes: []string{"cache"}}, faults.Dose{"op": "fsync", "add_ns": 20 * ms}},
		{"process.kill", "signal", faults.Site{Nodes: []string{"cache"}}, faults.Dose{"restart_ns": 200 * ms}},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			nowhere := faults.Site{Nodes: []string{"n9"}}
			if tt.site.Links != nil {
				nowhere = faults.Site{Links: []faults.Link{{From: "cache", To: "n9"}}}
			}
			faultstest.Conform(t, faultstest.Subject{
				Provider: bench.Source(tt.kind, tt.provider), Site: tt.site, Nowhere: nowhere, Dose: tt.dose, Hold: time.Second,
				Residue: func() string { return "" },
				Meter:   func(site faults.Site, d faults.Dose) (faults.Meter, error) { return bench.Meter(tt.kind, site, d) },
			})
		})
	}
}

// TestAnInterruptedPauseThaws cancels in the middle of a pause.
func TestAnInterruptedPauseThaws(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	n, _ := c.Node("n1")
	for _, how := range []string{"freezer2", "sigstop", "freezer1"} {
		p := bench.Source("process.pause", how)
		if err := p.Probe(t.Context()); err != nil {
			t.Log(how, err)
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		inj, err := p.Inject(ctx, faults.Site{Nodes: []string{"n1"}}, faults.Dose{"length_ns": 60_000 * ms})
		if err != nil {
			t.Fatal(how, err)
		}
		cancel()
		if err := inj.Heal(t.Context()); err != nil {
			t.Error(how, err)
		}
		wait, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := n.WaitReady(wait); err != nil {
			t.Errorf("after a pause by %s: %v", how, err)
		}
		cancel()
		if s := faults.Stopped(n); s != "" {
			t.Error(how, s)
		}
	}
}

func TestQuickMeasuresWhatStandsForOthers(t *testing.T) {
	needs.Host(t, needs.Root)
	rows, err := faults.Quick(t.Context(), "/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	measured := map[string]bool{}
	for _, r := range rows { // a busy host may be off, which is what it says then
		measured[r.Kind] = r.Provider != "" && r.Requested != "" && r.N > 0
	}
	for _, kind := range []string{"net.delay", "disk.delay"} {
		if !measured[kind] {
			t.Errorf("%s was not measured: %+v", kind, rows)
		}
	}
}

func TestCalibrate(t *testing.T) {
	up(t, 1) // skips where there can be no cluster
	rows, err := faults.Calibrate(t.Context(), "/proc/self/exe", []string{"net.partition", "process.kill"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Logf("%+v", r)
		if r.Verdict != faults.RowOK {
			t.Errorf("%s is %s: %s", r.Kind, r.Verdict, r.Why)
		}
	}
	for _, kind := range []string{"net.partition", "process.kill"} {
		if !slices.ContainsFunc(rows, func(r faults.Row) bool { return r.Kind == kind }) {
			t.Errorf("no row of %s", kind)
		}
	}
	if _, err := faults.Calibrate(t.Context(), "/proc/self/exe", []string{"magic"}); err == nil {
		t.Error("a family that there is not was calibrated")
	}
}
