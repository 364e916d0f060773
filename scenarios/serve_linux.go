package scenarios

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/faults"
	"brownout/internal/clock"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/internal/undo"
)

// A standing cluster is one without a workload: `brownout up` starts it, a
// process of its own holds it, and other commands steer it through a socket.

// StartOptions of a standing cluster.
type StartOptions struct {
	Plan  *plan.Plan // only its target, network and seed count
	Dir   string
	Short string
	Exe   string
	Wait  time.Duration
}

// StartServer starts a standing cluster in the background and returns when it
// is ready, or has said why it cannot be.
func StartServer(ctx context.Context, o StartOptions) error {
	cmd, err := startServer(ctx, o)
	if err != nil {
		return err
	}
	return cmd.Process.Release()
}

// ServeForeground holds a standing cluster until ctx ends or somebody takes it
// down. It calls ready once.
func ServeForeground(ctx context.Context, o StartOptions, ready func()) error {
	cmd, err := startServer(ctx, o)
	if err != nil {
		return err
	}
	ready()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	return cmd.Wait()
}

func startServer(ctx context.Context, o StartOptions) (*exec.Cmd, error) {
	cmd, report, err := serverCommand(o)
	if err != nil {
		return nil, err
	}
	defer report.Close()
	// A session of its own: closing the terminal must not take the cluster down
	// half-way, and Ctrl-C is for whoever started it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var rep reply
	if err := json.NewDecoder(bufio.NewReader(report)).Decode(&rep); err != nil {
		_ = cmd.Wait()
		return nil, errors.Join(fmt.Errorf("start cluster: it ended before it was ready; see %s", filepath.Join(o.Dir, "up.log")), context.Cause(ctx))
	}
	if rep.Error == "" {
		return cmd, nil
	}
	_ = cmd.Wait() // so that it is gone when we say that it failed
	if rep.Unsupported {
		return nil, cannot(rep.Error)
	}
	return nil, errors.New(rep.Error)
}

// serverCommand prepares the process that holds a standing cluster. It reads
// its plan from the run's directory and reports once on the returned pipe.
func serverCommand(o StartOptions) (*exec.Cmd, *os.File, error) {
	if err := makeDir(o.Dir); err != nil {
		return nil, nil, err
	}
	if err := writeFile(filepath.Join(o.Dir, run.PlanFile), Encode(o.Plan)); err != nil {
		return nil, nil, &DirError{o.Dir, err}
	}
	log, err := os.OpenFile(filepath.Join(o.Dir, "up.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, nil, &DirError{o.Dir, err}
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(o.Exe, "_up", "-dir", o.Dir, "-id", o.Short, "-wait", o.Wait.String())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w}
	return cmd, r, nil
}

// ServeMain is the process that holds a standing cluster.
func ServeMain(args []string) int {
	fl := flag.NewFlagSet("_up", flag.ContinueOnError)
	dir := fl.String("dir", "", "run directory")
	id := fl.String("id", "", "short id")
	wait := fl.Duration("wait", 30*time.Second, "bound of getting ready")
	if err := fl.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ready := os.NewFile(3, "ready")
	unix.CloseOnExec(3)
	if err := serve(ctx, *dir, *id, *wait, ready); err != nil {
		// Too late for the pipe if it was ready before: then only the log has it.
		_ = json.NewEncoder(ready).Encode(reply{Error: err.Error(), Unsupported: errors.Is(err, errors.ErrUnsupported)})
		fmt.Fprintln(os.Stderr, "brownout:", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, dir, id string, wait time.Duration, ready *os.File) (err error) {
	p, err := readPlan(filepath.Join(dir, run.PlanFile))
	if err != nil {
		return err
	}
	events, err := newEventLog(filepath.Join(dir, run.EventsFile), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.close()) }()
	journal, err := undo.Create(filepath.Join(dir, run.CleanupFile), undo.Revert)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Unwind()) }()
	target, err := targetFor(p.Target)
	if err != nil {
		return err
	}
	c := clock.At(clock.Raw())
	events.start(c)
	cl, err := cluster.Up(ctx, cluster.Config{
		ID: id, Dir: dir, Nodes: p.Target.Nodes, Target: target, Cache: p.Target.Downstream != nil, Exe: "/proc/self/exe",
		Journal: journal, Emit: events.emit, Ready: wait, Seed: p.Seed, Disk: cluster.DiskAny,
		MTU: p.Network.MTU, Congestion: p.Network.Congestion,
	})
	if err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
		defer cancel()
		err = errors.Join(err, cl.Down(ctx))
	}()
	nemesis, err := faults.NewNemesis(ctx, faults.Bed{
		Cluster: cl, Clock: c, Seed: p.Seed, Emit: events.emit, Network: p.Network, Exe: "/proc/self/exe",
	})
	if err != nil {
		return err
	}
	h := &holder{id: id, dir: dir, cluster: cl, nemesis: nemesis}
	l, err := h.listen()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(ready).Encode(reply{ID: id}); err != nil {
		l.Close()
		return err
	}
	ready.Close()
	return h.hold(ctx, l)
}

// hostsFile names the nodes for people who enter the clients' namespace.
const hostsFile = "hosts"

func hostsOf(c *cluster.Cluster) []byte {
	b := []byte("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, n := range c.Boxes() {
		b = fmt.Appendf(b, "%s %s\n%s %s\n", n.IP4(), n.Name(), n.IP6(), n.Name())
	}
	return b
}

func readPlan(path string) (*plan.Plan, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := new(plan.Plan)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return p, nil
}

// A holder answers requests to a standing cluster until it is told to end.
type holder struct {
	id, dir string
	cluster *cluster.Cluster
	nemesis *faults.Nemesis
	stop    context.CancelFunc
}

// listen lets other commands find the cluster. They wait until hold answers.
func (h *holder) listen() (net.Listener, error) {
	if err := writeFile(filepath.Join(h.dir, hostsFile), hostsOf(h.cluster)); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", socketPrefix+h.id)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// hold returns when ctx ends or somebody takes the cluster down.
func (h *holder) hold(ctx context.Context, l net.Listener) error {
	ctx, h.stop = context.WithCancel(ctx)
	defer h.stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return wrap("watch roles", h.cluster.Watch(ctx)) })
	g.Go(func() error {
		<-ctx.Done()
		h.nemesis.Close(context.WithoutCancel(ctx))
		return l.Close()
	})
	g.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("accept: %w", err)
			}
			g.Go(func() error { h.answer(ctx, conn); return nil })
		}
	})
	return g.Wait()
}

// answer serves one connection. Abstract sockets have no permissions, so the
// peer must be root or whoever runs the cluster.
func (h *holder) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callWithin))
	rep := reply{}
	if uid, err := peerUID(conn); err != nil || uid != 0 && int(uid) != os.Geteuid() {
		rep.Error = "not permitted: the cluster belongs to another user"
		_ = json.NewEncoder(conn).Encode(rep)
		return
	}
	var req request
	if err := json.NewDecoder(conn).Decode(&req); err != nil {
		return
	}
	rep, err := h.do(ctx, req)
	if err != nil {
		rep.Error, rep.Unsupported = err.Error(), errors.Is(err, errors.ErrUnsupported)
	}
	_ = json.NewEncoder(conn).Encode(rep) // a caller that went away needs no answer
}

func (h *holder) do(ctx context.Context, req request) (reply, error) {
	switch req.Verb {
	case "info":
		info := h.info(ctx)
		return reply{Info: &info}, nil
	case "add":
		if req.Fault == nil {
			return reply{}, errors.New("add: no fault given")
		}
		id, err := h.nemesis.Add(ctx, *req.Fault)
		return reply{ID: id}, err
	case "list":
		return reply{Faults: h.faults()}, nil
	case "remove":
		return reply{}, h.nemesis.Remove(ctx, req.ID)
	case "down":
		h.stop()
		return reply{}, nil
	}
	return reply{}, fmt.Errorf("unknown request %q", req.Verb)
}

func (h *holder) info(ctx context.Context) Info {
	info := Info{
		ID: h.id, PID: os.Getpid(), Dir: h.dir, Hosts: filepath.Join(h.dir, hostsFile),
		Client: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.cluster.ClientNetNS().Fd()),
	}
	status := map[string]cluster.Status{}
	all := h.cluster.Statuses(ctx)
	info.Shards = cluster.Shards(all)
	for _, st := range all {
		status[st.Node] = st
	}
	for _, n := range h.cluster.Boxes() {
		st := status[n.Name()]
		node := NodeInfo{
			Name: n.Name(), IP4: n.IP4().String(), IP6: n.IP6().String(), Client: clientAddr(n),
			Init: n.InitPid(), Role: st.Role, Term: st.Term,
		}
		if n.Name() == cluster.CacheName {
			info.Cache = &node
			continue
		}
		for shard, one := range st.Shards {
			if one.Role == cluster.RoleLeader {
				node.Leads = append(node.Leads, shard)
			}
		}
		info.Nodes = append(info.Nodes, node)
	}
	return info
}

func peerUID(conn net.Conn) (uint32, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("no Unix socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

func wrap(what string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (h *holder) faults() []FaultState {
	out := []FaultState{}
	for _, st := range h.nemesis.List() {
		out = append(out, FaultState{
			ID: st.ID, Kind: st.Kind, Nodes: st.Nodes, Provider: st.Provider,
			Requested: st.Requested, Measured: st.Measured, Bit: string(st.Bit), Why: st.Why,
		})
	}
	return out
}
