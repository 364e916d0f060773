package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
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

// seen are the labels of what a run showed to be wrong, as it puts them first.
func seen(res run.Result) (out []string) {
	add := func(label string) {
		if !slices.Contains(out, label) {
			out = append(out, label)
		}
	}
	for _, v := range res.Consistency.Violations {
		add(v.Label)
	}
	if res.Durability.Verdict == "lost" {
		add("lost acknowledged write")
	}
	if res.Replicas.Verdict == "diverged" {
		add("replicas diverged")
	}
	if res.Progress.Verdict == "hang" {
		add("hang")
	}
	return out
}

// TestPlantedBugs finds every bug, and nothing in the same scenario without it.
// BROWNOUT_BUGS=N seeks all bugs once, and runs without each N times, which must
// pass; without it, the fastest few are sought once.
func TestPlantedBugs(t *testing.T) {
	needs.Host(t, needs.Root)
	clean, _ := strconv.Atoi(os.Getenv("BROWNOUT_BUGS"))
	bugs := plantedBugs
	if clean == 0 {
		bugs = bugs[:3]
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "BUG\tSCENARIO\tCAUGHT\tAS\tSEEN AFTER\tRUN TOOK\tCLEAN WITHOUT IT")
	for _, bug := range bugs {
		t.Run(bug.name, func(t *testing.T) {
			res, took := runBug(t, bug.name)
			got := seen(res)
			caught := slices.ContainsFunc(got, func(l string) bool { return slices.Contains(bug.labels, l) }) && (res.ExitCode == 3 || res.ExitCode == 1)
			if !caught {
				t.Errorf("%s: %s %v, want one of %v: %s", bug.name, res.Verdict, got, bug.labels, res.Why)
			}
			passed := 0
			for range clean {
				if res, _ := runBug(t, bug.name, "--set", "target.config.bug=none"); res.Verdict == run.Pass {
					passed++
				} else {
					t.Errorf("%s without its bug: %s %v: %s", bug.name, res.Verdict, seen(res), res.Why)
				}
			}
			fmt.Fprintf(table, "%s\tbug-%s\t%s\t%s\t%s\t%.1f s\t%d of %d\n", bug.name, bug.name, map[bool]string{true: "yes", false: "no"}[caught],
				strings.Join(got, ", "), seenAfter(res), took.Seconds(), passed, clean)
		})
	}
	fmt.Println()
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
}

// seenAfter says when a violation was seen, from the first operation on.
func seenAfter(res run.Result) string {
	if st := res.Stopped; st != nil {
		return fmt.Sprintf("%.2f s", float64(st.Returned+st.StoppedIn)/1e9)
	}
	return "its end"
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
