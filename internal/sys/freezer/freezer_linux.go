package freezer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/proc"
	"brownout/internal/sys/unsupported"
)

// A State says whether a group's processes run.
type State string

// States of a group.
const (
	Running State = "running"
	Paused  State = "paused"
	Partly  State = "partly" // some stand still
)

// A Way is one mechanism. All of them are safe to call twice.
type Way interface {
	Name() string
	// Probe returns nil if the group can be paused this way, or an error
	// matching [errors.ErrUnsupported] that says what is missing.
	Probe(g *cgroup.Group) error
	// Pause returns when every process of g stands still. If that is not
	// before ctx ends, they run again.
	Pause(ctx context.Context, g *cgroup.Group) error
	// Resume lets every process run again.
	Resume(ctx context.Context, g *cgroup.Group) error
	// State is what the kernel says, not what was asked for.
	State(g *cgroup.Group) (State, error)
}

// Ways returns all mechanisms, the preferred one first.
func Ways() []Way { return []Way{cgroupWay(2), signals{}, cgroupWay(1)} }

// Choose returns the first mechanism that can pause g.
func Choose(g *cgroup.Group) (Way, error) {
	var errs []error
	for _, w := range Ways() {
		err := w.Probe(g)
		if err == nil {
			return w, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// A cgroupWay is the freezer of a cgroup version.
type cgroupWay int

func (v cgroupWay) Name() string { return fmt.Sprintf("freezer%d", int(v)) }

func (v cgroupWay) Probe(g *cgroup.Group) error {
	_, err := g.Freezer(int(v))
	return err
}

func (v cgroupWay) Pause(ctx context.Context, g *cgroup.Group) error {
	f, err := g.Freezer(int(v))
	if err != nil {
		return err
	}
	return f.Freeze(ctx)
}

func (v cgroupWay) Resume(ctx context.Context, g *cgroup.Group) error {
	f, err := g.Freezer(int(v))
	if err != nil {
		return err
	}
	return f.Thaw(ctx)
}

func (v cgroupWay) State(g *cgroup.Group) (State, error) {
	f, err := g.Freezer(int(v))
	if err != nil {
		return "", err
	}
	is, err := f.Frozen()
	if err != nil {
		return "", err
	}
	if is {
		return Paused, nil
	}
	return Running, nil
}

// signals is SIGSTOP and SIGCONT.
type signals struct{}

func (signals) Name() string { return "sigstop" }

func (signals) Probe(g *cgroup.Group) error {
	p, err := proc.Open(os.Getpid())
	if err != nil {
		return &unsupported.Error{What: "SIGSTOP by pidfd", Why: err.Error(), Cure: "use Linux 5.3 or later"}
	}
	return p.Close()
}

// rounds bounds how often a group is looked through for processes born meanwhile.
const rounds = 100

func (s signals) Pause(ctx context.Context, g *cgroup.Group) error {
	err := s.pause(ctx, g)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, s.Resume(ctx, g))
	}
	return err
}

// pause stops who is there and looks again until everybody stands still: a
// process can have been born by one that was not stopped yet.
func (signals) pause(ctx context.Context, g *cgroup.Group) error {
	asked := map[int]bool{}
	for round := 0; ; round++ {
		ps, err := g.Pids()
		if err != nil {
			return err
		}
		moving := 0
		for _, pid := range ps {
			if pid == os.Getpid() {
				return fmt.Errorf("stop group %s: this process is in it", g.Name())
			}
			if !asked[pid] {
				if err := signal(g, pid, syscall.SIGSTOP); err != nil {
					return err
				}
				asked[pid] = true
			}
			switch still, err := stopped(pid); {
			case err != nil:
				return err
			case !still:
				moving++
			}
		}
		if moving == 0 && !slices.ContainsFunc(ps, func(p int) bool { return !asked[p] }) {
			return nil
		}
		if round == rounds {
			return fmt.Errorf("stop group %s: %d processes still run after %d rounds", g.Name(), moving, rounds)
		}
		t := time.NewTimer(min(time.Duration(round+1)*100*time.Microsecond, 10*time.Millisecond))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("stop group %s: %d processes still run: %w", g.Name(), moving, ctx.Err())
		}
	}
}

func (signals) Resume(ctx context.Context, g *cgroup.Group) error {
	ps, err := g.Pids()
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range ps {
		if err := signal(g, pid, syscall.SIGCONT); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (signals) State(g *cgroup.Group) (State, error) {
	ps, err := g.Pids()
	if err != nil {
		return "", err
	}
	still := 0
	for _, pid := range ps {
		is, err := stopped(pid)
		if err != nil {
			return "", err
		}
		if is {
			still++
		}
	}
	switch {
	case still == 0:
		return Running, nil
	case still == len(ps):
		return Paused, nil
	}
	return Partly, nil
}

// signal sends sig to a process if it is in the group once it is held by a
// pidfd: a number that was read from a list may have come to mean another.
func signal(g *cgroup.Group, pid int, sig syscall.Signal) error {
	p, err := proc.Open(pid)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	ps, err := g.Pids()
	if err != nil {
		return err
	}
	if !slices.Contains(ps, pid) {
		return nil
	}
	if err := p.Signal(sig); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// stopped says whether all threads of a process stand still. Those that ended do.
func stopped(pid int) (bool, error) {
	states, err := proc.ThreadStates(pid)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(states, func(s byte) bool { return !strings.ContainsRune("TtZX", rune(s)) }), nil
}
