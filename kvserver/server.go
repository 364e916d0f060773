package kvserver

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"brownout/kvserver/stages"
)

// Main is the program: kvserver --config FILE. It serves until ctx ends.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("kvserver", flag.ContinueOnError)
	fs.SetOutput(stderr)
	path := fs.String("config", "", "JSON configuration `file`")
	check := fs.Bool("check", false, "only check the configuration")
	bug := fs.String("bug", "", "plant a `bug`, of "+strings.Join(Bugs, ", "))
	allow := fs.Bool("allow-bugs", false, "this is an experiment about bugs")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *path == "" || fs.NArg() > 0 {
		return errors.New("usage: kvserver --config FILE [--check] [--bug NAME --allow-bugs]")
	}
	data, err := os.ReadFile(*path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		return fmt.Errorf("%s: %w", *path, err)
	}
	c.Bug, c.AllowBugs = cmp.Or(*bug, c.Bug), *allow || c.AllowBugs
	if err := c.checkBug(); err != nil {
		return err
	}
	if *check {
		_, err := fmt.Fprintln(stdout, "configuration is valid")
		return err
	}
	runtime.GOMAXPROCS(cmp.Or(c.Procs, share(runtime.NumCPU(), len(c.Peers))))
	return Run(ctx, c, stderr)
}

// Run serves as one node until ctx ends or something it cannot do without
// fails, and logs to logTo. When it returns, everything is closed.
func Run(ctx context.Context, c Config, logTo io.Writer) error {
	c, err := c.withDefaults()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	s, err := open(c, logTo, seams{})
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// A server is one node: a front for clients, and behind it the groups.
type server struct {
	c       Config
	log     hclog.Logger
	started time.Time

	clients []net.Listener
	admin   net.Listener
	notes   *stages.Recorder
	groups  []*group
	front   *front
	storm   gcStorm
	clock   wallClock
	locks   lockMeter
	codec   *codecState

	lockFaults lockFaults
	lockWatch  lockWatch
	down       downMeter
}

// Seams are what may be put between this node and the world.
type seams struct {
	link  func(link) link                   // to the network; nil: nothing
	store func(raft.LogStore) raft.LogStore // to the disk; nil: nothing
}

func (s seams) around(l link) link {
	if s.link == nil {
		return l
	}
	return s.link(l)
}

// open brings up everything but the goroutines of run.
func open(c Config, logTo io.Writer, between seams) (_ *server, err error) {
	s := &server{c: c, started: time.Now()}
	if s.codec, err = newCodecState(c); err != nil {
		return nil, err
	}
	s.lockWatch.limit, s.lockWatch.dir = time.Duration(c.LockDump), c.Dumps
	if c.MutexProfile > 0 || c.BlockProfile > 0 {
		ProfileRequest{c.MutexProfile, int64(c.BlockProfile)}.set()
	}
	s.log = hclog.New(&hclog.LoggerOptions{Name: c.ID, Level: hclog.LevelFromString(c.LogLevel), Output: logTo})
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if c.Stages != "" {
		h := stages.Header{Node: c.ID}
		for _, p := range c.Peers {
			h.Members = append(h.Members, p.ID)
		}
		if s.notes, err = stages.Open(c.Stages, h); err != nil {
			return nil, fmt.Errorf("stages: %w", err)
		}
	}
	// Listen first: peers that want to kick off an election find the port while the disk is still busy.
	l, err := newLink(c, s.log.Named("net"), s.notes)
	if err != nil {
		return nil, err
	}
	for i := range c.Shards {
		g := newGroup(s, i)
		g.trans = &transport{link: between.around(l.groups[i])}
		s.groups = append(s.groups, g)
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := c.checkLayout(); err != nil {
		return nil, err
	}
	for _, g := range s.groups {
		if err := g.open(between); err != nil {
			return nil, err
		}
	}
	s.front = &front{
		c: c, table: newTable(), groups: s.groups, info: s.infoText, clock: &s.clock, notes: s.notes, conns: map[*client]struct{}{},
	}
	return s, nil
}

func (s *server) listen() error {
	for _, addr := range s.c.clientAddrs() {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("listen for clients: %w", err)
		}
		s.clients = append(s.clients, ln)
	}
	if s.c.Admin == "" {
		return nil
	}
	// A socket file of a process that was killed is in the way.
	if err := os.Remove(s.c.Admin); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old admin socket: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.c.Admin), 0o755); err != nil {
		return fmt.Errorf("make directory of admin socket: %w", err)
	}
	ln, err := net.Listen("unix", s.c.Admin)
	if err != nil {
		return fmt.Errorf("listen for admin: %w", err)
	}
	s.admin = ln
	return nil
}

// run serves until ctx ends, then closes everything in order.
func (s *server) run(ctx context.Context) error {
	s.log.Info("serving", "clients", s.c.Client, "raft", s.c.Raft, "log", s.c.Log, "reads", s.c.Reads, "lock", s.c.Lock, "codec", s.c.Codec, "shards", s.c.Shards,
		"after", time.Since(s.started).Round(time.Microsecond))
	g, ctx := errgroup.WithContext(ctx)
	// Clients are served a little longer than ctx, so that what they wait for still gets its answer.
	service, endService := context.WithCancel(context.WithoutCancel(ctx))
	defer endService()
	for _, ln := range s.clients {
		g.Go(func() error { return s.front.serve(service, ln) })
	}
	if s.c.Dumps != "" {
		g.Go(func() error { return s.lockWatch.run(ctx, s.c.ID, s.log) })
	}
	if s.admin != nil {
		g.Go(func() error { return s.serveAdmin(ctx) })
	}
	for _, one := range s.groups {
		one.run(ctx, g)
	}
	g.Go(func() error { return s.expire(ctx) })
	g.Go(func() error { return s.kickOff(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		defer endService()
		return s.stop()
	})
	err := g.Wait()
	s.log.Info("stopped")
	return errors.Join(err, s.close())
}

// stop ends client service so that every command gets its answer: what waits is
// refused, the entry in flight has a moment to commit, and what is left after
// Raft's end is unknown.
//
// Raft answers every future at its end but one: an entry that was committed and
// on its way to the state machine in the instant of the shutdown may be
// forgotten (fsm.go runFSM leaves its queue). So the proposer is waited for,
// but not for ever.
func (s *server) stop() error {
	const grace = 500 * time.Millisecond
	for _, g := range s.groups {
		g.writes.shut()
		g.reads.shut()
	}
	s.awaitProposers(grace)
	var ends []raft.Future
	for _, g := range s.groups {
		g.trans.Close() // Raft waits for its messages to come back: let them fail
		ends = append(ends, g.raft.Shutdown())
	}
	var errs []error
	for _, f := range ends {
		errs = append(errs, f.Error())
	}
	s.awaitProposers(grace)
	for _, g := range s.groups {
		g.writes.abandon()
		if t := g.writes.through; t != nil {
			t.abandon()
		}
	}
	// The answers are given; now they must reach the sockets.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(grace); s.front.pending.Load() > 0 && time.Now().Before(end); {
		<-tick.C
	}
	return errors.Join(errs...)
}

// awaitProposers waits until all proposers have ended, but no longer than d.
func (s *server) awaitProposers(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for _, g := range s.groups {
		select {
		case <-g.proposing:
		case <-t.C:
			return
		}
	}
}

// close closes what open has opened. It may be called on a half-open server.
func (s *server) close() error {
	var errs []error
	s.lockFaults.close()
	for _, ln := range s.clients {
		ln.Close() // closed already on the normal way
	}
	if s.admin != nil {
		s.admin.Close()
	}
	for _, g := range s.groups {
		errs = append(errs, g.close()...)
	}
	errs = append(errs, s.notes.Close())
	return errors.Join(errs...)
}

// expire looks for commands that have waited too long.
func (s *server) expire(ctx context.Context) error {
	tick := time.NewTicker(max(time.Duration(s.c.Timeout)/50, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, g := range s.groups {
				g.writes.expire(now)
				if t := g.writes.through; t != nil {
					t.expire(now)
				}
				g.reads.expire(now)
			}
		}
	}
}
