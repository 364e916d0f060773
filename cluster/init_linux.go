package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/proc"
)

// InitMain is process 1 of a box ("brownout _init"): it builds the box around
// itself, serves its disk, starts the target when told to, and reaps. It ends
// with its supervisor, and everything in the box ends with it.
func InitMain([]string) int {
	unix.Umask(0o022)
	// Ends come from the supervisor, or from its end. Not signal.Ignore: the
	// target would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := closeOnExec(); err != nil {
		fmt.Fprintln(os.Stderr, "init: keep files from the target:", err)
		return 1
	}
	in := initProcess{conn: os.NewFile(fdControl, "control")}
	if err := in.run(); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		return 1
	}
	return 0
}

// closeOnExec keeps everything that init inherited from the target: with the
// cgroups' files it could leave its limits.
func closeOnExec() error {
	err := unix.CloseRange(fdControl, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // before Linux 5.11
		for fd := fdControl; fd < fdJoin+32; fd++ {
			unix.CloseOnExec(fd)
		}
		return nil
	}
	return err
}

// An initProcess is the state of process 1. Only the goroutine of run touches it.
type initProcess struct {
	conn   *os.File
	out    *json.Encoder
	setup  *setup
	disk   disk
	trap   *trap // of the target's calls; nil if it has none
	beside map[int]bool
	target int // pid, 0 if it does not run
}

// run obeys orders until the supervisor is gone.
func (in *initProcess) run() error {
	in.out = json.NewEncoder(in.conn)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	orders := make(chan order)
	ended := make(chan error, 1)
	go func() { // ends with the process
		dec := json.NewDecoder(in.conn)
		for {
			var o order
			if err := dec.Decode(&o); err != nil {
				ended <- err
				return
			}
			orders <- o
		}
	}()
	var lost <-chan error // the disk's server ended
	for {
		select {
		case o := <-orders:
			rep, err := in.obey(o)
			if err != nil {
				rep.Error = err.Error()
			}
			rep.Seq = o.Seq
			if err := in.out.Encode(rep); err != nil {
				return fmt.Errorf("report: %w", err)
			}
			if o.Verb == verbSetup {
				if err != nil {
					return err // there is no box to be in
				}
				lost = in.disk.lost()
			}
		case <-children:
			if err := in.reap(); err != nil {
				return err
			}
		case err := <-lost:
			lost = nil
			if err := in.out.Encode(report{Disk: fmt.Sprint(err)}); err != nil {
				return fmt.Errorf("report: %w", err)
			}
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil // the supervisor is gone
			}
			return fmt.Errorf("read orders: %w", err)
		}
	}
}

func (in *initProcess) obey(o order) (report, error) {
	switch o.Verb {
	case verbSetup:
		in.setup, in.beside = o.Setup, map[int]bool{}
		if len(o.Setup.Trap) > 0 {
			in.trap = newTrap(o.Setup.Trap)
		}
		if err := buildRoot(in.setup); err != nil {
			return report{}, fmt.Errorf("build box: %w", err)
		}
		if in.setup.Disk == DiskSlowFS {
			if err := in.disk.mount(backing, "/data", in.setup.Pass); err != nil {
				return report{}, fmt.Errorf("mount disk: %w", err)
			}
		}
		return report{}, nil
	case verbStart:
		if in.target != 0 {
			return report{}, errors.New("it runs already")
		}
		pid, notes, err := in.start(*o.Run, o.Offset, false)
		in.target = pid
		return report{PID: pid, Notes: notes}, err
	case verbSignal:
		if in.target == 0 {
			return report{}, syscall.ESRCH
		}
		return report{}, syscall.Kill(in.target, o.Signal)
	case verbRules:
		return report{}, in.disk.setRules(o.Rules)
	case verbTrap:
		if in.trap == nil {
			return report{}, errNoTrap
		}
		return report{}, in.trap.set(*o.Rules)
	case verbBeside:
		pid, notes, err := in.start(*o.Run, 0, true)
		if err == nil {
			in.beside[pid] = true
		}
		return report{PID: pid, Notes: notes}, err
	case verbKill:
		if !in.beside[o.PID] {
			return report{}, syscall.ESRCH
		}
		return report{}, syscall.Kill(o.PID, syscall.SIGKILL)
	case verbShut:
		switch {
		case in.setup.loop == nil:
			return report{}, errPlain
		case in.target != 0:
			return report{}, errors.New("its target runs")
		}
		return report{}, shutdown(in.setup.loop, "/data", in.setup.UID)
	case verbArm:
		return report{}, in.disk.arm(o.Torn != nil)
	case verbLose:
		if in.target != 0 {
			return report{}, errors.New("its target runs")
		}
		loss, err := in.disk.lose(o.Torn)
		return report{Loss: &loss}, err
	case verbStats:
		st, err := in.disk.stats()
		return report{Stats: st}, err
	}
	return report{}, fmt.Errorf("unknown order %q", o.Verb)
}

// reap waits for every child that ended, orphans of the target included.
func (in *initProcess) reap() error {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil || pid == 0:
			return nil
		case pid != in.target:
			delete(in.beside, pid)
			continue
		}
		in.target = 0
		e := exit{PID: pid}
		if ws.Signaled() {
			e.Signal, e.Core = ws.Signal(), ws.CoreDump()
		} else {
			e.Code = ws.ExitStatus()
		}
		if err := in.out.Encode(report{Exit: &e}); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
}

// start runs the target as the node's user in the node's cgroups, or another
// program beside it outside of them, and returns its pid as the box sees it.
func (in *initProcess) start(c Command, offset time.Duration, beside bool) (pid int, notes []string, err error) {
	if len(c.Argv) == 0 {
		return 0, nil, errors.New("no program given")
	}
	uid := in.setup.UID
	for name, content := range c.Files {
		if err := writeFile(name, content, uid, in.setup.Disk == DiskSlowFS); err != nil {
			return 0, nil, err
		}
	}
	path, err := program(c.Argv[0])
	if err != nil {
		return 0, nil, err
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		// Not /data: the child goes there before its exec, while a thread of ours
		// waits for it without giving way to the goroutines that serve the disk.
		Dir:   "/",
		Env:   environ(c.Env),
		Files: []uintptr{null.Fd(), fdStdout, fdStderr},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if uid != 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	joins := in.setup.Joins
	if beside {
		joins = 0
	}
	if in.setup.Into && !beside {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fdCgroup
	}
	proc.OnSpareThread(func() {
		if err = shiftClocks(offset); err == nil {
			pid, notes, err = spawn(path, c.Argv, attr, joins, in.trap)
		}
	})
	if err != nil {
		return 0, nil, fmt.Errorf("execute %s: %w", c.Argv[0], err)
	}
	return pid, notes, nil
}

// shiftClocks puts the children of this thread into a time namespace whose
// monotonic and boot time are off (time_namespaces(7)). The offsets are set
// through the thread's own directory: /proc/self is the main thread's.
func shiftClocks(offset time.Duration) error {
	if offset == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("make a time namespace: %w", err)
	}
	sec, nsec := int64(offset/time.Second), int64(offset%time.Second)
	if nsec < 0 {
		sec, nsec = sec-1, nsec+int64(time.Second)
	}
	text := fmt.Sprintf("monotonic %d %d\nboottime %d %d\n", sec, nsec, sec, nsec)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid()), []byte(text), 0); err != nil {
		return fmt.Errorf("shift clocks by %v: %w", offset, err)
	}
	return nil
}

// spawn gives this thread what the target shall have and forks it off. The
// thread must not be used for anything else afterwards.
//
// What is inherited from a thread instead of set in a stub saves a program
// start for every node. A thread joins v1 cgroups by itself through their
// tasks files (60 µs for seven hierarchies); the v2 cgroup it cannot, there the
// child is cloned into (clone3 with CLONE_INTO_CGROUP).
func spawn(path string, argv []string, attr *syscall.ProcAttr, joins int, trap *trap) (pid int, notes []string, err error) {
	for i := range joins {
		if _, err := syscall.Write(fdJoin+i, []byte("0")); err != nil {
			return 0, nil, fmt.Errorf("join cgroup: %w", err)
		}
	}
	if attr.Sys.Credential == nil { // root, but without its powers
		missing, err := proc.Drop(0, 0)
		for _, m := range missing {
			notes = append(notes, m.Error())
		}
		if err != nil {
			return 0, notes, err
		}
	} else {
		if err := proc.DropBounding(); err != nil {
			notes = append(notes, err.Error())
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return 0, nil, fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	if trap != nil {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return 0, notes, fmt.Errorf("set no_new_privs: %w", err)
		}
		if err := trap.install(); err != nil {
			return 0, notes, err
		}
	}
	pid, err = syscall.ForkExec(path, argv, attr)
	return pid, notes, err
}

// program finds what a Command names. "/bin/brownout" is this binary: /bin
// itself belongs to the host, read-only, and cannot show it.
func program(name string) (string, error) {
	if name == "/bin/brownout" || name == "brownout" {
		return brownout, nil
	}
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range strings.Split(searchPath, ":") {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("find %s in %s: %w", name, searchPath, os.ErrNotExist)
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ adds what every program expects.
func environ(env []string) []string {
	env = slices.Clone(env)
	for _, kv := range []string{"PATH=" + searchPath, "HOME=/data", "LANG=C.UTF-8", "TMPDIR=/tmp"} {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			env = append(env, kv)
		}
	}
	return env
}

// writeFile writes one of a command's files. Where init serves /data itself, it
// must not use it, and must not change what backs it behind the kernel's cache.
func writeFile(name string, content []byte, uid int, slow bool) error {
	p := filepath.Join("/", name)
	if slow && strings.HasPrefix(p, "/data/") {
		return fmt.Errorf("write %s: /data is the target's own; a command's files belong elsewhere, for example in /run", name)
	}
	dir := filepath.Dir(p)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.Lchown(dir, uid, uid); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := os.WriteFile(p, content, 0o640); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Lchown(p, uid, uid); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
