package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/needs"
	"brownout/internal/run"
)

// stopWithin is how soon after an operation has returned with which a violation
// can be seen the run begins to stop.
const stopWithin = 100 * time.Millisecond

// TestAViolationStopsTheRun and, without a terminal, its nodes with it.
func TestAViolationStopsTheRun(t *testing.T) {
	needs.Host(t, needs.Root)
	stdout, stderr, code := brownoutIn(t, t.TempDir(), "run", "bug-stale-follower-read", "--out", "r", "-o", "json", "--keep")
	var res run.Result
	if err := json.Unmarshal([]byte(stdout), &res); err != nil {
		t.Fatalf("stdout is not a result: %v\n%s\n%s", err, stdout, stderr)
	}
	if code != run.Violation.ExitCode() || res.Verdict != run.Violation || res.Stopped == nil {
		t.Fatalf("exit %d, %s, stopped %+v: %s\n%s", code, res.Verdict, res.Stopped, res.Why, stderr)
	}
	if d := time.Duration(res.Stopped.StoppedIn); d <= 0 || d > stopWithin {
		t.Errorf("stopped %v after operation %d returned, want at most %v", d, res.Stopped.Op, stopWithin)
	}
	t.Logf("stopped %v after the return, found %v after it", time.Duration(res.Stopped.StoppedIn), time.Duration(res.Stopped.Found))
	if res.Durability.Verdict == "unknown" {
		t.Errorf("no final reads: %s", res.Durability.Why)
	}
	if !strings.Contains(stderr, "no terminal") {
		t.Errorf("nothing is said of --keep without a terminal:\n%s", stderr)
	}
}

// TestKeepHoldsTheNodes at a terminal, until they are taken down.
func TestKeepHoldsTheNodes(t *testing.T) {
	needs.Host(t, needs.Root)
	before := hostFootprint(t)
	dir := t.TempDir()
	cmd := cli(t.Context(), dir, "run", "bug-stale-follower-read", "--out", "r", "--keep")
	cmd.Env = append(cmd.Environ(), "CI=")
	cmd.Stdin = terminal(t)
	var out bytes.Buffer
	cmd.Stdout = &out
	talk, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(talk)
	for lines.Scan() && !strings.Contains(lines.Text(), "brownout down") {
	}
	id := ""
	if m, err := run.ReadManifest(os.DirFS(filepath.Join(dir, "r"))); err == nil {
		id = shortID(m.Run)
	}
	if stdout, stderr, code := brownoutIn(t, dir, "enter", "-c", id, "n2", "--", "hostname"); code != 0 || stdout != "n2\n" {
		t.Errorf("enter n2: exit %d, %q\n%s", code, stdout, stderr)
	}
	if _, stderr, code := brownoutIn(t, dir, "down", "-c", id); code != 0 {
		t.Errorf("down: exit %d\n%s", code, stderr)
	}
	for lines.Scan() {
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != run.Violation.ExitCode() || !strings.HasPrefix(out.String(), "VIOLATION") {
		t.Errorf("exit %d\n%s", code, out.String())
	}
	res, err := run.ReadResult(os.DirFS(filepath.Join(dir, "r")))
	if err != nil || res.Verdict != run.Violation || len(res.Cleanup.Residue) > 0 {
		t.Errorf("result %s, residue %v, %v", res.Verdict, res.Cleanup.Residue, err)
	}
	if left := awaitClean(t, before, 2*time.Second); len(left) > 0 {
		t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
}

// terminal returns the slave of a new pseudo-terminal.
func terminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here:", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return slave
}
