package kvserver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"brownout/kvserver/stages"
)

// A group is one Raft group as this node has it: a log, a state machine, and
// what brings writes and reads to them.
type group struct {
	c     Config // the node's, but for Dir, which is the group's
	index int    // the shard, from 0
	log   hclog.Logger
	clock *wallClock
	notes *stages.Recorder
	down  *downMeter
	fresh bool // this is the group's first start on this node
	stand bool // and it is for this node to lead it

	store   *storage
	trans   *transport
	raft    *raft.Raft
	leads   chan bool // from Raft: leadership won or lost
	fsm     *fsm
	writes  *proposer
	reads   *confirmer
	changes leaderChanges

	proposing chan struct{} // closed when the proposer has ended
}

func newGroup(s *server, index int) *group {
	g := &group{
		c: s.c, index: index, log: s.log, clock: &s.clock, notes: s.notes, down: &s.down,
		fsm: newFSM(s.c), leads: make(chan bool, 16), proposing: make(chan struct{}),
	}
	g.c.Dir = s.c.groupDir(index)
	if s.c.Shards > 1 {
		g.log = s.log.Named(fmt.Sprint("shard", index))
	}
	g.stand = s.c.Kick && (s.c.Shards == 1 || s.c.Peers[index%len(s.c.Peers)].ID == s.c.ID)
	g.fsm.bugs = newFSMBugs(s.c)
	g.fsm.notes, g.fsm.group, g.fsm.codec = s.notes, uint8(index), s.codec
	g.fsm.locks.meter, g.fsm.locks.faults, g.fsm.locks.watch = &s.locks, &s.lockFaults, &s.lockWatch
	return g
}

// open opens the group's storage and starts Raft on it.
func (g *group) open(between seams) (err error) {
	if g.store, err = openStorage(g.c, g.log.Named("store"), g.notes, between.store); err != nil {
		return err
	}
	g.store.meter.group = uint8(g.index)
	return g.startRaft()
}

// close closes what open has opened, which may be half of it.
func (g *group) close() []error {
	var errs []error
	if g.raft != nil {
		errs = append(errs, g.raft.Shutdown().Error())
	}
	if g.trans != nil {
		errs = append(errs, g.trans.Close())
	}
	if g.store != nil {
		errs = append(errs, g.store.close())
	}
	return errs
}

func (g *group) raftConfig() *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(g.c.ID)
	conf.HeartbeatTimeout = time.Duration(g.c.Heartbeat)
	conf.ElectionTimeout = time.Duration(g.c.Election)
	conf.LeaderLeaseTimeout = time.Duration(g.c.Lease)
	conf.CommitTimeout = time.Duration(g.c.CommitTimeout)
	conf.SnapshotThreshold = g.c.SnapshotThreshold
	conf.SnapshotInterval = time.Duration(g.c.SnapshotInterval)
	conf.TrailingLogs = g.c.TrailingLogs
	conf.NotifyCh = g.leads
	conf.NoLegacyTelemetry = true
	conf.Logger = g.log.Named("raft")
	conf.BatchApplyCh = false // proposer.fate relies on it
	conf.MaxAppendEntries = maxAppend
	return conf
}

func (g *group) startRaft() error {
	conf := g.raftConfig()
	var peers raft.Configuration
	for _, p := range g.c.Peers {
		peers.Servers = append(peers.Servers, raft.Server{ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Raft)})
	}
	old, err := raft.HasExistingState(g.store.logs, g.store.stable, g.store.snaps)
	if err != nil {
		return fmt.Errorf("look for existing state: %w", err)
	}
	if g.fresh = !old; g.fresh {
		if err := raft.BootstrapCluster(conf, g.store.logs, g.store.stable, g.store.snaps, g.trans, peers); err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	g.trans.accepted = func(id raft.ServerID, term uint64, sent time.Time) { g.reads.accepted(id, term, g.clock.at(sent)) }
	// Raft may call back as soon as it runs, so the confirmer must be there; it asks Raft nothing before leadership.
	g.reads = newConfirmer(g.c, nil, g.trans, g.redirect)
	g.reads.clock = g.clock
	var running atomic.Pointer[raft.Raft]
	if g.c.LeaderWrite == "parallel" {
		g.store.meter.before = func(logs []*raft.Log) {
			if r := running.Load(); r != nil {
				g.ahead(r, logs)
			}
		}
	}
	if g.raft, err = raft.NewRaft(conf, g.fsm, g.store.logs, g.store.stable, g.store.snaps, g.trans); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	g.reads.raft = g.raft
	running.Store(g.raft)
	if err := g.checkMembers(peers); err != nil {
		return err
	}
	g.writes = newProposer(g.raft, g.c, g.fsm.codec, g.redirect)
	g.writes.notes, g.writes.group = g.notes, uint8(g.index)
	if g.c.Downstream != nil {
		read := func(ops []op, res []result) { g.fsm.read(ops, res, false) }
		g.writes.through = newThrough(g.c, read, g.down)
		g.writes.through.notes, g.writes.through.group = g.notes, uint8(g.index)
	}
	return nil
}

// maxAppend bounds the entries of one message.
const maxAppend = 64

// ahead sends entries that this node is about to store to its followers, if it
// stores them because it leads. It is called in Raft's main goroutine.
func (g *group) ahead(r *raft.Raft, logs []*raft.Log) {
	if len(logs) == 0 || len(logs) > maxAppend {
		return
	}
	term, commit := logs[0].Term, r.CommitIndex()
	// As in confirmer.leads: a leader's role between two equal terms belongs to that term.
	if r.CurrentTerm() == term && r.State() == raft.Leader && r.CurrentTerm() == term && logs[len(logs)-1].Term == term {
		g.trans.ahead(logs, commit)
	}
}

// checkMembers makes sure that the quorum of reads is the quorum of writes.
func (g *group) checkMembers(want raft.Configuration) error {
	f := g.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("get members: %w", err)
	}
	got := f.Configuration().Servers
	byID := func(a, b raft.Server) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(got, byID)
	slices.SortFunc(want.Servers, byID)
	if !slices.Equal(got, want.Servers) {
		return fmt.Errorf("peers: configured are %v, but this cluster was started with %v", want.Servers, got)
	}
	return nil
}

// run starts what works until ctx ends. The proposer is not among it: see server.stop.
func (g *group) run(ctx context.Context, all *errgroup.Group) {
	for _, p := range g.reads.peers {
		all.Go(func() error { return g.reads.probe(ctx, p) })
	}
	go func() {
		defer close(g.proposing)
		g.writes.run(ctx)
	}()
	all.Go(func() error { return g.watchLeadership(ctx) })
	if t := g.writes.through; t != nil {
		all.Go(t.run)
	}
}

// leaderChanges counts how often this node won and lost leadership.
type leaderChanges struct {
	sync.Mutex
	won, lost int
}

// watchLeadership applies a barrier at the start of every term that this node leads.
func (g *group) watchLeadership(ctx context.Context) error {
	barriers := errgroup.Group{}
	defer barriers.Wait()
	for {
		var leader bool
		select {
		case <-ctx.Done():
			return nil
		case leader = <-g.leads:
		}
		term, ok := g.reads.leads()
		g.changes.Lock()
		if leader {
			g.changes.won++
		} else {
			g.changes.lost++
		}
		g.changes.Unlock()
		g.log.Info("leadership", "leader", leader, "term", g.raft.CurrentTerm())
		if leader {
			g.elected(ctx)
		}
		if !leader || !ok {
			g.reads.lost(g.reads.currentTerm())
			continue
		}
		barriers.Go(func() error {
			// The term is the same before and after, and a term is led only once: the barrier belongs to it.
			if err := await(ctx, g.raft.Barrier(0)); err != nil {
				g.log.Warn("barrier", "term", term, "error", err)
				return nil
			}
			if now, ok := g.reads.leads(); ok && now == term {
				g.reads.barred(term)
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

// redirect says why this node does not serve: where the leader is, or that it knows none.
func (g *group) redirect() string {
	if i := g.leader(); i >= 0 && g.c.Peers[i].ID != g.c.ID {
		return movedWord + g.c.Peers[i].Client
	}
	return "UNAVAIL no leader is known"
}

// leader is the place among the peers of who leads the group, as far as this
// node knows; -1 if it knows nobody.
func (g *group) leader() int {
	_, id := g.raft.LeaderWithID()
	return slices.IndexFunc(g.c.Peers, func(p Peer) bool { return p.ID == string(id) })
}
