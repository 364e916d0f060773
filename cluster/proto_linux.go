package cluster

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"brownout/internal/faultfs"
	"brownout/internal/sys/dm"
)

// What the supervisor and a box's init say to each other over a socket pair:
// JSON objects, one after the other. Orders are answered in order, each by a
// report of the same number; reports of number 0 are news.

// An order asks init for one thing.
type order struct {
	Seq    int            `json:"seq"`
	Verb   verb           `json:"verb"`
	Setup  *setup         `json:"setup,omitempty"`
	Run    *Command       `json:"run,omitempty"`
	Signal syscall.Signal `json:"signal,omitempty"`
	Offset time.Duration  `json:"offset_ns,omitempty"` // of the target's monotonic and boot time
	Rules  *faultfs.Rules `json:"rules,omitempty"`
	PID    int            `json:"pid,omitempty"`
	Torn   *float64       `json:"torn,omitempty"` // of lose: share of last writes that survives; of arm: whether there is one
}

type verb string

const (
	verbSetup  verb = "setup"  // build the box; the first order
	verbStart  verb = "start"  // run the target
	verbSignal verb = "signal" // send the target a signal
	verbRules  verb = "rules"  // put new rules for the disk in force
	verbStats  verb = "stats"  // of the disk
	verbTrap   verb = "trap"   // put new rules for the target's own calls in force
	verbBeside verb = "beside" // run another program
	verbKill   verb = "kill"   // end it
	verbShut   verb = "shut"   // lose what is not on the disk's own device
	verbArm    verb = "arm"    // keep what the disk would lose with power
	verbLose   verb = "lose"   // lose it, and mount the disk again
)

// A setup says how a box is to be.
type setup struct {
	Name  string       `json:"name"`            // host name
	Dir   string       `json:"dir"`             // of the node on the host, hidden below the box's root while it is built
	Disk  string       `json:"disk"`            // see Config
	Hosts string       `json:"hosts"`           // content of /etc/hosts
	UID   int          `json:"uid"`             // of the target; 0 if it cannot have its own
	Pass  bool         `json:"pass"`            // see Config.Passthrough
	Trap  []faultfs.Op `json:"trap,omitempty"`  // see Config
	Block string       `json:"block,omitempty"` // device that holds the data, if not Dir
	Loop  bool         `json:"loop,omitempty"`  // see Config
	Joins int          `json:"joins"`           // number of inherited files of v1 hierarchies, from fdJoin on
	Into  bool         `json:"into"`            // whether fdCgroup is inherited

	loop *dm.Loop // device of its disk; init's own
}

// Files that init inherits.
const (
	fdControl = 3 + iota // socket pair
	fdStdout             // of the target
	fdStderr
	fdExe    // detached mount of this binary
	fdCgroup // directory of the target's v2 cgroup, or /dev/null
	fdJoin   // first of the tasks files of the target's v1 cgroups
)

// A report answers an order, or tells of something that happened.
type report struct {
	Seq   int            `json:"seq,omitempty"`
	Error string         `json:"error,omitempty"`
	PID   int            `json:"pid,omitempty"` // of the target, as the box sees it
	Stats *faultfs.Stats `json:"stats,omitempty"`
	Loss  *faultfs.Loss  `json:"loss,omitempty"`
	Exit  *exit          `json:"exit,omitempty"`  // news: the target ended
	Disk  string         `json:"disk,omitempty"`  // news: the disk's server ended, and why
	Notes []string       `json:"notes,omitempty"` // of setup: what could not be had
}

// An exit says how a target ended.
type exit struct {
	PID    int            `json:"pid"` // as the box sees it
	Code   int            `json:"code"`
	Signal syscall.Signal `json:"signal,omitempty"`
	Core   bool           `json:"core,omitempty"`
}

// String is the cause in words.
func (e exit) String() string {
	switch {
	case e.Signal != 0 && e.Core:
		return fmt.Sprintf("killed by %s (core dumped)", signalName(e.Signal))
	case e.Signal != 0:
		return "killed by " + signalName(e.Signal)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

var signalNames = map[syscall.Signal]string{
	syscall.SIGABRT: "SIGABRT", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE", syscall.SIGHUP: "SIGHUP",
	syscall.SIGILL: "SIGILL", syscall.SIGINT: "SIGINT", syscall.SIGKILL: "SIGKILL", syscall.SIGPIPE: "SIGPIPE",
	syscall.SIGQUIT: "SIGQUIT", syscall.SIGSEGV: "SIGSEGV", syscall.SIGSYS: "SIGSYS", syscall.SIGTERM: "SIGTERM",
	syscall.SIGTRAP: "SIGTRAP", syscall.SIGXCPU: "SIGXCPU", syscall.SIGXFSZ: "SIGXFSZ",
}

func signalName(s syscall.Signal) string {
	if n, ok := signalNames[s]; ok {
		return n
	}
	return fmt.Sprintf("signal %d", int(s))
}

// socketPair returns two connected stream sockets, both closed on exec. The
// first is for this process and non-blocking, the second for a child.
func socketPair(name string) (ours, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		syscall.Close(fds[0])
		syscall.Close(fds[1])
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}
