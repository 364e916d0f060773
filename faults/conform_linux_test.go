package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/faults"
	"brownout/faults/faultstest"
	"brownout/internal/clock"
	"brownout/internal/needs"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/internal/sys/netns"
	"brownout/internal/target"
	"brownout/internal/undo"
	"brownout/internal/wire"
	"brownout/kvserver"
)

// TestMain lets the test binary be started again as brownout's helpers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "_init":
			os.Exit(cluster.InitMain(args))
		case "_reaper":
			os.Exit(cluster.ReaperMain(args))
		case "_wire":
			os.Exit(wire.Main(args))
		case "_spin":
			os.Exit(faults.SpinMain(args))
		case "_fileprobe":
			os.Exit(faults.FileProbeMain(args))
		case "_tenant":
			os.Exit(faults.TenantMain(args))
		case "_flood":
			os.Exit(faults.FloodMain(args))
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

var clusters atomic.Int64

// up brings a small cluster of kvserver up, and down at the test's end.
func up(t *testing.T, nodes int) *cluster.Cluster {
	t.Helper()
	return upWith(t, nodes, nil)
}

// upWith has settings for the target, and may change the cluster's.
func upWith(t *testing.T, nodes int, settings map[string]string, change ...func(*cluster.Config)) *cluster.Cluster {
	t.Helper()
	needs.Host(t, needs.Root)
	kv, err := target.NewKVServer(settings)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	journal, err := undo.Create(filepath.Join(dir, "cleanup.json"), undo.Revert)
	if err != nil {
		t.Fatal(err)
	}
	cfg := cluster.Config{
		ID: fmt.Sprintf("ft%dx%d", os.Getpid(), clusters.Add(1)), Dir: dir, Nodes: nodes, Target: kv,
		Journal: journal,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := cluster.Up(t.Context(), cfg)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("needs a cluster: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(c.Down(ctx), journal.Unwind()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// busy gives a node something to do: clients that ping as fast as they can.
func busy(t *testing.T, c *cluster.Cluster, node string) {
	askOften(t, c, node, 4, "*1\r\n$4\r\nPING\r\n")
}

// askOften has clients send a node one command again and again until the test's end.
func askOften(t *testing.T, c *cluster.Cluster, node string, clients int, command string) {
	n, _ := c.Node(node)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range clients {
		conn, err := netns.Dial(ctx, c.ClientNetNS(), "tcp", net.JoinHostPort(n.IP4().String(), "6379"))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			buf := make([]byte, 64)
			for {
				if _, err := conn.Write([]byte(command)); err != nil {
					return
				}
				if _, err := conn.Read(buf); err != nil {
					return
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
}

const ms = int64(time.Millisecond)

func TestProvidersConform(t *testing.T) {
	c := up(t, 3)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	follower := "n3"
	link := faults.Link{From: "n1", To: follower}
	links, nodes := faults.Site{Links: []faults.Link{link}}, faults.Site{Nodes: []string{follower}}
	impaired := func() string {
		if imp := bench.Applied(link); imp != (wire.Impairment{}) {
			return fmt.Sprintf("%+v", imp)
		}
		return ""
	}
	node, _ := c.Node(follower)
	cut := func() string {
		if n := c.Switch().Flows(); n > 0 {
			return fmt.Sprintf("%d flows are cut", n)
		}
		return ""
	}
	none := func() string { return "" } // that a file of the host would tell of
	for _, s := range []struct {
		kind, provider string
		dose, changed  faults.Dose
		hold           time.Duration
		residue        func() string
	}{
		{"net.reset", "sock_diag", faults.Dose{"every_ns": 100 * ms}, nil, time.Second, none},
		{"net.halfopen", "ebpf", faults.Dose{"new": "pass"}, nil, time.Second, cut},
		{"net.halfopen", "ebpf", faults.Dose{"new": "drop", "one_way": true}, nil, time.Second, cut},
		{"net.flood", "flows", faults.Dose{"limit_bits_per_s": int64(20e6), "flows": int64(4), "udp": 20.0}, faults.Dose{"limit_bits_per_s": int64(40e6), "flows": int64(2), "udp": 50.0}, time.Second, none},
		{"net.delay", "wire", faults.Dose{"add_ns": 10 * ms}, faults.Dose{"add_ns": 25 * ms}, time.Second, impaired},
		{"net.delay", "wire", faults.Dose{"trace": "5ms, 15ms, 10ms"}, faults.Dose{"add_ns": 20 * ms, "jitter_ns": 5 * ms, "dist": "normal", "corr": 30.0, "order": "keep"}, time.Second, impaired},
		{"net.loss", "wire", faults.Dose{"percent": 20.0}, faults.Dose{"percent": 30.0, "burst": int64(3)}, 700 * time.Millisecond, impaired},
		{"net.loss", "wire", faults.Dose{"every": int64(4)}, nil, 700 * time.Millisecond, impaired},
		{"net.loss", "wire", faults.Dose{"first": int64(400)}, nil, time.Second, impaired},
		{"net.duplicate", "wire", faults.Dose{"percent": 20.0}, faults.Dose{"percent": 40.0}, 700 * time.Millisecond, impaired},
		{"net.reorder", "wire", faults.Dose{"percent": 25.0, "add_ns": 5 * ms}, faults.Dose{"percent": 50.0, "add_ns": 5 * ms}, 700 * time.Millisecond, impaired},
		{"net.corrupt", "wire", faults.Dose{"percent": 20.0}, faults.Dose{"percent": 40.0}, 700 * time.Millisecond, impaired},
		{"net.rate", "wire", faults.Dose{"limit_bits_per_s": int64(10e6), "queue_bytes": int64(256 << 10)}, faults.Dose{"limit_bits_per_s": int64(10e6), "queue_bytes": int64(64 << 10)}, 2 * time.Second, impaired},
		{"net.partition", "ebpf", faults.Dose{"one_way": true}, nil, time.Second, impaired},
		{"disk.delay", "fuse", faults.Dose{"op": "fsync", "add_ns": 20 * ms}, faults.Dose{"op": "fsync", "add_ns": 5 * ms}, time.Second, none},
		{"disk.delay", "fuse", faults.Dose{"op": "write", "add_ns": 5 * ms}, nil, time.Second, none},
		{"disk.delay", "fuse", faults.Dose{"op": "read", "add_ns": 5 * ms}, nil, time.Second, none},
		{"disk.delay", "fuse", faults.Dose{"op": "open", "add_ns": 5 * ms}, nil, time.Second, none},
		{"disk.delay", "fuse", faults.Dose{"op": "rename", "add_ns": 5 * ms}, nil, time.Second, none},
		{"process.pause", "freezer2", faults.Dose{"length_ns": 100 * ms, "every_ns": 300 * ms}, nil, time.Second, func() string { return faults.Stopped(node) }},
		{"process.pause", "sigstop", faults.Dose{"length_ns": 100 * ms, "every_ns": 300 * ms}, nil, time.Second, func() string { return faults.Stopped(node) }},
		{"process.pause", "freezer1", faults.Dose{"length_ns": 100 * ms, "every_ns": 300 * ms}, nil, time.Second, func() string { return faults.Stopped(node) }},
		{"gc.pause", "agent", faults.Dose{"length_ns": 100 * ms, "every_ns": 400 * ms}, nil, 1500 * time.Millisecond, none},
		{"process.kill", "signal", faults.Dose{"restart_ns": 300 * ms}, nil, 600 * time.Millisecond, func() string { return faults.Stopped(node) }},
		{"gc.pause", "agent", faults.Dose{"length_ns": 40 * ms, "every_ns": 300 * ms, "dist": "pareto"}, nil, 2500 * time.Millisecond, none},
		{"gc.storm", "agent", faults.Dose{"heap_bytes": int64(32 << 20), "gogc": int64(10), "alloc_bytes_per_s": int64(32 << 20)}, nil, 2 * time.Second, none},
		{"lock.hold", "agent", faults.Dose{"add_ns": 10 * ms}, faults.Dose{"add_ns": 25 * ms}, time.Second, none},
		{"lock.hold", "agent", faults.Dose{"add_ns": 10 * ms, "which": "read", "share": 50.0, "busy": true}, nil, time.Second, none},
		{"lock.convoy", "agent", faults.Dose{"hold_ns": 15 * ms, "period_ns": 100 * ms, "contenders": int64(1)}, nil, 1500 * time.Millisecond, none},
		{"codec.switch", "agent", faults.Dose{"codec": "xml", "bloat_bytes": int64(4096)}, faults.Dose{"codec": "json", "fields": int64(20)}, time.Second, none},
		{"process.term", "signal", faults.Dose{"restart_ns": 300 * ms}, nil, 600 * time.Millisecond, none},
		{"process.restart", "signal", faults.Dose{"data": "same", "down_ns": 200 * ms}, nil, time.Second, none},
		{"process.restart", "signal", faults.Dose{"data": "lost"}, nil, time.Second, none},
		{"process.restart", "signal", faults.Dose{"data": "older", "age_ns": 300 * ms}, nil, 1500 * time.Millisecond, none},
		{"neighbour.noisy", cpuVersion(t), faults.Dose{"cpu": 30.0, "memory_bytes": int64(32 << 20), "net_bits_per_s": int64(10e6), "disk_bytes_per_s": int64(4 << 20)}, nil, 2 * time.Second, func() string {
			if ps := c.Switch().Ports(); len(ps) != 4 {
				return fmt.Sprint("ports ", ps)
			}
			return ""
		}},
		{"clock.offset", "timens", faults.Dose{"add_ns": 3_600_000 * ms}, nil, 500 * time.Millisecond, none},
		{"clock.offset", "timens", faults.Dose{"add_ns": 60_000 * ms, "direction": "back"}, nil, 500 * time.Millisecond, none},
		{"clock.skew", "agent", faults.Dose{"add_ns": 5_000 * ms}, faults.Dose{"add_ns": 5_000 * ms, "direction": "back"}, 300 * time.Millisecond, none},
		{"clock.skew", "agent", faults.Dose{"rate": 10.0}, faults.Dose{"rate": 10.0, "direction": "back"}, time.Second, none},
		{"process.crashloop", "signal", faults.Dose{"every_ns": 250 * ms}, nil, 1500 * time.Millisecond, none},
	} {
		t.Run(fmt.Sprint(s.kind, " ", s.provider, " ", s.dose["op"], s.dose["data"], s.dose["dist"], s.dose["direction"], s.dose["rate"]), func(t *testing.T) {
			if raced && strings.HasPrefix(s.kind, "gc.") {
				t.Skip("the target is built with the race detector")
			}
			site, nowhere := nodes, faults.Site{Nodes: []string{"n9"}}
			if s.kind == "codec.switch" { // who leads encodes
				site = faults.Site{Nodes: []string{"n1", "n2", "n3"}}
			}
			if strings.HasPrefix(s.kind, "net.") {
				site, nowhere = links, faults.Site{Links: []faults.Link{{From: "n1", To: "n9"}}}
			}
			faultstest.Conform(t, faultstest.Subject{
				Provider: bench.Source(s.kind, s.provider), Site: site, Nowhere: nowhere,
				Dose: s.dose, Changed: s.changed, Hold: s.hold, Residue: s.residue,
				Meter: func(site faults.Site, d faults.Dose) (faults.Meter, error) { return bench.Meter(s.kind, site, d) },
			})
		})
	}
}

// TestCPUFaultsConform is apart from the others for kernels whose cgroups differ.
func TestCPUFaultsConform(t *testing.T) {
	c := up(t, 3)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	follower := "n3"
	nodes := faults.Site{Nodes: []string{follower}}
	node, _ := c.Node(follower)
	t.Run("cpu", func(t *testing.T) { conformCPU(t, bench, node) })
	t.Run("cpu.quota", func(t *testing.T) {
		busy(t, c, follower)
		p := bench.Source("cpu.quota", "cgroup1")
		if p.Probe(t.Context()) != nil {
			p = bench.Source("cpu.quota", "cgroup2")
		}
		faultstest.Conform(t, faultstest.Subject{
			Provider: p, Site: nodes, Nowhere: faults.Site{Nodes: []string{"n9"}},
			Dose: faults.Dose{"percent": 10.0, "period_ns": 50 * ms}, Changed: faults.Dose{"percent": 20.0, "period_ns": 50 * ms},
			Hold: 2 * time.Second,
			Residue: func() string {
				if q, err := node.Group().CPUQuota(); err != nil || q.Quota >= 0 {
					return fmt.Sprint(q, err)
				}
				return ""
			},
			Meter: func(site faults.Site, d faults.Dose) (faults.Meter, error) { return bench.Meter("cpu.quota", site, d) },
		})
	})
}

// TestNemesisPlaysOnARealCluster plays faults of all families, overlapping
// where they do not disturb each other. A host that is too busy to give a dose
// makes the answer no, rightly; so it may try again.
func TestNemesisPlaysOnARealCluster(t *testing.T) {
	const tries = 3
	for try := 1; ; try++ {
		doubts := playAll(t)
		if doubts == nil {
			return
		}
		if try == tries {
			t.Fatalf("%d times in a row; at last %v", tries, doubts)
		}
		t.Logf("again, because of %v", doubts)
	}
}

// playAll returns which faults were not seen biting and healed.
func playAll(t *testing.T) (doubts []string) {
	c := up(t, 3)
	var mu sync.Mutex
	var events []run.Event
	cl := clock.At(clock.Raw())
	n, err := faults.NewNemesis(t.Context(), faults.Bed{Cluster: c, Clock: cl, Seed: 1, Emit: func(e run.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
		t.Logf("%8.3fs %s %s %v %s%s %v %s", time.Duration(e.T).Seconds(), e.Fault, e.Type, e.Nodes, e.Bit, e.Healed, e.Measured, e.Text)
	}})
	if err != nil {
		t.Fatal(err)
	}
	const s = time.Second
	fs := []plan.Fault{
		{ID: "f1", Kind: "net.delay", From: "leader", To: "followers", Start: 1 * s, End: 4 * s, Params: plan.Params{"add_ns": 20 * ms, "jitter_ns": 2 * ms, "dist": "normal"}},
		{ID: "f2", Kind: "disk.delay", On: "one follower", Start: 1 * s, End: 4 * s, Params: plan.Params{"op": "fsync", "add_ns": 10 * ms}},
		{ID: "f3", Kind: "net.partition", Split: "leader | followers", Plane: "client", Start: 5 * s, End: 6 * s},
		{ID: "f4", Kind: "gc.pause", On: "n1", Start: 7 * s, End: 7 * s, Params: plan.Params{"length_ns": 200 * ms}},
		{ID: "f5", Kind: "process.kill", On: "one follower", Start: 8 * s, End: 9 * s, Params: plan.Params{}},
	}
	if raced {
		fs = slices.DeleteFunc(fs, func(f plan.Fault) bool { return f.Kind == "gc.pause" })
	}
	providers, err := n.Prepare(t.Context(), fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(providers)
	if err := n.Play(t.Context(), fs); err != nil {
		t.Error(err)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, f := range fs {
		bit, healed := run.BitUnmeasured, run.HealedNo
		for _, e := range events {
			if e.Fault == f.ID && e.Type == run.FaultMeasured {
				bit = e.Bit
			}
			if e.Fault == f.ID && e.Type == run.FaultVerified {
				healed = e.Healed
			}
		}
		if bit != run.BitYes || healed != run.HealedYes {
			doubts = append(doubts, fmt.Sprintf("%s %s: bit %s, healed %s", f.ID, f.Kind, bit, healed))
		}
	}
	return doubts
}

func TestSurveyCoversEveryKind(t *testing.T) {
	needs.Host(t, needs.Root)
	began := time.Now()
	rows := faults.Survey(t.Context())
	t.Logf("took %v", time.Since(began))
	if len(rows) != len(plan.Kinds) {
		t.Fatalf("%d rows, %d kinds", len(rows), len(plan.Kinds))
	}
	for i, r := range rows {
		t.Logf("%+v", r)
		if r.Kind != plan.Kinds[i].Name {
			t.Errorf("row %d is %s, want %s", i, r.Kind, plan.Kinds[i].Name)
		}
	}
}
