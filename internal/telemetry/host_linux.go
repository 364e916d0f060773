package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"brownout/internal/run"
	"brownout/internal/sys/proc"
)

// A Host tells what the machine does, and how much of it is not ours.
type Host struct {
	own   func() time.Duration
	mu    sync.Mutex
	first reading
	last  reading
}

type reading struct {
	cpu      proc.CPU
	own      time.Duration
	pressure time.Duration // some task waited for a CPU
	at       time.Time
}

// NewHost begins to watch. own returns all CPU time that the testbed and its
// nodes have used so far; see [CPUTime].
func NewHost(own func() time.Duration) (*Host, error) {
	h := &Host{own: own}
	r, _, err := h.read()
	if err != nil {
		return nil, fmt.Errorf("watch host: %w", err)
	}
	h.first, h.last = r, r
	return h, nil
}

func (h *Host) read() (reading, proc.Host, error) {
	st, err := proc.ReadHost()
	if err != nil {
		return reading{}, st, err
	}
	r := reading{cpu: st.CPU, at: time.Now()}
	if h.own != nil {
		r.own = h.own()
	}
	if p, err := proc.ReadPressure("/proc/pressure/cpu"); err == nil { // else a kernel without PSI: no pressure is known
		r.pressure = p.Some.Total
	}
	return r, st, nil
}

// Source is the host's source.
func (h *Host) Source() Source {
	return Source{Node: "host", Name: "host", Read: func(context.Context) (map[string]float64, error) {
		r, st, err := h.read()
		if err != nil {
			return nil, err
		}
		h.mu.Lock()
		h.last = r
		since := r.since(h.first)
		h.mu.Unlock()
		v := map[string]float64{
			"busy_ns": float64(st.CPU.Busy()), "total_ns": float64(st.CPU.Total()), "iowait_ns": float64(st.CPU.IOWait),
			"steal_ns": float64(st.CPU.Steal), "own_ns": float64(r.own), "cpu_some_ns": float64(r.pressure),
			"running": float64(st.Running), "blocked": float64(st.Blocked), "cpus": float64(len(st.PerCPU)),
			"foreign_cpu": since.ForeignCPU, // share since the sampling began, 0..1
		}
		if load, ok := loadAverage(); ok {
			v["loadavg"] = load
		}
		for _, what := range []string{"io", "memory"} {
			if p, err := proc.ReadPressure("/proc/pressure/" + what); err == nil {
				pressure(v, what, p)
			}
		}
		return v, nil
	}}
}

// Noise returns what the host did beside us since [NewHost].
func (h *Host) Noise() (run.Noise, error) {
	r, _, err := h.read()
	if err != nil {
		return run.Noise{}, fmt.Errorf("watch host: %w", err)
	}
	return r.since(h.first), nil
}

// since compares two readings. Host times are in ticks of 10 ms, so that the
// share is rough below a second.
func (r reading) since(first reading) run.Noise {
	d := r.cpu.Sub(first.cpu)
	var n run.Noise
	if total := d.Total(); total > 0 {
		n.ForeignCPU = min(1, max(0, float64(d.Busy()-(r.own-first.own))/float64(total)))
	}
	if wall := r.at.Sub(first.at); wall > 0 {
		n.CPUPressure = min(1, float64(r.pressure-first.pressure)/float64(wall))
	}
	return n
}

func loadAverage() (float64, bool) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, false
	}
	var one float64
	_, err = fmt.Sscan(strings.TrimSpace(string(b)), &one)
	return one, err == nil
}

// CPUTime adds up the CPU time of processes that still are, this one by 0.
func CPUTime(pids ...int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		if pid == 0 {
			pid = os.Getpid()
		}
		if st, err := proc.ReadStat(pid); err == nil {
			sum += st.User + st.System
		}
	}
	return sum
}

// Noise watches the host for d: how long tasks waited for a CPU, what share of
// the CPUs others used, and how long an fsync takes in dir. own, if given, tells
// what of the CPU time is ours; without it, only this process's is.
func Noise(ctx context.Context, dir string, d time.Duration, own ...func() time.Duration) (run.Noise, error) {
	mine := func() time.Duration { return CPUTime(0) }
	if len(own) > 0 {
		mine = own[0]
	}
	h, err := NewHost(mine)
	if err != nil {
		return run.Noise{}, err
	}
	fsync, err := fsyncP50(ctx, dir, d)
	if err != nil {
		return run.Noise{}, err
	}
	n, err := h.Noise()
	n.FsyncP50 = int64(fsync)
	return n, err
}

// maxFsyncs bounds the probe where syncing costs nothing.
const maxFsyncs = 300

// fsyncP50 appends and syncs for d in a file of its own, spread over d so that
// the probe is not itself the noise.
func fsyncP50(ctx context.Context, dir string, d time.Duration) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "bo-fsync-*")
	if err != nil {
		return 0, fmt.Errorf("measure fsync: %w", err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil { // it lives on while it is open, and never longer
		return 0, fmt.Errorf("measure fsync: %w", err)
	}
	tick := time.NewTicker(max(d/maxFsyncs, time.Millisecond))
	defer tick.Stop()
	end := time.Now().Add(d)
	block := make([]byte, 512)
	var took []time.Duration
	for time.Now().Before(end) && len(took) < maxFsyncs {
		if _, err := f.Write(block); err != nil {
			return 0, fmt.Errorf("measure fsync: %w", err)
		}
		began := time.Now()
		if err := fdatasync(f); err != nil {
			return 0, fmt.Errorf("measure fsync: %w", err)
		}
		took = append(took, time.Since(began))
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-tick.C:
		}
	}
	if len(took) == 0 {
		return 0, errors.New("measure fsync: no time was given")
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

func fdatasync(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := c.Control(func(fd uintptr) { serr = syscall.Fdatasync(int(fd)) }); err != nil {
		return err
	}
	return serr
}
