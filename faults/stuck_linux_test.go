package faults_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"brownout/faults"
)

// TestAPauseBesideAHungDisk: a thread that waits for a disk which hangs cannot
// be frozen. The node stands still all the same, as long as was asked for, the
// thread is named, and the node goes on after that.
func TestAPauseBesideAHungDisk(t *testing.T) {
	for _, how := range []string{"freezer2", "sigstop", "freezer1"} {
		t.Run(how, func(t *testing.T) {
			c := up(t, 1)
			bench := faults.NewBench(faults.Bed{Cluster: c})
			by := bench.Source("process.pause", how)
			if err := by.Probe(t.Context()); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			site := faults.Site{Nodes: []string{"n1"}}
			n, _ := c.Node("n1")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			hang, err := bench.Source("disk.hang", "fuse").Inject(ctx, site, faults.Dose{"op": "fsync"})
			if err != nil {
				t.Fatal(err)
			}
			acknowledged := make(chan bool, 1)
			go func() {
				ok, _ := write(ctx, c, n, "k", "v")
				acknowledged <- ok
			}()
			awaitWaiting(ctx, t, n)
			dose := faults.Dose{"length_ns": 600 * ms}
			m := readyMeter(ctx, t, bench, "process.pause", site, dose)
			pause, err := by.Inject(ctx, site, dose)
			if err != nil {
				t.Fatalf("pause a node whose disk hangs: %v", err)
			}
			look, over := context.WithTimeout(ctx, time.Second)
			defer over()
			_, answer, err := m.Measure(look, dose)
			t.Log(answer.Why)
			// v1's freezer reaches a thread in the kernel where that allows for it.
			if err != nil || !answer.Yes || how == "freezer2" && !strings.Contains(answer.Why, "in uninterruptible sleep") {
				t.Errorf("Measure = %v, %q, %v; want yes, and who is in uninterruptible sleep", answer.Yes, answer.Why, err)
			}
			if err := pause.Heal(ctx); err != nil {
				t.Error(err)
			}
			if _, answer, err := m.Healed(ctx); err != nil || !answer.Yes {
				t.Errorf("Healed = %v, %q, %v", answer.Yes, answer.Why, err)
			}
			if err := hang.Heal(ctx); err != nil {
				t.Error(err)
			}
			if !<-acknowledged {
				t.Error("the write that hung was never acknowledged")
			}
		})
	}
}

// readyMeter is a meter that has its baseline.
func readyMeter(ctx context.Context, t *testing.T, bench faults.Bench, kind string, site faults.Site, dose faults.Dose) faults.Meter {
	t.Helper()
	m, err := bench.Meter(kind, site, dose)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if _, err := m.Baseline(ctx); err != nil {
		t.Fatal(err)
	}
	return m
}
