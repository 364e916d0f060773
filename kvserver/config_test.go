package kvserver

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const goodConfig = `{"id":"n1","dir":"d","client":"10.0.0.1:6379, [fd00::1]:6379","raft":"10.0.0.1:7000",
	"peers":[{"id":"n1","raft":"10.0.0.1:7000","client":"10.0.0.1:6379"}],"heartbeat":"300ms"}`

func TestABugMustBeAllowed(t *testing.T) {
	for _, tt := range []struct {
		bug   string
		allow bool
		want  string
	}{
		{"", false, ""},
		{"none", false, ""},
		{"double-apply", true, ""},
		{"double-apply", false, "allow_bugs"},
		{"typo", true, "none of"},
	} {
		err := Config{Bug: tt.bug, AllowBugs: tt.allow}.checkBug()
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("bug %q, allowed %v: %v, want %q", tt.bug, tt.allow, err, tt.want)
		}
	}
}

func TestParseConfigFillsDefaults(t *testing.T) {
	c, err := ParseConfig([]byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	if time.Duration(c.Heartbeat) != 300*time.Millisecond || c.Election != c.Heartbeat || c.Lease != c.Heartbeat/2 || c.Log != "wal" || c.Reads != "readindex" {
		t.Errorf("configuration = %+v", c)
	}
	if diff := cmp.Diff([]string{"10.0.0.1:6379", "[fd00::1]:6379"}, c.clientAddrs()); diff != "" {
		t.Errorf("client addresses (-want +got):\n%s", diff)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, again); diff != "" {
		t.Errorf("round trip (-first +second):\n%s", diff)
	}
}

func TestParseConfigReportsAllMistakes(t *testing.T) {
	_, err := ParseConfig([]byte(`{"id":"n1","dri":"x","client":"nowhere","raft":"a:1","log":"paper","reads":"psychic",
		"heartbeat":"soon","lease":"1h","max_batch":-1,"log_level":"loud",
		"peers":[{"id":"n2","raft":"a:2","client":"a:3"},{"id":"n2","raft":"a:2","client":"a:3","x":1}]}`))
	if err == nil {
		t.Fatal("a bad configuration was taken")
	}
	for _, want := range []string{`unknown field "dri"`, "client: address nowhere", "log: ", "reads: ", "heartbeat: ", "lease: 1h", "max_batch: -1", "log_level: ", `unknown field "x"`, "dir: missing", `peers: "n1"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the report lacks %q:\n%v", want, err)
		}
	}
}

func TestMainChecksItsConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.json")
	if err := os.WriteFile(path, []byte(goodConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if err := Main(t.Context(), []string{"--config", path, "--check"}, &out, &errs); err != nil || !strings.Contains(out.String(), "valid") {
		t.Errorf("check = %v, %q", err, out.String())
	}
	if err := Main(t.Context(), nil, &out, &errs); err == nil || !strings.Contains(err.Error(), "usage") {
		t.Errorf("without arguments: %v, want the usage", err)
	}
}

func TestShardCountIsChecked(t *testing.T) {
	for shards, want := range map[int]string{0: "", 1: "", 64: "", 65: "shards: 65 is not in 1..64", -1: "shards: -1 is not in 1..64", 1 << 30: "is not in 1..64"} {
		c, err := ParseConfig([]byte(goodConfig))
		if err != nil {
			t.Fatal(err)
		}
		c.Shards, c.SegmentBytes = shards, 0
		switch _, err := c.withDefaults(); {
		case want == "" && err != nil:
			t.Errorf("%d shards: %v", shards, err)
		case want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)):
			t.Errorf("%d shards: %v, want %s alone", shards, err, want)
		}
	}
}

func TestLockModesAreChecked(t *testing.T) {
	for _, tt := range []struct {
		lock   string
		shards int
		want   string // part of the error; "" for none
	}{
		{"", 0, ""},
		{"global", 0, ""},
		{"rw", 0, ""},
		{"sharded", 0, ""},
		{"sharded", 256, ""},
		{"lockfree-read", 0, ""},
		{"sharded", 257, "lock_shards: 257 is not in 1..256"},
		{"sharded", -1, "lock_shards: -1 is not in 1..256"},
		{"rw", 4, "only sharded has shards"},
		{"spin", 0, `lock: "spin" is none of global, rw, sharded, lockfree-read`},
	} {
		c, err := ParseConfig([]byte(goodConfig))
		if err != nil {
			t.Fatal(err)
		}
		c.Lock, c.LockShards = tt.lock, tt.shards
		got, err := c.withDefaults()
		switch {
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("lock %q of %d: %v, want %q", tt.lock, tt.shards, err, tt.want)
		case tt.want == "" && err != nil:
			t.Errorf("lock %q of %d: %v", tt.lock, tt.shards, err)
		case tt.want == "" && (got.Lock == "" || (got.Lock == "sharded") != (got.LockShards > 0)):
			t.Errorf("lock %q of %d became %q of %d", tt.lock, tt.shards, got.Lock, got.LockShards)
		}
	}
}

func TestCodecsAreChecked(t *testing.T) {
	for _, tt := range []struct {
		codec         string
		bloat, fields int
		want          string // part of the error; "" for none
	}{
		{"", 0, 0, ""},
		{"avro", maxBloat, maxFields, ""},
		{"yaml", 0, 0, `codec: "yaml" is none of binary, protobuf, json, xml, gob, msgpack, avro`},
		{"json", maxBloat + 1, 0, "codec_bloat: 1048577 is not in 0..1048576"},
		{"json", 0, -1, "codec_fields: -1 is not in 0..1000"},
	} {
		c, err := ParseConfig([]byte(goodConfig))
		if err != nil {
			t.Fatal(err)
		}
		c.Codec, c.CodecBloat, c.CodecFields = tt.codec, tt.bloat, tt.fields
		switch got, err := c.withDefaults(); {
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("codec %q: %v, want %q", tt.codec, err, tt.want)
		case tt.want == "" && (err != nil || got.Codec == ""):
			t.Errorf("codec %q became %q, %v", tt.codec, got.Codec, err)
		}
	}
}

func TestNodesShareCPUs(t *testing.T) {
	for _, tt := range []struct{ cpus, peers, want int }{{2, 3, 1}, {2, 1, 2}, {4, 3, 2}, {8, 3, 3}, {16, 5, 4}, {1, 9, 1}} {
		if got := share(tt.cpus, tt.peers); got != tt.want {
			t.Errorf("%d of %d CPUs for each of %d, want %d", got, tt.cpus, tt.peers, tt.want)
		}
	}
}

// TestANodeTakesItsShare: a program that is a node, and one that is told how much to take.
func TestANodeTakesItsShare(t *testing.T) {
	const told = 3
	for want, tune := range map[int]func(*Config){
		share(runtime.NumCPU(), 3): nil,
		told:                       func(c *Config) { c.Procs = told },
	} {
		k := startProcesses(t, 3, tune)
		var m Metrics
		if k.admin(0, "GET", "/metrics", "", &m); m.Runtime.Procs != want {
			t.Errorf("a node of three takes %d of %d CPUs, want %d", m.Runtime.Procs, runtime.NumCPU(), want)
		}
	}
}
