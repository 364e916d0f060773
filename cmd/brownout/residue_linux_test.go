package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/seed"
)

// cli returns a command that is brownout, which this test binary is when it is
// called so (see TestMain).
func cli(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = "brownout"
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "TMPDIR="+dir)
	return cmd
}

// A footprint is everything on the host that a run could leave behind.
type footprint map[string]bool

// ours tells names of brownout's from those of whoever else uses the host.
func ours(name string) bool {
	return strings.Contains(name, "bo-") || strings.Contains(name, "brownout") || strings.Contains(name, "slowfs")
}

// another reports whether a name or an environment belongs to a run whose
// supervisor is alive: somebody else's, on a host that several use. What a dead
// supervisor left counts, whoever's it was.
func another(text string) bool {
	for _, m := range owner.FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat("/proc/" + m[1]); err == nil {
			return true
		}
	}
	return false
}

var owner = regexp.MustCompile(`bo-[a-z0-9]+-([0-9]+)-[0-9]+`)

// hostFootprint looks for itself: it uses nothing of the code under test.
func hostFootprint(t *testing.T) footprint {
	t.Helper()
	f := footprint{}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		exe, _ := os.Readlink(p + "/exe")
		environ, _ := os.ReadFile(p + "/environ")
		mine := exe == self || bytes.Contains(environ, []byte("BROWNOUT_RUN="))
		if p == fmt.Sprintf("/proc/%d", os.Getpid()) || !mine || another(string(environ)) {
			continue
		}
		cmdline, _ := os.ReadFile(p + "/cmdline")
		f["process "+p[6:]+" "+strings.ReplaceAll(string(cmdline), "\x00", " ")] = true
		for _, ns := range []string{"net", "mnt", "pid", "uts", "ipc"} {
			if to, err := os.Readlink(p + "/ns/" + ns); err == nil {
				f["namespace "+to] = true
			}
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		f["link "+l.Name] = true
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if words := strings.Fields(line); len(words) > 4 {
			f["mount "+words[4]] = true
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && ours(path) && !another(path) {
			f["cgroup "+path] = true
		}
		return nil
	})
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		b, _ := os.ReadFile(l)
		f["loop "+l+" "+strings.TrimSpace(string(b))] = true
	}
	for _, dir := range []string{"/run", "/dev/shm", "/tmp", "/var/tmp", "/var/lib", "/etc"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if ours(e.Name()) && dir != "/tmp" || dir == "/tmp" && strings.Contains(e.Name(), "brownout") {
				f["file "+filepath.Join(dir, e.Name())] = true
			}
		}
	}
	return f
}

// since returns what is there now and was not before.
func (f footprint) since(before footprint) []string {
	var out []string
	for k := range f {
		if !before[k] {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// awaitClean polls until nothing is left but what was there before.
func awaitClean(t *testing.T, before footprint, within time.Duration) []string {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		left := hostFootprint(t).since(before)
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const killedScenario = `version: 1
name: killed
target: {kind: kvserver, nodes: 3}
workload:
  keys: {count: 20}
  value: 64B
  mix: {get: 50%, put: 50%}
  load: {rate: 200/s, clients: 8}
  timeout: 1s
timeline:
  warmup: 200ms
  baseline: 600ms
  faults:
    - {at: 0s, for: 2s, disk.delay: {on: leader, op: fsync, add: 2ms}}
    - {at: 0s, for: 2s, net.delay: {from: leader, to: followers, add: 2ms}}
    - {at: 0s, for: 2s, cpu.quota: {on: one follower, percent: 20%}}
    - {at: 100ms, for: 2s, process.pause: {on: one follower, length: 300ms, every: 400ms}}
    - {at: 0s, for: 2s, cpu.steal: {on: one follower, percent: 30%}}
    - {at: 0s, for: 2s, neighbour.noisy: {on: leader, cpu: 20%, net: 1Mbit/s, disk: 1MiB/s, memory: 8MiB}}
    - {at: 0s, for: 1500ms, memory.pressure: {on: one follower, limit: 4MiB, rate: 8MiB/s}}
    - {at: 200ms, for: 1s, memory.stall: {on: one follower, length: 200ms, every: 400ms}}
  recovery: 500ms
expect: [linearizable]
`

// TestKilledAtAnyInstantLeavesNothing kills brownout itself, not its cluster
// package, at random instants of a run with faults of every mechanism.
func TestKilledAtAnyInstantLeavesNothing(t *testing.T) {
	needs.Host(t, needs.Root)
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "killed.yaml")
	if err := os.WriteFile(file, []byte(killedScenario), 0o644); err != nil {
		t.Fatal(err)
	}
	const seedOfInstants = 1
	t.Logf("seed of the instants: %d", seedOfInstants)
	instants := seed.Stream(seedOfInstants, "kill instants")
	before := hostFootprint(t)
	for i := range rounds {
		// Most of the state is made and unmade in the first second and around the faults.
		at := time.Duration(instants.Uint64() % uint64(2500*time.Millisecond))
		var talk bytes.Buffer
		cmd := cli(t.Context(), dir, "run", file, "--out", filepath.Join(dir, fmt.Sprint("r", i)))
		cmd.Stdout, cmd.Stderr = &talk, &talk
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(at, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		_ = cmd.Wait()
		timer.Stop()
		if left := awaitClean(t, before, 5*time.Second); len(left) > 0 {
			t.Errorf("round %d, killed after %v: left behind:\n  %s\nit had said:\n%s", i, at, strings.Join(left, "\n  "), talk.String())
			out, err := cli(t.Context(), dir, "clean").CombinedOutput()
			t.Logf("brownout clean: %v\n%s", err, out)
			if left := awaitClean(t, before, 2*time.Second); len(left) > 0 {
				t.Fatalf("and brownout clean did not find:\n  %s", strings.Join(left, "\n  "))
			}
		}
	}
}

const hungScenario = `version: 1
name: hung
target: {kind: kvserver, nodes: 3}
workload:
  keys: {count: 20}
  value: 64B
  mix: {get: 50%, put: 50%}
  load: {rate: 200/s, clients: 8}
  timeout: 500ms
timeline:
  warmup: 200ms
  baseline: 600ms
  faults:
    - {at: 0s, for: 60s, disk.hang: {on: leader, op: all}}
  recovery: 300ms
expect: [linearizable]
`

// TestKilledDuringAHangLeavesNothing kills brownout when the disk of the node
// that writes most answers nothing any more.
func TestKilledDuringAHangLeavesNothing(t *testing.T) {
	needs.Host(t, needs.Root)
	dir := t.TempDir()
	file, out := filepath.Join(dir, "hung.yaml"), filepath.Join(dir, "out")
	if err := os.WriteFile(file, []byte(hungScenario), 0o644); err != nil {
		t.Fatal(err)
	}
	before := hostFootprint(t)
	var talk bytes.Buffer
	cmd := cli(t.Context(), dir, "run", file, "--out", out)
	cmd.Stdout, cmd.Stderr = &talk, &talk
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	hung := awaitEvent(ended, filepath.Join(out, "events.jsonl"), `"fault.measured"`)
	_ = cmd.Process.Signal(syscall.SIGKILL)
	<-ended
	if !hung {
		t.Fatalf("the disk did not hang; it had said:\n%s", talk.String())
	}
	if left := awaitClean(t, before, 5*time.Second); len(left) > 0 {
		t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		said, err := cli(t.Context(), dir, "clean").CombinedOutput()
		t.Logf("brownout clean: %v\n%s", err, said)
	}
}

// awaitEvent says whether a file came to hold a word before ended was closed.
func awaitEvent(ended <-chan struct{}, file, word string) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(file); err == nil && bytes.Contains(b, []byte(word)) {
			return true
		}
		select {
		case <-ended:
			return false
		case <-tick.C:
		}
	}
}
