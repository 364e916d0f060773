package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/needs"
	"brownout/internal/sys/proc"
)

var sink int

// Helper processes of the tests below.
func TestMain(m *testing.M) {
	if os.Getenv("BROWNOUT_TEST_CHILD") != "" {
		// Not before it has been moved to its group: what it starts must be born there.
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
	switch os.Getenv("BROWNOUT_TEST_CHILD") {
	case "spin": // until killed
		fmt.Println("ready")
		for n := 0; ; n++ {
			sink = n
		}
	case "tick": // prints the gap of a 1 ms ticker whenever it exceeds 30 ms
		last := time.Now()
		fmt.Println("ready") // what comes between counts
		for now := range time.Tick(time.Millisecond) {
			if now = time.Now(); now.Sub(last) > 30*time.Millisecond {
				fmt.Println(now.Sub(last).Microseconds())
			}
			last = now
		}
	case "tree": // a child that ignores its parent's end
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), "BROWNOUT_TEST_CHILD=spin")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		_ = c.Start()
		fmt.Println("ready")
		time.Sleep(time.Hour) // an empty select would be a deadlock to the runtime, which ends it
	}
	os.Exit(m.Run())
}

func testHost(t *testing.T) *Host {
	t.Helper()
	needs.Host(t, needs.Root)
	h, err := Discover()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Controller("cpu"); err != nil {
		needs.Host(t, needs.Need{Name: "cgroup", Check: func() string { return err.Error() }})
	}
	return h
}

var tests atomic.Int32

// testName is a name as runs have them, bo-ID-PID-BORN: what looks for the
// groups of dead runs meanwhile sees that this one lives.
func testName(tb testing.TB) string {
	born, err := proc.StartTime(os.Getpid())
	if err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("bo-test%d-%d-%d", tests.Add(1), os.Getpid(), born)
}

// testGroup makes a group that is deleted with the test.
func testGroup(t *testing.T, h *Host) *Group {
	t.Helper()
	g, err := h.Create(testName(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Delete(context.Background()); err != nil {
			t.Errorf("clean up: %v", err)
		}
		for _, p := range g.Paths() {
			if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left", p)
			}
		}
	})
	return g
}

// start runs a helper in g and waits until it is ready.
func start(t *testing.T, g *Group, what string) (*exec.Cmd, io.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), "BROWNOUT_TEST_CHILD="+what, "GOMAXPROCS=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	placed, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	v2, err := g.V2Dir()
	if err != nil {
		t.Fatal(err)
	}
	if v2 != nil {
		defer v2.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(v2.Fd())
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := placed.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

func TestDiscoverThisHost(t *testing.T) {
	h := testHost(t)
	t.Logf("%s: %v", h.Mode(), h.Controllers())
	if h.Mode() == "" || len(h.Controllers()) == 0 {
		t.Error("nothing found")
	}
}

func TestCreateMakesWhatItPlanned(t *testing.T) {
	h := testHost(t)
	g := testGroup(t, h)
	if want := h.Plan(g.Name()); !slices.Equal(g.Paths(), want) {
		t.Errorf("paths = %v, planned %v", g.Paths(), want)
	}
	for _, p := range g.Paths() {
		if _, err := os.Stat(filepath.Join(p, "cgroup.procs")); err != nil {
			t.Error(err)
		}
	}
	if _, err := h.Create(g.Name()); !errors.Is(err, os.ErrExist) {
		t.Errorf("create again = %v, want exists", err)
	}
	if names, err := h.List(); err != nil || !slices.Contains(names, g.Name()) {
		t.Errorf("List = %v, %v; want %s in it", names, err, g.Name())
	}
	n1, err := g.Child("n1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.Open(n1.Name())
	if err != nil || !slices.Equal(again.Paths(), n1.Paths()) {
		t.Errorf("Open = %v, %v", again, err)
	}
	if _, err := h.Open(g.Name() + "/n2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of none = %v, want not exist", err)
	}
	if _, err := h.Create("elsewhere"); err == nil {
		t.Error("a group outside of ours was made")
	}
}

// TestThreadEntersAlone is how a node's init starts its target inside the
// limits without entering them itself.
func TestThreadEntersAlone(t *testing.T) {
	h := testHost(t)
	g := testGroup(t, h)
	files, err := g.TasksFiles()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("needs a v1 hierarchy: this host has v2 alone")
	}
	v2, err := g.V2Dir()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BROWNOUT_TEST_CHILD=spin")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if v2 != nil {
		defer v2.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(v2.Fd())
	}
	done := make(chan error)
	go func() {
		// A thread of its own that ends here; never the first one, see proc.OnSpareThread.
		done <- onThread(func() error {
			for _, f := range files {
				_, err := f.WriteString("0")
				if err := errors.Join(err, f.Close()); err != nil {
					return err
				}
			}
			return cmd.Start()
		})
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	ps, err := g.Pids()
	if err != nil || !slices.Contains(ps, cmd.Process.Pid) {
		t.Errorf("pids = %v, %v; want %d in it", ps, err, cmd.Process.Pid)
	}
	for _, p := range g.Paths() {
		if ps, err := pids(filepath.Join(p, "cgroup.procs")); err != nil || !slices.Contains(ps, cmd.Process.Pid) {
			t.Errorf("%s holds %v, %v; want %d in it", p, ps, err, cmd.Process.Pid)
		}
	}
}

func TestQuotaThrottles(t *testing.T) {
	h := testHost(t)
	g := testGroup(t, h)
	n, err := g.Child("n1")
	if err != nil {
		t.Fatal(err)
	}
	start(t, n, "spin")
	share := func(d time.Duration) (percent float64, s Stat) {
		a, err := n.Stat()
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		time.Sleep(d)
		b, err := n.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return 100 * float64(b.Usage-a.Usage) / float64(time.Since(begin)), b
	}
	free, before := share(500 * time.Millisecond)
	if err := n.SetCPUQuota(20, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if q, err := n.CPUQuota(); err != nil || q.Percent() != 20 {
		t.Errorf("quota = %v, %v; want 20%%", q, err)
	}
	held, after := share(2 * time.Second)
	if err := n.ClearCPUQuota(); err != nil {
		t.Fatal(err)
	}
	again, end := share(500 * time.Millisecond)
	t.Logf("free %.1f%%, with a quota of 20%% %.2f%%, lifted %.1f%%; %d of %d periods throttled", free, held, again, after.Throttled-before.Throttled, after.Periods-before.Periods)
	if free < 35 {
		t.Skipf("needs a CPU: this host gave a spinning process %.0f%% of one", free)
	}
	if held < 14 || held > 26 {
		t.Errorf("with a quota of 20%% it got %.2f%%", held)
	}
	// What others leave of the CPU changes from one moment to the next: the kernel's
	// own count says whether the quota is gone. The period under way may still end throttled.
	if end.Throttled > after.Throttled+1 {
		t.Errorf("throttled in %d periods after the quota was taken away (it got %.2f%%, with it %.2f%%)", end.Throttled-after.Throttled, again, held)
	}
	if after.Throttled-before.Throttled < 20 || after.ThrottledTime == before.ThrottledTime {
		t.Errorf("throttled %d times, %v", after.Throttled-before.Throttled, after.ThrottledTime-before.ThrottledTime)
	}
	if !after.Has.CPU || !after.Has.Throttling || !after.Has.Memory || after.MemoryBytes == 0 {
		t.Errorf("counted: %+v, %d bytes", after.Has, after.MemoryBytes)
	}
	if after.Has.Pressure && end.CPU.Some.Total == 0 {
		t.Error("no CPU pressure in a group that was throttled")
	}
	if _, err := n.Child("x"); err == nil && h.Mode() == V2 {
		t.Error("a group with processes handed on its controllers")
	}
}

func TestQuotaRefusals(t *testing.T) {
	g := testGroup(t, testHost(t))
	for _, tt := range []struct {
		percent float64
		period  time.Duration
	}{{0, 100 * time.Millisecond}, {5, 10 * time.Millisecond}, {50, 2 * time.Second}, {50, 0}} {
		if err := g.SetCPUQuota(tt.percent, tt.period); err == nil {
			t.Errorf("quota of %v%% in %v was accepted", tt.percent, tt.period)
		}
	}
	if q, err := g.CPUQuota(); err != nil || q.Quota >= 0 {
		t.Errorf("quota = %v, %v; want none", q, err)
	}
	// From a long period to a short one and back: in one step the kernel would refuse some of these.
	for _, tt := range []struct {
		percent float64
		period  time.Duration
	}{{10, time.Second}, {90, 10 * time.Millisecond}, {150, time.Second}, {100, time.Millisecond}} {
		if err := g.SetCPUQuota(tt.percent, tt.period); err != nil {
			t.Error(err)
		}
	}
}

// A frozen process is a gap in its own time line.
func TestFreezeIsAGap(t *testing.T) {
	h := testHost(t)
	for _, version := range []int{2, 1} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			g := testGroup(t, h)
			f, err := g.Freezer(version)
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, out := start(t, g, "tick")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := f.Freeze(ctx); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if is, err := f.Frozen(); !is || err != nil {
				t.Errorf("frozen = %v, %v", is, err)
			}
			time.Sleep(300 * time.Millisecond)
			held := time.Since(begin)
			if err := f.Thaw(ctx); err != nil {
				t.Fatal(err)
			}
			if is, err := f.Frozen(); is || err != nil {
				t.Errorf("frozen = %v, %v after the thaw", is, err)
			}
			var longest time.Duration
			gaps := make(chan int)
			go func() {
				defer close(gaps)
				for {
					var us int
					if _, err := fmt.Fscanln(out, &us); err != nil {
						return
					}
					gaps <- us
				}
			}()
			for end := time.After(20 * time.Second); longest < held*9/10; {
				select {
				case us, ok := <-gaps:
					if !ok {
						t.Fatal("the helper ended")
					}
					longest = max(longest, time.Duration(us)*time.Microsecond)
				case <-end:
					t.Fatalf("longest gap %v, frozen for %v", longest, held)
				}
			}
			t.Logf("frozen for %v, gap %v", held, longest)
			if err := g.Delete(ctx); err != nil { // ends the helper, and with it the reader above
				t.Error(err)
			}
			for range gaps {
			}
		})
	}
}

func TestDeleteWithEverybodyAlive(t *testing.T) {
	h := testHost(t)
	for _, frozen := range []int{0, 1, 2} {
		t.Run(fmt.Sprintf("freezer v%d", frozen), func(t *testing.T) {
			g := testGroup(t, h)
			n, err := g.Child("n1")
			if err != nil {
				t.Fatal(err)
			}
			start(t, n, "tree")
			awaitPids(t, g, 2) // the child of what was started comes a moment later
			if frozen != 0 {
				f, err := n.Freezer(frozen)
				if errors.Is(err, errors.ErrUnsupported) {
					t.Skip(err)
				}
				if err := f.Freeze(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			ps, err := g.Pids()
			if err != nil || len(ps) != 2 {
				t.Fatalf("pids = %v, %v; want two", ps, err)
			}
			begin := time.Now()
			if err := g.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("deleted in %v", time.Since(begin))
			for _, p := range ps {
				if err := unix.Kill(p, 0); err == nil {
					if b, _ := os.ReadFile("/proc/" + strconv.Itoa(p) + "/wchan"); len(b) > 0 && !zombie(p) {
						t.Errorf("process %d lives", p)
					}
				}
			}
			if err := g.Delete(t.Context()); err != nil {
				t.Errorf("delete again = %v", err)
			}
		})
	}
}

// awaitPids waits until n processes are in g.
func awaitPids(t *testing.T, g *Group, n int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		ps, err := g.Pids()
		if err == nil && len(ps) == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("pids = %v, %v; want %d", ps, err, n)
		}
	}
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == ')' {
			return b[i+2] == 'Z' || b[i+2] == 'X'
		}
	}
	return false
}

func BenchmarkStat(b *testing.B) {
	needs.Host(b, needs.Root)
	h, err := Discover()
	if err != nil {
		b.Fatal(err)
	}
	g, err := h.Create(testName(b))
	if err != nil {
		b.Fatal(err)
	}
	defer g.Delete(context.Background())
	for b.Loop() {
		if _, err := g.Stat(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateDelete(b *testing.B) {
	needs.Host(b, needs.Root)
	h, err := Discover()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g, err := h.Create(testName(b))
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Delete(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
