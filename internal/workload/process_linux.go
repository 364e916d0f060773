package workload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"brownout/internal/history"
	"brownout/internal/sys/netns"
	"brownout/internal/sys/timerfd"
	"brownout/internal/undo"
)

// fdControl is the load generator's end of the socket pair to its supervisor.
const fdControl = 3

// niceness of the load generator, where it may have it: it must keep time while
// the nodes take all the CPU that there is.
const niceness = -10

// A call is one line from the supervisor. The load generator answers each with
// a reply of the same number, in any order.
type call struct {
	ID     int64         `json:"id"`
	Verb   string        `json:"verb"` // calibrate, run, stop, final, finish
	Spec   *Spec         `json:"spec,omitempty"`
	Keys   []string      `json:"keys,omitempty"`
	Within time.Duration `json:"within_ns,omitempty"`
}

// An answer is one line from the load generator; number 0 is news.
type answer struct {
	ID      int64    `json:"id"`
	Error   string   `json:"error,omitempty"`
	MaxPerS float64  `json:"max_per_s,omitempty"`
	Report  *Report  `json:"report,omitempty"`
	Missing []string `json:"missing,omitempty"`
	News
}

// A Generator is the load generator's process, seen from its supervisor.
type Generator struct {
	conn    *os.File
	logPath string
	pid     int
	done    chan struct{} // closed when the process has ended and waitErr is set
	waitErr error
	found   chan Violation // the first

	mu       sync.Mutex
	next     int64
	waiting  map[int64]chan answer
	progress Progress
	spec     Spec // of the run
	started  bool // a run: there is a history to write
	finished bool
	running  int64 // the call of the run, 0 if none
}

// Start starts the load generator in a network namespace (nil: in our own). It
// ends when we end, whatever the way. run is the run's short id, which marks the
// process for those who look for leftovers; logPath takes what it says.
func Start(ctx context.Context, exe string, ns *os.File, logPath, run string) (*Generator, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	owner, err := undo.Self(run)
	if err != nil {
		return nil, fmt.Errorf("start load generator: %w", err)
	}
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start load generator: %w", err)
	}
	defer log.Close()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("start load generator: socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "load generator"), os.NewFile(uintptr(fds[1]), "supervisor")
	defer theirs.Close()
	cmd := exec.Command(exe, "_load")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = []string{undo.RunEnv + "=" + owner.String(), "PATH=/usr/bin:/bin", "HOME=/"}
	// A group of its own: Ctrl-C at the terminal is for the supervisor, who knows what to do about it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	g := &Generator{conn: ours, logPath: logPath, done: make(chan struct{}), found: make(chan Violation, 1), waiting: map[int64]chan answer{}}
	begun := make(chan error, 1)
	go func() {
		// The death signal comes when the thread that forked ends, so the thread stays until the process has ended.
		life := func() error {
			err := cmd.Start()
			if err == nil {
				g.pid = cmd.Process.Pid
			}
			begun <- err
			if err != nil {
				return nil
			}
			return cmd.Wait()
		}
		var err error
		if ns == nil {
			runtime.LockOSThread()
			err = life()
		} else {
			err = netns.Do(ns, life)
		}
		select {
		case begun <- err: // the namespace could not be entered
		default:
		}
		g.waitErr = err
		close(g.done)
	}()
	if err := <-begun; err != nil {
		<-g.done
		ours.Close()
		return nil, fmt.Errorf("start load generator: %w", err)
	}
	go g.read()
	return g, nil
}

// read takes in answers until the process closes its end.
func (g *Generator) read() {
	in := json.NewDecoder(bufio.NewReader(g.conn))
	for {
		var a answer
		if err := in.Decode(&a); err != nil {
			g.mu.Lock()
			for id, ch := range g.waiting {
				delete(g.waiting, id)
				close(ch)
			}
			g.waiting = nil
			g.mu.Unlock()
			return
		}
		g.mu.Lock()
		if a.Progress != nil {
			g.progress = *a.Progress
		}
		if a.Violation != nil {
			select {
			case g.found <- *a.Violation:
			default: // a later run's
			}
		}
		ch := g.waiting[a.ID]
		delete(g.waiting, a.ID)
		g.mu.Unlock()
		if ch != nil {
			ch <- a
		}
	}
}

// ErrGone says that the load generator's process ended before it answered.
var ErrGone = errors.New("the load generator ended")

// send writes a call; its answer comes through the channel, which is closed if none comes any more.
func (g *Generator) send(c call) (int64, chan answer, error) {
	ch := make(chan answer, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting == nil {
		return 0, nil, g.gone()
	}
	g.next++
	c.ID = g.next
	b, err := json.Marshal(c)
	if err != nil {
		return 0, nil, fmt.Errorf("ask load generator: %w", err)
	}
	g.waiting[c.ID] = ch
	_ = g.conn.SetWriteDeadline(time.Now().Add(5 * time.Second)) // it reads at once or is stuck
	if _, err := g.conn.Write(append(b, '\n')); err != nil {
		delete(g.waiting, c.ID)
		return 0, nil, fmt.Errorf("ask load generator: %w", errors.Join(g.gone(), err))
	}
	return c.ID, ch, nil
}

// await waits for an answer.
func (g *Generator) await(ctx context.Context, id int64, ch chan answer) (answer, error) {
	select {
	case a, ok := <-ch:
		switch {
		case !ok:
			return a, g.gone()
		case a.Error != "":
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-ctx.Done():
		g.mu.Lock()
		delete(g.waiting, id)
		g.mu.Unlock()
		return answer{}, context.Cause(ctx)
	}
}

func (g *Generator) ask(ctx context.Context, c call) (answer, error) {
	id, ch, err := g.send(c)
	if err != nil {
		return answer{}, err
	}
	return g.await(ctx, id, ch)
}

// gone says how the process ended, with the end of its log. It waits a moment
// for that end, since the connection breaks before the process is reaped.
func (g *Generator) gone() error {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-g.done:
	case <-t.C:
		return ErrGone
	}
	how := "it exited"
	if g.waitErr != nil {
		how = g.waitErr.Error()
	}
	if tail := logTail(g.logPath); tail != "" {
		how += "; the end of its log:\n" + tail
	}
	return fmt.Errorf("%w: %s", ErrGone, how)
}

func logTail(path string) string {
	const most = 2000
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, most))
	return string(b)
}

// PID returns the process's pid.
func (g *Generator) PID() int { return g.pid }

// Calibrate runs the load as a closed loop for d, on keys of its own and
// unrecorded, and returns the operations a second that the target sustains.
func (g *Generator) Calibrate(ctx context.Context, s Spec, d time.Duration) (maxPerS float64, err error) {
	// The bound is for a process that hangs.
	late := d + 2*s.Load.Timeout + 30*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, late, fmt.Errorf("the load generator did not answer within %v", late))
	defer cancel()
	a, err := g.ask(ctx, call{Verb: "calibrate", Spec: &s, Within: d})
	return a.MaxPerS, err
}

// Run offers the load and returns when it has ended: by the plan, by Stop, by
// ctx or by the process's death. What was sent until then was answered or given
// up; the report is valid unless the process died.
func (g *Generator) Run(ctx context.Context, s Spec) (Report, error) {
	if err := s.checkRun(); err != nil {
		return Report{}, fmt.Errorf("load: %w", err)
	}
	id, ch, err := g.send(call{Verb: "run", Spec: &s})
	if err != nil {
		return Report{}, err
	}
	g.mu.Lock()
	g.spec, g.started, g.running = s, true, id
	g.mu.Unlock()
	defer context.AfterFunc(ctx, g.Stop)()
	// The bound is for a process that hangs: a run ends by itself a little after its plan's end.
	end := s.Start + 2*s.Load.Timeout + 30*time.Second + (s.End - s.Start)
	bound, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), end, fmt.Errorf("the load generator did not end within %v", end))
	defer cancel()
	a, err := g.await(bound, id, ch)
	g.mu.Lock()
	g.running = 0
	g.mu.Unlock()
	if a.Report == nil {
		a.Report = &Report{}
	}
	return *a.Report, err
}

// Progress returns the load's last second, renewed every half second while it runs.
func (g *Generator) Progress() Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.progress
}

// Violated gives the first contradiction that a watched load shows, as soon as
// it is seen; what is in flight then has not returned yet.
func (g *Generator) Violated() <-chan Violation { return g.found }

// Stop ends a run early. What is in flight gets its time.
func (g *Generator) Stop() {
	if _, _, err := g.send(call{Verb: "stop"}); err != nil {
		return // it ended by itself
	}
}

// FinalReads reads every key until it answers, linearizably and for at most
// within, records the answers as phase final, and returns the keys without one.
// What is asked at the end of that time gets its own.
func (g *Generator) FinalReads(ctx context.Context, s Spec, keys []string, within time.Duration) (missing []string, err error) {
	late := within + s.Load.Timeout + 5*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, late, fmt.Errorf("the load generator did not end within %v", late))
	defer cancel()
	a, err := g.ask(ctx, call{Verb: "final", Spec: &s, Keys: keys, Within: within})
	return a.Missing, err
}

// Finish writes the history and ends the process. Where the process has ended
// already, the history is made of what the spool holds; see [Recover]. It may
// be called twice.
func (g *Generator) Finish(ctx context.Context) error {
	g.mu.Lock()
	if g.finished {
		g.mu.Unlock()
		return nil
	}
	g.finished = true
	spec, started := g.spec, g.started
	g.mu.Unlock()
	_, err := g.ask(ctx, call{Verb: "finish"})
	g.conn.Close() // its end: the process leaves
	if werr := g.Wait(ctx); werr != nil && err == nil {
		err = werr
	}
	if err == nil || !started {
		return err
	}
	if rerr := Recover(spec); rerr != nil {
		return errors.Join(err, fmt.Errorf("recover history: %w", rerr))
	}
	return err
}

// Wait waits for the process's end and kills it when ctx ends before.
func (g *Generator) Wait(ctx context.Context) error {
	select {
	case <-g.done:
	case <-ctx.Done():
		_ = syscall.Kill(g.pid, syscall.SIGKILL) // not yet reaped: done is not closed
		<-g.done
	}
	if g.waitErr != nil {
		return fmt.Errorf("%w: %w", ErrGone, g.waitErr)
	}
	return nil
}

// Done is closed when the process has ended.
func (g *Generator) Done() <-chan struct{} { return g.done }

// LoadMain is the load generator's process, "brownout _load". It ends when its
// supervisor closes the connection.
func LoadMain([]string) int {
	debug.SetGCPercent(400) // a collection is lateness; the heap is small
	if err := beNice(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
	}
	if err := syscall.SetNonblock(fdControl, true); err != nil {
		fmt.Fprintln(os.Stderr, "load: this is a helper of brownout's, not a command:", err)
		return 2
	}
	syscall.CloseOnExec(fdControl)
	s := &service{conn: os.NewFile(fdControl, "supervisor")}
	err := s.serve()
	s.close()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		return 1
	}
	return 0
}

// beNice raises the priority of all threads of this process: niceness belongs
// to threads, and those to come inherit it from those that are.
func beNice() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("raise priority: %w", err)
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, tid, niceness); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("raise priority to %d (going on without): %w", niceness, err)
		}
	}
	return nil
}

// A service is the process's side of the conversation.
type service struct {
	conn  *os.File
	outMu sync.Mutex
	jobs  sync.WaitGroup

	mu    sync.Mutex // of what follows; the supervisor asks for one job at a time
	busy  bool
	stop  context.CancelFunc // of the job
	pool  *pool
	spool *os.File
}

func (s *service) send(a answer) {
	b, err := json.Marshal(a)
	if err != nil {
		b = fmt.Appendf(nil, `{"id":%d,"error":%q}`, a.ID, err.Error())
	}
	s.outMu.Lock()
	defer s.outMu.Unlock()
	_, _ = s.conn.Write(append(b, '\n')) // a supervisor that has gone ends us through the reader
}

// serve answers calls until the supervisor hangs up.
func (s *service) serve() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer s.jobs.Wait()
	defer cancel()
	in := json.NewDecoder(bufio.NewReader(s.conn))
	for {
		var c call
		err := in.Decode(&c)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read call: %w", err)
		}
		if c.Verb == "stop" {
			s.mu.Lock()
			if s.stop != nil {
				s.stop()
			}
			s.mu.Unlock()
			s.send(answer{ID: c.ID})
			continue
		}
		if c.Verb == "finish" { // whatever goes on was given up
			s.mu.Lock()
			if s.stop != nil {
				s.stop()
			}
			s.mu.Unlock()
			s.jobs.Wait()
		}
		s.mu.Lock()
		if s.busy {
			s.mu.Unlock()
			s.send(answer{ID: c.ID, Error: "load generator: " + c.Verb + " while it is busy"})
			continue
		}
		job, stop := context.WithCancel(ctx)
		s.busy, s.stop = true, stop
		s.mu.Unlock()
		s.jobs.Go(func() {
			a := answer{ID: c.ID}
			if err := s.do(job, c, &a); err != nil {
				a.Error = c.Verb + ": " + err.Error()
			}
			s.mu.Lock()
			s.busy, s.stop = false, nil
			s.mu.Unlock()
			stop()
			s.send(a)
		})
	}
}

func (s *service) do(ctx context.Context, c call, a *answer) (err error) {
	if c.Verb == "finish" {
		return s.finish()
	}
	if c.Spec == nil {
		return errors.New("no spec")
	}
	if err := s.open(ctx, *c.Spec); err != nil {
		return err
	}
	switch c.Verb {
	case "calibrate":
		a.MaxPerS, err = s.pool.calibrate(ctx, c.Within)
	case "run":
		if err := c.Spec.checkRun(); err != nil {
			return err
		}
		timer, err := timerfd.New()
		if err != nil {
			return err
		}
		defer timer.Close()
		rep, err := s.pool.run(ctx, timer.Sleep, func(n News) { s.send(answer{News: n}) })
		a.Report = &rep
		return err
	case "final":
		d, err := dialer(c.Spec.Target)
		if err != nil {
			return err
		}
		a.Missing, err = s.pool.finalReads(ctx, d, c.Keys, c.Within)
		return err
	default:
		err = errors.New("unknown verb")
	}
	return err
}

// open makes the clients and the spool once; later specs change the times and the rate.
func (s *service) open(ctx context.Context, spec Spec) error {
	if s.pool != nil {
		s.pool.adopt(spec)
		return nil
	}
	if err := spec.check(); err != nil {
		return err
	}
	d, err := dialer(spec.Target)
	if err != nil {
		return err
	}
	spool, err := os.OpenFile(spec.Spool, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	p, err := newPool(ctx, spec, d, history.NewRecorder(spool))
	if err != nil {
		return errors.Join(err, spool.Close())
	}
	s.pool, s.spool = p, spool
	return nil
}

// finish makes the spool and the history whole and durable.
func (s *service) finish() error {
	if s.pool == nil {
		return nil
	}
	if err := s.pool.rec.End(); err != nil {
		return err
	}
	if err := s.spool.Sync(); err != nil {
		return fmt.Errorf("sync spool: %w", err)
	}
	return finish(s.pool.spec)
}

func (s *service) close() {
	if s.pool != nil {
		s.pool.close()
		_ = s.spool.Close() // synced by finish, or given up
	}
}
