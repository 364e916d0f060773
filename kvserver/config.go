package kvserver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"brownout/kvserver/slots"
)

// Config describes one node. Zero values mean the default written beside the field.
type Config struct {
	ID     string `json:"id"`     // this node's name, one of Peers
	Dir    string `json:"dir"`    // private data directory; made if absent
	Client string `json:"client"` // Redis protocol: host:port, or several separated by commas; the first is told to clients
	Raft   string `json:"raft"`   // Raft transport: host:port, listened on and told to peers
	Admin  string `json:"admin"`  // path of the admin Unix socket (at most about 100 bytes); "" for none
	Peers  []Peer `json:"peers"`  // all nodes, this one included; must not change once the cluster has started

	Log   string `json:"log,omitempty"`   // "wal" (default), "bolt", or "memory", which survives nothing
	Reads string `json:"reads,omitempty"` // "readindex" (default), "lease", "local"
	Lock  string `json:"lock,omitempty"`  // of the state: "rw" (default), "global", "sharded", "lockfree-read"
	Kick  bool   `json:"kick,omitempty"`  // on its very first start, this node stands for election at once: of several shards, for every len(Peers)-th, from that of its own place in Peers

	Codec       string `json:"codec,omitempty"`        // of entries: "binary" (default), "protobuf", "json", "xml", "gob", "msgpack", "avro"; nodes read all of them
	CodecBloat  int    `json:"codec_bloat,omitempty"`  // bytes of padding that each command carries in its entry
	CodecFields int    `json:"codec_fields,omitempty"` // fields with names that it carries, and nobody needs

	Shards int `json:"shards,omitempty"` // Raft groups, each with its share of the keys; default 1; must not change once the cluster has started

	LockShards int `json:"lock_shards,omitempty"` // locks of mode "sharded", over which keys are spread; default 16

	LockDump     Duration `json:"lock_dump,omitempty"`     // a wait for one of them by which all goroutines are written to dumps; default 500ms
	Dumps        string   `json:"dumps,omitempty"`         // directory for that; none if empty
	MutexProfile int      `json:"mutex_profile,omitempty"` // one in so many waits for a lock is in /debug/pprof/mutex; default none
	BlockProfile Duration `json:"block_profile,omitempty"` // one event for so much time blocked is in /debug/pprof/block; default none

	Procs int `json:"procs,omitempty"` // threads that run Go code at once (GOMAXPROCS); default: the CPUs, shared among the peers

	LeaderWrite string `json:"leader_write,omitempty"` // a leader's own log is written in "parallel" (default) with its followers', or "first"

	Heartbeat     Duration `json:"heartbeat,omitempty"`      // follower's patience without a leader; default 1s
	Election      Duration `json:"election,omitempty"`       // candidate's patience; default Heartbeat
	Lease         Duration `json:"lease,omitempty"`          // a leader out of touch with a quorum for this long steps down; default Heartbeat/2
	CommitTimeout Duration `json:"commit_timeout,omitempty"` // an idle leader tells the commit index this often; default 50ms
	RPCTimeout    Duration `json:"rpc_timeout,omitempty"`    // one message between nodes, sent and answered; default 10s
	PeerTimeout   Duration `json:"peer_timeout,omitempty"`   // unacknowledged bytes this old end a connection between nodes; default 2 × Election
	Timeout       Duration `json:"timeout,omitempty"`        // one client command; default 5s

	SnapshotThreshold uint64   `json:"snapshot_threshold,omitempty"` // entries since the last snapshot; default 8192
	SnapshotInterval  Duration `json:"snapshot_interval,omitempty"`  // how often that is looked at; default 30s
	TrailingLogs      uint64   `json:"trailing_logs,omitempty"`      // entries kept behind a snapshot; default 4096

	// Of each shard:
	MaxBatch      int `json:"max_batch,omitempty"`       // commands in one Raft entry; default 4096
	MaxBatchBytes int `json:"max_batch_bytes,omitempty"` // bytes in one Raft entry, unless one command alone is larger; default 256 KiB
	MaxQueue      int `json:"max_queue,omitempty"`       // writes waiting to be proposed; default 65536
	MaxQueueBytes int `json:"max_queue_bytes,omitempty"` // their bytes; default 64 MiB
	MaxClients    int `json:"max_clients,omitempty"`     // connections; default 10000
	LogCache      int `json:"log_cache,omitempty"`       // entries held in memory for followers; default 1024
	SegmentBytes  int `json:"segment_bytes,omitempty"`   // size of one wal file; default 64 MiB divided among the shards

	Downstream *Downstream `json:"downstream,omitempty"` // a cache that what is written goes through to; none if absent

	Stages    string `json:"stages,omitempty"`     // file for notes of when requests passed their stages; none if empty
	Bug       string `json:"bug,omitempty"`        // one of Bugs, planted to be found; needs AllowBugs
	AllowBugs bool   `json:"allow_bugs,omitempty"` // this is an experiment about bugs

	LogLevel string `json:"log_level,omitempty"` // "trace" to "error", "off"; default "info"
}

// A Peer is one node of the cluster as the others see it.
type Peer struct {
	ID     string `json:"id"`
	Raft   string `json:"raft"`   // host:port of its Raft transport
	Client string `json:"client"` // host:port told to clients that must go there
}

// A Duration is a time.Duration that is written as a string, as in "1.5s".
type Duration time.Duration

// String returns d in the form of [time.Duration].
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// ParseConfig reads a Config from JSON and fills in the defaults. Everything
// that is wrong is reported at once, unknown fields included.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	fields := map[string]json.RawMessage{}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&fields); err != nil {
		return c, fmt.Errorf("parse configuration: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return c, errors.New("parse configuration: something follows the closing brace")
	}
	var errs []error
	for _, name := range sortedKeys(fields) {
		one, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err == nil {
			d := json.NewDecoder(bytes.NewReader(one))
			d.DisallowUnknownFields()
			err = d.Decode(&c)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "json: ")))
		}
	}
	c, err := c.withDefaults()
	return c, errors.Join(append(errs, err)...)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// withDefaults returns c with defaults filled in, or everything that is wrong with it at once.
func (c Config) withDefaults() (Config, error) {
	c.Log = cmp.Or(c.Log, "wal")
	c.Reads = cmp.Or(c.Reads, "readindex")
	c.Lock = cmp.Or(c.Lock, lockRW)
	if c.Lock == lockSharded {
		c.LockShards = cmp.Or(c.LockShards, 16)
	}
	c.LockDump = cmp.Or(c.LockDump, Duration(500*time.Millisecond))
	c.Codec = cmp.Or(c.Codec, codecBinary)
	c.LeaderWrite = cmp.Or(c.LeaderWrite, "parallel")
	c.Shards = cmp.Or(c.Shards, 1)
	c.Heartbeat = cmp.Or(c.Heartbeat, Duration(time.Second))
	c.Election = cmp.Or(c.Election, c.Heartbeat)
	c.Lease = cmp.Or(c.Lease, c.Heartbeat/2)
	c.CommitTimeout = cmp.Or(c.CommitTimeout, Duration(50*time.Millisecond))
	c.RPCTimeout = cmp.Or(c.RPCTimeout, Duration(10*time.Second))
	c.PeerTimeout = cmp.Or(c.PeerTimeout, 2*c.Election)
	c.Timeout = cmp.Or(c.Timeout, Duration(5*time.Second))
	c.SnapshotThreshold = cmp.Or(c.SnapshotThreshold, 8192)
	c.SnapshotInterval = cmp.Or(c.SnapshotInterval, Duration(30*time.Second))
	c.TrailingLogs = cmp.Or(c.TrailingLogs, 4096)
	c.MaxBatch = cmp.Or(c.MaxBatch, 4096)
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, 256<<10)
	c.MaxQueue = cmp.Or(c.MaxQueue, 1<<16)
	c.MaxQueueBytes = cmp.Or(c.MaxQueueBytes, 64<<20)
	c.MaxClients = cmp.Or(c.MaxClients, 10_000)
	c.LogCache = cmp.Or(c.LogCache, 1024)
	c.SegmentBytes = cmp.Or(c.SegmentBytes, 64<<20/min(max(c.Shards, 1), slots.MaxShards))
	c.LogLevel = cmp.Or(c.LogLevel, "info")
	if c.Downstream != nil {
		d := c.Downstream.withDefaults()
		c.Downstream = &d
	}
	if c.Bug == noBug {
		c.Bug = ""
	}
	return c, c.check()
}

func (c Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.ID == "" {
		bad("id: missing")
	}
	if c.Dir == "" && c.Log != "memory" {
		bad("dir: missing (only log: memory needs none)")
	}
	for _, a := range c.clientAddrs() {
		if _, _, err := net.SplitHostPort(a); err != nil {
			bad("client: %w", err)
		}
	}
	if _, _, err := net.SplitHostPort(c.Raft); err != nil {
		bad("raft: %w", err)
	}
	if !slices.Contains([]string{"wal", "bolt", "memory"}, c.Log) {
		bad("log: %q is none of wal, bolt, memory", c.Log)
	}
	if !slices.Contains([]string{"readindex", "lease", "local"}, c.Reads) {
		bad("reads: %q is none of readindex, lease, local", c.Reads)
	}
	switch {
	case !slices.Contains(lockModes, c.Lock):
		bad("lock: %q is none of %s", c.Lock, strings.Join(lockModes, ", "))
	case c.Lock != lockSharded && c.LockShards != 0:
		bad("lock_shards: lock is %s, and only %s has shards", c.Lock, lockSharded)
	case c.Lock == lockSharded && (c.LockShards < 1 || c.LockShards > parts):
		bad("lock_shards: %d is not in 1..%d", c.LockShards, parts)
	}
	if _, err := codecCalled(c.Codec); err != nil {
		bad("codec: %w", err)
	}
	if !slices.Contains([]string{"parallel", "first"}, c.LeaderWrite) {
		bad("leader_write: %q is none of parallel, first", c.LeaderWrite)
	}
	if hclog.LevelFromString(c.LogLevel) == hclog.NoLevel {
		bad("log_level: %q is none of trace, debug, info, warn, error, off", c.LogLevel)
	}
	if err := c.checkBug(); err != nil {
		errs = append(errs, err)
	}
	if c.Downstream != nil {
		errs = append(errs, c.Downstream.check()...)
	}
	errs = append(errs, c.checkPeers()...)
	errs = append(errs, c.checkNumbers()...)
	return errors.Join(errs...)
}

func (c Config) checkPeers() (errs []error) {
	seen := map[string]bool{}
	for i, p := range c.Peers {
		if p.ID == "" || p.Raft == "" || p.Client == "" {
			errs = append(errs, fmt.Errorf("peers[%d]: id, raft and client are all needed", i))
		}
		for _, v := range []string{"id " + p.ID, "raft " + p.Raft} {
			if seen[v] {
				errs = append(errs, fmt.Errorf("peers[%d]: %s appears twice", i, v))
			}
			seen[v] = true
		}
		if p.ID == c.ID && p.Raft != c.Raft {
			errs = append(errs, fmt.Errorf("peers[%d]: raft is %s, but this node's raft is %s", i, p.Raft, c.Raft))
		}
	}
	if !seen["id "+c.ID] {
		errs = append(errs, fmt.Errorf("peers: %q (this node's id) is not among them", c.ID))
	}
	return errs
}

func (c Config) checkNumbers() (errs []error) {
	const least = Duration(5 * time.Millisecond) // the Raft library's own limit
	for _, d := range []struct {
		name string
		v    Duration
		min  Duration
	}{
		{"heartbeat", c.Heartbeat, least},
		{"election", c.Election, c.Heartbeat},
		{"lease", c.Lease, least},
		{"commit_timeout", c.CommitTimeout, Duration(time.Millisecond)},
		{"rpc_timeout", c.RPCTimeout, least},
		{"peer_timeout", c.PeerTimeout, least},
		{"timeout", c.Timeout, least},
		{"lock_dump", c.LockDump, Duration(time.Millisecond)},
		{"block_profile", c.BlockProfile, 0},
		{"snapshot_interval", c.SnapshotInterval, least},
	} {
		if d.v < d.min {
			errs = append(errs, fmt.Errorf("%s: %s is less than %s", d.name, d.v, d.min))
		}
	}
	if c.Lease > c.Heartbeat {
		errs = append(errs, fmt.Errorf("lease: %s is more than heartbeat %s", c.Lease, c.Heartbeat))
	}
	for _, n := range []struct {
		name     string
		v        int
		min, max int
	}{
		{"shards", c.Shards, 1, slots.MaxShards},
		{"codec_bloat", c.CodecBloat, 0, maxBloat},
		{"codec_fields", c.CodecFields, 0, maxFields},
		{"procs", c.Procs, 0, 1 << 10},
		{"max_batch", c.MaxBatch, 1, 1 << 16},
		{"max_batch_bytes", c.MaxBatchBytes, 1 << 10, 8 << 20},
		{"max_queue", c.MaxQueue, 1, 1 << 24},
		{"max_queue_bytes", c.MaxQueueBytes, 1 << 10, 1 << 34},
		{"max_clients", c.MaxClients, 1, 1 << 20},
		{"mutex_profile", c.MutexProfile, 0, 1 << 30},
		{"log_cache", c.LogCache, 1, 1 << 16},
		{"segment_bytes", c.SegmentBytes, 1 << 20, 1 << 30},
	} {
		if n.v < n.min || n.v > n.max {
			errs = append(errs, fmt.Errorf("%s: %d is not in %d..%d", n.name, n.v, n.min, n.max))
		}
	}
	return errs
}

// clientAddrs returns the addresses to serve clients on.
func (c Config) clientAddrs() []string {
	addrs := strings.Split(c.Client, ",")
	for i, a := range addrs {
		addrs[i] = strings.TrimSpace(a)
	}
	return addrs
}
