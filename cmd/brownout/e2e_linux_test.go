package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/run"
	"brownout/internal/trace"
)

const shortScenario = `version: 1
name: short
target: {kind: kvserver, nodes: 3}
workload:
  keys: {count: 30}
  value: 64B
  mix: {get: 50%, put: 40%, cas: 5%, append: 5%}
  load: {rate: 300/s, clients: 64}
  timeout: 1s
timeline:
  warmup: 500ms
  baseline: 2s
  faults:
    - {at: 0s, for: 2s, disk.delay: {on: leader, op: fsync, add: 20ms}}
  recovery: 2s
expect:
  - linearizable
  - no acknowledged write is lost
  - p50(put) during disk.delay > 10ms
seed: 3
`

// brownoutIn runs the CLI and returns its streams and exit code.
func brownoutIn(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := cli(t.Context(), dir, args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return out.String(), talk.String(), cmd.ProcessState.ExitCode()
}

func writeScenario(t *testing.T, text string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "scenario.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func TestRunEndsWithAVerdictThatCheckRepeats(t *testing.T) {
	needs.Host(t, needs.Root)
	before := hostFootprint(t)
	dir, file := writeScenario(t, shortScenario)
	stdout, stderr, code := brownoutIn(t, dir, "run", file, "--out", "r", "-o", "json")
	var res run.Result
	if err := json.Unmarshal([]byte(stdout), &res); err != nil {
		t.Fatalf("stdout is not a result: %v\n%s\n%s", err, stdout, stderr)
	}
	// A busy host may make it inconclusive; then it must say so, and of itself.
	switch {
	case code != res.ExitCode || code != res.Verdict.ExitCode():
		t.Errorf("exit %d, exit_code %d, verdict %s", code, res.ExitCode, res.Verdict)
	case res.Verdict == run.Pass:
	case res.Verdict == run.Inconclusive && (res.Host.Noise == "noisy" || res.Load.Verdict == "starved"):
		t.Logf("inconclusive: %s", res.Why)
	default:
		t.Errorf("verdict %s: %s\n%s", res.Verdict, res.Why, stderr)
	}
	if res.Consistency.Verdict != "ok" || res.Consistency.Ops < 500 {
		t.Errorf("consistency = %s over %d ops", res.Consistency.Verdict, res.Consistency.Ops)
	}
	if len(res.Faults) != 1 || res.Faults[0].Bit != run.BitYes || res.Faults[0].Healed != run.HealedYes {
		t.Errorf("faults = %+v", res.Faults)
	}
	again, _, codeAgain := brownoutIn(t, dir, "check", "./r", "-o", "json")
	var c run.Consistency
	if err := json.Unmarshal([]byte(again), &c); err != nil || codeAgain != code || c.Ops != res.Consistency.Ops {
		t.Errorf("check: exit %d, %v, %+v; want exit %d and the same consistency", codeAgain, err, c, code)
	}
	if left := awaitClean(t, before, 2*time.Second); len(left) > 0 {
		t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
	traceExplains(t, dir, "./r", res.Verdict == run.Pass)
}

// traceExplains looks at what the stages say of a run of [shortScenario]; where the
// host was busy its times are not compared with each other.
func traceExplains(t *testing.T, dir, name string, quiet bool) {
	t.Helper()
	stdout, stderr, code := brownoutIn(t, dir, "trace", name, "-o", "json")
	var got struct{ Summary []trace.Summary }
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 {
		t.Fatalf("trace: exit %d, %v\n%s", code, err, stderr)
	}
	slower := 0
	for _, s := range got.Summary {
		if s.Explained < 0.95 {
			t.Errorf("%s in %s: %.1f %% of the median response time explained, want 95", s.Class, s.Phase, 100*s.Explained)
		}
		if s.Class != trace.Writes || s.Phase != "fault f1 disk.delay" {
			continue
		}
		slower++
		switch inc := s.Increase; {
		case !quiet:
			t.Logf("on a busy host: %+v", inc)
		case inc == nil:
			t.Errorf("writes took no longer with a slow disk: %+v", s)
		case inc.Explained < 0.9 || inc.NS < 10e6:
			t.Errorf("%.1f %% of an increase of %.1f ms explained, want 90 of 10 or more", 100*inc.Explained, inc.NS/1e6)
		case inc.Stages[0].Stage != "leader's log: fsync" && inc.Stages[0].Stage != "proposal queue":
			t.Errorf("most of the increase is in %s, want the leader's fsync or the queue before it", inc.Stages[0].Stage)
		}
	}
	if slower != 1 {
		t.Errorf("%d summaries of writes while the disk was slow", slower)
	}
	out, stderr, code := brownoutIn(t, dir, "trace", name, "--slowest", "1", "--during", "disk.delay", "--kind", "put")
	for _, words := range []string{"that was a quorum, 2 of 3", "fsync", "in fault with f1 disk.delay"} {
		if !strings.Contains(out, words) {
			t.Errorf("trace --slowest: exit %d, the story lacks %q:\n%s%s", code, words, out, stderr)
		}
	}
}

// TestARefusedDirectoryKeepsTheRunInIt names the directory of an older run.
func TestARefusedDirectoryKeepsTheRunInIt(t *testing.T) {
	dir, file := writeScenario(t, shortScenario)
	old := filepath.Join(dir, "old")
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{run.ManifestFile, run.HistoryFile, run.ResultFile} {
		if err := os.WriteFile(filepath.Join(old, name), []byte("{}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, code := brownoutIn(t, dir, "run", file, "--out", "old")
	if want := map[bool]int{true: 2, false: 5}[os.Geteuid() == 0]; code != want || stdout != "" {
		t.Errorf("exit %d, want %d\n%s%s", code, want, stdout, stderr)
	}
	if b, err := os.ReadFile(filepath.Join(old, run.ResultFile)); err != nil || string(b) != "{}\n" {
		t.Errorf("the old result is %q now, %v", b, err)
	}
}

// TestInterruptHealsAndWrites sends the signal in the middle of the fault.
func TestInterruptHealsAndWrites(t *testing.T) {
	needs.Host(t, needs.Root)
	before := hostFootprint(t)
	dir, file := writeScenario(t, shortScenario)
	cmd := cli(t.Context(), dir, "run", file, "--out", "r")
	var talk bytes.Buffer
	cmd.Stderr = &talk
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(3500*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGINT) })
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d, want 130\n%s", code, talk.String())
	}
	b, err := os.ReadFile(filepath.Join(dir, "r", run.ResultFile))
	var res run.Result
	if err == nil {
		err = json.Unmarshal(b, &res)
	}
	if err != nil || res.Verdict != run.Inconclusive || !strings.Contains(res.Why, "interrupted") {
		t.Errorf("result = %s %q, %v; want inconclusive, interrupted", res.Verdict, res.Why, err)
	}
	if res.Consistency.Ops == 0 {
		t.Error("the operations before the interrupt were lost")
	}
	if left := awaitClean(t, before, 2*time.Second); len(left) > 0 {
		t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
}

func TestUpServesRedisClientsUntilDown(t *testing.T) {
	needs.Host(t, needs.Root)
	before := hostFootprint(t)
	dir := t.TempDir()
	stdout, stderr, code := brownoutIn(t, dir, "up", "-o", "json")
	if code != 0 {
		t.Fatalf("up: exit %d\n%s", code, stderr)
	}
	t.Cleanup(func() { _ = cli(t.Context(), dir, "down").Run() })
	var info struct {
		ID    string
		Nodes []struct{ Name, Role string }
	}
	if err := json.Unmarshal([]byte(stdout), &info); err != nil || len(info.Nodes) != 3 {
		t.Fatalf("up says %s, %v", stdout, err)
	}
	id, stderr, code := brownoutIn(t, dir, "fault", "add", "net.delay", "from=leader", "to=followers", "add=5ms")
	if code != 0 {
		t.Errorf("fault add: exit %d %s", code, stderr)
	}
	if out, stderr, code := brownoutIn(t, dir, "fault", "ls"); code != 0 || !strings.Contains(out, "net.delay") {
		t.Errorf("fault ls: exit %d %q %s", code, out, stderr)
	}
	if out, stderr, code := brownoutIn(t, dir, "trace", "--live", "SET key1 'value 1'"); code != 0 ||
		!strings.Contains(out, "that was a quorum, 2 of 3") || !strings.Contains(out, "in h1 net.delay") || strings.Contains(out, "nobody noted") {
		t.Errorf("trace --live: exit %d\n%s%s", code, out, stderr)
	}
	if out, stderr, code := brownoutIn(t, dir, "trace", "--live", "GET key1", "-o", "json"); code != 0 || !strings.Contains(out, "confirm leadership") || !strings.Contains(stderr, `"value 1"`) {
		t.Errorf("trace --live of a read: exit %d\n%s%s", code, out, stderr)
	}
	if _, stderr, code := brownoutIn(t, dir, "trace", "--live", "PING"); code != 2 || !strings.Contains(stderr, "CAS key old new") {
		t.Errorf("trace --live PING: exit %d %s", code, stderr)
	}
	if _, stderr, code := brownoutIn(t, dir, "fault", "rm", strings.TrimSpace(id)); code != 0 {
		t.Errorf("fault rm: exit %d %s", code, stderr)
	}
	if out, stderr, code := brownoutIn(t, dir, "enter", "n2", "--", "/bin/hostname"); code != 0 || strings.TrimSpace(out) != "n2" {
		t.Errorf("enter n2: exit %d %q %s", code, out, stderr)
	}
	if _, _, code := brownoutIn(t, dir, "enter", "n2", "--", "/bin/sh", "-c", "exit 7"); code != 7 {
		t.Errorf("enter passes on exit %d, want 7", code)
	}
	if _, stderr, code := brownoutIn(t, dir, "down"); code != 0 {
		t.Errorf("down: exit %d %s", code, stderr)
	}
	if left := awaitClean(t, before, 2*time.Second); len(left) > 0 {
		t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
}

// TestTheCacheIsAPlaceOfAStandingCluster: what looks into nodes and measures
// links knows the box beside them, too.
func TestTheCacheIsAPlaceOfAStandingCluster(t *testing.T) {
	needs.Host(t, needs.Root)
	before := hostFootprint(t)
	dir := t.TempDir()
	if _, stderr, code := brownoutIn(t, dir, "up", "downstream-slow", "-o", "json"); code != 0 {
		t.Fatalf("up: exit %d\n%s", code, stderr)
	}
	t.Cleanup(func() { _ = cli(t.Context(), dir, "down").Run() })
	if out, stderr, code := brownoutIn(t, dir, "enter", "cache", "--", "/bin/hostname"); code != 0 || strings.TrimSpace(out) != "cache" {
		t.Errorf("enter cache: exit %d %q %s", code, out, stderr)
	}
	if _, stderr, code := brownoutIn(t, dir, "fault", "add", "net.delay", "from=n2", "to=cache", "add=20ms"); code != 0 {
		t.Errorf("fault add: exit %d %s", code, stderr)
	}
	out, stderr, code := brownoutIn(t, dir, "probe", "n2", "cache", "--for", "500ms", "--goodput", "0s", "-o", "json")
	var paths []struct {
		From string `json:"from"`
		To   string `json:"to"`
		Sent int    `json:"sent"`
		Lost int    `json:"lost"`
		Min  int64  `json:"min_ns"`
	}
	if err := json.Unmarshal([]byte(out), &paths); err != nil || code != 0 || len(paths) != 2 {
		t.Fatalf("probe n2 cache: exit %d %s %s", code, out, stderr)
	}
	for _, p := range paths {
		if p.Sent == 0 || p.Lost == p.Sent {
			t.Errorf("%s to %s: %d of %d probes lost", p.From, p.To, p.Lost, p.Sent)
		}
		if slow := p.Min >= (20 * time.Millisecond).Nanoseconds(); slow != (p.To == "cache") {
			t.Errorf("%s to %s takes %v at least; only the way to the cache has 20ms", p.From, p.To, time.Duration(p.Min))
		}
	}
	file := filepath.Join(dir, "x.pcapng")
	capture := cli(t.Context(), dir, "pcap", "n2-cache", "-o", file, "--for", "2s")
	var talk strings.Builder
	capture.Stderr = &talk
	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := brownoutIn(t, dir, "probe", "cache", "n2", "--for", "1s", "--goodput", "0s"); code != 0 {
		t.Errorf("probe cache n2: exit %d %s", code, stderr)
	}
	if err := capture.Wait(); err != nil || strings.HasPrefix(talk.String(), "0 frames") {
		t.Errorf("pcap n2-cache: %v %s", err, talk.String())
	}
	if _, stderr, code := brownoutIn(t, dir, "probe", "n2", "cash"); code != 2 || !strings.Contains(stderr, "n1, n2, n3, cache and client") {
		t.Errorf("probe n2 cash: exit %d %s", code, stderr)
	}
	if _, stderr, code := brownoutIn(t, dir, "down"); code != 0 {
		t.Errorf("down: exit %d %s", code, stderr)
	}
	if left := awaitClean(t, before, 2*time.Second); len(left) > 0 {
		t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
}
