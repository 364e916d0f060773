package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"brownout/cluster"
	"brownout/internal/clock"
	"brownout/internal/history"
	"brownout/internal/needs"
	"brownout/internal/plan"
	"brownout/internal/sys/netns"
	"brownout/internal/wire"
	"brownout/internal/workload"
	"brownout/kvserver"
)

// TestMain lets the test binary be started again as all helpers of a cluster,
// as its target and as the load generator.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "_load":
			os.Exit(workload.LoadMain(args))
		case "_init":
			os.Exit(cluster.InitMain(args))
		case "_reaper":
			os.Exit(cluster.ReaperMain(args))
		case "_wire":
			os.Exit(wire.Main(args))
		case "kvserver":
			if err := kvserver.Main(context.Background(), args, os.Stdout, os.Stderr); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

var testLoad = plan.Load{
	Keys: 100, Dist: "uniform", ValueSize: 64, OfMax: 0.5, Clients: 8, Endpoints: "leader", Timeout: time.Second,
	Mix: []plan.Share{{Kind: "get", P: 0.4}, {Kind: "put", P: 0.3}, {Kind: "cas", P: 0.1}, {Kind: "append", P: 0.1}, {Kind: "delete", P: 0.1}},
}

// inNamespace starts a fake server and a load generator in a namespace of their own.
func inNamespace(t *testing.T) (*fakeKV, *workload.Generator, workload.Spec) {
	t.Helper()
	needs.Host(t, needs.Root)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	err = netns.Do(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := netns.Listen(t.Context(), ns, "tcp", "127.0.0.1:6379")
	if err != nil {
		t.Fatal(err)
	}
	s := serveFake(t, ln)
	dir := t.TempDir()
	g, err := workload.Start(t.Context(), "/proc/self/exe", ns, filepath.Join(dir, "load.log"), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = g.Finish(ctx)
		select {
		case <-g.Done():
		case <-ctx.Done():
			t.Error("the load generator is still there")
		}
	})
	return s, g, workload.Spec{
		Load: testLoad, Seed: 7, Target: "kvserver", Endpoints: []workload.Endpoint{{Node: "n1", Addr: "127.0.0.1:6379"}},
		Spool: filepath.Join(dir, "history.bin"), History: filepath.Join(dir, "history.jsonl"),
	}
}

func readHistory(t *testing.T, path string) []history.Op {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ops, err := history.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

func keys(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("k%d", i)
	}
	return out
}

func TestGeneratorInItsNamespaceFromCalibrationToHistory(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s, g, spec := inNamespace(t)
	most, err := g.Calibrate(ctx, spec, 500*time.Millisecond)
	if err != nil || most < 100 {
		t.Fatalf("calibrated %v/s, %v", most, err)
	}
	spec.Zero = clock.Raw() + int64(50*time.Millisecond)
	spec.Rate, spec.End = min(most/2, 1000), 1200*time.Millisecond
	rep, err := g.Run(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(spec.Rate * 1.2); rep.Offered < want/2 || rep.OK != rep.Offered || rep.Lateness.N != rep.Sent || rep.SpoolBytes == 0 {
		t.Errorf("report = %+v, want some %d operations, all ok", rep, want)
	}
	if p := g.Progress(); p.OKPerS == 0 || p.P99 == 0 {
		t.Errorf("progress = %+v, want the last second's", p)
	}
	missing, err := g.FinalReads(ctx, spec, keys(100), 10*time.Second)
	if err != nil || len(missing) > 0 {
		t.Errorf("final reads: missing %v, %v", missing, err)
	}
	if err := g.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Finish(ctx); err != nil {
		t.Errorf("finished twice: %v", err)
	}
	ops := readHistory(t, spec.History)
	if len(ops) != int(rep.Sent)+100 {
		t.Errorf("history of %d operations, want %d and 100 final reads", len(ops), rep.Sent)
	}
	final := 0
	for i, op := range ops {
		if op.Phase == "final" {
			final++
			if got := s.values[op.Key]; op.Result == nil && got != "" || op.Result != nil && *op.Result != history.Short(got, 64) {
				t.Errorf("final read of %s = %v, the server has %q", op.Key, op.Result, got)
			}
		}
		if i > 0 && op.Call < ops[i-1].Call {
			t.Fatalf("line %d is out of order", i+1)
		}
		if op.Due < 0 || op.Due > op.Call || op.Node != "n1" {
			t.Fatalf("%+v", op)
		}
	}
	if final != 100 {
		t.Errorf("%d final reads, want 100", final)
	}
}

func TestStoppedRunKeepsItsHistory(t *testing.T) {
	_, g, spec := inNamespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	spec.Zero, spec.Rate, spec.End = clock.Raw(), 500, time.Hour
	rep, err := g.Run(ctx, spec)
	if err != nil || rep.OK == 0 {
		t.Fatalf("report = %+v, %v", rep, err)
	}
	if err := g.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ops := readHistory(t, spec.History); int64(len(ops)) != rep.Sent+rep.Unsent {
		t.Errorf("history of %d operations, want %d", len(ops), rep.Sent+rep.Unsent)
	}
}

func TestKilledGeneratorIsReportedAndItsHistoryRecovered(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	_, g, spec := inNamespace(t)
	spec.Zero, spec.Rate, spec.End = clock.Raw(), 1000, time.Hour
	failed := make(chan error, 1)
	go func() {
		_, err := g.Run(ctx, spec)
		failed <- err
	}()
	for { // until there is something to recover
		if st, err := os.Stat(spec.Spool); err == nil && st.Size() > 4000 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("no spool")
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := syscall.Kill(g.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, workload.ErrGone) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("run = %v, want that the process was killed", err)
	}
	select {
	case <-g.Done():
	case <-ctx.Done():
		t.Fatal("Done was not closed")
	}
	if _, err := g.FinalReads(ctx, spec, keys(3), time.Second); !errors.Is(err, workload.ErrGone) {
		t.Errorf("final reads of a dead generator = %v", err)
	}
	if err := g.Finish(ctx); !errors.Is(err, workload.ErrGone) {
		t.Errorf("finish = %v, want that the process had ended", err)
	}
	ops := readHistory(t, spec.History)
	done, lost := 0, 0
	for _, op := range ops {
		switch op.Outcome {
		case history.OK:
			done++
		case history.Unknown:
			lost++
		}
	}
	if done < 100 {
		t.Errorf("recovered %d operations and %d lost ones", done, lost)
	}
}

func TestWrongSpecIsRefused(t *testing.T) {
	_, g, spec := inNamespace(t)
	for _, tt := range []struct {
		name   string
		change func(*workload.Spec)
		want   string
	}{
		{"no rate", func(s *workload.Spec) { s.Rate = 0 }, "rate: 0 is not positive"},
		{"no client for the target", func(s *workload.Spec) { s.Target = "etcd" }, `no client for "etcd"`},
		{"no clients", func(s *workload.Spec) { s.Load.Clients = 0 }, "clients: 0"},
		{"a spool that cannot be", func(s *workload.Spec) { s.Spool = "/proc/none/x" }, "open spool"},
	} {
		bad := spec
		bad.Rate, bad.End = 100, time.Second
		tt.change(&bad)
		if _, err := g.Run(t.Context(), bad); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
