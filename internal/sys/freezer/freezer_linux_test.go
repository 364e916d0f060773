package freezer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/proc"
)

// The helper says what gaps of more than 30 ms it saw in its own time line.
func TestMain(m *testing.M) {
	if os.Getenv("BROWNOUT_TEST_CHILD") != "" {
		last := time.Now()
		fmt.Println("ready") // what comes between counts
		for range time.Tick(time.Millisecond) {
			now := time.Now()
			if now.Sub(last) > 30*time.Millisecond {
				fmt.Println(now.Sub(last).Microseconds())
			}
			last = now
		}
	}
	os.Exit(m.Run())
}

var tests atomic.Int32

// group makes a group with a ticking process in it, both gone after the test.
func group(t *testing.T) (*cgroup.Group, <-chan time.Duration) {
	t.Helper()
	needs.Host(t, needs.Root)
	h, err := cgroup.Discover()
	if err != nil {
		t.Fatal(err)
	}
	born, err := proc.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Create(fmt.Sprintf("bo-testf%d-%d-%d", tests.Add(1), os.Getpid(), born))
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BROWNOUT_TEST_CHILD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gaps, done := make(chan time.Duration, 1000), make(chan struct{})
	t.Cleanup(func() {
		if err := g.Delete(context.Background()); err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	lines.Scan()
	go func() {
		defer close(done)
		for lines.Scan() {
			var us int
			if _, err := fmt.Sscan(lines.Text(), &us); err == nil {
				gaps <- time.Duration(us) * time.Microsecond
			}
		}
	}()
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return g, gaps
}

func TestEveryWayMakesAGapAndEnds(t *testing.T) {
	for _, w := range Ways() {
		t.Run(w.Name(), func(t *testing.T) {
			g, gaps := group(t)
			if err := w.Probe(g); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			state := func(want State) {
				t.Helper()
				if got, err := w.State(g); got != want || err != nil {
					t.Errorf("state = %s, %v; want %s", got, err, want)
				}
			}
			state(Running)
			if err := w.Resume(ctx, g); err != nil {
				t.Errorf("resume of a running group: %v", err)
			}
			for range 2 {
				if err := w.Pause(ctx, g); err != nil {
					t.Fatal(err)
				}
				state(Paused)
			}
			begin := time.Now()
			time.Sleep(100 * time.Millisecond)
			held := time.Since(begin)
			for range 2 {
				if err := w.Resume(ctx, g); err != nil {
					t.Fatal(err)
				}
				state(Running)
			}
			for {
				select {
				case gap := <-gaps:
					if gap >= held*9/10 {
						t.Logf("paused for %v, gap %v", held, gap)
						return
					}
				case <-ctx.Done():
					t.Fatalf("no gap of %v was seen", held)
				}
			}
		})
	}
}

func TestChooseTakesTheBest(t *testing.T) {
	g, _ := group(t)
	w, err := Choose(g)
	if err != nil {
		t.Fatal(err)
	}
	want := "freezer2"
	if Ways()[0].Probe(g) != nil {
		want = "sigstop"
	}
	if w.Name() != want {
		t.Errorf("chose %s, want %s", w.Name(), want)
	}
}

func TestPauseThatCannotBeDoneInTimeIsUndone(t *testing.T) {
	g, _ := group(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := signals{}
	if err := w.Pause(ctx, g); err == nil {
		return // it stood still at the first look
	}
	if got, err := w.State(g); got != Running || err != nil {
		t.Errorf("state after a pause that failed = %s, %v; want %s", got, err, Running)
	}
}
