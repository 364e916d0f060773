package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func read[T any](parse func([]byte) (T, error), path string) (T, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		var none T
		return none, gone(err)
	}
	return parse(b)
}

// gone makes a process that ended while it was read look like one that is not
// there: the kernel says ESRCH when the file was opened before the end.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: %w", os.ErrNotExist, err)
	}
	return err
}

func file(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// ReadStat reads /proc/PID/stat. All readers of a process return
// [os.ErrNotExist] if there is none.
func ReadStat(pid int) (Stat, error) { return read(ParseStat, file(pid, "stat")) }

// ClockOffset reads /proc/PID/timens_offsets: by how much the process's
// monotonic clock is ahead of the host's.
func ClockOffset(pid int) (time.Duration, error) {
	return read(ParseClockOffset, file(pid, "timens_offsets"))
}

// ReadIO reads /proc/PID/io.
func ReadIO(pid int) (IO, error) { return read(ParseIO, file(pid, "io")) }

// ReadSchedStats adds up the schedstat of all threads that a process has now.
// Threads that ended take their time with them, so the sum can shrink.
func ReadSchedStats(pid int) (SchedStat, error) {
	tasks, err := os.ReadDir(file(pid, "task"))
	if err != nil {
		return SchedStat{}, gone(err)
	}
	var sum SchedStat
	for _, t := range tasks {
		s, err := read(ParseSchedStat, file(pid, "task/"+t.Name()+"/schedstat"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return SchedStat{}, err
		}
		sum.Run += s.Run
		sum.Wait += s.Wait
		sum.Slices += s.Slices
	}
	return sum, nil
}

// A Task is one thread of a process.
type Task struct {
	TID     int
	Name    string
	State   byte
	Waiting string // the kernel function it sleeps in; "" if it does not, or the kernel does not say
}

// Tasks returns all threads of a process.
func Tasks(pid int) ([]Task, error) {
	tids, err := Threads(pid)
	var out []Task
	for _, tid := range tids {
		at := file(pid, "task/"+strconv.Itoa(tid)+"/")
		s, err := read(ParseStat, at+"stat")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		where, _ := os.ReadFile(at + "wchan") // it may have ended
		out = append(out, Task{tid, s.Comm, s.State, strings.TrimPrefix(string(where), "0")})
	}
	return out, err
}

// ThreadStates returns the states of all threads of a process, as in [Stat].State.
func ThreadStates(pid int) ([]byte, error) {
	tasks, err := os.ReadDir(file(pid, "task"))
	if err != nil {
		return nil, gone(err)
	}
	var states []byte
	for _, t := range tasks {
		s, err := read(ParseStat, file(pid, "task/"+t.Name()+"/stat"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		states = append(states, s.State)
	}
	return states, nil
}

// Threads returns the numbers of all threads of a process.
func Threads(pid int) ([]int, error) {
	tasks, err := os.ReadDir(file(pid, "task"))
	if err != nil {
		return nil, gone(err)
	}
	var tids []int
	for _, t := range tasks {
		if n, err := strconv.Atoi(t.Name()); err == nil {
			tids = append(tids, n)
		}
	}
	return tids, nil
}

// ReadStatus reads /proc/PID/status. PID may be a thread's.
func ReadStatus(pid int) (Status, error) { return read(ParseStatus, file(pid, "status")) }

// ReadMemInfo reads /proc/meminfo.
func ReadMemInfo() (MemInfo, error) { return read(ParseMemInfo, "/proc/meminfo") }

// ReadHost reads /proc/stat.
func ReadHost() (Host, error) { return read(ParseHost, "/proc/stat") }

// ReadPressure reads a pressure stall file, for example /proc/pressure/io or a cgroup's io.pressure.
func ReadPressure(path string) (Pressure, error) { return read(ParsePressure, path) }

// StartTime returns the time a process was started at in ticks since boot,
// which together with its pid names it for as long as the host is up.
func StartTime(pid int) (uint64, error) {
	s, err := ReadStat(pid)
	return s.Start, err
}

// Children returns the pids of a process's children, ascending.
func Children(pid int) ([]int, error) {
	tasks, err := os.ReadDir(file(pid, "task"))
	if err != nil {
		return nil, gone(err)
	}
	var pids []int
	for _, t := range tasks {
		b, err := os.ReadFile(file(pid, "task/"+t.Name()+"/children"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			if _, err := os.Stat(file(pid, "task/"+t.Name())); err == nil {
				return childrenByParent(pid) // kernel without CONFIG_PROC_CHILDREN
			}
			continue // the thread ended
		}
		if err != nil {
			return nil, err
		}
		for _, f := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				return nil, fmt.Errorf("parse children of %d: %w", pid, err)
			}
			pids = append(pids, n)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// childrenByParent looks through all processes.
func childrenByParent(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := ReadStat(n); err == nil && s.PPID == pid {
			pids = append(pids, n)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// A Pidfd holds on to one process: unlike its pid it never comes to mean another.
type Pidfd struct {
	f   *os.File
	pid int
}

// Open returns a pidfd of a process, pidfd_open(2). The process need not be a
// child. [os.ErrNotExist] means that there is none.
func Open(pid int) (*Pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open pidfd of %d: %w", pid, gone(err))
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for the runtime's poller
		unix.Close(fd)
		return nil, fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	return &Pidfd{os.NewFile(uintptr(fd), "pidfd"), pid}, nil
}

// PID returns the pid that was opened.
func (p *Pidfd) PID() int { return p.pid }

// Signal sends the process a signal. [os.ErrNotExist] means that it ended.
func (p *Pidfd) Signal(sig syscall.Signal) error {
	return p.control(func(fd int) error {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
			return fmt.Errorf("signal %d: %w", p.pid, gone(err))
		}
		return nil
	})
}

// Ended says whether the process has ended; a zombie has.
func (p *Pidfd) Ended() bool {
	ended := false
	_ = p.control(func(fd int) error { ended = readable(fd); return nil })
	return ended
}

// Wait returns when the process has ended, or with ctx's error. It does not
// reap: a child has to be waited for by its parent as always. One Wait at a time.
func (p *Pidfd) Wait(ctx context.Context) error {
	c, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	if err := p.f.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("wait for %d: %w", p.pid, err)
	}
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(late); _ = p.f.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			<-late // else it could disturb the next Wait
		}
	}()
	if err := c.Read(func(fd uintptr) bool { return readable(int(fd)) }); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("wait for %d: %w", p.pid, err)
	}
	return nil
}

// Close lets go of the process.
func (p *Pidfd) Close() error { return p.f.Close() }

func (p *Pidfd) control(f func(fd int) error) error {
	c, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := c.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0 && fds[0].Revents&unix.POLLIN != 0
		}
	}
}
