package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"brownout/internal/needs"
)

func TestMain(m *testing.M) {
	switch os.Getenv("BROWNOUT_TEST_CHILD") {
	case "sleep":
		time.Sleep(time.Minute)
		os.Exit(0)
	case "drop":
		notes, err := Drop(54321, 54321)
		fmt.Println(notes, err)
		if err == nil {
			err = syscall.Exec("/proc/self/exe", os.Args[:1], []string{"BROWNOUT_TEST_CHILD=show"})
			fmt.Println(err)
		}
		os.Exit(1)
	case "droproot":
		notes, err := Drop(0, 0)
		fmt.Println(notes, err)
		if err == nil {
			err = syscall.Exec("/proc/self/exe", os.Args[:1], []string{"BROWNOUT_TEST_CHILD=show"})
			fmt.Println(err)
		}
		os.Exit(1)
	case "show":
		s, err := ReadStatus(os.Getpid())
		fmt.Println(s.UID, s.GID, s.Groups, s.CapPrm, s.CapEff, s.CapInh, s.CapAmb, s.CapBnd, s.NoNewPrivs, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), "BROWNOUT_TEST_CHILD="+what)
	return cmd
}

func TestReadersOnThisProcess(t *testing.T) {
	pid := os.Getpid()
	s, err := ReadStat(pid)
	if err != nil || s.PID != pid || s.PPID != os.Getppid() || s.Start == 0 {
		t.Errorf("ReadStat = %+v, %v", s, err)
	}
	if st, err := ReadStatus(pid); err != nil || st.TGID != pid || st.UID[1] != os.Geteuid() || !slices.Equal(st.NSPID[:1], []int{pid}) {
		t.Errorf("ReadStatus = %+v, %v", st, err)
	}
	if io, err := ReadIO(pid); err != nil || io.RChar == 0 {
		t.Errorf("ReadIO = %+v, %v", io, err)
	}
	if ss, err := ReadSchedStats(pid); err != nil || ss.Run == 0 {
		t.Errorf("ReadSchedStats = %+v, %v", ss, err)
	}
	if h, err := ReadHost(); err != nil || len(h.PerCPU) < 1 || h.CPU.Total() == 0 {
		t.Errorf("ReadHost = %+v, %v", h, err)
	}
	if _, err := ReadStat(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadStat of no process = %v, want not exist", err)
	}
}

func TestPidfdFollowsAProcessToItsEnd(t *testing.T) {
	cmd := child(t, "sleep")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if kids, err := Children(os.Getpid()); err != nil || !slices.Contains(kids, cmd.Process.Pid) {
		t.Errorf("Children = %v, %v; want %d among them", kids, err, cmd.Process.Pid)
	}
	if kids, err := childrenByParent(os.Getpid()); err != nil || !slices.Contains(kids, cmd.Process.Pid) {
		t.Errorf("childrenByParent = %v, %v; want %d among them", kids, err, cmd.Process.Pid)
	}
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Ended() {
		t.Error("a living process counts as ended")
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait for a living process = %v, want the deadline", err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	long, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Wait(long); err != nil || !p.Ended() {
		t.Errorf("Wait for a killed process = %v, ended %v", err, p.Ended())
	}
	_ = cmd.Wait()
	if err := p.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("signal to a reaped process = %v, want not exist", err)
	}
}

func TestDropLeavesNothing(t *testing.T) {
	needs.Host(t, needs.Root)
	for _, tt := range []struct{ what, want string }{
		{"drop", "[54321 54321 54321 54321] [54321 54321 54321 54321] [] 0 0 0 0 0 true <nil>"},
		{"droproot", "[0 0 0 0] [0 0 0 0] [] 0 0 0 0 0 true <nil>"},
	} {
		out, err := child(t, tt.what).CombinedOutput()
		got := strings.TrimSpace(string(out))
		got = strings.TrimPrefix(got, "[] <nil>\n")
		if got != tt.want || err != nil {
			t.Errorf("%s: after exec the program has %s, %v; want %s", tt.what, got, err, tt.want)
		}
	}
}

func TestParentDeathSignal(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := SetParentDeathSignal(syscall.SIGKILL, os.Getpid()); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("with a parent that is not ours = %v, want ESRCH", err)
	}
	if err := SetParentDeathSignal(0, os.Getppid()); err != nil {
		t.Error(err)
	}
}
