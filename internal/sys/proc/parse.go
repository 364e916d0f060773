package proc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Tick is the unit of CPU times and start times in /proc: USER_HZ is 100 on
// every architecture that Go runs on.
const Tick = 10 * time.Millisecond

// A Stat is the part of /proc/PID/stat that we use; numbers of fields are those of proc_pid_stat(5).
type Stat struct {
	PID     int
	Comm    string // program's name, may hold anything
	State   byte   // R, S, D, Z, T, ...
	PPID    int
	MinFlt  uint64
	MajFlt  uint64
	User    time.Duration // CPU time in user mode, field 14
	System  time.Duration // CPU time in the kernel, field 15
	Threads int
	Start   uint64 // ticks since boot, field 22: tells one life of a pid from another
	RSS     int64  // pages
	CPU     int    // that it ran on last, field 39; -1 if the kernel does not say
}

// ParseStat takes /proc/PID/stat apart. The second field stands in parentheses
// and may hold parentheses and spaces itself, so its end is the last one.
func ParseStat(b []byte) (Stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Stat{}, fmt.Errorf("parse process stat %.60q: no name", b)
	}
	s := Stat{Comm: string(b[open+1 : end])}
	f := strings.Fields(string(b[end+1:]))
	const first = 3 // number of f[0]
	if len(f) <= 24-first {
		return Stat{}, fmt.Errorf("parse process stat %.60q: %d fields", b, len(f)+2)
	}
	if len(f[0]) != 1 || !letter(f[0][0]) {
		return Stat{}, fmt.Errorf("parse process stat %.60q: state %q", b, f[0])
	}
	s.State = f[0][0]
	p := numbers{}
	s.PID = int(p.int(strings.TrimSpace(string(b[:open]))))
	s.PPID = int(p.int(f[4-first]))
	s.MinFlt = p.uint(f[10-first])
	s.MajFlt = p.uint(f[12-first])
	s.User = p.ticks(f[14-first])
	s.System = p.ticks(f[15-first])
	s.Threads = int(p.int(f[20-first]))
	s.Start = p.uint(f[22-first])
	s.RSS = p.int(f[24-first])
	s.CPU = -1
	if len(f) > 39-first {
		s.CPU = int(p.int(f[39-first]))
	}
	if p.err != nil {
		return Stat{}, fmt.Errorf("parse process stat %.60q: %w", b, p.err)
	}
	return s, nil
}

func letter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

// An IO is /proc/PID/io, in bytes and calls.
type IO struct {
	RChar, WChar          uint64 // through read and write calls, cached or not
	SyscR, SyscW          uint64
	ReadBytes, WriteBytes uint64 // caused at the block layer
	CancelledWriteBytes   uint64 // dirtied, but truncated before it was written
}

// ParseIO takes /proc/PID/io apart. Lines it does not know are left alone.
func ParseIO(b []byte) (IO, error) {
	var s IO
	err := pairs(b, ":", func(key, value string, p *numbers) {
		switch key {
		case "rchar":
			s.RChar = p.uint(value)
		case "wchar":
			s.WChar = p.uint(value)
		case "syscr":
			s.SyscR = p.uint(value)
		case "syscw":
			s.SyscW = p.uint(value)
		case "read_bytes":
			s.ReadBytes = p.uint(value)
		case "write_bytes":
			s.WriteBytes = p.uint(value)
		case "cancelled_write_bytes":
			s.CancelledWriteBytes = p.uint(value)
		}
	})
	if err != nil {
		return IO{}, fmt.Errorf("parse process io: %w", err)
	}
	return s, nil
}

// A SchedStat is /proc/PID/schedstat (Documentation/scheduler/sched-stats.rst):
// of one thread, or of a process's first thread.
type SchedStat struct {
	Run    time.Duration // on a CPU
	Wait   time.Duration // runnable, but waiting for a CPU
	Slices uint64
}

// ParseSchedStat takes /proc/PID/schedstat apart.
func ParseSchedStat(b []byte) (SchedStat, error) {
	f := strings.Fields(string(b))
	if len(f) != 3 {
		return SchedStat{}, fmt.Errorf("parse schedstat %.60q: %d fields", b, len(f))
	}
	p := numbers{}
	s := SchedStat{Run: p.ns(f[0]), Wait: p.ns(f[1]), Slices: p.uint(f[2])}
	if p.err != nil {
		return SchedStat{}, fmt.Errorf("parse schedstat %.60q: %w", b, p.err)
	}
	return s, nil
}

// ParseClockOffset takes /proc/PID/timens_offsets apart and returns what is
// added to the monotonic clock.
func ParseClockOffset(b []byte) (time.Duration, error) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "monotonic" {
			continue
		}
		var p numbers
		off := time.Duration(p.int(f[1]))*time.Second + time.Duration(p.int(f[2]))
		return off, p.err
	}
	return 0, errors.New("no offset of the monotonic clock")
}

// A Status is the part of /proc/PID/status that we use.
type Status struct {
	Name                string
	State               byte
	TGID                int
	PPID                int
	UID, GID            [4]int // real, effective, saved, filesystem
	Groups              []int
	NSPID               []int  // pid in each PID namespace, from the reader's to the innermost
	SigPending          uint64 // of the thread; bit n-1 is signal n
	SharedPending       uint64 // of the process
	CapInh, CapPrm      uint64
	CapEff, CapBnd      uint64
	CapAmb              uint64
	NoNewPrivs          bool
	Seccomp             int
	RSSBytes            uint64
	VoluntarySwitches   uint64
	InvoluntarySwitches uint64
}

// ParseStatus takes /proc/PID/status apart. Lines it does not know are left alone.
func ParseStatus(b []byte) (Status, error) {
	var s Status
	err := pairs(b, ":", func(key, value string, p *numbers) {
		switch key {
		case "Name":
			s.Name = value
		case "State":
			if value == "" {
				p.fail(fmt.Errorf("empty State"))
				return
			}
			s.State = value[0]
		case "Tgid":
			s.TGID = int(p.int(value))
		case "PPid":
			s.PPID = int(p.int(value))
		case "Uid":
			s.UID = p.four(value)
		case "Gid":
			s.GID = p.four(value)
		case "Groups":
			s.Groups = p.ints(value)
		case "NSpid":
			s.NSPID = p.ints(value)
		case "SigPnd":
			s.SigPending = p.hex(value)
		case "ShdPnd":
			s.SharedPending = p.hex(value)
		case "CapInh":
			s.CapInh = p.hex(value)
		case "CapPrm":
			s.CapPrm = p.hex(value)
		case "CapEff":
			s.CapEff = p.hex(value)
		case "CapBnd":
			s.CapBnd = p.hex(value)
		case "CapAmb":
			s.CapAmb = p.hex(value)
		case "NoNewPrivs":
			s.NoNewPrivs = p.uint(value) != 0
		case "Seccomp":
			s.Seccomp = int(p.int(value))
		case "VmRSS":
			kb := p.uint(strings.TrimSuffix(value, " kB"))
			if kb > math.MaxUint64>>10 {
				p.fail(fmt.Errorf("VmRSS %s is out of range", value))
			}
			s.RSSBytes = kb << 10
		case "voluntary_ctxt_switches":
			s.VoluntarySwitches = p.uint(value)
		case "nonvoluntary_ctxt_switches":
			s.InvoluntarySwitches = p.uint(value)
		}
	})
	if err != nil {
		return Status{}, fmt.Errorf("parse process status: %w", err)
	}
	return s, nil
}

// A MemInfo is the part of /proc/meminfo that we use, in bytes.
type MemInfo struct{ Total, Available, SwapTotal uint64 }

// ParseMemInfo takes /proc/meminfo apart. Lines it does not know are left alone.
func ParseMemInfo(b []byte) (MemInfo, error) {
	var m MemInfo
	err := pairs(b, ":", func(key, value string, p *numbers) {
		to := map[string]*uint64{"MemTotal": &m.Total, "MemAvailable": &m.Available, "SwapTotal": &m.SwapTotal}[key]
		if to == nil {
			return
		}
		kb := p.uint(strings.TrimSuffix(value, " kB"))
		if kb > math.MaxUint64>>10 {
			p.fail(fmt.Errorf("%s %s is out of range", key, value))
		}
		*to = kb << 10
	})
	if err == nil && m.Total == 0 {
		err = fmt.Errorf("no MemTotal")
	}
	if err != nil {
		return MemInfo{}, fmt.Errorf("parse meminfo: %w", err)
	}
	return m, nil
}

// A CPU is the time of one CPU, or of all, since boot, by what it was spent on.
type CPU struct {
	User, Nice, System, Idle, IOWait, IRQ, SoftIRQ, Steal time.Duration
	Guest, GuestNice                                      time.Duration // contained in User and Nice
}

// Busy returns the time in which somebody ran on the CPU, as seen from this
// host; steal, the time in which the hypervisor did not let it run, is not part
// of it.
func (c CPU) Busy() time.Duration {
	return c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ
}

// Total returns all time that passed.
func (c CPU) Total() time.Duration { return c.Busy() + c.Idle + c.IOWait + c.Steal }

// Sub returns the time spent since an earlier reading.
func (c CPU) Sub(e CPU) CPU {
	return CPU{
		User: c.User - e.User, Nice: c.Nice - e.Nice, System: c.System - e.System, Idle: c.Idle - e.Idle,
		IOWait: c.IOWait - e.IOWait, IRQ: c.IRQ - e.IRQ, SoftIRQ: c.SoftIRQ - e.SoftIRQ, Steal: c.Steal - e.Steal,
		Guest: c.Guest - e.Guest, GuestNice: c.GuestNice - e.GuestNice,
	}
}

// A Host is the part of /proc/stat that we use.
type Host struct {
	CPU      CPU   // of all CPUs together
	PerCPU   []CPU // in order of their lines; offline CPUs have none
	Switches uint64
	Forks    uint64
	Running  uint64
	Blocked  uint64 // on I/O
}

// ParseHost takes /proc/stat apart. Lines it does not know are left alone.
func ParseHost(b []byte) (Host, error) {
	var h Host
	seen := false
	err := pairs(b, " ", func(key, value string, p *numbers) {
		switch {
		case key == "cpu":
			h.CPU, seen = p.cpu(value), true
		case strings.HasPrefix(key, "cpu"):
			h.PerCPU = append(h.PerCPU, p.cpu(value))
		case key == "ctxt":
			h.Switches = p.uint(value)
		case key == "processes":
			h.Forks = p.uint(value)
		case key == "procs_running":
			h.Running = p.uint(value)
		case key == "procs_blocked":
			h.Blocked = p.uint(value)
		}
	})
	if err == nil && !seen {
		err = fmt.Errorf("no cpu line")
	}
	if err != nil {
		return Host{}, fmt.Errorf("parse host stat: %w", err)
	}
	return h, nil
}

// A Pressure is a pressure stall file (Documentation/accounting/psi.rst), of
// the host or of a cgroup.
type Pressure struct {
	Some Stall // at least one task was stalled
	Full Stall // all tasks that were not idle were stalled
}

// A Stall is one line of a [Pressure].
type Stall struct {
	Avg10, Avg60, Avg300 float64 // percent of time
	Total                time.Duration
}

// ParsePressure takes a pressure stall file apart. Older kernels have no full line for CPU.
func ParsePressure(b []byte) (Pressure, error) {
	var s Pressure
	seen := false
	err := pairs(b, " ", func(key, value string, p *numbers) {
		switch key {
		case "some":
			s.Some, seen = p.stall(value), true
		case "full":
			s.Full = p.stall(value)
		}
	})
	if err == nil && !seen {
		err = fmt.Errorf("no line of some")
	}
	if err != nil {
		return Pressure{}, fmt.Errorf("parse pressure: %w", err)
	}
	return s, nil
}

// pairs calls f with both halves of every line. Numbers that f cannot read
// through p end the parsing.
func pairs(b []byte, sep string, f func(key, value string, p *numbers)) error {
	var p numbers
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, sep)
		if !ok {
			return fmt.Errorf("line %.60q has no %q", line, sep)
		}
		if f(key, strings.TrimSpace(value), &p); p.err != nil {
			return fmt.Errorf("line %.60q: %w", line, p.err)
		}
	}
	return nil
}

// numbers reads numbers and keeps the first error.
type numbers struct{ err error }

func (p *numbers) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *numbers) uint(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		p.fail(err)
	}
	return n
}

func (p *numbers) int(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		p.fail(err)
	}
	return n
}

func (p *numbers) hex(s string) uint64 {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		p.fail(err)
	}
	return n
}

func (p *numbers) float(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		p.fail(err)
	} else if math.IsNaN(f) || f < 0 {
		p.fail(fmt.Errorf("%q is not a share", s))
	}
	return f
}

// times reads a count of units as a duration. A duration holds 292 years.
func (p *numbers) times(s string, unit time.Duration) time.Duration {
	n := p.uint(s)
	if n > uint64(math.MaxInt64/unit) {
		p.fail(fmt.Errorf("%s is out of range", s))
		return 0
	}
	return time.Duration(n) * unit
}

func (p *numbers) ticks(s string) time.Duration { return p.times(s, Tick) }
func (p *numbers) ns(s string) time.Duration    { return p.times(s, 1) }

func (p *numbers) ints(s string) []int {
	var is []int
	for _, f := range strings.Fields(s) {
		is = append(is, int(p.int(f)))
	}
	return is
}

func (p *numbers) four(s string) (is [4]int) {
	if copy(is[:], p.ints(s)) != 4 {
		p.fail(fmt.Errorf("%q is not four numbers", s))
	}
	return is
}

func (p *numbers) cpu(s string) (c CPU) {
	f := strings.Fields(s)
	to := []*time.Duration{&c.User, &c.Nice, &c.System, &c.Idle, &c.IOWait, &c.IRQ, &c.SoftIRQ, &c.Steal, &c.Guest, &c.GuestNice}
	if len(f) < 4 {
		p.fail(fmt.Errorf("%d times", len(f)))
	}
	for i := range min(len(f), len(to)) {
		*to[i] = p.ticks(f[i])
	}
	return c
}

func (p *numbers) stall(s string) (st Stall) {
	for _, f := range strings.Fields(s) {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			p.fail(fmt.Errorf("%q has no =", f))
		}
		switch key {
		case "avg10":
			st.Avg10 = p.float(value)
		case "avg60":
			st.Avg60 = p.float(value)
		case "avg300":
			st.Avg300 = p.float(value)
		case "total":
			st.Total = p.times(value, time.Microsecond)
		}
	}
	return st
}
