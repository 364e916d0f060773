package target

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/internal/history"
	"brownout/internal/workload"
	"brownout/kvserver"
)

var (
	_ cluster.Target  = (*KVServer)(nil)
	_ workload.Dialer = (*KVDialer)(nil)
)

func TestCommandIsAValidConfigurationOfEveryNode(t *testing.T) {
	target, err := NewKVServer(map[string]string{"log": "bolt", "heartbeat": "500ms", "max_batch": "64"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		n := cluster.NewNode(t.TempDir(), i, 3)
		cmd := target.Command(n)
		if got := strings.Join(cmd.Argv, " "); got != "/bin/brownout kvserver --config /run/kv.json" {
			t.Errorf("argv = %s", got)
		}
		c, err := kvserver.ParseConfig(cmd.Files["run/kv.json"])
		if err != nil {
			t.Fatalf("%s: %v\n%s", n.Name(), err, cmd.Files["run/kv.json"])
		}
		if c.ID != n.Name() || len(c.Peers) != 3 || c.Log != "bolt" || c.MaxBatch != 64 || c.Kick != (i == 0) ||
			time.Duration(c.Heartbeat) != 500*time.Millisecond || c.Client != n.IP4().String()+":6379" {
			t.Errorf("%s: %+v", n.Name(), c)
		}
	}
}

func TestDownstreamIsTheClustersCache(t *testing.T) {
	kv, err := NewKVServer(map[string]string{"lock": "global"})
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Through(map[string]string{"timeout": "50ms", "retries": "2", "on_error": "ignore"}); err != nil {
		t.Fatal(err)
	}
	n := cluster.NewNode(t.TempDir(), 1, 3)
	config := func(n *cluster.Node) kvserver.Config {
		c, err := kvserver.ParseConfig(kv.Command(n).Files["run/kv.json"])
		if err != nil {
			t.Fatalf("%s: %v", n.Name(), err)
		}
		return c
	}
	cache := cluster.NewCache(t.TempDir(), n.Peers())
	d := config(n).Downstream
	if d == nil || d.Addr != cache.IP4().String()+":6379" || d.Retries != 2 || d.OnError != "ignore" || time.Duration(d.Timeout) != 50*time.Millisecond {
		t.Errorf("downstream of a node: %+v", d)
	}
	if c := config(cache); c.ID != "cache" || c.Downstream != nil || len(c.Peers) != 1 || c.Log != "memory" || c.Client != d.Addr || c.Stages != "" {
		t.Errorf("the cache: %+v", c)
	}
	for _, tt := range []struct {
		settings map[string]string
		want     string
	}{
		{map[string]string{"addr": "10.0.0.1:1"}, "is the cluster's to decide"},
		{map[string]string{"mode": "later"}, "none of sync, async"},
		{map[string]string{"colour": "red"}, `unknown field "colour"`},
	} {
		if err := kv.Through(tt.settings); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.settings, err, tt.want)
		}
	}
}

func TestWrongSettingsAreNamedAllAtOnce(t *testing.T) {
	_, err := NewKVServer(map[string]string{"log": "wall", "peers": "none", "speed": "high", "heartbeat": "1"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range []string{"peers: is the cluster's", `log: "wall"`, "speed", "heartbeat"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error does not name %q: %v", word, err)
		}
	}
}

// startKV runs a kvserver of one node in this process.
func startKV(t testing.TB) (addr, admin string) {
	t.Helper()
	free := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return ln.Addr().String()
	}
	dir := t.TempDir()
	c := kvserver.Config{
		ID: "n1", Dir: filepath.Join(dir, "data"), Client: free(), Raft: free(), Admin: filepath.Join(dir, "admin.sock"), Kick: true, LogLevel: "off",
	}
	c.Peers = []kvserver.Peer{{ID: "n1", Raft: c.Raft, Client: c.Client}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := kvserver.Run(ctx, c, io.Discard); err != nil && ctx.Err() == nil {
			t.Errorf("kvserver: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c.Client, c.Admin
}

// The real server against the real client, and its numbers.
func TestRealServerAndClientUnderstandEachOther(t *testing.T) {
	addr, admin := startKV(t)
	c, err := new(KVDialer).Dial(t.Context(), workload.Cluster{Endpoints: []workload.Endpoint{{Node: "n1", Addr: addr}}, Prefer: "leader"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := func(req history.Request, found *string, swapped bool) {
		t.Helper()
		rep := do(t, c, 20*time.Second, req)
		if rep.Outcome != history.OK || rep.Swapped != swapped || (rep.Found == nil) != (found == nil) || found != nil && *found != *rep.Found {
			t.Errorf("%s: %+v", req.Kind, rep)
		}
	}
	want(put, nil, false)
	want(history.Request{Kind: history.Get, Key: "k"}, text("v"), false)
	want(history.Request{Kind: history.CAS, Key: "k", Expect: "other", Value: "w"}, text("v"), false)
	want(history.Request{Kind: history.CAS, Key: "k", Expect: "v", Value: "w"}, text("v"), true)
	want(history.Request{Kind: history.Append, Key: "k", Value: "+a1"}, nil, false)
	want(history.Request{Kind: history.Get, Key: "k"}, text("w+a1"), false)
	want(history.Request{Kind: history.Delete, Key: "k"}, nil, false)
	want(history.Request{Kind: history.Get, Key: "k"}, nil, false)
	want(history.Request{Kind: history.CAS, Key: "k", Expect: "v", Value: "w"}, nil, false)

	target, err := NewKVServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	var st kvserver.Status
	if err := target.get(t.Context(), admin, "/status", &st); err != nil || st.Role != "leader" || !st.Readable {
		t.Errorf("status = %+v, %v", st, err)
	}
	m, err := target.Metrics(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"commands", "heap_bytes", "goroutines", "raft_applied_index", "raft_term", "raft_role", "gc_pause_count", "store_bytes"} {
		if v, ok := m[name]; !ok || v <= 0 && name != "gc_pause_count" {
			b, _ := json.Marshal(m)
			t.Errorf("metric %s = %v in %s", name, v, b)
		}
	}
	if _, err := target.Metrics(t.Context(), admin+"x"); err == nil {
		t.Error("metrics of nobody: no error")
	}
}

func BenchmarkMetrics(b *testing.B) {
	_, admin := startKV(b)
	target, err := NewKVServer(nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := target.Metrics(b.Context(), admin); err != nil {
			b.Fatal(err)
		}
	}
}
