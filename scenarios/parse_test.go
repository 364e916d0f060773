package scenarios

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/plan"
)

const small = `version: 1
name: small
target: {kind: kvserver, nodes: 3}
workload:
  keys: {count: 10}
  load: {rate: 100/s}
timeline:
  warmup: 1s
  baseline: 2s
  faults:
    - {at: 0s, for: 3s, disk.delay: {on: leader, op: fsync, add: 20ms}}
  recovery: 1s
expect:
  - linearizable
  - p99(put) during f1 < 3x baseline
`

func TestParseWholeFormat(t *testing.T) {
	got, err := Parse([]byte(`version: 1
name: whole
target: {kind: kvserver, nodes: 5, config: {log: bolt, reads: lease, heartbeat: 300ms, lease: 200ms, snapshot_threshold: 10k, codec: xml, codec_bloat: 4KiB}}
network: {delay: 200us, jitter: 20µs}
workload:
  keys: {count: 10k, dist: zipf 1.2}
  value: 1KiB
  mix: {delete: 5%, get: 50%, put: 40%, cas: 2.5%, append: 2.5%}
  load: {rate: 50% of max, clients: 64}
  endpoints: n2
  timeout: 500ms
timeline:
  warmup: 3s
  baseline: 10s
  faults:
    - {at: 0s, for: 15s, disk.delay: {on: one follower, op: all, add: 20ms, provider: fuse}}
    - at: 5s
      for: 5s
      net.delay: {from: leader, to: followers, add: 5ms ± 1ms, dist: normal, plane: both, follow: role}
    - {at: 6s, net.partition: {split: "n1,client | n2, n3|others", one_way: true}, for: 1s}
    - {at: 7s, process.kill: {on: "leader, n4", restart: 3s}}
    - {at: 8s, gc.pause: {on: all but leader, length: 50ms, every: 1s}, for: 4s}
    - {at: 9s, for: 1m, net.rate: {from: every pair, limit: 10Mbit/s, queue: 64KiB}}
    - {at: 10s, for: 1s, cpu.quota: {on: minority, percent: 12.5%, period: 50ms}}
    - {at: 11s, process.pause: {on: all, length: 200ms}}
  recovery: 10s
expect:
  - linearizable
  - 'p99(put) during f2 < 3x baseline'
seed: 18446744073709551615
`), "whole.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := &Scenario{
		Name:    "whole",
		Target:  Target{Kind: "kvserver", Nodes: 5, Config: map[string]string{"log": "bolt", "reads": "lease", "heartbeat": "300ms", "lease": "200ms", "snapshot_threshold": "10000", "codec": "xml", "codec_bloat": "4096"}},
		Network: plan.Network{Delay: 200 * time.Microsecond, Jitter: 20 * time.Microsecond},
		Workload: Workload{
			Keys: Keys{10_000, "zipf", 1.2}, Value: 1024,
			Mix:       []plan.Share{{Kind: "delete", P: 0.05}, {Kind: "get", P: 0.5}, {Kind: "put", P: 0.4}, {Kind: "cas", P: 0.025}, {Kind: "append", P: 0.025}},
			Load:      Offer{OfMax: 50, Clients: 64},
			Endpoints: "n2", Timeout: 500 * time.Millisecond,
		},
		Timeline: Timeline{
			Warmup: 3 * time.Second, Baseline: 10 * time.Second, Recovery: 10 * time.Second,
			Faults: []Fault{
				{For: 15 * time.Second, Kind: "disk.delay", On: "one follower", Provider: "fuse", Line: 16, Params: plan.Params{"op": "all", "add_ns": int64(20e6)}},
				{At: 5 * time.Second, For: 5 * time.Second, Kind: "net.delay", From: "leader", To: "followers", Plane: "both", Follow: "role", Line: 17, Params: plan.Params{"add_ns": int64(5e6), "jitter_ns": int64(1e6), "dist": "normal"}},
				{At: 6 * time.Second, For: time.Second, Kind: "net.partition", Split: "n1,client | n2, n3|others", Line: 20, Params: plan.Params{"one_way": true}},
				{At: 7 * time.Second, Kind: "process.kill", On: "leader, n4", Line: 21, Params: plan.Params{"restart_ns": int64(3e9)}},
				{At: 8 * time.Second, For: 4 * time.Second, Kind: "gc.pause", On: "all but leader", Line: 22, Params: plan.Params{"length_ns": int64(50e6), "every_ns": int64(1e9)}},
				{At: 9 * time.Second, For: time.Minute, Kind: "net.rate", From: "every pair", Line: 23, Params: plan.Params{"limit_bits_per_s": int64(10e6), "queue_bytes": int64(65536)}},
				{At: 10 * time.Second, For: time.Second, Kind: "cpu.quota", On: "minority", Line: 24, Params: plan.Params{"percent": 12.5, "period_ns": int64(50e6)}},
				{At: 11 * time.Second, Kind: "process.pause", On: "all", Line: 25, Params: plan.Params{"length_ns": int64(200e6)}},
			},
		},
		Expect: []Expectation{{"linearizable", 28, 5}, {"p99(put) during f2 < 3x baseline", 29, 5}},
		Seed:   18446744073709551615, File: "whole.yaml", Hash: got.Hash,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	got, err := Parse([]byte("version: 1\nname: x\ntimeline: {baseline: 1s}\n"), "x.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := &Scenario{
		Name: "x", Target: Target{Kind: "kvserver", Nodes: 3}, Timeline: Timeline{Baseline: time.Second},
		Workload: Workload{
			Keys: Keys{Count: 100, Dist: "uniform"}, Value: 256, Mix: []plan.Share{{Kind: "get", P: .5}, {Kind: "put", P: .5}},
			Load: Offer{Rate: 500, Clients: 16}, Endpoints: "leader", Timeout: time.Second,
		},
		File: "x.yaml", Hash: got.Hash,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestClosedLoadHasTwoForms(t *testing.T) {
	for _, load := range []string{"closed", "{closed: true, clients: 8}"} {
		s, err := Parse([]byte(strings.Replace(small, "{rate: 100/s}", load, 1)), "x.yaml")
		if err != nil || !s.Workload.Load.Closed || s.Workload.Load.Rate != 0 {
			t.Errorf("load: %s = %+v, %v", load, s, err)
		}
	}
}

// mistakes replace a piece of small; the error must point at the word named.
var mistakes = []struct{ old, new, at, msg, hint string }{
	{"recovery: 1s", "recovry: 1s", "recovry", `unknown field "recovry"`, `did you mean "recovery"?`},
	{"name: small", "name: small\nname: other", "name", "written twice; first on line 2", ""},
	{"version: 1\n", "", "", "the scenario has no version", "write version: 1"},
	{"version: 1", "version: 2", "2", "this brownout reads version 1", ""},
	{"version: 1", "version: one", "one", "not a whole number", ""},
	{"name: small", "name: Big Name", "Big Name", `name "Big Name"`, ""},
	{"name: small", "name:", "name", "name is empty", ""},
	{"name: small", "name: [a]", "[a]", "name is a list", ""},
	{"kind: kvserver", "kind: etcd", "etcd", "not in this version", ""},
	{"kind: kvserver", "kind: kvsever", "kvsever", "unknown target", "kvserver"},
	{"nodes: 3", "nodes: 0", "0", "0 nodes", ""},
	{"nodes: 3", "nodes: 26", "26", "1 to 25", ""},
	{"nodes: 3", "nodes: three", "three", "not a whole number", ""},
	{"nodes: 3}", "nodes: 3, config: {lgo: wal}}", "lgo", "unknown field", `did you mean "log"?`},
	{"nodes: 3}", "nodes: 3, config: {downstream: {mode: wait}}}", "downstream", "unknown field", "downstream is a field of target, beside config"},
	{"name: small", "name: small\nclients: 8", "clients", "unknown field", "did you mean workload.load.clients?"},
	{"add: 20ms", "add: 20ms, for: 2s", "for", "unknown field", "for is a field of faults[0], beside disk.delay"},
	{"nodes: 3}", "nodes: 3, config: {log: wall}}", "wall", "none of wal, bolt, memory", `did you mean "wal"?`},
	{"nodes: 3}", "nodes: 3, config: {heartbeat: 100}}", "100", "100 what? write 100ms", ""},
	{"nodes: 3}", "nodes: 3, config: {lease: 2s}}", "2s", "more than heartbeat", ""},
	{"nodes: 3}", "nodes: 3, config: {max_batch: 0}}", "0", "is not in 1..", ""},
	{"count: 10", "count: 0", "0", "too few", ""},
	{"count: 10", "count: ten", "ten", "is not a count", ""},
	{"count: 10", "count: 2M", "2M", "keys; 1 to 1M", ""},
	{"count: 10}", "count: 10, dist: zpif}", "zpif", "none of uniform", ""},
	{"count: 10}", "count: 10, dist: zipf 99}", "zipf 99", "exponent", ""},
	{"rate: 100/s", "rate: 100", "100", "100 what? write 100/s", ""},
	{"rate: 100/s", "rate: 0/s", "0/s", "offers nothing", ""},
	{"rate: 100/s", "rate: 150% of max", "150% of max", "more than there is", ""},
	{"rate: 100/s", "rate: 100/s, closed: true", "{rate: 100/s, closed: true}", "a closed load has no rate", ""},
	{"rate: 100/s", "rate: 100/s, clients: 0", "0", "0 clients", ""},
	{"load: {rate: 100/s}", "load: open", "open", "none of closed", ""},
	{"load: {rate: 100/s}", "load: {rate: 100/s}\n  mix: {get: 50%, put: 49%}", "{get: 50%, put: 49%}", "sum to 99%, not 100%", ""},
	{"load: {rate: 100/s}", "load: {rate: 100/s}\n  mix: {get: 50, put: 50%}", "50", "50 what? write 50%", ""},
	{"load: {rate: 100/s}", "load: {rate: 100/s}\n  endpoints: n4", "n4", "there is no n4: the cluster has 3 nodes", ""},
	{"load: {rate: 100/s}", "load: {rate: 100/s}\n  endpoints: leeder", "leeder", "none of leader", `did you mean "leader"?`},
	{"load: {rate: 100/s}", "load: {rate: 100/s}\n  timeout: 0s", "0s", "would fail every operation", ""},
	{"load: {rate: 100/s}", "load: {rate: 100/s}\n  value: 256", "256", "256 what? write 256B", ""},
	{"load: {rate: 100/s}", "load: {rate: 100/s}\n  value: 2MiB", "2MiB", "1B to 1MiB", ""},
	{"warmup: 1s", "warmup: -1s", "-1s", "-1s is negative", ""},
	{"warmup: 1s", "warmup: 20", "20", "20 what? write 20ms", ""},
	{"warmup: 1s", "warmup: 25h", "25h", "more than 24h", ""},
	{"at: 0s, ", "", "{for: 3s, disk.delay: {on: leader, op: fsync, add: 20ms}}", "has no at", "write at: 5s"},
	{"for: 3s, ", "", "{at: 0s, disk.delay: {on: leader, op: fsync, add: 20ms}}", "for is missing", "write for: 10s"},
	{"for: 3s", "fro: 3s", "fro", "unknown field", `did you mean "for"?`},
	{"disk.delay: {", "disk.dealy: {", "disk.dealy", "unknown field", `did you mean "disk.delay"?`},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "disk.delay: leader", "leader", "expected fields: on, op, add", ""},
	{", disk.delay: {on: leader, op: fsync, add: 20ms}", "", "{at: 0s, for: 3s}", "no fault in this entry", "disk.delay"},
	{"add: 20ms}", "add: 20ms}, gc.pause: {on: leader, length: 1s}", "gc.pause", "one entry is one fault", ""},
	{"add: 20ms", "add: 20", "20", "20 what? write 20ms", ""},
	{"add: 20ms", "add: 2h", "2h", "more than 60s", ""},
	{"add: 20ms", "add: 1us", "1us", "less than 100us", ""},
	{"add: 20ms", "ad: 20ms", "ad", "unknown field", `did you mean "add"?`},
	{", add: 20ms", "", "{on: leader, op: fsync}", "disk.delay has none of add, trace", ""},
	{"op: fsync", "op: fsnc", "fsnc", "none of fsync", `did you mean "fsync"?`},
	{"on: leader, ", "", "{op: fsync, add: 20ms}", "has no on", "write on: leader"},
	{"on: leader", "on: leeder", "leeder", "unknown selector", `did you mean "leader"?`},
	{"on: leader", "on: n7", "n7", "there is no n7: the cluster has 3 nodes", "n1 to n3"},
	{"on: leader", "on: n0", "n0", "there is no n0", ""},
	{"on: leader", `on: "n1,n1"`, `"n1,n1"`, "names n1 twice", ""},
	{"on: leader", `on: "n1,"`, `"n1,"`, "names nobody", ""},
	{"on: leader", "on: client", "client", "unknown selector", ""},
	{"on: leader", "on: all, follow: role", "role", "no selector names a role", ""},
	{"on: leader", "on: leader, follow: me", "me", "none of role", ""},
	{"on: leader", "on: leader, plane: peer", "plane", "unknown field", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.delay: {add: 5ms}", "{add: 5ms}", "does not say between whom", "every pair"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.delay: {from: n1, to: n1, add: 5ms}", "n1", "no link from n1 to itself", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.delay: {from: n1, to: n2, add: 5ms ± 1}", "5ms ± 1", "1 what?", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.delay: {from: n1, add: 5ms ± 1ms, jitter: 1ms}", "1ms", "a second time", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.delay: {from: n1, add: 5ms, split: n1 | n2}", "split", "unknown field", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.partition: {split: n1}", "n1", "has one group", "n1 | n2,n3"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.partition: {split: "n1 | n1,n2"}`, `"n1 | n1,n2"`, "n1 is in group 1 and in group 2", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.partition: {split: "n1 | n2", from: n3}`, `"n1 | n2"`, "beside from or to", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.partition: {from: n1, plane: peers}`, "peers", "none of peer", `did you mean "peer"?`},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.partition: {isolate: leader, split: n1 | n2}`, "leader", "beside split", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.partition: {isolate: leader, to: n1}`, "leader", "beside from or to", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.partition: {isolate: boss}`, "boss", "unknown selector", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.partition: {isolate: all}`, "all", "nobody on the other side", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.partition: {bridge: n9}`, "n9", "n9", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.delay: {from: n1, bridge: n2, add: 1ms}`, "bridge", "unknown field", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.delay: {from: n1, add: 5ms, jitter: 6ms}`, "6ms", "more than add", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.delay: {from: n1, add: 5ms, corr: 50%}`, "50%", "without jitter", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.delay: {from: n1}`, "{from: n1}", "none of add, trace", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.loss: {from: n1, percent: 101%}`, "101%", "more than 100%", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.loss: {from: n1, percent: 90%, burst: 2}`, "2", "cannot make up", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.reorder: {from: n1, percent: 20%}`, "{from: n1, percent: 20%}", "no add", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", `net.rate: {from: n1, limit: 1Mbit/s, queue_time: 1ms}`, "1ms", "less than one packet", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "process.kill: {on: leader, restart: 5s}", "3s", "ends before the restart", ""},
	{"for: 3s, disk.delay: {on: leader, op: fsync, add: 20ms}", "process.kill: {on: leader}", "{on: leader}", "nothing says when the node comes back", "restart: 3s"},
	{"for: 3s, disk.delay: {on: leader, op: fsync, add: 20ms}", "gc.pause: {on: leader, length: 1s, every: 2s}", "{at: 0s, gc.pause: {on: leader, length: 1s, every: 2s}}", "for is missing", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "gc.pause: {on: leader, length: 2s, every: 1s}", "1s", "would never end", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.rate: {from: n1, limit: 10Mbps}", "10Mbps", "unknown unit", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "cpu.quota: {on: n1, percent: 1%, period: 10ms}", "1%", "the kernel takes 1ms or more", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "cpu.quota: {on: n1, percent: 10%, burst: 50ms}", "50ms", "more than 10ms, the share of one period", ""},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "cpu.quota: {on: n1, percent: 10%, burst: 5ms, provider: freezer2}", "5ms", "a freezer saves nothing up", "no burst"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "disk.rate: {on: leader, limit: 1MiB/s, provider: io.max}", "io.max", "a limit for reads and one for writes", "op: read"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "disk.iops: {on: leader, limit: 1, op: write, provider: blkio.throttle}", "1, op", "2 operations a second", "limit: 2"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "disk.delay: {on: leader, add: 1500us, provider: dm-delay}", "1500us", "whole milliseconds", "provider: fuse"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "disk.error: {on: leader, percent: 50%, provider: dm-flakey}", "50%", "all writes or none", "100%"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.loss: {from: n1, to: n2, every: 4, provider: netem}", "4, provider", "draws losses", "wire"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "net.delay: {from: n1, to: n2, add: 10ms, jitter: 2ms, order: keep, provider: netem}", "keep", "overtake", "wire"},
	{"disk.delay: {on: leader, op: fsync, add: 20ms}", "cpu.quota: {on: n1, percent: 0.5%}", "0.5%", "less than 1%", ""},
	{"linearizable", "linearisable", "linearisable", "unexpected", `did you mean "linearizable"?`},
	{"p99(put) during", "p99(put) durign", "durign", "expected during, in or", `did you mean "during"?`},
	{"- p99(put) during f1", "- 'p99(put) durign f1", "", "", ""}, // a YAML mistake: the quote does not end
	{"during f1 <", "during net.delay <", "net.delay", "there is no net.delay in this timeline", "f1 disk.delay"},
	{"p99(put) during f1", "p99(cas) during f1", "(cas", "the workload has no cas", ""},
	{"p99(put) during f1 < 3x baseline", "throughput: high", "throughput: high", "expect[1] is a mapping", "quote text that holds a colon"},
	{"baseline: 2s", "baseline: 0s", "p99(put) during f1 < 3x baseline", "compares with the baseline", ""},
	{"expect:", "expect: {}", "", "", ""},
	{"expect:\n  - linearizable", "seed: -1\nexpect:\n  - linearizable", "-1", "not a whole number", ""},
	{"target: {kind: kvserver, nodes: 3}", "target: &a {kind: kvserver}", "&", "anchors, aliases and merge keys", ""},
	{"name: small", "name: !!str small", "!!str", "tags and directives", ""},
	{"  warmup: 1s", "\twarmup: 1s", "\t", "a tab in the indentation", "spaces"},
	{"name: small", "name: sm\x00all", "\x00", "control character 0x00", ""},
	{"name: small", "name: sm\xffall", "\xff", "no UTF-8", ""},
}

func TestMistakesAreFoundWhereTheyAre(t *testing.T) {
	for _, tt := range mistakes {
		if strings.Count(small, tt.old) != 1 {
			t.Fatalf("%q is %d times in the scenario", tt.old, strings.Count(small, tt.old))
		}
		src := strings.Replace(small, tt.old, tt.new, 1)
		_, err := Parse([]byte(src), "x.yaml")
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 {
			t.Errorf("%q for %q: %v, want an error", tt.new, tt.old, err)
			continue
		}
		e := errs[0]
		if e.File != "x.yaml" || e.Line < 1 || e.Col < 1 || e.Excerpt == "" {
			t.Errorf("%q: no place in %#v", tt.new, e)
			continue
		}
		if len(errs) > 1 {
			t.Errorf("%q: %d mistakes instead of one:\n%v", tt.new, len(errs), err)
		}
		if tt.msg == "" {
			continue
		}
		line := []rune(strings.Split(src, "\n")[e.Line-1])
		at := string(line[e.Col-1 : min(len(line), e.Col-1+e.Width)])
		if tt.at != "" && at != tt.at && utf8.ValidString(tt.at) && !strings.Contains(tt.at, "\x00") && !strings.HasPrefix(tt.at, at) || !strings.Contains(e.Msg, tt.msg) || !strings.Contains(e.Hint, tt.hint) {
			t.Errorf("%q for %q: at %q\n%v\nwant at %q: %s (%s)", tt.new, tt.old, at, e, tt.at, tt.msg, tt.hint)
		}
	}
}

func TestAllMistakesAreToldAtOnce(t *testing.T) {
	src := strings.NewReplacer("recovery: 1s", "recovry: 1s", "add: 20ms", "add: 20", "linearizable", "linearisable", "rate: 100/s", "rat: 100/s").Replace(small)
	_, err := Parse([]byte(src), "many.yaml")
	const want = `many.yaml:6:10  unknown field "rat" — did you mean "rate"?
     5 |   keys: {count: 10}
>    6 |   load: {rat: 100/s}
                  ^^^
many.yaml:11:66  20 what? write 20ms
    10 |   faults:
>   11 |     - {at: 0s, for: 3s, disk.delay: {on: leader, op: fsync, add: 20}}
                                                                          ^^
many.yaml:12:3  unknown field "recovry" — did you mean "recovery"?
    11 |     - {at: 0s, for: 3s, disk.delay: {on: leader, op: fsync, add: 20}}
>   12 |   recovry: 1s
           ^^^^^^^
many.yaml:14:5  unexpected "linearisable"; expected linearizable, no acknowledged write is lost, diagnosis, leader_changes, time_to_recover, service, response, p50, p90, p99, p999, max, throughput, errors, unknown or fails — did you mean "linearizable"?
    13 | expect:
>   14 |   - linearisable
             ^^^^^^^^^^^^`
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nname: x\ntimeline: {baseline: 1s}\nexpect:\n")
	for range 150 {
		b.WriteString("  - nonsense\n")
	}
	_, err := Parse([]byte(b.String()), "x.yaml")
	if err == nil || !strings.HasSuffix(err.Error(), "\nand 130 more") {
		t.Errorf("%v", err)
	}
}

// TestRecordedDelaysAreReadBesideTheScenario reads a trace by a name that counts
// from the scenario's directory, which is not the current one, and embeds it.
func TestRecordedDelaysAreReadBesideTheScenario(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "delays.txt"), []byte("5ms\n5ms\n80ms\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(name string) string {
		return strings.Replace(small, "disk.delay: {on: leader, op: fsync, add: 20ms}", "net.delay: {from: n1, to: n2, trace: '@"+name+"'}", 1)
	}
	s, err := Parse([]byte(with("delays.txt")), filepath.Join(dir, "x.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Timeline.Faults[0].Params.String("trace"); got != "5ms, 5ms, 80ms" {
		t.Errorf("trace = %q", got)
	}
	if _, err := Parse([]byte(with("none.txt")), filepath.Join(dir, "x.yaml")); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "none.txt")) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestFilesThatAreNoScenarios(t *testing.T) {
	for _, tt := range []struct{ name, src, msg string }{
		{"an empty file", "", "the file is empty"},
		{"only comments", "# nothing\n\n", "the file is empty"},
		{"a list", "- a\n", "the scenario is a list"},
		{"a word", "hello", "the scenario is a value"},
		{"binary", "\x7fELF\x02\x01\x01\x00\x00", "control character"},
		{"two documents", small + "---\n" + small, "a second document"},
		{"deep brackets", "a: " + strings.Repeat("[", 5000), "nested deeper"},
		{"deep dashes", strings.Repeat("- ", 5000) + "a", "nested deeper"},
		{"deep indentation", deepIndent(200), "nested deeper"},
		{"an alias bomb", "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "anchors"},
		{"too large", strings.Repeat("# xxxxxxxxxxxxxx\n", 80_000), "bytes; a scenario has at most"},
		{"too many words", strings.Repeat("a: b\n", 30_000), "too much for a scenario"},
		{"open quote", `name: "x`, ""},
	} {
		began := time.Now()
		_, err := Parse([]byte(tt.src), "x.yaml")
		var errs Errors
		if !errors.As(err, &errs) || !strings.Contains(err.Error(), tt.msg) || errs[0].Line < 1 {
			t.Errorf("%s: %.300v, want %q", tt.name, err, tt.msg)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s took %v", tt.name, d)
		}
	}
}

func deepIndent(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}

func TestByteOrderMarkAndWindowsLinesAreRead(t *testing.T) {
	plain, err := Parse([]byte(small), "x.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse([]byte("\ufeff"+strings.ReplaceAll(small, "\n", "\r\n")), "x.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got.Hash = plain.Hash
	if diff := cmp.Diff(plain, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadNamesWhatItCannotFind(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ arg, want string }{
		{"quickstrat", `did you mean "quickstart"?`},
		{"zzz", "brownout list"},
		{filepath.Join(dir, "none.yaml"), "no such file"},
		{dir, "is a directory"},
	} {
		if _, _, err := Load(tt.arg, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Load(%q): %v, want %q", tt.arg, err, tt.want)
		}
	}
	file := filepath.Join(dir, "small.yaml")
	if err := os.WriteFile(file, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	s, src, err := Load(file, nil)
	if err != nil || string(src) != small || s.File != file || len(s.Hash) != 64 {
		t.Errorf("Load(%s) = %+v, %q, %v", file, s, src, err)
	}
}
