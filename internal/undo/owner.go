package undo

import (
	"fmt"
	"regexp"
	"strconv"
	"sync"
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

var ownerName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^bo-([a-z0-9]{1,32})-([0-9]{1,10})-([0-9]{1,20})$`) })

// String is bo-ID-PID-BORN.
func (o Owner) String() string { return fmt.Sprintf("%s%s-%d-%d", Prefix, o.ID, o.PID, o.Born) }

// ParseOwner is the inverse of [Owner.String].
func ParseOwner(name string) (Owner, bool) {
	m := ownerName().FindStringSubmatch(name)
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
