package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"brownout/internal/faultfs"
	"brownout/internal/needs"
	"brownout/internal/run"
	"brownout/internal/seed"
	"brownout/internal/undo"
)

// supervisorMain brings clusters up and down below a directory until it is killed.
func supervisorMain(args []string) int {
	dir, disk := args[0], args[1]
	if disk == "stuck" {
		fmt.Println(stick(dir))
		return 1
	}
	for i := 0; ; i++ {
		fmt.Println("begin")
		if err := supervise(filepath.Join(dir, strconv.Itoa(i)), disk); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("end")
	}
}

func supervise(dir, disk string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	j, err := undo.Create(filepath.Join(dir, run.CleanupFile), undo.Revert)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := Up(ctx, Config{ID: "crash", Dir: dir, Nodes: 3, Target: testTarget{}, Journal: j, Disk: disk})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
	if err := c.Down(ctx); err != nil {
		return err
	}
	return j.Unwind()
}

// stick holds a cluster in the states that are the hardest to clean up: a target
// inside an operation of a disk that does not answer, and targets that are frozen.
func stick(dir string) error {
	j, err := undo.Create(filepath.Join(dir, run.CleanupFile), undo.Revert)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := Up(ctx, Config{ID: "crash", Dir: dir, Nodes: 3, Target: testTarget{}, Journal: j})
	if err != nil {
		return err
	}
	if err := c.Switch().Prepare(ctx); err != nil {
		return err
	}
	n := c.Nodes()
	ours, err := os.Create(filepath.Join(n[0].Data(), "ours"))
	if err != nil {
		return err
	}
	if err := n[0].SetDisk(ctx, faultfs.Rules{Hang: []faultfs.Op{faultfs.All}}); err != nil {
		return err
	}
	go func() { _, _ = ask(ctx, n[0], "write k v") }()
	for {
		if st, err := n[0].DiskStats(ctx); err != nil || st.Waiting > 0 {
			break
		}
	}
	// And we are in one ourselves, as a probe of the disk is.
	go func() { _ = ours.Sync() }()
	for {
		if st, err := n[0].DiskStats(ctx); err != nil || st.Waiting > 1 {
			break
		}
	}
	for i, version := range []int{1, 2} {
		f, err := n[i+1].Group().Freezer(version)
		if err == nil {
			err = f.Freeze(ctx)
		}
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	fmt.Println("stuck")
	<-ctx.Done()
	return ctx.Err()
}

// A victim is a supervisor to be killed.
type victim struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func startVictim(t *testing.T, how string) *victim {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "_supervisor", t.TempDir(), how)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &victim{cmd: cmd, out: bufio.NewReader(out)}
}

func (v *victim) expect(t *testing.T, want string) {
	t.Helper()
	line, err := v.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		t.Fatalf("supervisor says %q (%v), want %q", line, err, want)
	}
}

// kill is kill -9 of the supervisor's whole process group, as a shell or a
// timeout command does it.
func (v *victim) kill() {
	_ = syscall.Kill(-v.cmd.Process.Pid, syscall.SIGKILL)
	_ = v.cmd.Wait()
}

// traces lists whatever a supervisor that is dead still has on this host.
func traces(pid int) []string {
	var found []string
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		env, _ := os.ReadFile("/proc/" + d.Name() + "/environ")
		if bytes.Contains(env, fmt.Appendf(nil, "-%d-", pid)) && bytes.Contains(env, []byte(undo.RunEnv)) {
			cmd, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
			found = append(found, fmt.Sprintf("process %s %q", d.Name(), cmd))
		}
	}
	for _, at := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} { // v2 alone, and v1
		groups, _ := filepath.Glob(fmt.Sprintf("%s/bo-crash-%d-*", at, pid))
		found = append(found, groups...)
	}
	return found
}

// hostView is what the host shows of links, mounts and loops that could be ours.
func hostView() []string {
	var view []string
	links, _ := net.Interfaces()
	for _, l := range links {
		view = append(view, "link "+l.Name)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.Contains(f[4], "TestKill") || strings.Contains(line, "slowfs") || strings.Contains(line, "net:[") {
			view = append(view, line)
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	return append(view, loops...)
}

func TestKilledSupervisorLeavesNothing(t *testing.T) {
	needs.Host(t, needs.Root)
	before := hostView()
	v := startVictim(t, DiskSlowFS)
	v.expect(t, "begin")
	began := time.Now()
	v.expect(t, "end")
	v.expect(t, "begin")
	v.expect(t, "end")
	whole := time.Since(began) / 2
	v.kill()
	rounds := 60
	if testing.Short() {
		rounds = 6
	}
	rng := seed.Stream(uint64(time.Now().UnixNano()), "kill")
	var slowest time.Duration
	for i := range rounds {
		v := startVictim(t, DiskSlowFS)
		v.expect(t, "begin")
		at := time.Duration(rng.Uint64() % uint64(whole+whole/4))
		<-time.After(at)
		v.kill()
		killed := time.Now()
		left := awaitNoTraces(v.cmd.Process.Pid)
		slowest = max(slowest, time.Since(killed))
		if len(left) > 0 {
			t.Fatalf("round %d: killed %v after its begin, left behind:\n%s", i, at, strings.Join(left, "\n"))
		}
	}
	t.Logf("%d kills within %v of an up, hold and down: all traces gone after at most %v", rounds, whole+whole/4, slowest)
	if after := hostView(); !slices.Equal(before, after) {
		t.Errorf("the host showed\n%s\nand shows\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	found, err := undo.Find(t.Context(), false)
	for _, r := range found {
		if strings.Contains(r.Run, "-crash-") {
			t.Errorf("Find: %+v, %v", r, err)
		}
	}
}

// awaitNoTraces waits until nothing is left of a killed supervisor.
func awaitNoTraces(pid int) (left []string) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); ; <-tick.C {
		if left = traces(pid); len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

func TestSupervisorKilledDuringFaultsLeavesNothing(t *testing.T) {
	needs.Host(t, needs.Root)
	v := startVictim(t, "stuck")
	v.expect(t, "stuck")
	if len(traces(v.cmd.Process.Pid)) == 0 {
		t.Error("there is nothing to leave behind")
	}
	v.kill()
	killed := time.Now()
	if left := awaitNoTraces(v.cmd.Process.Pid); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	t.Logf("all traces gone after %v", time.Since(killed))
}

// TestAHangWithoutEndGoesWithTheCluster: nobody heals the disk, and a process
// of the node is inside an operation of it.
func TestAHangWithoutEndGoesWithTheCluster(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	cfg, _ := testConfig(t, 1, testTarget{})
	c, err := Up(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := c.Nodes()[0]
	if err := n.SetDisk(ctx, faultfs.Rules{Hang: []faultfs.Op{faultfs.All}}); err != nil {
		t.Error(err)
	}
	go func() { _, _ = ask(ctx, n, "write k v") }()
	for {
		st, err := n.DiskStats(ctx)
		if err != nil {
			t.Fatal(errors.Join(err, c.Down(ctx)))
		}
		if st.Waiting > 0 {
			break
		}
	}
	pids, err := n.Pids()
	if err != nil || len(pids) == 0 {
		t.Errorf("Pids = %v, %v", pids, err)
	}
	began := time.Now()
	down(t, c)
	t.Logf("down after %v", time.Since(began))
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d of the node is still there: %v", pid, err)
		}
	}
	if got := leftovers(t, cfg.ID); len(got) != 0 {
		t.Errorf("left behind: %+v", got)
	}
}

func TestKillOfSupervisorAndReaperIsSwept(t *testing.T) {
	needs.Host(t, needs.Root)
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	rng := seed.Stream(uint64(time.Now().UnixNano()), "kill")
	swept := 0
	for range rounds {
		v := startVictim(t, DiskSlowFS)
		v.expect(t, "begin")
		<-time.After(30*time.Millisecond + time.Duration(rng.Uint64()%uint64(60*time.Millisecond)))
		pid := v.cmd.Process.Pid
		_ = syscall.Kill(pid, syscall.SIGSTOP) // so that it starts no other reaper meanwhile
		if reaper := reaperOf(pid); reaper != 0 {
			_ = syscall.Kill(reaper, syscall.SIGKILL)
		}
		v.kill()
		found, err := undo.Sweep(t.Context(), false)
		if err != nil {
			t.Errorf("sweep: %v", err)
		}
		for _, r := range found {
			if strings.Contains(r.Name, fmt.Sprintf("-%d-", pid)) {
				swept++
			}
		}
		if left := traces(pid); len(left) > 0 {
			t.Errorf("after the sweep: %s", strings.Join(left, "\n"))
		}
	}
	if swept == 0 {
		t.Errorf("no kill left anything to sweep in %d rounds: the test kills at the wrong time", rounds)
	}
	t.Logf("%d of %d kills left cgroups; all swept", swept, rounds)
}

func reaperOf(pid int) int {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		cmd, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if argv := strings.Split(string(cmd), "\x00"); len(argv) > 2 && argv[1] == "_reaper" && strings.Contains(argv[2], fmt.Sprintf("-%d-", pid)) {
			n, _ := strconv.Atoi(d.Name())
			return n
		}
	}
	return 0
}

func TestSweepSparesTheLiving(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	cfg, _ := testConfig(t, 1, testTarget{})
	c := up(t, cfg)
	if _, err := undo.Sweep(ctx, false); err != nil {
		t.Errorf("sweep: %v", err)
	}
	if got, err := ask(ctx, c.Nodes()[0], "status"); err != nil || got != "ready" {
		t.Errorf("after a sweep the node is %q, %v", got, err)
	}
	if got := leftovers(t, cfg.ID); len(got) == 0 {
		t.Error("Find with all does not see the live cluster")
	}
}
