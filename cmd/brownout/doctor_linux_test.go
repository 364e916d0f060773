package main

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/needs"
	"brownout/internal/plan"
)

// TestDoctorTellsEveryFieldOfEveryFault: a consumer needs no case for what is
// missing, whatever this host can do.
func TestDoctorTellsEveryFieldOfEveryFault(t *testing.T) {
	needs.Host(t, needs.Root)
	out, err := cli(t.Context(), t.TempDir(), "doctor", "-o", "json", "--measure=false").Output()
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(out, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(plan.Kinds) {
		t.Fatalf("%d rows, %d kinds of faults", len(rows), len(plan.Kinds))
	}
	fields := []string{
		"cure", "error_ns", "error_pct", "heal_ns", "heal_up_ns", "host", "inject_ns", "inject_up_ns", "kind", "measured_p50", "measured_p99", "n",
		"other_providers", "provider", "requested", "sigma", "sigma_pct", "verdict", "why",
	}
	noise := []string{"cpu_pressure", "cpus", "foreign_cpu", "fsync_p50_ns", "io_pressure", "load1", "memory_pressure", "steal", "watched_ns"}
	for i, r := range rows {
		if r["kind"] != plan.Kinds[i].Name {
			t.Errorf("row %d is of %v, want %s", i, r["kind"], plan.Kinds[i].Name)
		}
		if diff := cmp.Diff(fields, slices.Sorted(maps.Keys(r))); diff != "" {
			t.Errorf("fields of %v (-want +got):\n%s", r["kind"], diff)
		}
		if _, ok := r["other_providers"].([]any); !ok {
			t.Errorf("%v: other_providers is %v, want a list", r["kind"], r["other_providers"])
		}
		host, _ := r["host"].(map[string]any)
		if diff := cmp.Diff(noise, slices.Sorted(maps.Keys(host))); diff != "" {
			t.Errorf("host of %v (-want +got):\n%s", r["kind"], diff)
		}
		if host["cpus"] == 0.0 || host["fsync_p50_ns"] == 0.0 {
			t.Errorf("host of %v: %v", r["kind"], host)
		}
	}
}
