package kvserver

import (
	"fmt"
	"math"
	"runtime"
	"runtime/metrics"
	"strings"
	"time"
)

// Metrics is the answer to GET /metrics. Counters run from the process' start.
type Metrics struct {
	AtNS     int64 `json:"at_ns"` // CLOCK_REALTIME, Unix
	UptimeNS int64 `json:"uptime_ns"`

	Clients  int64  `json:"clients"`
	Commands uint64 `json:"commands"` // received from clients
	Failures uint64 `json:"failures"` // answered with an error

	Entries       uint64  `json:"entries"`        // proposed here and committed
	EntryCommands uint64  `json:"entry_commands"` // commands in them
	Queued        int     `json:"queued"`         // writes waiting
	Commit        Latency `json:"commit"`         // an entry, from proposing to applied

	Store        Latency `json:"store"` // writing entries to the log, fsync included
	StoreEntries uint64  `json:"store_entries"`
	StoreBytes   uint64  `json:"store_bytes"`

	ReadsConfirmed uint64  `json:"reads_confirmed"`
	ReadRounds     uint64  `json:"read_rounds"` // heartbeats sent for them
	ReadWait       Latency `json:"read_wait"`   // a read, from arrival to confirmation

	PeerRPCs   uint64  `json:"peer_rpcs"` // heartbeats and unpipelined entries
	PeerFailed uint64  `json:"peer_failed"`
	PeerRTT    Latency `json:"peer_rtt"`
	SentAhead  uint64  `json:"sent_ahead"`  // messages with entries sent before they were in the leader's own log
	AheadAsked uint64  `json:"ahead_asked"` // of these, those whose answers were of use

	Codec Codec `json:"codec"`
	Locks Locks `json:"locks"`

	Downstream *DownstreamMetrics `json:"downstream,omitempty"`

	Raft    map[string]string `json:"raft"`             // of shard 0; the others' are in Shards
	Shards  []ShardMetrics    `json:"shards,omitempty"` // if there are several; the sums are above
	Runtime Runtime           `json:"runtime"`
}

// DownstreamMetrics counts commands that went, or were to go, downstream.
type DownstreamMetrics struct {
	Queued  int     `json:"queued"`  // they wait, or are under way
	Writes  uint64  `json:"writes"`  // done
	Failed  uint64  `json:"failed"`  // not done, or nobody knows
	Dropped uint64  `json:"dropped"` // of these, for want of room in the queue
	Retried uint64  `json:"retried"` // attempts after the first, of many commands each
	Late    uint64  `json:"late"`    // attempts that were given up at the end of their timeout
	Took    Latency `json:"took"`    // an attempt
	Wait    Latency `json:"wait"`    // what one entry changed, from applied to done or failed
}

// Locks says what a node's locks cost. A turn is a run of entries that is
// applied, or of reads that are answered. Of reads, only some are timed, and
// counted for all; in mode lockfree-read they take no lock.
type Locks struct {
	Mode      string  `json:"mode"`
	Shards    int     `json:"shards,omitempty"`
	ApplyWait Latency `json:"apply_wait"` // of a turn of applying, for locks
	ApplyHold Latency `json:"apply_hold"` // the rest of it
	ReadWait  Latency `json:"read_wait"`
	ReadHold  Latency `json:"read_hold"`
}

// Codec says what coding entries costs. Encoding is a leader's, decoding everybody's.
type Codec struct {
	Name       string `json:"name"`        // in force for what is proposed here
	BloatBytes int    `json:"bloat_bytes"` // of padding in each command
	Fields     int    `json:"fields"`      // that it carries in vain
	Encode     Coding `json:"encode"`
	Decode     Coding `json:"decode"`
}

// Coding sums up entries that were encoded, or decoded.
type Coding struct {
	Entry    Latency `json:"entry"` // one event for each entry
	Commands uint64  `json:"commands"`
	Bytes    uint64  `json:"bytes"` // of encoded entries
}

// ShardMetrics are those of one shard, with the meaning they have in Metrics.
type ShardMetrics struct {
	Entries       uint64            `json:"entries"`
	EntryCommands uint64            `json:"entry_commands"`
	Queued        int               `json:"queued"`
	Commit        Latency           `json:"commit"`
	Store         Latency           `json:"store"`
	ReadWait      Latency           `json:"read_wait"`
	Raft          map[string]string `json:"raft"`
}

// Runtime is what the Go runtime says of itself (runtime/metrics).
type Runtime struct {
	Procs        int      `json:"procs"` // threads that may run Go code at once: GOMAXPROCS
	Goroutines   uint64   `json:"goroutines"`
	HeapBytes    uint64   `json:"heap_bytes"` // live objects and unswept garbage
	LiveBytes    uint64   `json:"live_bytes"` // what the last collection found alive, with all that was made while it marked
	ScanBytes    uint64   `json:"scan_bytes"` // what the last collection followed for pointers, and such memory made since
	TotalBytes   uint64   `json:"total_bytes"`
	GCCycles     uint64   `json:"gc_cycles"`
	MutexWaitNS  int64    `json:"mutex_wait_ns"`
	GCPauses     RuntimeH `json:"gc_pauses"`     // stop-the-world for the collector
	OtherPauses  RuntimeH `json:"other_pauses"`  // and for anything else
	SchedLatency RuntimeH `json:"sched_latency"` // goroutines, from runnable to running
	GCCPUNS      int64    `json:"gc_cpu_ns"`
}

// A RuntimeH is a histogram of the runtime's. Quantiles are upper ends of buckets.
type RuntimeH struct {
	Count uint64 `json:"count"`
	P50NS int64  `json:"p50_ns"`
	P99NS int64  `json:"p99_ns"`
	MaxNS int64  `json:"max_ns"`
}

func (s *server) metrics() Metrics {
	now := time.Now()
	m := Metrics{
		AtNS: now.UnixNano(), UptimeNS: now.Sub(s.started).Nanoseconds(),
		Clients: s.front.clients.Load(), Commands: s.front.commands.Load(), Failures: s.front.failures.Load(),
		Codec: s.codec.summary(),
		Locks: Locks{
			Mode: s.c.Lock, Shards: s.c.LockShards, ApplyWait: s.locks.applyWait.summary(), ApplyHold: s.locks.applyHold.summary(),
			ReadWait: s.locks.readWait.summary(), ReadHold: s.locks.readHold.summary(),
		},
		Raft: s.groups[0].raft.Stats(), Runtime: runtimeMetrics(),
	}
	var commit, store, wait, rtt []*histogram
	for i, g := range s.groups {
		commit, store = append(commit, &g.writes.commit), append(store, &g.store.meter.store)
		wait, rtt = append(wait, &g.reads.wait), append(rtt, &g.trans.rtt)
		ahead, asked := g.trans.aheads()
		one := ShardMetrics{Entries: g.writes.entries.Load(), EntryCommands: g.writes.commands.Load(), Queued: g.writes.waiting()}
		m.Entries, m.EntryCommands, m.Queued = m.Entries+one.Entries, m.EntryCommands+one.EntryCommands, m.Queued+one.Queued
		m.StoreEntries, m.StoreBytes = m.StoreEntries+g.store.meter.entries.Load(), m.StoreBytes+g.store.meter.bytes.Load()
		m.ReadsConfirmed, m.ReadRounds = m.ReadsConfirmed+g.reads.confirmed.Load(), m.ReadRounds+g.reads.rounds.Load()
		m.PeerRPCs, m.PeerFailed = m.PeerRPCs+g.trans.rpcs.Load(), m.PeerFailed+g.trans.failed.Load()
		m.SentAhead, m.AheadAsked = m.SentAhead+ahead, m.AheadAsked+asked
		if len(s.groups) == 1 {
			break
		}
		one.Commit, one.Store, one.ReadWait = g.writes.commit.summary(), g.store.meter.store.summary(), g.reads.wait.summary()
		if one.Raft = m.Raft; i > 0 {
			one.Raft = g.raft.Stats()
		}
		m.Shards = append(m.Shards, one)
	}
	if s.c.Downstream != nil {
		d := &s.down
		m.Downstream = &DownstreamMetrics{
			Writes: d.writes.Load(), Failed: d.failed.Load(), Dropped: d.dropped.Load(), Retried: d.retried.Load(), Late: d.late.Load(),
			Took: d.took.summary(), Wait: d.wait.summary(),
		}
		for _, g := range s.groups {
			m.Downstream.Queued += g.writes.through.behind()
		}
	}
	m.Commit, m.Store, m.ReadWait, m.PeerRTT = summaryOf(commit...), summaryOf(store...), summaryOf(wait...), summaryOf(rtt...)
	return m
}

func runtimeMetrics() Runtime {
	names := []string{
		"/sched/goroutines:goroutines", "/memory/classes/heap/objects:bytes", "/memory/classes/total:bytes",
		"/gc/cycles/total:gc-cycles", "/sync/mutex/wait/total:seconds", "/sched/pauses/total/gc:seconds",
		"/sched/pauses/total/other:seconds", "/sched/latencies:seconds", "/cpu/classes/gc/total:cpu-seconds", "/gc/heap/live:bytes",
		"/gc/scan/heap:bytes",
	}
	samples := make([]metrics.Sample, len(names))
	for i, n := range names {
		samples[i].Name = n
	}
	metrics.Read(samples)
	count := func(i int) uint64 {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return samples[i].Value.Uint64()
	}
	seconds := func(i int) int64 {
		if samples[i].Value.Kind() != metrics.KindFloat64 {
			return 0
		}
		return int64(samples[i].Value.Float64() * 1e9)
	}
	spread := func(i int) RuntimeH {
		if samples[i].Value.Kind() != metrics.KindFloat64Histogram {
			return RuntimeH{}
		}
		return summarize(samples[i].Value.Float64Histogram())
	}
	return Runtime{
		Procs:      runtime.GOMAXPROCS(0),
		Goroutines: count(0), HeapBytes: count(1), TotalBytes: count(2), GCCycles: count(3), MutexWaitNS: seconds(4),
		GCPauses: spread(5), OtherPauses: spread(6), SchedLatency: spread(7), GCCPUNS: seconds(8), LiveBytes: count(9), ScanBytes: count(10),
	}
}

func summarize(h *metrics.Float64Histogram) (out RuntimeH) {
	for _, n := range h.Counts {
		out.Count += n
	}
	top := func(i int) int64 {
		if end := h.Buckets[i+1]; !math.IsInf(end, 0) {
			return int64(end * 1e9)
		}
		return int64(h.Buckets[i] * 1e9)
	}
	var seen uint64
	for i, n := range h.Counts {
		if n == 0 {
			continue
		}
		seen += n
		if out.P50NS == 0 && seen*2 >= out.Count {
			out.P50NS = top(i)
		}
		if out.P99NS == 0 && seen*100 >= out.Count*99 {
			out.P99NS = top(i)
		}
		out.MaxNS = top(i)
	}
	return out
}

// infoText is the answer to INFO: Redis' form, sections and all.
func (s *server) infoText() string {
	st, m := s.status(), s.metrics()
	var b strings.Builder
	section := func(name string, pairs ...any) {
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + name + "\r\n")
		for i := 0; i < len(pairs); i += 2 {
			fmt.Fprintf(&b, "%s:%v\r\n", pairs[i], pairs[i+1])
		}
	}
	section("Server", "redis_version", redisVersion, "redis_mode", s.front.mode(), "server_name", "kvserver",
		"go_version", st.Go, "os", runtime.GOOS, "node_id", st.ID, "uptime_in_seconds", st.UptimeNS/1e9, "server_time_usec", s.clock.now().UnixMicro())
	section("Clients", "connected_clients", m.Clients, "maxclients", s.c.MaxClients)
	section("Memory", "used_memory", m.Runtime.HeapBytes, "total_memory", m.Runtime.TotalBytes)
	section("Persistence", "log_store", st.Log, "snapshot_index", st.Snapshot,
		"store_p50_us", m.Store.P50NS/1000, "store_p99_us", m.Store.P99NS/1000)
	section("Stats", "total_connections_received", s.front.accepted.Load(), "rejected_connections", s.front.rejected.Load(),
		"total_commands_processed", m.Commands, "total_error_replies", m.Failures,
		"entries_committed", m.Entries, "commands_committed", m.EntryCommands)
	section("Replication", "role", s.front.role(), "connected_slaves", len(st.Peers)-1)
	raft := []any{
		"raft_role", st.Role, "leader", st.Leader, "leader_client", st.LeaderClient, "term", st.Term,
		"commit_index", st.Commit, "applied_index", st.Applied, "last_index", st.LastIndex,
		"reads", st.Reads, "readable", st.Readable, "heartbeat", s.c.Heartbeat, "election", s.c.Election, "lease", s.c.Lease,
	}
	for i, p := range st.Peers {
		raft = append(raft, fmt.Sprintf("peer%d", i), fmt.Sprintf("id=%s,raft=%s,client=%s", p.ID, p.Raft, p.Client))
	}
	section("Raft", raft...)
	if len(st.Shards) > 0 {
		var shards []any
		for i, one := range st.Shards {
			shards = append(shards, fmt.Sprint("shard", i), fmt.Sprintf("slots=%d-%d,role=%s,leader=%s,term=%d,applied=%d,keys=%d",
				one.FirstSlot, one.LastSlot, one.Role, one.Leader, one.Term, one.Applied, one.Keys))
		}
		section("Cluster", "cluster_enabled", 1)
		section("Shards", shards...)
	}
	section("Keyspace", "db0", fmt.Sprintf("keys=%d,expires=0,avg_ttl=0", st.Keys))
	return b.String()
}
