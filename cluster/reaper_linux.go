package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"brownout/internal/undo"
)

// A reaper outlives its supervisor's kill -9: it notices by the end of a pipe,
// and removes the run's cgroups, which is all that the kernel does not take
// away by itself.
type reaper struct {
	cmd  *exec.Cmd
	life *os.File // its other end is the reaper's; closed by us or by our death
}

func startReaper(exe string, owner undo.Owner) (*reaper, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(exe, "_reaper", owner.String())
	cmd.Dir = "/"
	cmd.Env = []string{undo.RunEnv + "=" + owner.String()}
	cmd.ExtraFiles = []*os.File{r}
	// Its own session: a kill of the supervisor's process group must spare it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return &reaper{cmd: cmd, life: w}, nil
}

// end lets the reaper go. It looks once more whether something is left.
func (r *reaper) end(ctx context.Context) error {
	r.life.Close()
	done := make(chan error, 1)
	go func() { done <- r.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("end reaper: %w", err)
		}
		return nil
	case <-ctx.Done():
		_ = r.cmd.Process.Kill()
		return fmt.Errorf("end reaper: %w", context.Cause(ctx))
	}
}

// ReaperMain is "brownout _reaper NAME": it waits for the end of its
// supervisor and removes the cgroups called NAME, with all that is in them.
func ReaperMain(args []string) int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if len(args) != 1 {
		return 2
	}
	if _, ok := undo.ParseOwner(args[0]); !ok {
		return 2
	}
	_, _ = io.Copy(io.Discard, os.NewFile(3, "supervisor"))
	const tries, pause = 40, 50 * time.Millisecond // a process may take its time to die
	for range tries {
		err := undo.Revert(undo.Record{Kind: undo.Cgroup, Name: args[0]})
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return 0
		}
		<-time.After(pause)
	}
	return 1
}
