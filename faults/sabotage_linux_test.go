package faults_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"brownout/faults"
)

// notFooled fails the test unless a meter says that no fault is in force, and
// why: by one of some reasons, with | between them.
func notFooled(t *testing.T, bench faults.Bench, kind string, site faults.Site, dose faults.Dose, look time.Duration, why string) {
	t.Helper()
	m, err := bench.Meter(kind, site, dose)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Baseline(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), look)
	defer cancel()
	r, answer, err := m.Measure(ctx, dose)
	t.Log(r.Values, answer.Why)
	told := slices.ContainsFunc(strings.Split(why, "|"), func(one string) bool { return strings.Contains(answer.Why, one) })
	if err != nil || answer.Yes || !told {
		t.Errorf("Measure = %v, %q, %v; want no, because of %q", answer.Yes, answer.Why, err, why)
	}
}

// TestSystemMetersSeeThroughFaultsThatDoNothing: in place of each mechanism
// there is none, and no meter may be content with that.
func TestSystemMetersSeeThroughFaultsThatDoNothing(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	for _, tt := range []struct {
		kind string
		dose faults.Dose
		want string // part of the reason
	}{
		// On a busy host others may happen to take just as much.
		{"cpu.steal", faults.Dose{"percent": 60.0}, "tolerance|others of this host took it"},
		{"cpu.contend", faults.Dose{"burners": int64(4), "weight": int64(4096)}, "tolerance"},
		{"cpu.pin", faults.Dose{"cpus": "0"}, "was seen on CPU 1"},
		{"memory.limit", faults.Dose{"limit_bytes": int64(64 << 20)}, "tolerance"},
		{"memory.pressure", faults.Dose{"limit_bytes": int64(16 << 20)}, "no pressure"},
		{"memory.oom", faults.Dose{}, "lives"},
		{"memory.stall", faults.Dose{"length_ns": 200 * ms}, "tolerance"},
		{"gc.storm", faults.Dose{"heap_bytes": int64(64 << 20), "gogc": int64(10)}, "not the ballast"},
		{"lock.hold", faults.Dose{"add_ns": 5 * ms}, "a client waits for"},
		{"lock.hold", faults.Dose{"add_ns": 5 * ms, "which": "read"}, "a client waits for"},
		{"lock.convoy", faults.Dose{"hold_ns": 20 * ms, "period_ns": 100 * ms, "contenders": int64(1)}, "waited for locks for 0s"},
		{"codec.switch", faults.Dose{"codec": "xml"}, "entries have that form"},
		{"codec.switch", faults.Dose{"bloat_bytes": int64(1 << 10)}, "entries have that form"},
		{"process.term", faults.Dose{}, "lives"},
		{"process.restart", faults.Dose{"data": "lost"}, "lives"},
		{"process.crashloop", faults.Dose{"every_ns": 200 * ms}, "0 of at most"},
		{"clock.offset", faults.Dose{"add_ns": 60_000 * ms}, "tolerance"},
		{"clock.skew", faults.Dose{"add_ns": 5_000 * ms}, "tolerance"},
		{"clock.skew", faults.Dose{"rate": 10.0}, "tolerance"},
		{"neighbour.noisy", faults.Dose{"cpu": 50.0}, "no tenant"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			if tt.kind == "cpu.pin" && faults.Usable() < 2 {
				t.Skip("one CPU")
			}
			notFooled(t, bench, tt.kind, faults.Site{Nodes: []string{"n1"}}, tt.dose, 700*time.Millisecond, tt.want)
		})
	}
}
