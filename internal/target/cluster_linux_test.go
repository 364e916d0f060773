package target

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/internal/clock"
	"brownout/internal/history"
	"brownout/internal/needs"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/internal/telemetry"
	"brownout/internal/undo"
	"brownout/internal/workload"
)

// A bed is three nodes of kvserver with a load generator beside them.
type bed struct {
	cluster *cluster.Cluster
	target  *KVServer
	load    *workload.Generator
	spec    workload.Spec
	dir     string
}

func newBed(t testing.TB, ctx context.Context, l plan.Load) *bed {
	t.Helper()
	needs.Host(t, needs.Root)
	b := &bed{dir: t.TempDir()}
	var err error
	if b.target, err = NewKVServer(map[string]string{"log_level": "error"}); err != nil {
		t.Fatal(err)
	}
	journal, err := undo.Create(filepath.Join(b.dir, run.CleanupFile), undo.Revert)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("tt%d", os.Getpid())
	b.cluster, err = cluster.Up(ctx, cluster.Config{
		ID: id, Dir: b.dir, Nodes: 3, Target: b.target, Journal: journal,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		down, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if b.load != nil {
			_ = b.load.Finish(down)
		}
		if err := b.cluster.Down(down); err != nil {
			t.Error(err)
		}
		if err := journal.Unwind(); err != nil {
			t.Error(err)
		}
	})
	b.spec = workload.Spec{
		Load: l, Seed: 3, Target: "kvserver",
		Spool: filepath.Join(b.dir, run.SpoolFile), History: filepath.Join(b.dir, run.HistoryFile),
	}
	for _, n := range b.cluster.Nodes() {
		b.spec.Endpoints = append(b.spec.Endpoints, workload.Endpoint{Node: n.Name(), Addr: hostPort(n.IP4(), KVClientPort)})
	}
	if b.load, err = workload.Start(ctx, "/proc/self/exe", b.cluster.ClientNetNS(), filepath.Join(b.dir, "load.log"), id); err != nil {
		t.Fatal(err)
	}
	return b
}

// sources are all sources of telemetry of the bed.
func (b *bed) sources(t testing.TB) []telemetry.Source {
	t.Helper()
	peers := map[netip.Addr]string{}
	for _, n := range b.cluster.Nodes() {
		peers[n.IP4()] = n.Name()
	}
	nodes := []telemetry.Node{{Name: "client", NetNS: b.cluster.ClientNetNS(), Peers: peers}}
	for _, n := range b.cluster.Nodes() {
		nodes = append(nodes, telemetry.Node{
			Name: n.Name(), Group: n.Group(), Pids: n.Pids, NetNS: n.NetNS(), Peers: peers,
			Admin: func(ctx context.Context) (map[string]float64, error) { return b.target.Metrics(ctx, n.Admin()) },
		})
	}
	var all []telemetry.Source
	for _, n := range nodes {
		s, closing, err := telemetry.NodeSources(n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closing() })
		all = append(all, s...)
	}
	host, err := telemetry.NewHost(func() time.Duration {
		st, err := b.cluster.Group().Stat()
		if err != nil {
			return 0
		}
		return st.Usage + telemetry.CPUTime(0, b.load.PID())
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(all, host.Source())
}

// The whole way on real nodes: calibrated, offered, the leader killed in the
// middle, read back, and watched by telemetry meanwhile.
func TestLoadOnARealClusterThatLosesItsLeader(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	l := testLoad
	l.Clients, l.Timeout = 16, 500*time.Millisecond
	b := newBed(t, ctx, l)
	most, err := b.load.Calibrate(ctx, b.spec, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	b.spec.Zero = clock.Raw() + int64(50*time.Millisecond)
	b.spec.Rate, b.spec.End = min(most/2, 400), 5*time.Second
	zero := clock.At(b.spec.Zero)

	var wg sync.WaitGroup
	sampled := map[string]map[string]float64{}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	sources := b.sources(t)
	wg.Go(func() {
		s := telemetry.Sampler{Clock: zero}
		if err := s.Run(watch, sources, func(sm run.Sample) error {
			if len(sm.Values) > 1 {
				sampled[sm.Node+" "+sm.Source] = sm.Values
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(zero.Time(1500 * time.Millisecond))):
		}
		for _, st := range b.cluster.Statuses(ctx) {
			if n, ok := b.cluster.Node(st.Node); ok && st.Role == "leader" {
				if err := n.Kill(ctx, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
				if err := n.Start(ctx); err != nil {
					t.Error(err)
				}
				return
			}
		}
		t.Error("nobody leads")
	})
	rep, err := b.load.Run(ctx, b.spec)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	wg.Wait()
	t.Logf("at most %.0f/s; %+v", most, rep)
	if rep.Dropped != 0 || rep.OK < rep.Offered/5 {
		t.Errorf("report = %+v", rep)
	}
	missing, err := b.load.FinalReads(ctx, b.spec, keys(100), 20*time.Second)
	if err != nil || len(missing) > 0 {
		t.Errorf("final reads: missing %v, %v", missing, err)
	}
	if err := b.load.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	checkReads(t, readHistory(t, b.spec.History))
	for _, source := range []string{"n1 cgroup", "n1 io", "n2 sched", "n3 tcp", "n2 runtime", "client tcp", "host host"} {
		if len(sampled[source]) == 0 {
			t.Errorf("no sample of %s", source)
		}
	}
	if v := sampled["client tcp"]; v["peer_conns"] == 0 {
		t.Errorf("the client's connections: %v", v)
	}
}

// checkReads looks whether every value that was read was written by somebody
// before the read ended: less than linearizability, but it needs no checker.
func checkReads(t *testing.T, ops []history.Op) {
	t.Helper()
	called := map[string]int64{}
	for _, op := range ops {
		if op.Value != nil && op.Outcome != history.Fail {
			called[op.Key+" "+*op.Value] = op.Call
		}
	}
	reads := 0
	for _, op := range ops {
		if op.Result == nil {
			continue
		}
		for _, token := range strings.Fields(strings.ReplaceAll(*op.Result, "+", " +")) {
			if call, ok := called[op.Key+" "+token]; !ok || call > op.Return {
				t.Fatalf("operation %d read %q of %s, which nobody had written", op.ID, token, op.Key)
			}
			reads++
		}
	}
	if reads == 0 {
		t.Error("nothing was read")
	}
}
