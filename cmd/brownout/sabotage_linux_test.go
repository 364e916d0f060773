package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/internal/needs"
	"brownout/internal/run"
)

// sabotaged expects nothing of times, so that only the fault can make it
// inconclusive, however busy the host is.
const sabotaged = `version: 1
name: sabotaged
target: {kind: kvserver, nodes: 3, config: {log_cache: 64}}
workload:
  keys: {count: 20}
  value: %s
  mix: {get: 50%%, put: 50%%}
  load: {rate: %d/s, clients: 6}
  timeout: 1s
timeline:
  warmup: 200ms
  baseline: 1s
  faults:
    - {at: 1s, for: %s, %s}
  recovery: 500ms
expect:
  - linearizable
  - no acknowledged write is lost
seed: 5
`

// A moment of a run is some time after it has shown something.
type moment struct {
	what  string
	shown func(run.Event) bool
	then  time.Duration
}

func fired(e run.Event) bool { return e.Type == run.FaultFired }

var (
	soon = moment{"that the fault fired", fired, 500 * time.Millisecond}
	mid  = moment{"that the fault fired", fired, 1300 * time.Millisecond}
	// Up to here the fault would have passed.
	bites = moment{"that the fault bites", func(e run.Event) bool { return e.Type == run.FaultMeasured && e.Bit == run.BitYes }, 0}
	// Its meter has its baseline shortly before the fault.
	before = moment{"the fault's phase", func(e run.Event) bool { return e.Type == run.PhaseStarted && e.Phase == "fault" }, 700 * time.Millisecond}
)

// TestNoFaultThatIsUndonePasses: somebody on this host undoes a fault in the
// middle of its time, in one run for each family. No such run may pass, and
// each must say which fault it was, and that it is the fault who is in doubt.
func TestNoFaultThatIsUndonePasses(t *testing.T) {
	needs.Host(t, needs.Root)
	for _, tt := range []struct {
		name  string
		fault string
		lasts string // 2500ms if empty
		when  moment
		do    func(prey) error
		why   string // a regular expression of the reason
	}{
		{"network: no filters", "net.delay: {from: n1, to: n2, add: 30ms}", "", mid, prey.unfilter, "did not bite.* wanted 30ms"},
		{"network: no partition", "net.partition: {isolate: n3}", "", mid, prey.unfilter, "did not bite.* probes arrived"},
		{"network: no wire", "net.loss: {from: n1, to: n2, percent: 20%}", "", mid, func(p prey) error { return p.kill("_wire") }, "the testbed failed: the wire ended.*fault f1 net.loss"},
		{"cpu: no quota", "cpu.quota: {on: n1, percent: 5%, period: 50ms}", "", mid, func(p prey) error { return p.either("cpu.cfs_quota_us", "-1", "cpu.max", "max") }, "undone .*grants n1's cgroup no limit"},
		{"cpu: thawed", "cpu.quota: {on: n1, percent: 5%, period: 50ms, provider: freezer2}", "6s", mid, prey.thaw, "undone .*n1 used"},
		{"cpu: no burners", "cpu.steal: {on: n1, percent: 40%}", "", mid, func(p prey) error { return p.kill("_tenant") }, "did not bite"},
		{"cpu: no pin", "cpu.pin: {on: n1, cpus: '0'}", "", mid, func(p prey) error {
			all, err := os.ReadFile("/sys/devices/system/cpu/online")
			if err != nil {
				return err
			}
			return p.put("cpuset.cpus", string(bytes.TrimSpace(all)))
		}, "undone .*n1 may run on CPUs"},
		{"disk: not slow", "disk.delay: {on: n1, op: open, add: 20ms}", "", mid, prey.uncover, "undone .*n1's disk is "},
		{"disk: a tmpfs over it", "disk.delay: {on: n1, op: open, add: 20ms}", "4s", bites, prey.cover, "undone .*n1's disk is tmpfs"},
		{"disk: its file system aborted", "disk.delay: {on: n1, op: fsync, add: 5ms}", "4s", bites, prey.abort, "fault f1"},
		{"memory: no limit", "memory.limit: {on: n1, limit: 32MiB}", "5s", bites, func(p prey) error { return p.either("memory.limit_in_bytes", "-1", "memory.max", "max") }, "undone .*may hold what it wants"},
		{"memory: out of the limit's cgroup", "memory.limit: {on: n1, limit: 32MiB}", "5s", bites, prey.free, "undone .*has left n1's cgroup"},
		{"pause: thawed", "process.pause: {on: n1, length: 2s}", "", soon, func(p prey) error { return p.put("cgroup.freeze", "0") }, "did not bite: n1: 2s asked, no gap between pings of half of that"},
		{"gc: no more pauses", "gc.pause: {on: n1, length: 50ms, every: 200ms}", "5s", bites, prey.deafen, "undone .*n1 did not pause for"},
		{"gc: no more ballast", "gc.storm: {on: n1, heap: 32MiB}", "5s", bites, func(p prey) error { return p.tell("/fault/gcstorm", "{}") }, "undone .*more in memory than before"},
		{"process: does not die", "process.kill: {on: n1}", "", before, func(p prey) error {
			time.AfterFunc(4*time.Second, func() { _ = p.put("freezer.state", "THAWED") })
			return p.put("freezer.state", "FROZEN")
		}, "did not bite|was not measured|was not seen healed|no operation was open"},
		{"clock: right again", "clock.skew: {on: n1, add: 5s}", "", mid, func(p prey) error { return p.tell("/fault/clock", "{}") }, "did not bite.*TIME is off"},
		{"clock: started without an offset", "clock.offset: {on: n1, add: 1h}", "6s", mid, prey.respawn, "n1 ended by itself.*fault f1 .*undone .*off by 0s, not 1h"},
		{"neighbour: moved out", "neighbour.noisy: {on: n1, cpu: 40%}", "", mid, func(p prey) error { return p.kill("_tenant") }, "did not bite.*the tenant"},
		{"server: lock let go", "lock.hold: {on: n1, add: 20ms}", "", mid, func(p prey) error { return p.tell("/fault/lock", "{}") }, "did not bite"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			value, rate := "64B", 60
			if strings.HasPrefix(tt.name, "memory") { // its log has to fill the node's page cache, and not its heap
				value, rate = "64KiB", 200
			}
			res := sabotage(t, fmt.Sprintf(sabotaged, value, rate, cmp.Or(tt.lasts, "2500ms"), tt.fault), tt.when, tt.do)
			kind := regexp.MustCompile(`[a-z]+\.[a-z]+`).FindString(tt.fault)
			if !strings.Contains(res.Why, "f1 "+kind) || !regexp.MustCompile(tt.why).MatchString(res.Why) {
				t.Errorf("why = %q, want f1 %s and %q", res.Why, kind, tt.why)
			}
		})
	}
}

// TestNoWireThatCannotKeepUpPasses: the wire of a run is held up, or gets more
// than it can take, or ends. The run says so and is inconclusive, though the
// fault itself bites.
func TestNoWireThatCannotKeepUpPasses(t *testing.T) {
	needs.Host(t, needs.Root)
	const fault = "net.delay: {from: n1, to: n2, add: 30ms}"
	target := netip.AddrPortFrom(cluster.IP4(1), 9) // n2, where nobody listens
	for _, tt := range []struct {
		name   string
		fault  string
		expect string
		do     func(prey) error
		late   time.Duration // at p99, at least
		why    string        // a regular expression of the reason
	}{
		// Lateness matters to expectations about times only. What else spoils those may be told first.
		{"stopped for 200 ms", fault, "expect:\n  - p99 during net.delay < 10s\n", func(p prey) error {
			return p.stall(func() error { time.Sleep(200 * time.Millisecond); return nil })
		}, 100 * time.Millisecond, `testbed starved: |host too noisy: `},
		{"offered more than its queue has room for", fault, "expect:\n", func(p prey) error {
			return p.stall(func() error { return p.flood(target, 30_000) })
		}, 0, `testbed starved: the wire could not keep up and lost \d+ packets`},
		{"killed while another pair is cut", fault + "}\n    - {at: 1s, for: 2500ms, net.partition: {from: n2, to: n3}", "expect:\n", func(p prey) error {
			return p.kill("_wire")
		}, 0, "the testbed failed: the wire ended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario := strings.Replace(fmt.Sprintf(sabotaged, "64B", 60, "2500ms", tt.fault), "expect:\n", tt.expect, 1)
			res := sabotage(t, scenario, soon, tt.do)
			if !regexp.MustCompile(tt.why).MatchString(res.Why) {
				t.Errorf("why = %q, want %q", res.Why, tt.why)
			}
			if late := time.Duration(res.Wire.LatenessP99); late < tt.late {
				t.Errorf("the wire says that it was %v late at p99, not %v", late, tt.late)
			}
		})
	}
}

// sabotage runs a scenario, does something to it at a moment and returns its
// result, which must be inconclusive.
func sabotage(t *testing.T, scenario string, when moment, do func(prey) error) (res run.Result) {
	t.Helper()
	dir, file := writeScenario(t, scenario)
	cmd := cli(t.Context(), dir, "run", file, "--out", "r")
	var talk bytes.Buffer
	cmd.Stderr = &talk
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	p := prey{cmd, filepath.Join(dir, "r"), ended}
	found := p.await(when.shown)
	if found {
		time.Sleep(when.then)
		if err := do(p); err != nil {
			t.Errorf("sabotage: %v", err)
		}
	}
	<-ended
	if !found {
		t.Fatalf("nothing to undo: the run never showed %s\n%s", when.what, talk.String())
	}
	b, err := os.ReadFile(filepath.Join(dir, "r", run.ResultFile))
	if err == nil {
		err = json.Unmarshal(b, &res)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, talk.String())
	}
	t.Log(res.Why)
	if code := cmd.ProcessState.ExitCode(); code != 4 || res.Verdict != run.Inconclusive {
		t.Errorf("exit %d, verdict %s: %s\n%s", code, res.Verdict, res.Why, talk.String())
	}
	return res
}
