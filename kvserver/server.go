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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// A server is one node.
type server struct {
	c       Config
	log     hclog.Logger
	started time.Time
	fresh   bool // this is the node's first start

	clients []net.Listener
	admin   net.Listener
	notes   *stages.Recorder
	store   *storage
	trans   *transport
	raft    *raft.Raft
	leads   chan bool // from Raft: leadership won or lost
	fsm     *fsm
	writes  *proposer
	reads   *confirmer
	front   *front
	changes leaderChanges
	storm   gcStorm
	clock   wallClock
}

// Seams are what may be put between this node and the world.
type seams struct {
	link  func(link) link                   // to the network; nil: nothing
	store func(raft.LogStore) raft.LogStore // to the disk; nil: nothing
}

// open brings up everything but the goroutines of run.
func open(c Config, logTo io.Writer, between seams) (_ *server, err error) {
	s := &server{c: c, started: time.Now(), fsm: newFSM(), leads: make(chan bool, 16)}
	s.fsm.bugs = newFSMBugs(c)
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
		s.fsm.notes = s.notes
	}
	// Listen first: peers that want to kick off an election find the port while the disk is still busy.
	l, err := newLink(c, s.log.Named("net"), s.notes)
	if err != nil {
		return nil, err
	}
	if between.link != nil {
		l = between.link(l)
	}
	s.trans = &transport{link: l}
	if err := s.listen(); err != nil {
		return nil, err
	}
	if s.store, err = openStorage(c, s.log.Named("store"), s.notes, between.store); err != nil {
		return nil, err
	}
	if err := s.startRaft(); err != nil {
		return nil, err
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

func (s *server) startRaft() error {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(s.c.ID)
	conf.HeartbeatTimeout = time.Duration(s.c.Heartbeat)
	conf.ElectionTimeout = time.Duration(s.c.Election)
	conf.LeaderLeaseTimeout = time.Duration(s.c.Lease)
	conf.CommitTimeout = time.Duration(s.c.CommitTimeout)
	conf.SnapshotThreshold = s.c.SnapshotThreshold
	conf.SnapshotInterval = time.Duration(s.c.SnapshotInterval)
	conf.TrailingLogs = s.c.TrailingLogs
	conf.NotifyCh = s.leads
	conf.NoLegacyTelemetry = true
	conf.Logger = s.log.Named("raft")
	conf.BatchApplyCh = false // proposer.fate relies on it
	conf.MaxAppendEntries = maxAppend

	var peers raft.Configuration
	for _, p := range s.c.Peers {
		peers.Servers = append(peers.Servers, raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Raft)})
	}
	old, err := raft.HasExistingState(s.store.logs, s.store.stable, s.store.snaps)
	if err != nil {
		return fmt.Errorf("look for existing state: %w", err)
	}
	if s.fresh = !old; s.fresh {
		if err := raft.BootstrapCluster(conf, s.store.logs, s.store.stable, s.store.snaps, s.trans, peers); err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	s.trans.accepted = func(id raft.ServerID, term uint64, sent time.Time) { s.reads.accepted(id, term, s.clock.at(sent)) }
	// Raft may call back as soon as it runs, so the confirmer must be there; it asks Raft nothing before leadership.
	s.reads = newConfirmer(s.c, nil, s.trans, s.redirect)
	s.reads.clock = &s.clock
	var running atomic.Pointer[raft.Raft]
	if s.c.LeaderWrite == "parallel" {
		s.store.meter.before = func(logs []*raft.Log) {
			if r := running.Load(); r != nil {
				s.ahead(r, logs)
			}
		}
	}
	if s.raft, err = raft.NewRaft(conf, s.fsm, s.store.logs, s.store.stable, s.store.snaps, s.trans); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	s.reads.raft = s.raft
	running.Store(s.raft)
	if err := s.checkMembers(peers); err != nil {
		return err
	}
	s.writes = newProposer(s.raft, s.c, s.redirect)
	s.writes.notes = s.notes
	s.front = &front{
		c: s.c, table: newTable(), fsm: s.fsm, writes: s.writes, reads: s.reads, info: s.infoText, clock: &s.clock, notes: s.notes, conns: map[*client]struct{}{},
	}
	return nil
}

// maxAppend bounds the entries of one message.
const maxAppend = 64

// ahead sends entries that this node is about to store to its followers, if it
// stores them because it leads. It is called in Raft's main goroutine.
func (s *server) ahead(r *raft.Raft, logs []*raft.Log) {
	if len(logs) == 0 || len(logs) > maxAppend {
		return
	}
	term, commit := logs[0].Term, r.CommitIndex()
	// As in confirmer.leads: a leader's role between two equal terms belongs to that term.
	if r.CurrentTerm() == term && r.State() == raft.Leader && r.CurrentTerm() == term && logs[len(logs)-1].Term == term {
		s.trans.ahead(logs, commit)
	}
}

// checkMembers makes sure that the quorum of reads is the quorum of writes.
func (s *server) checkMembers(want raft.Configuration) error {
	f := s.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("get members: %w", err)
	}
	got := f.Configuration().Servers
	byID := func(a, b raft.Server) int { return cmpString(string(a.ID), string(b.ID)) }
	slices.SortFunc(got, byID)
	slices.SortFunc(want.Servers, byID)
	if !slices.Equal(got, want.Servers) {
		return fmt.Errorf("peers: configured are %v, but this cluster was started with %v", want.Servers, got)
	}
	return nil
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// run serves until ctx ends, then closes everything in order.
func (s *server) run(ctx context.Context) error {
	s.log.Info("serving", "clients", s.c.Client, "raft", s.c.Raft, "log", s.c.Log, "reads", s.c.Reads,
		"after", time.Since(s.started).Round(time.Microsecond))
	g, ctx := errgroup.WithContext(ctx)
	// Clients are served a little longer than ctx, so that what they wait for still gets its answer.
	service, endService := context.WithCancel(context.WithoutCancel(ctx))
	defer endService()
	for _, ln := range s.clients {
		g.Go(func() error { return s.front.serve(service, ln) })
	}
	if s.admin != nil {
		g.Go(func() error { return s.serveAdmin(ctx) })
	}
	for _, p := range s.reads.peers {
		g.Go(func() error { return s.reads.probe(ctx, p) })
	}
	proposer := make(chan struct{})
	go func() { // not in g: see stop
		defer close(proposer)
		s.writes.run(ctx)
	}()
	g.Go(func() error { return s.watchLeadership(ctx) })
	g.Go(func() error { return s.expire(ctx) })
	if s.fresh && s.c.Kick || len(s.c.Peers) == 1 {
		g.Go(func() error { return s.kickOff(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		defer endService()
		return s.stop(proposer)
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
func (s *server) stop(proposer <-chan struct{}) error {
	const grace = 500 * time.Millisecond
	s.writes.shut()
	s.reads.shut()
	within(grace, proposer)
	s.trans.Close() // Raft waits for its messages to come back: let them fail
	err := s.raft.Shutdown().Error()
	within(grace, proposer)
	s.writes.abandon()
	// The answers are given; now they must reach the sockets.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(grace); s.front.pending.Load() > 0 && time.Now().Before(end); {
		<-tick.C
	}
	return err
}

func within(d time.Duration, done <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// close closes what open has opened. It may be called on a half-open server.
func (s *server) close() error {
	var errs []error
	if s.raft != nil {
		errs = append(errs, s.raft.Shutdown().Error())
	}
	for _, ln := range s.clients {
		ln.Close() // closed already on the normal way
	}
	if s.admin != nil {
		s.admin.Close()
	}
	if s.trans != nil {
		errs = append(errs, s.trans.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.close())
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
			s.writes.expire(now)
			s.reads.expire(now)
		}
	}
}

// leaderChanges counts how often this node won and lost leadership.
type leaderChanges struct {
	sync.Mutex
	won, lost int
}

// watchLeadership applies a barrier at the start of every term that this node leads.
func (s *server) watchLeadership(ctx context.Context) error {
	g := errgroup.Group{}
	defer g.Wait()
	for {
		var leader bool
		select {
		case <-ctx.Done():
			return nil
		case leader = <-s.leads:
		}
		term, ok := s.reads.leads()
		s.changes.Lock()
		if leader {
			s.changes.won++
		} else {
			s.changes.lost++
		}
		s.changes.Unlock()
		s.log.Info("leadership", "leader", leader, "term", s.raft.CurrentTerm())
		if leader {
			s.elected(ctx)
		}
		if !leader || !ok {
			s.reads.lost(s.reads.currentTerm())
			continue
		}
		g.Go(func() error {
			// The term is the same before and after, and a term is led only once: the barrier belongs to it.
			if err := await(ctx, s.raft.Barrier(0)); err != nil {
				s.log.Warn("barrier", "term", term, "error", err)
				return nil
			}
			if now, ok := s.reads.leads(); ok && now == term {
				s.reads.barred(term)
			}
			return nil
		})
	}
}

// await waits for a future of Raft's, whose own Error cannot be interrupted.
func await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends with Raft
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// kickOff makes the first election immediate: as soon as the peers listen, this
// node stands for election, until there is some leader.
func (s *server) kickOff(ctx context.Context) error {
	s.awaitPeers(ctx)
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		if addr, _ := s.raft.LeaderWithID(); addr != "" {
			return nil
		}
		if s.raft.State() == raft.Follower {
			if err := s.kick(); err != nil {
				s.log.Warn("kick", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-retry.C:
		}
	}
}

// awaitPeers waits until all peers listen, or a quorum does and a second has gone by.
func (s *server) awaitPeers(ctx context.Context) {
	start := time.Now()
	missing := slices.DeleteFunc(slices.Clone(s.c.Peers), func(p Peer) bool { return p.ID == s.c.ID })
	retry := time.NewTicker(500 * time.Microsecond)
	defer retry.Stop()
	for {
		missing = slices.DeleteFunc(missing, func(p Peer) bool {
			conn, err := net.DialTimeout("tcp", p.Raft, 100*time.Millisecond)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		if len(missing) == 0 || len(missing) <= (len(s.c.Peers)-1)/2 && time.Since(start) > time.Second {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		}
	}
}

// kick makes this node stand for election now, whoever leads: it sends itself
// the message by which a leader hands over.
func (s *server) kick() error {
	req := &raft.TimeoutNowRequest{RPCHeader: s.reads.header}
	err := s.trans.TimeoutNow(raft.ServerID(s.c.ID), raft.ServerAddress(s.c.Raft), req, &raft.TimeoutNowResponse{})
	if err != nil {
		return fmt.Errorf("kick: %w", err)
	}
	return nil
}

// redirect says why this node does not serve: where the leader is, or that it knows none.
func (s *server) redirect() string {
	_, id := s.raft.LeaderWithID()
	if string(id) != s.c.ID {
		for _, p := range s.c.Peers {
			if p.ID == string(id) {
				return "MOVED 0 " + p.Client
			}
		}
	}
	return "UNAVAIL no leader is known"
}
