package kvserver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Linearizable reads (Ongaro, "Consensus: Bridging Theory and Practice", 6.4).
//
// A read that arrives at a leader of term T at time t is answered from the
// local state machine once
//
//	(1) this node has applied an entry of its own term T (a barrier, once per term), and
//	(2) a quorum, this node included, has accepted a heartbeat of term T that
//	    was *sent after t*.
//
// Then it returns the effect of every write acknowledged before t. Let W be
// such a write, committed in term T'.
//
//   - T' > T is impossible. For W, a quorum was in term T' before t; every
//     quorum shares a member with the one of (2), which was in term T after t;
//     and the term of a node never decreases.
//   - T' < T. W was committed before T's leader was elected, so it is in this
//     log before the barrier (leader completeness, Raft paper 5.4.3), and the
//     barrier's future is answered after everything before it has been applied
//     (fsm.go runFSM of the library works its queue in order).
//   - T' = T. This very node acknowledged W, and a write is acknowledged with
//     the result of having been applied here, that is before t.
//
// The same holds for what an earlier linearizable read has returned: it had
// been applied, hence committed, at that time. So there is no read index to
// wait for: in this server applied comes before acknowledged.
//
// Raft's own [raft.Raft.VerifyLeader] does not give (2). Its futures count any
// successful answer that comes in after they were registered (replication.go:
// heartbeat and updateLastAppended call notifyAll), also one to a message sent
// before the read began, whose sender may have been deposed since.
// TestReadIsNotServedByAnOldHeartbeat shows it returning nil on a leader whose
// successor has already acknowledged a write. Therefore the heartbeats of (2)
// are sent here: ordinary Raft heartbeats, by the transport Raft itself uses,
// one at a time to each peer, each carrying all reads that arrived before it
// was sent. They need neither Raft's main loop nor the disk, so a slow fsync
// does not delay reads.
//
// To know that it leads term T, a node reads its term, its role, and its term
// again. Raft leaves the leader's role before it changes the term (setState
// before setCurrentTerm everywhere in raft.go), and takes the term before the
// role, so a leader's role between two equal terms belongs to that term.
//
// One assumption is the library's to keep: that a node's term never decreases.
// Its heartbeat fast path runs beside the main loop (raft.go processHeartbeat)
// and could, in a window of a few instructions, set back the term of a node
// that has just voted in another. All of Raft rests on it, not only reads.
//
// # Lease
//
// In mode "lease" a read is served at once if a quorum has accepted a message
// sent within the last Config.Lease: a follower does not vote for another until
// Heartbeat ≥ Lease after it. That fails, and reads may be stale, when clocks
// run at different rates, when this process is stopped between the check and
// the answer, and when somebody is made leader by force (transfer, kick),
// because such candidates are voted for at once. A clock that is told to be
// wrong (see wallClock) does to leases what wall clocks do.
//
// # Local
//
// Mode "local" (or READONLY on a connection) asks nobody. Reads may be
// arbitrarily stale, on a deposed leader as on a follower.
type confirmer struct {
	c        Config
	raft     *raft.Raft
	trans    link
	redirect func() string
	header   raft.RPCHeader
	clock    *wallClock // of leases
	peers    []*peerProbe
	need     int // peers that must agree, besides this node

	mu      sync.Mutex
	term    uint64 // the term that waiting, ready and the peers' accepted belong to
	ready   uint64 // the last term whose barrier has been applied
	arrived uint64 // numbers the reads
	waiting []slot // ascending in seq
	seq     []uint64

	confirmed, rounds atomic.Uint64
	wait              histogram
}

// A peerProbe is what is known of one peer. Guarded by confirmer.mu.
type peerProbe struct {
	Peer
	wake     chan struct{}
	accepted uint64    // all reads up to this number are confirmed by it
	sent     time.Time // when the newest message was sent that it has accepted in this term
}

func newConfirmer(c Config, r *raft.Raft, t link, redirect func() string) *confirmer {
	f := &confirmer{c: c, raft: r, trans: t, redirect: redirect, clock: new(wallClock), need: len(c.Peers) / 2}
	f.header = raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(c.ID),
		Addr:            t.EncodePeer(raft.ServerID(c.ID), raft.ServerAddress(c.Raft)),
	}
	for _, p := range c.Peers {
		if p.ID != c.ID {
			f.peers = append(f.peers, &peerProbe{Peer: p, wake: make(chan struct{}, 1)})
		}
	}
	return f
}

// leads returns the term this node leads, if it does.
func (f *confirmer) leads() (term uint64, ok bool) {
	before := f.raft.CurrentTerm()
	leader := f.raft.State() == raft.Leader
	return before, leader && f.raft.CurrentTerm() == before
}

// confirm asks that the slot is answered when reads may be done on the local
// state, with resOK or the reason why not. now reports that they may be done at
// once, refused is the reason why they cannot be; then the slot is not answered.
func (f *confirmer) confirm(s slot) (now bool, refused string) {
	term, ok := f.leads()
	if !ok && f.buggy() {
		return true, ""
	}
	if !ok {
		return false, f.redirect()
	}
	at := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.enter(term)
	if f.term != term {
		return false, "UNAVAIL leadership is changing"
	}
	if f.ready == term && (f.need == 0 || f.c.Reads == "lease" && f.leased(f.clock.at(at))) {
		return true, ""
	}
	if len(f.waiting) >= f.c.MaxQueue {
		return false, "UNAVAIL too many reads are waiting (max_queue)"
	}
	f.arrived++
	s.at = at
	f.waiting = append(f.waiting, s)
	f.seq = append(f.seq, f.arrived)
	for _, p := range f.peers {
		nudge(p.wake)
	}
	return false, ""
}

// enter begins a new term if need be: what was accepted before counts for nothing.
func (f *confirmer) enter(term uint64) {
	if term <= f.term {
		return
	}
	f.refuse("UNAVAIL leadership was lost before the read was confirmed")
	f.term = term
	for _, p := range f.peers {
		p.accepted, p.sent = 0, time.Time{}
	}
}

// leased reports whether a quorum accepted something sent less than a lease ago.
func (f *confirmer) leased(now time.Time) bool {
	n := 0
	if f.c.Bug == bugUnguarded {
		return true
	}
	for _, p := range f.peers {
		if now.Sub(p.sent) < time.Duration(f.c.Lease) {
			n++
		}
	}
	return n >= f.need
}

// refuse fails all waiting reads. The caller holds mu.
func (f *confirmer) refuse(text string) {
	for _, s := range f.waiting {
		s.answer(failure(text))
	}
	f.drop(len(f.waiting))
}

// drop forgets the first n waiting reads.
func (f *confirmer) drop(n int) {
	rest := copy(f.waiting, f.waiting[n:])
	clear(f.waiting[rest:])
	f.waiting = f.waiting[:rest]
	f.seq = f.seq[:copy(f.seq, f.seq[n:])]
}

// release answers the reads that a quorum has confirmed. The caller holds mu.
func (f *confirmer) release() {
	if f.ready != f.term || len(f.waiting) == 0 {
		return
	}
	upTo := f.arrived
	if f.need > 0 {
		var few [8]uint64
		accepted := few[:0]
		for _, p := range f.peers {
			accepted = append(accepted, p.accepted)
		}
		slices.Sort(accepted)
		upTo = accepted[len(accepted)-f.need]
	}
	now, n := time.Now(), 0
	for n < len(f.waiting) && f.seq[n] <= upTo {
		f.wait.record(now.Sub(f.waiting[n].at))
		f.waiting[n].answer(okResult)
		n++
	}
	f.confirmed.Add(uint64(n))
	f.drop(n)
}

// accepted notes that a peer has accepted a message of term that left at sent.
func (f *confirmer) accepted(id raft.ServerID, term uint64, sent time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		if p.ID == string(id) && term == f.term && sent.After(p.sent) {
			p.sent = sent
		}
	}
}

// probe confirms reads with one peer until ctx ends.
func (f *confirmer) probe(ctx context.Context, p *peerProbe) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		if f.round(p) {
			continue
		}
		// The peer is out of reach; the others may be enough. Try again while somebody waits.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
		f.mu.Lock()
		if len(f.waiting) > 0 {
			nudge(p.wake)
		}
		f.mu.Unlock()
	}
}

// round sends one heartbeat for all reads that have arrived.
func (f *confirmer) round(p *peerProbe) (reached bool) {
	f.mu.Lock()
	term, upTo := f.term, f.arrived
	idle := len(f.waiting) == 0 || upTo == p.accepted
	f.mu.Unlock()
	if idle {
		return true
	}
	// After this check the message is on its way; it is this that (2) calls sent.
	if now, ok := f.leads(); !ok || now != term {
		f.lost(term)
		return true
	}
	req := raft.AppendEntriesRequest{RPCHeader: f.header, Term: term}
	var resp raft.AppendEntriesResponse
	if err := f.trans.AppendEntries(raft.ServerID(p.ID), raft.ServerAddress(p.Raft), &req, &resp); err != nil {
		return false
	}
	f.rounds.Add(1)
	if resp.Term > term {
		f.lost(term)
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if resp.Success && f.term == term {
		p.accepted = max(p.accepted, upTo)
		f.release()
	}
	return resp.Success
}

// lost refuses the reads that waited for a confirmation of term.
func (f *confirmer) lost(term uint64) {
	text := f.redirect()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.term == term {
		f.refuse(text)
	}
}

// barred notes that the barrier of a term has been applied.
func (f *confirmer) barred(term uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.enter(term)
	f.ready = max(f.ready, term)
	f.release()
}

// expire refuses reads that have waited too long. A read changes nothing, so its fate is never unknown.
func (f *confirmer) expire(now time.Time) {
	limit := now.Add(-time.Duration(f.c.Timeout))
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(f.waiting) && f.waiting[n].at.Before(limit) {
		f.waiting[n].answer(failure("UNAVAIL leadership was not confirmed by a quorum within " + f.c.Timeout.String()))
		n++
	}
	f.drop(n)
}

// shut refuses all waiting reads.
func (f *confirmer) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse("UNAVAIL server is shutting down")
}

func (f *confirmer) currentTerm() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.term
}

// readyFor reports whether the barrier of term has been applied.
func (f *confirmer) readyFor(term uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready == term
}
