package faults_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/faults"
	"brownout/faults/faultstest"
	"brownout/internal/sys/cgroup"
)

// conformCPU tests the faults of the CPU that need no busy node.
func conformCPU(t *testing.T, bench faults.Bench, node *cluster.Node) {
	site, nowhere := faults.Site{Nodes: []string{node.Name()}}, faults.Site{Nodes: []string{"n9"}}
	before, err := faults.AllowedCPUs(node)
	if err != nil {
		t.Fatal(err)
	}
	residue := func() string {
		if now, err := faults.AllowedCPUs(node); err != nil || now != before {
			return fmt.Sprintf("the node may run on CPUs %s, %s before (%v)", now, before, err)
		}
		return faults.Stopped(node)
	}
	for _, s := range []struct {
		kind, providers string
		dose, changed   faults.Dose
		hold            time.Duration
	}{
		{"cpu.steal", "cgroup2 cgroup1", faults.Dose{"percent": 60.0, "burst_ns": 10 * ms}, faults.Dose{"percent": 30.0, "burst_ns": 10 * ms}, 1500 * time.Millisecond},
		{"cpu.contend", "cgroup2 cgroup1", faults.Dose{"burners": int64(2), "weight": int64(1024)}, faults.Dose{"burners": int64(2), "weight": int64(4096)}, 1500 * time.Millisecond},
		{"cpu.pin", "cgroup2 cgroup1", faults.Dose{"cpus": "0"}, faults.Dose{"cpus": "1"}, time.Second},
		{"cpu.pin", "affinity", faults.Dose{"cpus": "1"}, faults.Dose{"cpus": "0"}, time.Second},
		{"cpu.quota", "freezer2", faults.Dose{"percent": 10.0, "period_ns": 50 * ms}, faults.Dose{"percent": 15.0, "period_ns": 50 * ms}, 2500 * time.Millisecond},
	} {
		t.Run(s.kind+" "+s.providers, func(t *testing.T) {
			if s.kind == "cpu.quota" {
				busy(t, bench.Cluster, node.Name())
			}
			p := supported(t, bench, s.kind, s.providers)
			faultstest.Conform(t, faultstest.Subject{
				Provider: p, Site: site, Nowhere: nowhere, Dose: s.dose, Changed: s.changed, Hold: s.hold, Residue: residue,
				Meter: func(site faults.Site, d faults.Dose) (faults.Meter, error) { return bench.Meter(s.kind, site, d) },
			})
		})
	}
}

// supported returns the first of several providers that works here.
func supported(t *testing.T, bench faults.Bench, kind, names string) faults.Provider {
	t.Helper()
	var why error
	for name := range strings.FieldsSeq(names) {
		p := bench.Source(kind, name)
		if why = p.Probe(t.Context()); why == nil {
			return p
		}
	}
	t.Skip(why)
	return nil
}

func TestAQuotaIsAShareOfDemand(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	site := faults.Site{Nodes: []string{"n1"}}
	dose := faults.Dose{"of_demand": 50.0, "period_ns": 50 * ms}
	p := supported(t, bench, "cpu.quota", "cgroup2 cgroup1")
	if _, err := p.Inject(t.Context(), site, dose); err == nil || !strings.Contains(err.Error(), "long enough") {
		t.Errorf("with nothing known: %v", err)
	}
	busy(t, c, "n1")
	go bench.Watch(t.Context())
	n, _ := c.Node("n1")
	from, err := n.Group().CPUUsage()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	time.Sleep(1500 * time.Millisecond)
	to, err := n.Group().CPUUsage()
	if err != nil {
		t.Fatal(err)
	}
	used := 100 * float64(to-from) / float64(time.Since(begun))
	inj, err := p.Inject(t.Context(), site, dose)
	if err != nil {
		t.Fatal(err)
	}
	q, err := n.Group().CPUQuota()
	if e := inj.Heal(t.Context()); e != nil {
		t.Error(e)
	}
	if got := q.Percent(); err != nil || got < used/4 || got > used {
		t.Errorf("half of a demand of %.1f %% became %.1f %% (%v)", used, got, err)
	}
}

func TestDosesThatCannotBeGivenAreRefusedWithTheirRange(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	for _, tt := range []struct {
		kind, providers string
		dose            faults.Dose
		want            string
	}{
		{"cpu.quota", "cgroup2 cgroup1", faults.Dose{"percent": 5.0, "period_ns": 10 * ms}, "1ms or more"},
		{"cpu.quota", "cgroup2 cgroup1", faults.Dose{"percent": 20.0, "period_ns": 100 * ms, "burst_ns": 30 * ms}, "at most 20ms"},
		{"cpu.quota", "cgroup2 cgroup1", faults.Dose{}, "one of percent and of_demand"},
		{"cpu.quota", "freezer2", faults.Dose{"percent": 60.0, "period_ns": 2 * ms}, "4ms or more"},
		{"cpu.steal", "cgroup2 cgroup1", faults.Dose{"percent": 5.0, "burst_ns": 100 * ms}, "1ms to 50ms"},
		{"cpu.steal", "cgroup2 cgroup1", faults.Dose{"percent": 50.0, "cpus": "4000"}, "this host has"},
		{"cpu.pin", "cgroup2 cgroup1 affinity", faults.Dose{"cpus": "4000"}, "this host has"},
		{"memory.limit", "cgroup2 cgroup1", faults.Dose{"limit_bytes": int64(1) << 50}, "this host has"},
		{"memory.limit", "cgroup2 cgroup1", faults.Dose{"limit_bytes": int64(1) << 20}, "or more"},
		{"memory.pressure", "cgroup2 cgroup1", faults.Dose{"limit_bytes": int64(4096)}, "1 MiB or more"},
		{"memory.stall", "cgroup1 cgroup2", faults.Dose{}, "no length"},
		{"gc.storm", "agent", faults.Dose{"heap_bytes": int64(1) << 50, "gogc": int64(10)}, "half of what this host has"},
		{"process.crashloop", "signal", faults.Dose{}, "without a time"},
		{"lock.hold", "agent", faults.Dose{}, "more than nothing"},
		{"lock.convoy", "agent", faults.Dose{"hold_ns": 30 * ms, "period_ns": 100 * ms, "contenders": int64(3)}, "at most 90%"},
		{"codec.switch", "agent", faults.Dose{}, "one of codec, bloat and fields"},
		{"clock.offset", "timens", faults.Dose{"add_ns": int64(1) << 60, "direction": "back"}, "how long this host is up"},
		{"clock.skew", "agent", faults.Dose{"rate": 100.0, "direction": "back"}, "below 100%"},
		{"clock.skew", "agent", faults.Dose{}, "one of add and rate"},
		{"neighbour.noisy", "cgroup2 cgroup1", faults.Dose{}, "at least one of"},
		{"neighbour.noisy", "cgroup2 cgroup1", faults.Dose{"cpu": 1e6}, "this host has"},
		{"neighbour.noisy", "cgroup2 cgroup1", faults.Dose{"memory_bytes": int64(1) << 50}, "half of what this host has"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			p := supported(t, bench, tt.kind, tt.providers)
			inj, err := p.Inject(t.Context(), faults.Site{Nodes: []string{"n1"}}, tt.dose)
			if err == nil {
				inj.Heal(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v: %v; want %q", tt.dose, err, tt.want)
			}
		})
	}
}

// cpuVersion names the provider of this host's cpu controller.
func cpuVersion(t *testing.T) string {
	h, err := cgroup.Discover()
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Controller("cpu")
	if err != nil {
		t.Skip(err)
	}
	return fmt.Sprintf("cgroup%d", c.Version)
}

// TestAStealBesideANeighbourThatLeaves: what a tenant of another fault used
// before is no part of what is taken, nor missing from it once that is gone.
func TestAStealBesideANeighbourThatLeaves(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	site, how := faults.Site{Nodes: []string{"n1"}}, cpuVersion(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	neighbour, err := bench.Source("neighbour.noisy", how).Inject(ctx, site, faults.Dose{"cpu": 60.0})
	if err != nil {
		t.Fatal(err)
	}
	dose := faults.Dose{"percent": 40.0, "burst_ns": 20 * ms}
	m := readyMeter(ctx, t, bench, "cpu.steal", site, dose)
	steal, err := bench.Source("cpu.steal", how).Inject(ctx, site, dose)
	if err != nil {
		t.Fatal(err)
	}
	if err := neighbour.Heal(ctx); err != nil {
		t.Error(err)
	}
	look, over := context.WithTimeout(ctx, 2*time.Second)
	defer over()
	r, answer, err := m.Measure(look, dose)
	if got, _ := r.Values["percent"].(float64); err != nil || got < 30 || got > 50 {
		t.Errorf("Measure = %v, %q, %v; want about 40 %%", got, answer.Why, err)
	}
	if err := steal.Heal(ctx); err != nil {
		t.Error(err)
	}
}

// TestATenantThatHasLeftIsNoReading: a host so busy that the fault is healed before
// its meter looks again says nothing of the dose.
func TestATenantThatHasLeftIsNoReading(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	site := faults.Site{Nodes: []string{"n1"}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dose := faults.Dose{"cpu": 20.0}
	m := readyMeter(ctx, t, bench, "neighbour.noisy", site, dose)
	neighbour, err := bench.Source("neighbour.noisy", cpuVersion(t)).Inject(ctx, site, dose)
	if err != nil {
		t.Fatal(err)
	}
	look, over := context.WithTimeout(ctx, 300*time.Millisecond)
	_, answer, err := m.Measure(look, dose)
	over()
	if err != nil || answer.Why == "" {
		t.Fatalf("first reading: %+v, %v", answer, err)
	}
	if err := neighbour.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	if r, answer, err := m.Measure(look, dose); err == nil || !strings.Contains(err.Error(), "too late") {
		t.Errorf("after it had left: %v, %+v, %v; want that it was too late", r, answer, err)
	}
}
