package main

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/run"
	"brownout/kvserver"
	"brownout/scenarios"
)

// plantedBugs are the bugs of kvserver and how they may show. The first three
// are sought in every test.
var plantedBugs = []struct {
	name   string
	labels []string // one of them at least must be seen
}{
	{"cas-ignores-expected", []string{"cas ignored its expectation"}},
	{"stale-follower-read", []string{"stale read", "non-monotonic read"}},
	{"reordered-apply", []string{"replicas diverged"}},
	{"unguarded-lease", []string{"stale read", "non-monotonic read"}},
	{"dirty-read", []string{"stale read", "non-monotonic read", "aborted write observed"}},
	{"ack-before-quorum", []string{"stale read", "lost acknowledged write", "lost append"}},
	{"ack-before-fsync", []string{"stale read", "lost acknowledged write", "lost append"}},
	{"double-apply", []string{"double apply"}},
	{"append-lost", []string{"lost append"}},
	{"delete-resurrects", []string{"resurrected value"}},
	{"short-snapshot", []string{"diverging appends", "replicas diverged", "stale read", "lost acknowledged write", "lost append", "resurrected value"}},
	{"hang-after-election", []string{"hang"}},
}

// seen are the labels of what a run showed to be wrong.
func seen(res run.Result) []string {
	var out []string
	for _, v := range res.Consistency.Violations {
		out = append(out, v.Label)
	}
	if res.Durability.Verdict == "lost" {
		out = append(out, "lost acknowledged write")
	}
	if res.Replicas.Verdict == "diverged" {
		out = append(out, "replicas diverged")
	}
	if res.Progress.Verdict == "hang" {
		out = append(out, "hang")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestPlantedBugs finds every bug, and nothing in the same scenario without it.
// BROWNOUT_BUGS=N seeks all bugs once, and runs without each N times; without it,
// the fastest few are sought once.
func TestPlantedBugs(t *testing.T) {
	needs.Host(t, needs.Root)
	clean, _ := strconv.Atoi(os.Getenv("BROWNOUT_BUGS"))
	bugs := plantedBugs
	if clean == 0 {
		bugs = bugs[:3]
	}
	for _, bug := range bugs {
		t.Run(bug.name, func(t *testing.T) {
			res, took := runBug(t, bug.name)
			got := seen(res)
			if !slices.ContainsFunc(got, func(l string) bool { return slices.Contains(bug.labels, l) }) || res.ExitCode != 3 && res.ExitCode != 1 {
				t.Errorf("%s: %s %v, want one of %v: %s", bug.name, res.Verdict, got, bug.labels, res.Why)
			}
			t.Logf("%-22s caught in %5.1f s as %s", bug.name, took.Seconds(), strings.Join(got, ", "))
			for range clean {
				res, _ := runBug(t, bug.name, "--set", "target.config.bug=none")
				if got := seen(res); len(got) > 0 || res.Consistency.Verdict != "ok" {
					t.Errorf("%s without its bug: %s %v: %s", bug.name, res.Verdict, got, res.Why)
				}
			}
		})
	}
}

func runBug(t *testing.T, name string, args ...string) (run.Result, time.Duration) {
	t.Helper()
	began := time.Now()
	stdout, stderr, _ := brownoutIn(t, t.TempDir(), append([]string{"run", "bug-" + name, "--out", "r", "-o", "json"}, args...)...)
	var res run.Result
	if err := json.Unmarshal([]byte(stdout), &res); err != nil {
		t.Fatalf("stdout is not a result: %v\n%s\n%s", err, stdout, stderr)
	}
	return res, time.Since(began)
}

// Every bug that kvserver has is sought, by the scenario of its name.
func TestEveryBugHasItsScenario(t *testing.T) {
	var sought, listed []string
	for _, b := range plantedBugs {
		sought = append(sought, b.name)
	}
	for _, e := range scenarios.ListBugs() {
		listed = append(listed, strings.TrimPrefix(e.Name, "bug-"))
		s, _, err := scenarios.Load(e.Name, nil)
		if err != nil || s.Name != e.Name || "bug-"+s.Target.Config["bug"] != e.Name {
			t.Errorf("%s: named %q, with the bug %q, %v", e.Name, s.Name, s.Target.Config["bug"], err)
		}
	}
	slices.Sort(sought)
	all := slices.Sorted(slices.Values(kvserver.Bugs))
	if !slices.Equal(sought, all) || !slices.Equal(listed, all) {
		t.Errorf("bugs %v, sought %v, scenarios %v", all, sought, listed)
	}
}
