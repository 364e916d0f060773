package scenarios

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"brownout/internal/nearest"
	"brownout/internal/quantity"
	"brownout/kvserver/slots"
)

// A setting is one field of target.config: words, a duration, or a count.
type setting struct {
	name, doc    string
	words        []string
	time, bytes  bool
	least, most  int64 // of a count, or ns of a duration
	defaultValue string
}

// kvserverConfig are the settings of kvserver that an experiment is about. The
// defaults are kvserver's own.
var kvserverConfig = []setting{
	{name: "log", words: []string{"wal", "bolt", "memory"}, defaultValue: "wal", doc: "where the Raft log lives; memory survives nothing"},
	{name: "shards", least: 1, most: slots.MaxShards, defaultValue: "1", doc: "Raft groups, each with its share of the keys and a leader of its own"},
	{name: "reads", words: []string{"readindex", "lease", "local"}, defaultValue: "readindex", doc: "how reads are answered; only readindex is linearizable whatever happens"},
	{name: "codec", words: []string{"binary", "protobuf", "json", "xml", "gob", "msgpack", "avro"}, defaultValue: "binary", doc: "of log entries, on disks and between nodes; nodes read all of them"},
	{name: "codec_bloat", bytes: true, least: 0, most: 1 << 20, defaultValue: "0B", doc: "padding that each command carries in its entry"},
	{name: "codec_fields", least: 0, most: 1000, defaultValue: "0", doc: "fields of about 40 bytes that each command carries and nobody needs"},
	{name: "lock", words: []string{"global", "rw", "sharded", "lockfree-read"}, defaultValue: "rw", doc: "of the state, between who applies and who reads: one mutex, one readers-writer lock, lock_shards of them by key, or none for readers"},
	{name: "lock_shards", least: 1, most: 256, defaultValue: "16", doc: "locks over which lock: sharded spreads the keys; only with it"},
	{name: "lock_dump", time: true, least: int64(time.Millisecond), most: int64(time.Minute), defaultValue: "500ms", doc: "a wait for a lock of the state by which the node writes down what all its goroutines do, in its notes"},
	{name: "mutex_profile", least: 0, most: 1 << 30, defaultValue: "0", doc: "one in so many waits for a lock is in the node's mutex profile; 0: none"},
	{name: "block_profile", time: true, least: 1, most: int64(time.Minute), defaultValue: "1ms", doc: "one event for so much time blocked is in the node's block profile; none if absent"},
	{name: "heartbeat", time: true, least: int64(5 * time.Millisecond), most: int64(time.Minute), defaultValue: "1s", doc: "a follower's patience without a leader"},
	{name: "election", time: true, least: int64(5 * time.Millisecond), most: int64(time.Minute), defaultValue: "1s", doc: "a candidate's patience; at least heartbeat"},
	{name: "lease", time: true, least: int64(5 * time.Millisecond), most: int64(time.Minute), defaultValue: "500ms", doc: "a leader without a quorum for this long steps down; at most heartbeat"},
	{name: "commit_timeout", time: true, least: int64(time.Millisecond), most: int64(time.Minute), defaultValue: "50ms", doc: "an idle leader tells the commit index this often"},
	{name: "rpc_timeout", time: true, least: int64(5 * time.Millisecond), most: int64(10 * time.Minute), defaultValue: "10s", doc: "of one message between nodes"},
	{name: "peer_timeout", time: true, least: int64(5 * time.Millisecond), most: int64(10 * time.Minute), defaultValue: "2s", doc: "unacknowledged bytes this old end a connection between nodes"},
	{name: "timeout", time: true, least: int64(5 * time.Millisecond), most: int64(10 * time.Minute), defaultValue: "5s", doc: "of one client command, inside the server"},
	{name: "snapshot_threshold", least: 1, most: 1 << 40, defaultValue: "8192", doc: "log entries since the last snapshot that make a new one"},
	{name: "snapshot_interval", time: true, least: int64(5 * time.Millisecond), most: int64(time.Hour), defaultValue: "30s", doc: "how often the threshold is looked at"},
	{name: "trailing_logs", least: 1, most: 1 << 40, defaultValue: "4096", doc: "log entries kept behind a snapshot"},
	{name: "bug", words: []string{
		"none", "stale-follower-read", "unguarded-lease", "dirty-read", "ack-before-quorum", "ack-before-fsync", "double-apply",
		"append-lost", "cas-ignores-expected", "delete-resurrects", "reordered-apply", "short-snapshot", "hang-after-election",
	}, defaultValue: "none", doc: "a planted bug, to see it found; needs allow_bugs"},
	{name: "allow_bugs", words: []string{"true", "false"}, defaultValue: "false", doc: "this is an experiment about planted bugs"},
	{name: "max_batch", least: 1, most: 1 << 16, defaultValue: "4096", doc: "writes in one log entry"},
	{name: "procs", least: 0, most: 1 << 10, defaultValue: "0", doc: "threads of a node that run Go code at once; 0: the host's CPUs, shared among the nodes"},
	{name: "log_cache", least: 1, most: 1 << 16, defaultValue: "1024", doc: "newest log entries that are kept in memory for followers"},
}

// canonical returns a setting's value as the target reads it.
func (c setting) canonical(t string) (string, error) {
	switch {
	case c.words != nil:
		if !slices.Contains(c.words, t) {
			return "", &hinted{fmt.Sprintf("%q is none of %s", t, strings.Join(c.words, ", ")), nearest.Hint(strings.ToLower(t), c.words)}
		}
		return t, nil
	case c.time:
		v, err := quantity.ParseDuration(t)
		if err == nil && (int64(v) < c.least || int64(v) > c.most) {
			err = fmt.Errorf("%s is not in %s..%s", t, quantity.Duration(time.Duration(c.least)), quantity.Duration(time.Duration(c.most)))
		}
		return quantity.Duration(v), err
	}
	v, err := c.number(t)
	if err == nil && (v < c.least || v > c.most) {
		err = fmt.Errorf("%s is not in %d..%d", t, c.least, c.most)
	}
	return strconv.FormatInt(v, 10), err
}

// number parses a count, or a size, which is its bytes once it is canonical.
func (c setting) number(t string) (int64, error) {
	if c.bytes {
		if v, err := strconv.ParseInt(t, 10, 64); err == nil {
			return v, nil
		}
		return quantity.ParseSize(t)
	}
	return quantity.ParseCount(t)
}

func (c setting) spec(store func(string)) *spec {
	l := &leaf{example: c.defaultValue, words: c.words, set: func(t string) error {
		v, err := c.canonical(t)
		if err == nil {
			store(v)
		}
		return err
	}}
	switch {
	case c.time:
		l.pattern = durationPattern
	case c.bytes:
		l.pattern = sizePattern
	case c.words == nil:
		l.integer, l.least, l.most, l.pattern = true, c.least, c.most, countPattern
	}
	return &spec{doc: c.doc + " (default " + c.defaultValue + ")", leaf: l}
}

// downstreamConfig are the settings by which kvserver's nodes write through to a cache.
var downstreamConfig = []setting{
	{name: "timeout", time: true, least: int64(time.Millisecond), most: int64(time.Minute), defaultValue: "200ms", doc: "of one attempt"},
	{name: "retries", least: 0, most: 100, defaultValue: "0", doc: "attempts after the first"},
	{name: "backoff", time: true, least: 1, most: int64(time.Minute), defaultValue: "20ms", doc: "before the first of them, then twice as long each time"},
	{name: "on_error", words: []string{"fail", "ignore"}, defaultValue: "fail", doc: "what a client is told when all have failed: that its write is unknown, or that all is well"},
	{name: "mode", words: []string{"sync", "async"}, defaultValue: "sync", doc: "whether a client's answer waits for it"},
}

// checkSettings says what is wrong with each of some settings, and returns the
// durations among them.
func checkSettings(path string, known []setting, config map[string]string) (times map[string]time.Duration, out []problem) {
	times = map[string]time.Duration{}
	for _, name := range sortedKeys(config) {
		i := slices.IndexFunc(known, func(c setting) bool { return c.name == name })
		if i < 0 {
			out = append(out, problem{path: path + name, msg: fmt.Sprintf("unknown setting %q of %s", name, kvserver)})
			continue
		}
		if _, err := known[i].canonical(config[name]); err != nil {
			out = append(out, problem{path: path + name, msg: err.Error()})
		} else if known[i].time {
			times[name], _ = quantity.ParseDuration(config[name]) // canonical has parsed it
		}
	}
	return times, out
}

// checkConfig says what is wrong with the settings of a literal, and with those
// of a file together.
func checkConfig(config map[string]string) []problem {
	times, out := checkSettings("target.config.", kvserverConfig, config)
	if config["lock_shards"] != "" && config["lock"] != "sharded" {
		out = append(out, problem{path: "target.config.lock_shards", msg: "lock_shards are locks of lock: sharded"})
	}
	if b := config["bug"]; b != "" && b != "none" && config["allow_bugs"] != "true" {
		out = append(out, problem{path: "target.config.bug", msg: fmt.Sprintf("%s is a planted bug, which allow_bugs: true must allow", b)})
	}
	heartbeat := times["heartbeat"]
	if heartbeat == 0 {
		heartbeat = time.Second
	}
	if v := times["election"]; v != 0 && v < heartbeat {
		out = append(out, problem{path: "target.config.election", msg: fmt.Sprintf("election %s is less than heartbeat %s", quantity.Duration(v), quantity.Duration(heartbeat))})
	}
	if v := times["lease"]; v > heartbeat {
		out = append(out, problem{path: "target.config.lease", msg: fmt.Sprintf("lease %s is more than heartbeat %s", quantity.Duration(v), quantity.Duration(heartbeat))})
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
