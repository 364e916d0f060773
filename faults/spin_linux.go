package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
)

// SpinMain is "brownout _spin": a process that wants all the CPU time that it
// can get. It begins when it reads a line from its standard input and ends by
// itself after -for, at the latest when its parent dies. With -wait it wants
// nothing.
func SpinMain(args []string) int {
	fs := flag.NewFlagSet("_spin", flag.ContinueOnError)
	length := fs.Duration("for", 400*time.Millisecond, "how long to spin; at most 10s")
	threads := fs.Int("threads", 1, "how many at once")
	wait := fs.Bool("wait", false, "do nothing until the input ends")
	uptime := fs.Bool("uptime", false, "only print CLOCK_MONOTONIC in nanoseconds")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if *uptime {
		fmt.Println(monotonic())
		return 0
	}
	if *wait {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return 0
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return 1
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), min(*length, 10*time.Second))
	defer cancel()
	runtime.GOMAXPROCS(*threads + 1)
	var wg sync.WaitGroup
	fmt.Println("spins")
	for range *threads {
		wg.Go(func() {
			for ctx.Err() == nil {
				for range 10_000 { // some microseconds
				}
			}
		})
	}
	select {
	case <-ctx.Done():
	case <-stop:
		cancel()
	}
	wg.Wait()
	return 0
}

// A spinner is a helper process that spins inside a node's cgroup.
type spinner struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser // a line, when it spins
}

// startSpin puts a spinner into a node's cgroup; begin lets it go. The caller
// must stay on its OS thread until end: the death signal is the thread's.
func startSpin(exe string, n *cluster.Node, threads int, length time.Duration) (*spinner, error) {
	cmd := exec.Command(exe, "_spin", "-threads", strconv.Itoa(threads), "-for", length.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start spin probe: %w", err)
	}
	s := &spinner{cmd, in, out}
	if err := errors.Join(n.Group().Add(cmd.Process.Pid), joinCPUs(cmd.Process.Pid, n)); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

func (s *spinner) begin() error { _, err := s.in.Write([]byte("\n")); return err }

// begun returns when it spins. It ends by itself, at the latest when it is killed.
func (s *spinner) begun() error { _, err := s.out.Read(make([]byte, 1)); return err }

func (s *spinner) end() {
	s.in.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // killed: what it says is known
}

// A spinLook is what a node's cgroup got while a spinner wanted everything.
type spinLook struct {
	percent   float64 // of one CPU, of the whole group
	wall      time.Duration
	periods   uint64
	throttled uint64
	beside    time.Duration // what others used in the same time, if that was asked
	usage     time.Duration // and the group
}

// spin lets a spinner run for about length and measures between the ends of two
// enforcement periods, because the group gets its share in lumps: one at the
// begin of each period. If what others used is to be compared with it, their
// clock is beside, and the look begins when the spinner has spun for settle.
func spin(ctx context.Context, exe string, n *cluster.Node, threads int, length time.Duration, beside func() (time.Duration, error), settle time.Duration) (look spinLook, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := startSpin(exe, n, threads, settle+length+time.Second)
	if err != nil {
		return look, err
	}
	defer s.end()
	if err := s.begin(); err != nil {
		return look, fmt.Errorf("start spin probe: %w", err)
	}
	type at struct {
		when      time.Time
		usage     time.Duration
		periods   uint64
		throttled uint64
		beside    time.Duration
	}
	read := func() (a at, err error) {
		st, err := n.Group().Stat()
		if err == nil && !st.Has.CPU {
			err = errors.New("the group's CPU time is not counted")
		}
		a = at{when: time.Now(), usage: st.Usage, periods: st.Periods, throttled: st.Throttled}
		if err == nil && beside != nil {
			a.beside, err = beside()
		}
		return a, err
	}
	if beside != nil {
		if err := s.begun(); err != nil {
			return look, fmt.Errorf("start spin probe: %w", err)
		}
		if !sleep(ctx, settle) {
			return look, ctx.Err()
		}
	}
	begin, err := read()
	if err != nil {
		return look, err
	}
	var first, last at // right after a period's begin; the first two repay what was overrun before
	before := begin
	for time.Since(begin.when) < length {
		if !sleep(ctx, time.Millisecond) {
			return look, ctx.Err()
		}
		now, err := read()
		if err != nil {
			return look, err
		}
		if now.periods > before.periods {
			if first.when.IsZero() && now.periods >= begin.periods+2 {
				first = now
			}
			last = now
		}
		before = now
	}
	look.periods, look.throttled = before.periods-begin.periods, before.throttled-begin.throttled
	if first.when.IsZero() || last.periods < first.periods+2 { // nothing enforces: the whole length will do
		first, last = begin, before
	}
	look.wall, look.usage, look.beside = last.when.Sub(first.when), last.usage-first.usage, last.beside-first.beside
	look.percent = 100 * float64(look.usage) / float64(look.wall)
	return look, nil
}

// spinThreads is how many threads are sure to want more than percent of a CPU
// on a host that others use as well, and no more: each of them overruns the
// quota by up to a timer tick in each period, and the group repays it later.
func spinThreads(percent float64) int {
	return min(int(percent/60)+1, usable())
}

// usable is how many CPUs this process may use.
func usable() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil && set.Count() > 0 {
		return set.Count()
	}
	return runtime.NumCPU()
}
