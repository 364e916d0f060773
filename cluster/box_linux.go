package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"brownout/internal/run"
	"brownout/internal/sys/cgroup"
	"brownout/internal/undo"
)

// ErrNotRunning says that a node's target does not run.
var ErrNotRunning = errors.New("does not run")

// A box is the supervisor's side of a node: its init process and what is known
// of the target in it.
type box struct {
	block *block // below the data; nil if they are in the host's file system
	c     *Cluster
	group *cgroup.Group
	files []*os.File // logs, closed when the cluster goes down
	netns *os.File
	init  *exec.Cmd
	gone  chan struct{} // closed when init has ended
	ended error         // how; valid then
	conn  *os.File

	remounts atomic.Int64 // see [Node.Remounts]

	mu      sync.Mutex
	seq     int
	built   chan report // gets setup's
	waiting map[int]chan report
	target  *life // nil if it does not run
	last    *life // the latest that ended
	starts  int
	offset  time.Duration // of the clocks of the next start
}

// A life of a node's program, from its start to its end.
type life struct {
	done   chan struct{} // closed when it has ended
	exit   exit          // valid then
	cause  string        // valid then
	expect bool          // its end was asked for; guarded by box.mu
	ooms   uint64        // kills for memory in the node's cgroup when it was started
}

// uidBase is the first of the nodes' users: in a range that neither
// distributions nor container managers give away (systemd.io/UIDS-GIDS).
const uidBase = 1_900_000_000

// makeDirs makes the node's directories and gives its disk to its user. On a
// host that does not let us (a user namespace without that range), all nodes
// run as root without capabilities.
func (n *Node) makeDirs(uid int) error {
	for name, mode := range map[string]os.FileMode{"data": 0o700, notesDir: 0o755} { // a run is read without root
		dir := filepath.Join(n.dir, name)
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
		if err := os.Lchown(dir, uid, uid); err != nil {
			return err
		}
	}
	return nil
}

// notesDir is what a target leaves for the run beside its data, below the
// node's directory and seen in the box as /notes. No fault touches it.
const notesDir = "notes"

// clone starts the box's init in namespaces of its own and gives it the orders
// that it can follow without anybody else: to build the box.
func (n *Node) clone(s setup) error {
	b := &n.box
	ours, theirs, err := socketPair(n.name)
	if err != nil {
		return err
	}
	defer theirs.Close()
	b.conn = ours
	open := func(name string) (*os.File, error) {
		f, err := os.OpenFile(filepath.Join(n.dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err == nil {
			b.files = append(b.files, f)
		}
		return f, err
	}
	stdout, err1 := open("stdout.log")
	stderr, err2 := open("stderr.log")
	own, err3 := open("box.log")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	into, err := b.group.V2Dir()
	if err != nil {
		return err
	}
	joins, err := b.group.TasksFiles()
	if err != nil {
		return err
	}
	defer closeAll(append(joins, into)...)
	s.Joins, s.Into = len(joins), into != nil
	if into == nil { // its number must be taken
		if into, err = os.Open(os.DevNull); err != nil {
			return err
		}
		defer into.Close()
	}
	exe, err := detached(b.c.cfg.Exe)
	if err != nil {
		return err
	}
	defer exe.Close()
	// It waits in the socket's buffer until init is there.
	b.seq = 1
	b.built = make(chan report, 1)
	b.waiting[b.seq] = b.built
	if err := b.send(order{Seq: b.seq, Verb: verbSetup, Setup: &s}); err != nil {
		return err
	}
	b.init = exec.Command(b.c.cfg.Exe, "_init", n.name)
	b.init.Env = []string{undo.RunEnv + "=" + b.c.owner.String()}
	b.init.Dir = "/"
	b.init.Stderr = own
	b.init.ExtraFiles = append([]*os.File{theirs, stdout, stderr, exe, into}, joins...)
	b.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true, // a Ctrl-C is for the supervisor, which ends its nodes in order
	}
	if err := b.c.parent.start(b.init); err != nil {
		b.init = nil
		return fmt.Errorf("start init in new namespaces: %w", err)
	}
	b.gone = make(chan struct{})
	b.c.background.Go(func() {
		n.listen() // until the socket's end, so that its last words were heard when it is gone
		b.ended = b.init.Wait()
		close(b.gone)
		n.boxEnded()
	})
	b.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", b.init.Process.Pid))
	return err
}

func closeAll(fs ...*os.File) {
	for _, f := range fs {
		if f != nil {
			f.Close()
		}
	}
}

// send gives init an order that is not waited for, or whose reply listen routes.
func (b *box) send(o order) error {
	if err := b.conn.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	return json.NewEncoder(b.conn).Encode(o)
}

// call gives init an order and waits for its report.
func (b *box) call(ctx context.Context, o order) (report, error) {
	reply := make(chan report, 1)
	b.mu.Lock()
	b.seq++
	o.Seq = b.seq
	b.waiting[o.Seq] = reply
	err := b.send(o)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.waiting, o.Seq)
		b.mu.Unlock()
	}()
	if err != nil {
		return report{}, fmt.Errorf("%s: %w", o.Verb, err)
	}
	return b.await(ctx, o.Verb, reply)
}

// await waits for the report of an order that was given.
func (b *box) await(ctx context.Context, what verb, reply <-chan report) (report, error) {
	select {
	case r := <-reply:
		if r.Error != "" {
			return r, errors.New(r.Error)
		}
		return r, nil
	case <-b.gone:
		select {
		case r := <-reply: // its last words
			if r.Error != "" {
				return r, errors.New(r.Error)
			}
		default:
		}
		return report{}, fmt.Errorf("%s: the box ended: %s", what, ending(b.ended))
	case <-ctx.Done():
		return report{}, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}

func ending(err error) string {
	if err == nil {
		return "exit code 0"
	}
	return err.Error()
}

// listen routes init's reports until it ends.
func (n *Node) listen() {
	b := &n.box
	dec := json.NewDecoder(b.conn)
	for {
		var r report
		if err := dec.Decode(&r); err != nil {
			return
		}
		switch {
		case r.Exit != nil:
			n.targetEnded(*r.Exit, r.Exit.String())
		case r.Disk != "":
			text := fmt.Sprintf("%s: its disk's server ended: %s", n.name, r.Disk)
			n.emit(run.Event{Type: run.TestbedFailed, Text: text})
			b.c.failed(errors.New(text)) // nobody needs to wait for it any more
		default:
			b.mu.Lock()
			if reply, ok := b.waiting[r.Seq]; ok {
				reply <- r
				delete(b.waiting, r.Seq)
			}
			b.mu.Unlock()
		}
	}
}

// boxEnded is what happens when init is gone: by Down, or it is our failure.
func (n *Node) boxEnded() {
	b := &n.box
	if b.c.goingDown() {
		n.targetEnded(exit{Signal: syscall.SIGKILL}, "the cluster went down")
		return
	}
	text := fmt.Sprintf("%s: its init ended: %s", n.name, ending(b.ended))
	if tail := tailOf(filepath.Join(n.dir, "box.log"), 20); tail != "" {
		text += "\n" + tail
	}
	n.emit(run.Event{Type: run.TestbedFailed, Text: text})
	b.c.failed(errors.New(text))
	n.targetEnded(exit{Signal: syscall.SIGKILL}, "its box ended")
}

// targetEnded records an end and wakes who waits for it.
func (n *Node) targetEnded(e exit, cause string) {
	b := &n.box
	b.mu.Lock()
	t := b.target
	b.mu.Unlock()
	if t == nil {
		return
	}
	if e.Signal == syscall.SIGKILL {
		if ooms, err := b.group.OOMKills(); err == nil && ooms > t.ooms {
			cause += " (out of memory)"
		}
	}
	// What it left running goes with it: a restart must not meet its own past.
	_ = b.group.Kill()
	b.mu.Lock()
	t.exit, t.cause = e, cause
	expect := t.expect
	b.target, b.last = nil, t
	b.mu.Unlock()
	if !b.c.goingDown() {
		data := map[string]any{"expected": expect, "code": e.Code}
		if e.Signal != 0 {
			data["signal"] = signalName(e.Signal)
		}
		text := cause
		if !expect {
			if tail := n.LogTail(10); tail != "" {
				text += "\n" + tail
			}
		}
		n.emit(run.Event{Type: run.NodeExited, Text: text, Data: data})
	}
	close(t.done)
}

func (n *Node) emit(e run.Event) {
	e.Node = n.name
	n.box.c.emit(e)
}

// NetNS is the node's network namespace, open for the cluster's life.
func (n *Node) NetNS() *os.File { return n.box.netns }

// InitPid is the host's pid of the box's process 1. Its namespaces are the node's.
func (n *Node) InitPid() int { return n.box.init.Process.Pid }

// Root is the box's root directory as the host sees it.
func (n *Node) Root() string { return fmt.Sprintf("/proc/%d/root", n.InitPid()) }

// Data is the node's disk as the host sees it, through the node's filesystem:
// what is done there takes as long as it takes the target.
func (n *Node) Data() string { return n.Root() + "/data" }

// Admin is the target's admin socket as the host sees it.
func (n *Node) Admin() string { return n.Root() + "/run/admin.sock" }

// Group is the cgroup of the target, and of nothing else.
func (n *Node) Group() *cgroup.Group { return n.box.group }

// Pids returns the host's pids of the target's processes; none if it does not run.
func (n *Node) Pids() ([]int, error) { return n.box.group.Pids() }

// Running says whether the target runs. It may have hung, or be frozen.
func (n *Node) Running() bool {
	n.box.mu.Lock()
	defer n.box.mu.Unlock()
	return n.box.target != nil
}

// Start runs the target and returns when its program was executed; see
// [Node.WaitReady]. It is an error if it runs already.
func (n *Node) Start(ctx context.Context) error {
	b := &n.box
	cmd := b.c.cfg.Target.Command(n)
	t := &life{done: make(chan struct{})}
	t.ooms, _ = b.group.OOMKills()
	b.mu.Lock()
	if b.target != nil {
		b.mu.Unlock()
		return fmt.Errorf("start %s: it runs already", n.name)
	}
	b.target = t
	b.starts++
	offset := b.offset
	b.mu.Unlock()
	r, err := b.call(ctx, order{Verb: verbStart, Run: &cmd, Offset: offset})
	if err != nil {
		b.mu.Lock()
		if b.target == t {
			b.target = nil
		}
		b.mu.Unlock()
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	for _, note := range r.Notes {
		b.c.note("uid", note)
	}
	n.emit(run.Event{Type: run.NodeStarted})
	return nil
}

// ShiftClocks has the target's next start see monotonic and boot time off by so
// much, by a time namespace. What runs already cannot be shifted; 0 is no shift.
func (n *Node) ShiftClocks(offset time.Duration) {
	n.box.mu.Lock()
	defer n.box.mu.Unlock()
	n.box.offset = offset
}

// Kill sends the target a signal that ends it, waits for its end, and reports
// that end as expected. SIGKILL goes to all processes of the target at once.
func (n *Node) Kill(ctx context.Context, sig syscall.Signal) error {
	t, err := n.end(ctx, sig)
	if err != nil {
		return fmt.Errorf("kill %s: %w", n.name, err)
	}
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill %s: it goes on after %s: %w", n.name, signalName(sig), context.Cause(ctx))
	}
}

// ExpectEnd marks the end of the program that runs now as expected, whoever
// brings it about, and returns a channel that is closed by that end.
func (n *Node) ExpectEnd() (<-chan struct{}, error) {
	b := &n.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.target == nil {
		return nil, fmt.Errorf("%s: %w", n.name, ErrNotRunning)
	}
	b.target.expect = true
	return b.target.done, nil
}

// end sends a signal and marks the end that follows as expected.
func (n *Node) end(ctx context.Context, sig syscall.Signal) (*life, error) {
	b := &n.box
	b.mu.Lock()
	t := b.target
	if t != nil {
		t.expect = true
	}
	b.mu.Unlock()
	if t == nil {
		return nil, ErrNotRunning
	}
	if sig == syscall.SIGKILL {
		return t, b.group.Kill()
	}
	_, err := b.call(ctx, order{Verb: verbSignal, Signal: sig})
	return t, err
}

// stopGrace is what a target has to end by itself.
const stopGrace = 5 * time.Second

// Stop ends the target with SIGTERM, and with SIGKILL if it takes more than 5 s
// or ctx ends. Stopping what does not run is no error.
func (n *Node) Stop(ctx context.Context) error {
	term, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	err := n.Kill(term, syscall.SIGTERM)
	if err == nil || errors.Is(err, ErrNotRunning) {
		return nil
	}
	kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if err := n.Kill(kill, syscall.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	return nil
}

// readyPoll is the time between two questions to a target that is not ready.
const readyPoll = 3 * time.Millisecond

// WaitReady waits until the target says that it is ready. It fails at once, with
// the end of the target's log, if the target ends.
func (n *Node) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	b := &n.box
	b.mu.Lock()
	t := b.target
	b.mu.Unlock()
	if t == nil {
		return fmt.Errorf("%s: %w", n.name, ErrNotRunning)
	}
	for {
		st := n.status(ctx)
		if st.Ready {
			n.emit(run.Event{Type: run.NodeReady})
			return nil
		}
		select {
		case <-t.done:
			return n.died()
		case <-ctx.Done():
			return n.unready(ctx, st)
		case <-tick.C:
		}
	}
}

// died says that a target ended before it was ready.
func (n *Node) died() error {
	n.box.mu.Lock()
	defer n.box.mu.Unlock()
	if n.box.last == nil {
		return fmt.Errorf("%s: %w", n.name, ErrNotRunning)
	}
	return fmt.Errorf("%s ended before it was ready: %s%s", n.name, n.box.last.cause, n.quoteLog())
}

func (n *Node) unready(ctx context.Context, st Status) error {
	why := "it says that it is not"
	if st.Err != nil {
		why = st.Err.Error()
	}
	cause := context.Cause(ctx)
	if cause != nil && why == cause.Error() {
		return fmt.Errorf("%s is not ready: %w%s", n.name, cause, n.quoteLog())
	}
	return fmt.Errorf("%s is not ready: %s: %w%s", n.name, why, cause, n.quoteLog())
}

func (n *Node) quoteLog() string {
	tail := n.LogTail(20)
	if tail == "" {
		return "; it wrote nothing"
	}
	return "; the end of its log:\n" + tail
}

// statusWithin bounds the question to one node.
const statusWithin = 500 * time.Millisecond

var errSilent = errors.New("it does not answer")

// status asks the target. It returns in time even if the target's side does not.
func (n *Node) status(ctx context.Context) Status {
	if !n.Running() {
		return Status{Node: n.name, Err: ErrNotRunning}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, statusWithin, errSilent)
	defer cancel()
	answer := make(chan Status, 1)
	n.box.c.background.Go(func() {
		st, err := n.box.c.cfg.Target.Status(ctx, n)
		if errors.Is(err, errors.ErrUnsupported) {
			st, err = Status{Ready: n.Running()}, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
			err = errSilent
		}
		if err != nil {
			st = Status{Err: err}
		}
		st.Node = n.name
		answer <- st
	})
	select {
	case st := <-answer:
		return st
	case <-ctx.Done():
		return Status{Node: n.name, Err: context.Cause(ctx)}
	}
}

// LogTail returns the last lines of what the target wrote to its standard
// error, or to its standard output if that is empty.
func (n *Node) LogTail(lines int) string {
	if t := tailOf(filepath.Join(n.dir, "stderr.log"), lines); t != "" {
		return t
	}
	return tailOf(filepath.Join(n.dir, "stdout.log"), lines)
}

// tailOf returns the last lines of a file, at most 16 KiB of it.
func tailOf(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 16 << 10
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, most))
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// A parentThread is an OS thread that lives as long as the cluster. All boxes
// are its children, because the kernel sends a parent-death signal when the
// thread that forked ends, not the process (prctl(2), PR_SET_PDEATHSIG).
type parentThread struct {
	calls chan func()
	done  chan struct{}
}

func newParentThread() *parentThread {
	p := &parentThread{calls: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		runtime.LockOSThread() // never unlocked: nobody else's work may end this thread, and it ends with us
		for f := range p.calls {
			f()
		}
	}()
	return p
}

func (p *parentThread) start(cmd *exec.Cmd) error {
	err := make(chan error, 1)
	p.calls <- func() { err <- cmd.Start() }
	return <-err
}

// end lets the thread go. Children that are left are killed by the kernel.
func (p *parentThread) end() {
	close(p.calls)
	<-p.done
}
