package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/run"
)

// sabotaged expects nothing of times, so that only the fault can make it
// inconclusive, however busy the host is.
const sabotaged = `version: 1
name: sabotaged
target: {kind: kvserver, nodes: 3}
workload:
  keys: {count: 20}
  value: 64B
  mix: {get: 50%%, put: 50%%}
  load: {rate: 60/s, clients: 6}
  timeout: 1s
timeline:
  warmup: 200ms
  baseline: 1s
  faults:
    - {at: 1s, for: 2500ms, %s}
  recovery: 500ms
expect:
  - linearizable
  - no acknowledged write is lost
seed: 5
`

// TestNoFaultThatIsUndonePasses: somebody on this host undoes a fault in the
// middle of its time, in one run for each family. No such run may pass, and
// each must say which fault it was, and that it is the fault who is in doubt.
func TestNoFaultThatIsUndonePasses(t *testing.T) {
	needs.Host(t, needs.Root)
	const mid = 1300 * time.Millisecond
	for _, tt := range []struct {
		name   string
		fault  string
		before bool          // the fault; else
		after  time.Duration // it has begun
		do     func(prey) error
		why    string // a regular expression of the reason
	}{
		{"network: no filters", "net.delay: {from: n1, to: n2, add: 30ms}", false, mid, prey.unfilter, "did not bite.* wanted 30ms"},
		{"network: no partition", "net.partition: {isolate: n3}", false, mid, prey.unfilter, "did not bite.* probes arrived"},
		{"network: no wire", "net.loss: {from: n1, to: n2, percent: 20%}", false, mid, func(p prey) error { return p.kill("_wire") }, "the testbed failed: the wire ended.*fault f1 net.loss"},
		{"cpu: no quota", "cpu.quota: {on: n1, percent: 5%, period: 50ms}", false, mid, func(p prey) error { return p.either("cpu.cfs_quota_us", "-1", "cpu.max", "max") }, "undone .*grants n1's cgroup no limit"},
		{"cpu: no burners", "cpu.steal: {on: n1, percent: 40%}", false, mid, func(p prey) error { return p.kill("_tenant") }, "did not bite"},
		{"cpu: no pin", "cpu.pin: {on: n1, cpus: '0'}", false, mid, func(p prey) error {
			all, err := os.ReadFile("/sys/devices/system/cpu/online")
			if err != nil {
				return err
			}
			return p.put("cpuset.cpus", string(bytes.TrimSpace(all)))
		}, "undone .*n1 may run on CPUs"},
		{"disk: not slow", "disk.delay: {on: n1, op: open, add: 20ms}", false, mid, prey.uncover, "did not bite"},
		{"memory: no limit", "memory.limit: {on: n1, limit: 16MiB}", false, mid, func(p prey) error { return p.either("memory.limit_in_bytes", "-1", "memory.max", "max") }, "undone .*may hold what it wants"},
		{"pause: thawed", "process.pause: {on: n1, length: 2s}", false, 500 * time.Millisecond, func(p prey) error { return p.put("cgroup.freeze", "0") }, "did not bite: n1: 2s asked, no gap between pings of half of that"},
		{"process: does not die", "process.kill: {on: n1}", true, 0, func(p prey) error {
			time.AfterFunc(4*time.Second, func() { _ = p.put("freezer.state", "THAWED") })
			return p.put("freezer.state", "FROZEN")
		}, "did not bite|was not measured|was not seen healed|no operation was open"},
		{"clock: right again", "clock.skew: {on: n1, add: 5s}", false, mid, func(p prey) error { return p.tell("/fault/clock", "{}") }, "did not bite.*TIME is off"},
		{"neighbour: moved out", "neighbour.noisy: {on: n1, cpu: 40%}", false, mid, func(p prey) error { return p.kill("_tenant") }, "did not bite.*the tenant"},
		{"server: lock let go", "lock.hold: {on: n1, add: 20ms}", false, mid, func(p prey) error { return p.tell("/fault/lock", "{}") }, "did not bite"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, file := writeScenario(t, fmt.Sprintf(sabotaged, tt.fault))
			cmd := cli(t.Context(), dir, "run", file, "--out", "r")
			var talk bytes.Buffer
			cmd.Stderr = &talk
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = cmd.Wait(); close(ended) }()
			p := prey{cmd, filepath.Join(dir, "r")}
			found := p.await(t, ended, func(e run.Event) bool {
				if tt.before {
					return e.Type == run.PhaseStarted && e.Phase == "fault"
				}
				return e.Type == run.FaultFired
			})
			if found {
				if tt.before { // its meter has its baseline shortly before the fault
					time.Sleep(700 * time.Millisecond)
				}
				time.Sleep(tt.after)
				if err := tt.do(p); err != nil {
					t.Errorf("sabotage: %v", err)
				}
			}
			<-ended
			if !found {
				t.Fatalf("the fault never fired\n%s", talk.String())
			}
			b, err := os.ReadFile(filepath.Join(dir, "r", run.ResultFile))
			var res run.Result
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
			kind, _, _ := strings.Cut(tt.fault, ":")
			if !strings.Contains(res.Why, "f1 "+kind) || !regexp.MustCompile(tt.why).MatchString(res.Why) {
				t.Errorf("why = %q, want f1 %s and %q", res.Why, kind, tt.why)
			}
		})
	}
}
