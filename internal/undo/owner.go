package undo

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// RunEnv is set in the environment of every helper process of a run to the
// name of its owner, so that orphans can be told.
const RunEnv = "BROWNOUT_RUN"

// Prefix begins the name of everything of ours that lives in a place shared with others.
const Prefix = "bo-"

// An Owner is the process that holds a run. Its string is the name of the
// run's cgroups: whether the run is alive can be told from the name alone, so
// no state has to be kept outside the run's directory.
type Owner struct {
	ID   string // of the run, [a-z0-9]+
	PID  int
	Born uint64 // start time in ticks since boot, see proc_pid_stat(5)
}

var ownerName = regexp.MustCompile(`^bo-([a-z0-9]{1,32})-([0-9]{1,10})-([0-9]{1,20})$`)

// String is bo-ID-PID-BORN.
func (o Owner) String() string { return fmt.Sprintf("%s%s-%d-%d", Prefix, o.ID, o.PID, o.Born) }

// ParseOwner is the inverse of [Owner.String].
func ParseOwner(name string) (Owner, bool) {
	m := ownerName.FindStringSubmatch(name)
	if m == nil {
		return Owner{}, false
	}
	pid, err := strconv.Atoi(m[2])
	if err != nil {
		return Owner{}, false
	}
	born, err := strconv.ParseUint(m[3], 10, 64)
	if err != nil {
		return Owner{}, false
	}
	o := Owner{ID: m[1], PID: pid, Born: born}
	return o, o.String() == name
}

// Self returns this process as the owner of run id.
func Self(id string) (Owner, error) {
	born, err := born(os.Getpid())
	return Owner{ID: id, PID: os.Getpid(), Born: born}, err
}

// Alive says whether the process that owns the run still lives. A zombie does not.
func (o Owner) Alive() bool {
	st, err := stat(o.PID)
	return err == nil && st.born == o.Born && st.state != 'Z' && st.state != 'X'
}

// born returns the start time of a process.
func born(pid int) (uint64, error) {
	st, err := stat(pid)
	return st.born, err
}

type procStat struct {
	state byte
	born  uint64
}

// stat reads the fields of /proc/PID/stat that tell one life of a pid from another.
func stat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	return parseStat(string(b))
}

// parseStat takes /proc/PID/stat apart. The second field is the program's name
// in parentheses and may hold anything, parentheses and spaces included.
func parseStat(s string) (procStat, error) {
	end := strings.LastIndexByte(s, ')')
	if end < 0 {
		return procStat{}, fmt.Errorf("parse process stat %.40q: no name", s)
	}
	f := strings.Fields(s[end+1:])
	const state, starttime = 0, 19 // fields 3 and 22 of proc_pid_stat(5)
	if len(f) <= starttime {
		return procStat{}, fmt.Errorf("parse process stat %.40q: %d fields", s, len(f)+2)
	}
	born, err := strconv.ParseUint(f[starttime], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("parse process stat %.40q: start time: %w", s, err)
	}
	return procStat{state: f[state][0], born: born}, nil
}
