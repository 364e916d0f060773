package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/proc"
)

// A Stat is what a group and the groups below it used since they were made.
// What a host does not count is zero, and Has says so.
type Stat struct {
	Usage, User, System time.Duration // CPU time; User and System are estimates of the kernel's from ticks
	Periods             uint64        // enforcement periods of the CPU quota in which somebody ran
	Throttled           uint64        // of these, how many ended throttled
	ThrottledTime       time.Duration // summed over CPUs: divide by them and by the wall time
	MemoryBytes         uint64        // now, page cache included
	OOMKills            uint64
	ReadBytes           uint64 // at the block layer. On v1, writes by others than the writer (writeback) are not counted
	WriteBytes          uint64
	ReadOps, WriteOps   uint64
	CPU, IO, Memory     proc.Pressure // v2 only, also on hybrid hosts; needs psi=1
	Has                 Has
}

// Has says which parts of a [Stat] were counted.
type Has struct{ CPU, Throttling, Memory, IO, Pressure bool }

// Stat reads the group's counters. A missing controller is no error, see [Has];
// a group that is gone is.
//
// It reads a dozen small files itself, about 10 µs each: cgroup1's and cgroup2's
// own Stat read every file of every controller, memory.numa_stat and per-CPU
// tables included, which is too much for ten times a second and node.
func (g *Group) Stat() (Stat, error) {
	var s Stat
	if _, err := os.Lstat(g.dirs[0].path); err != nil {
		return Stat{}, fmt.Errorf("read group %s: %w", g.name, err)
	}
	for _, part := range []func(*Stat) error{g.statCPU, g.statMemory, g.statIO, g.statPressure} {
		if err := part(&s); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Stat{}, fmt.Errorf("read group %s: %w", g.name, err)
		}
	}
	return s, nil
}

// readSmall reads a file of the kernel's. [os.ReadFile] would also enter it
// into the runtime's poller and take it out again, a quarter of its time.
func readSmall(file string) ([]byte, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 1024)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: file, Err: err}
		}
		if n == 0 {
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
	}
}

func flat(file string) (map[string]uint64, error) {
	b, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	return parseFlat(b), nil
}

func (g *Group) statCPU(s *Stat) error {
	const us = time.Microsecond
	if p := g.v2(); p != "" { // usage is counted in every v2 group, the controller being there or not
		kv, err := flat(filepath.Join(p, "cpu.stat"))
		if err != nil {
			return err
		}
		if n, ok := kv["usage_usec"]; ok {
			s.Usage, s.User, s.System = time.Duration(n)*us, time.Duration(kv["user_usec"])*us, time.Duration(kv["system_usec"])*us
			s.Has.CPU = true
		}
		if n, ok := kv["nr_periods"]; ok && g.host.v1("cpu") == nil {
			s.Periods, s.Throttled, s.ThrottledTime = n, kv["nr_throttled"], time.Duration(kv["throttled_usec"])*us
			s.Has.Throttling = true
		}
	}
	if p := g.v1("cpuacct"); p != "" {
		n, err := readInt(filepath.Join(p, "cpuacct.usage"))
		if err != nil {
			return err
		}
		s.Usage, s.Has.CPU = time.Duration(n), true // ns: finer than v2's µs
		if kv, err := flat(filepath.Join(p, "cpuacct.stat")); err == nil {
			s.User, s.System = time.Duration(kv["user"])*proc.Tick, time.Duration(kv["system"])*proc.Tick
		}
	}
	if p := g.v1("cpu"); p != "" {
		kv, err := flat(filepath.Join(p, "cpu.stat"))
		if err != nil {
			return err
		}
		s.Periods, s.Throttled, s.ThrottledTime = kv["nr_periods"], kv["nr_throttled"], time.Duration(kv["throttled_time"])
		s.Has.Throttling = true
	}
	return nil
}

// CPUUsage reads the group's CPU time alone, for who asks hundreds of times a second.
func (g *Group) CPUUsage() (time.Duration, error) {
	if p := g.v1("cpuacct"); p != "" {
		n, err := readInt(filepath.Join(p, "cpuacct.usage"))
		return time.Duration(n), err
	}
	p := g.v2()
	if p == "" {
		return 0, fmt.Errorf("read CPU time of group %s: %w", g.name, errors.ErrUnsupported)
	}
	kv, err := flat(filepath.Join(p, "cpu.stat"))
	return time.Duration(kv["usage_usec"]) * time.Microsecond, err
}

func (g *Group) statMemory(s *Stat) error {
	used, events := "", ""
	if p := g.v1("memory"); p != "" {
		used, events = filepath.Join(p, "memory.usage_in_bytes"), filepath.Join(p, "memory.oom_control")
	} else if p := g.v2(); p != "" {
		used, events = filepath.Join(p, "memory.current"), filepath.Join(p, "memory.events")
	} else {
		return nil
	}
	n, err := readInt(used)
	if err != nil {
		return err
	}
	s.MemoryBytes, s.Has.Memory = uint64(n), true
	kv, err := flat(events)
	s.OOMKills = kv["oom_kill"]
	return err
}

func (g *Group) statIO(s *Stat) error {
	if p := g.v1("blkio"); p != "" {
		b, err := readSmall(filepath.Join(p, "blkio.throttle.io_service_bytes_recursive"))
		if err != nil {
			return err
		}
		s.ReadBytes, s.WriteBytes = parseBlkio(b)
		if b, err = readSmall(filepath.Join(p, "blkio.throttle.io_serviced_recursive")); err != nil {
			return err
		}
		s.ReadOps, s.WriteOps = parseBlkio(b)
		s.Has.IO = true
		return nil
	}
	p := g.v2()
	if p == "" {
		return nil
	}
	b, err := readSmall(filepath.Join(p, "io.stat"))
	if err != nil {
		return err
	}
	parseIOStat(b, s)
	s.Has.IO = true
	return nil
}

// parseBlkio adds up a v1 file of lines "254:0 Read 4096" over all devices.
func parseBlkio(b []byte) (read, write uint64) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue // the line of the total
		}
		n, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			continue
		}
		switch f[1] {
		case "Read":
			read += n
		case "Write":
			write += n
		}
	}
	return read, write
}

// parseIOStat adds up a v2 file of lines "254:0 rbytes=1 wbytes=2 rios=3 wios=4" over all devices.
func parseIOStat(b []byte, s *Stat) {
	for _, f := range bytes.Fields(b) {
		key, value, _ := strings.Cut(string(f), "=")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			continue
		}
		switch key {
		case "rbytes":
			s.ReadBytes += n
		case "wbytes":
			s.WriteBytes += n
		case "rios":
			s.ReadOps += n
		case "wios":
			s.WriteOps += n
		}
	}
}

func (g *Group) statPressure(s *Stat) error {
	p := g.v2()
	if p == "" {
		return nil
	}
	for name, to := range map[string]*proc.Pressure{"cpu.pressure": &s.CPU, "io.pressure": &s.IO, "memory.pressure": &s.Memory} {
		b, err := readSmall(filepath.Join(p, name))
		if errors.Is(err, errors.ErrUnsupported) {
			return nil // EOPNOTSUPP: booted without psi=1
		}
		if err != nil {
			return err
		}
		got, err := proc.ParsePressure(b)
		if err != nil {
			return err
		}
		*to = got
	}
	s.Has.Pressure = true
	return nil
}

// OOMKills returns how many processes of the group the kernel killed for want of memory.
func (g *Group) OOMKills() (uint64, error) {
	var s Stat
	if err := g.statMemory(&s); err != nil {
		return 0, fmt.Errorf("read group %s: %w", g.name, err)
	}
	return s.OOMKills, nil
}
