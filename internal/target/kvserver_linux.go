package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"brownout/cluster"
	"brownout/kvserver"
)

// Ports of kvserver on its node's addresses.
const (
	KVClientPort = 6379
	kvRaftPort   = 7000
)

// Paths inside a node's box.
const (
	kvConfigFile = "run/kv.json"
	kvAdmin      = "/run/admin.sock"
	kvData       = "/data"
	kvNotes      = "/notes"
	kvStages     = kvNotes + "/stages.bin"
)

// KVServer starts kvserver on a cluster's nodes. The first node stands for
// election at once on its very first start, so that a cluster has a leader
// without waiting for an election timeout; of several shards, each node stands
// for those that are its own.
type KVServer struct {
	config  map[string]any
	through map[string]any // the nodes' settings of downstream; nil: they write through to nothing
	mu      sync.Mutex
	clients map[string]*http.Client // by admin socket
}

// NewKVServer returns the target with a scenario's settings, which are fields
// of kvserver's configuration (log, reads, heartbeat, ...). All that is wrong
// with them is reported at once; what the cluster decides cannot be set.
func NewKVServer(settings map[string]string) (*KVServer, error) {
	t := &KVServer{config: map[string]any{}, clients: map[string]*http.Client{}}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		if slices.Contains([]string{"id", "dir", "client", "raft", "admin", "peers", "kick", "stages", "dumps", "downstream"}, name) {
			errs = append(errs, fmt.Errorf("%s: is the cluster's to decide", name))
			continue
		}
		t.config[name] = typed(value)
	}
	errs = append(errs, t.check())
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("target.config: %w", err)
	}
	return t, nil
}

// Through has the nodes write through to the cluster's cache, with the settings
// of kvserver's downstream but for its address. The cache is a kvserver of its own.
func (t *KVServer) Through(settings map[string]string) error {
	t.through = map[string]any{}
	for name, value := range settings {
		if name == "addr" {
			return errors.New("target.downstream: addr: is the cluster's to decide")
		}
		t.through[name] = typed(value)
	}
	if err := t.check(); err != nil {
		return fmt.Errorf("target.downstream: %w", err)
	}
	return nil
}

// typed is a setting as JSON has it.
func typed(value string) any {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return n
	}
	if b, err := strconv.ParseBool(value); err == nil {
		return b
	}
	return value
}

// check says what kvserver says of the settings.
func (t *KVServer) check() error {
	probe, err := t.json([]peer{{"n1", netip.MustParseAddr("10.77.0.1")}}, 0, netip.MustParseAddr("10.77.0.3"))
	if err == nil {
		_, err = kvserver.ParseConfig(probe)
	}
	return err
}

// A peer is what the configuration needs of a node.
type peer struct {
	name string
	addr netip.Addr
}

func hostPort(a netip.Addr, port int) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(port))
}

// json is the configuration of peer me; cache is where they write through to.
func (t *KVServer) json(peers []peer, me int, cache netip.Addr) ([]byte, error) {
	c := maps.Clone(t.config)
	all := make([]kvserver.Peer, len(peers))
	for i, p := range peers {
		all[i] = kvserver.Peer{ID: p.name, Raft: hostPort(p.addr, kvRaftPort), Client: hostPort(p.addr, KVClientPort)}
	}
	c["id"], c["dir"], c["admin"], c["peers"] = peers[me].name, kvData, kvAdmin, all
	c["client"], c["raft"] = all[me].Client, all[me].Raft
	shards, _ := c["shards"].(int64)
	c["kick"] = me == 0 || shards > 1
	c["stages"], c["dumps"] = kvStages, kvNotes
	if t.through != nil {
		down := maps.Clone(t.through)
		down["addr"] = hostPort(cache, KVClientPort)
		c["downstream"] = down
	}
	return json.MarshalIndent(c, "", "  ")
}

// cacheJSON is the configuration of the cache: one node that keeps nothing, and
// whose requests are nobody's story.
func cacheJSON(me peer) ([]byte, error) {
	client, raft := hostPort(me.addr, KVClientPort), hostPort(me.addr, kvRaftPort)
	return json.MarshalIndent(kvserver.Config{
		ID: me.name, Dir: kvData, Admin: kvAdmin, Client: client, Raft: raft, Log: "memory", Kick: true, Dumps: kvNotes,
		Peers: []kvserver.Peer{{ID: me.name, Raft: raft, Client: client}},
	}, "", "  ")
}

// Command implements [cluster.Target].
func (t *KVServer) Command(n *cluster.Node) cluster.Command {
	var peers []peer
	for _, p := range n.Peers() {
		peers = append(peers, peer{p.Name(), p.IP4()})
	}
	var config []byte
	var err error
	switch c := n.Cache(); {
	case n.Name() == cluster.CacheName:
		config, err = cacheJSON(peers[0])
	case c != nil:
		config, err = t.json(peers, n.Index(), c.IP4())
	default:
		config, err = t.json(peers, n.Index(), netip.Addr{}) // which no downstream has: kvserver says so
	}
	if err != nil {
		config = fmt.Appendf(nil, "%q", err) // cannot happen: it was encoded before; kvserver would say what it is
	}
	return cluster.Command{
		Argv:  []string{"/bin/brownout", "kvserver", "--config", "/" + kvConfigFile},
		Files: map[string][]byte{kvConfigFile: config},
	}
}

// askWithin bounds a question to a node that may be frozen.
const askWithin = 500 * time.Millisecond

// Status implements [cluster.Target].
func (t *KVServer) Status(ctx context.Context, n *cluster.Node) (cluster.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var st kvserver.Status
	if err := t.get(ctx, n.Admin(), "/status", &st); err != nil {
		return cluster.Status{Node: n.Name(), Err: err}, err
	}
	// A leader serves once the barrier of its term is applied; a follower, once it knows a leader.
	ready := func(g kvserver.GroupStatus) bool { return g.Leader != "" && (g.Role != "leader" || g.Readable) }
	out := cluster.Status{Node: n.Name(), Role: st.Role, Leader: st.Leader, Term: st.Term, Applied: st.Applied, Ready: ready(st.GroupStatus)}
	for _, g := range st.Shards {
		out.Shards = append(out.Shards, cluster.ShardStatus{Role: g.Role, Leader: g.Leader, Term: g.Term, Applied: g.Applied})
		out.Ready = out.Ready && ready(g.GroupStatus)
	}
	return out, nil
}

// Metrics asks the node behind an admin socket for its runtime's and its own
// counters, as flat numbers with their units in the names.
func (t *KVServer) Metrics(ctx context.Context, admin string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var m kvserver.Metrics
	if err := t.get(ctx, admin, "/metrics", &m); err != nil {
		return nil, err
	}
	v := map[string]float64{
		"clients": float64(m.Clients), "commands": float64(m.Commands), "failures": float64(m.Failures),
		"entries": float64(m.Entries), "entry_commands": float64(m.EntryCommands), "queued": float64(m.Queued),
		"store_bytes": float64(m.StoreBytes), "reads_confirmed": float64(m.ReadsConfirmed), "peer_failed": float64(m.PeerFailed),
		"goroutines": float64(m.Runtime.Goroutines), "heap_bytes": float64(m.Runtime.HeapBytes), "alloc_bytes": float64(m.Runtime.TotalBytes),
		"gc_cycles": float64(m.Runtime.GCCycles), "gc_cpu_ns": float64(m.Runtime.GCCPUNS), "mutex_wait_ns": float64(m.Runtime.MutexWaitNS),
	}
	for name, h := range map[string]kvserver.RuntimeH{
		"gc_pause": m.Runtime.GCPauses, "other_pause": m.Runtime.OtherPauses, "sched": m.Runtime.SchedLatency,
	} {
		v[name+"_count"], v[name+"_p99_ns"], v[name+"_max_ns"] = float64(h.Count), float64(h.P99NS), float64(h.MaxNS)
	}
	for name, l := range map[string]kvserver.Latency{
		"lock_apply_wait": m.Locks.ApplyWait, "lock_apply_hold": m.Locks.ApplyHold, "lock_read_wait": m.Locks.ReadWait, "lock_read_hold": m.Locks.ReadHold,
		"codec_encode": m.Codec.Encode.Entry, "codec_decode": m.Codec.Decode.Entry,
	} {
		v[name+"_count"], v[name+"_ns"], v[name+"_max_ns"] = float64(l.Count), float64(l.SumNS), float64(l.MaxNS)
	}
	for name, c := range map[string]kvserver.Coding{"codec_encode": m.Codec.Encode, "codec_decode": m.Codec.Decode} {
		v[name+"_commands"], v[name+"_bytes"] = float64(c.Commands), float64(c.Bytes)
	}
	if d := m.Downstream; d != nil {
		v["downstream_queued"], v["downstream_writes"], v["downstream_failed"] = float64(d.Queued), float64(d.Writes), float64(d.Failed)
		v["downstream_retried"], v["downstream_dropped"], v["downstream_late"] = float64(d.Retried), float64(d.Dropped), float64(d.Late)
		v["downstream_wait_count"], v["downstream_wait_ns"], v["downstream_wait_max_ns"] = float64(d.Wait.Count), float64(d.Wait.SumNS), float64(d.Wait.MaxNS)
	}
	raftNumbers(v, "raft_", m.Raft)
	for i, one := range m.Shards {
		prefix := fmt.Sprintf("shard%d_", i)
		v[prefix+"entries"], v[prefix+"queued"] = float64(one.Entries), float64(one.Queued)
		raftNumbers(v, prefix+"raft_", one.Raft)
	}
	return v, nil
}

// raftNumbers adds what Raft says of one group: of several shards, raft_… is shard 0's.
func raftNumbers(v map[string]float64, prefix string, stats map[string]string) {
	for _, name := range []string{"commit_index", "applied_index", "last_log_index", "term", "fsm_pending", "last_contact"} {
		if x, err := strconv.ParseFloat(stats[name], 64); err == nil {
			v[prefix+name] = x
		}
	}
	if role, ok := map[string]float64{"Follower": 0, "Candidate": 1, "Leader": 2}[stats["state"]]; ok {
		v[prefix+"role"] = role // 0 follower, 1 candidate, 2 leader
	}
}

// State returns the digests of a node's shards and the log indices that they belong to.
func (t *KVServer) State(ctx context.Context, admin string) ([]kvserver.ShardHash, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*askWithin)
	defer cancel()
	var st kvserver.StateHash
	err := t.get(ctx, admin, "/statehash", &st)
	if err != nil || st.Shards != nil {
		return st.Shards, err
	}
	return []kvserver.ShardHash{{Applied: st.Applied, SHA256: st.SHA256}}, nil
}

// get asks an admin socket. Connections are kept: ten questions a second.
func (t *KVServer) get(ctx context.Context, socket, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kvserver"+path, nil)
	if err != nil {
		return err
	}
	resp, err := t.client(socket).Do(req)
	if err != nil {
		return fmt.Errorf("ask %s%s: %w", socket, path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s%s: %s", socket, path, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(into); err != nil {
		return fmt.Errorf("ask %s%s: %w", socket, path, err)
	}
	return nil
}

func (t *KVServer) client(socket string) *http.Client {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.clients[socket]
	if !ok {
		c = &http.Client{Transport: &http.Transport{
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     30 * time.Second,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
		}}
		t.clients[socket] = c
	}
	return c
}
