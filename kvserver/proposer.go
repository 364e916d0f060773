package kvserver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"brownout/kvserver/stages"
)

// A call carries the commands of a run through the proposer or the confirmer
// and is answered as a whole. It is used again and again.
type call struct {
	ops    []op
	shards []uint8 // of each
	res    []result

	finished atomic.Bool   // every op has its result
	notify   chan struct{} // gets a token then
	turns    uint          // of reading

	// Guarded by mu, which orders an answer that comes too late with the next use.
	mu   sync.Mutex
	gen  uint64
	left int
	at   passage
}

// A passage is when a call passed the stages that the front cannot see, for
// [stages.Record]; all 0 where nothing is noted.
type passage struct {
	queued, proposed, locking, locked, answered int64
	index                                       uint64 // of the entry
}

func newCall(notify chan struct{}) *call { return &call{notify: notify} }

// begin makes the call ready for n results.
func (c *call) begin(n int) (gen uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	c.left = n
	return c.gen
}

// A slot is one command of a call, waiting.
type slot struct {
	c   *call
	gen uint64
	i   int
	at  time.Time
}

// open reports whether the command still waits for its result.
func (s slot) open() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.gen == s.gen && s.c.left > 0
}

// answer gives the command its result, unless the call has been answered.
func (s slot) answer(r result) { s.pass(r, passage{}) }

// pass is answer for a command that has gone all the way.
func (s slot) pass(r result, at passage) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.c.gen != s.gen || s.c.left == 0 {
		return
	}
	s.c.res[s.i] = r
	at.queued = s.c.at.queued
	s.c.at = at
	if s.c.left--; s.c.left == 0 {
		s.c.finished.Store(true)
		nudge(s.c.notify)
	}
}

// A proposer turns the writes of all connections into Raft entries: whatever
// waits when the last entry is done makes the next one. One entry is in flight
// at a time; with more, entries get smaller and the sum slower.
type proposer struct {
	raft     *raft.Raft
	limits   Config
	redirect func() string // why this node cannot take a write: MOVED or UNAVAIL and the rest
	notes    *stages.Recorder
	group    uint8 // for notes
	codec    *codecState
	wake     chan struct{}
	dirty    dirtyState
	through  *through // downstream; nil: nowhere

	mu       sync.Mutex
	closed   bool
	queue    []slot
	bytes    int
	inflight []slot

	entries, commands atomic.Uint64
	commit            histogram
}

func newProposer(r *raft.Raft, limits Config, codec *codecState, redirect func() string) *proposer {
	return &proposer{raft: r, limits: limits, codec: codec, redirect: redirect, wake: make(chan struct{}, 1)}
}

// submit queues c.ops, all or none. If it returns "", the call will be answered;
// else nothing was done, and the text says why.
func (p *proposer) submit(c *call) (refused string) {
	if p.raft.State() != raft.Leader {
		return p.redirect()
	}
	size := 0
	for i := range c.ops {
		size += c.ops[i].size()
	}
	now := time.Now()
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return "UNAVAIL server is shutting down"
	case len(p.queue)+len(c.ops) > p.limits.MaxQueue, p.bytes+size > p.limits.MaxQueueBytes && len(p.queue) > 0:
		p.mu.Unlock()
		return "UNAVAIL too many writes are waiting (max_queue, max_queue_bytes)"
	}
	if p.limits.Bug == bugDirtyRead {
		p.dirty.note(c.ops)
	}
	gen := c.begin(len(c.ops))
	c.at = passage{queued: p.notes.At(now)}
	for i := range c.ops {
		p.queue = append(p.queue, slot{c, gen, i, now})
	}
	p.bytes += size
	p.mu.Unlock()
	nudge(p.wake)
	return ""
}

// run proposes until ctx ends. It returns only when Raft has answered for the
// entry in flight; server.stop deals with what is left.
func (p *proposer) run(ctx context.Context) {
	var entry []op
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		for {
			coding := p.codec.now.Load()
			batch := p.take(&entry, coding)
			if len(batch) == 0 || ctx.Err() != nil {
				break
			}
			p.propose(batch, entry, coding)
		}
	}
}

// take moves the head of the queue to the batch in flight.
func (p *proposer) take(entry *[]op, coding *coding) []slot {
	clear(*entry)
	*entry = (*entry)[:0]
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.inflight)
	p.inflight = p.inflight[:0]
	bytes, whole, n := 0, 0, 0
	for _, s := range p.queue {
		if len(p.inflight) >= p.limits.MaxBatch || whole >= p.limits.MaxBatchBytes {
			break
		}
		n++
		if !s.open() { // timed out
			continue
		}
		weight := coding.weight(&s.c.ops[s.i])
		if whole+weight > p.limits.MaxBatchBytes && len(p.inflight) > 0 {
			n--
			break
		}
		whole += weight
		bytes += s.c.ops[s.i].size()
		p.inflight = append(p.inflight, s)
		*entry = append(*entry, s.c.ops[s.i])
	}
	rest := copy(p.queue, p.queue[n:])
	clear(p.queue[rest:])
	p.queue = p.queue[:rest]
	if p.bytes -= bytes; rest == 0 {
		p.bytes = 0 // also forgets those that timed out
	}
	return p.inflight
}

// propose makes one entry of ops and waits for its fate.
func (p *proposer) propose(batch []slot, ops []op, coding *coding) {
	start := time.Now()
	size := 8
	for i := range ops {
		size += coding.weight(&ops[i])
	}
	// The buffer lives on in Raft's log cache: it is never used again here.
	entry, err := p.codec.encode(coding, ops, size)
	if err != nil {
		p.refuse(batch, "ERR "+err.Error())
		return
	}
	encoded := p.notes.Now()
	f := p.raft.Apply(entry, time.Duration(p.limits.Timeout))
	end := p.proposed(batch, ops, entry)
	err = f.Error()
	end()
	if err == nil {
		res := f.Response().([]result)
		p.commit.record(time.Since(start))
		p.entries.Add(1)
		p.commands.Add(uint64(len(res)))
		at := passage{proposed: p.notes.At(start), answered: p.notes.Now(), index: f.Index()}
		p.notes.Note(&stages.Record{
			Kind: stages.Encode, Group: p.group, Peer: stages.NoPeer, N: uint32(len(entry)), A: f.Index(), B: f.Index(),
			T: [9]int64{stages.EncodeBegun: at.proposed, stages.EncodeDone: encoded},
		})
		if p.through != nil {
			p.through.deliver(batch, ops, res, at)
			return
		}
		p.mu.Lock()
		for i, s := range batch {
			s.pass(res[i], at)
		}
		p.mu.Unlock()
		return
	}
	p.refuse(batch, p.fate(err))
}

func (p *proposer) refuse(batch []slot, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range batch {
		s.answer(failure(text))
	}
}

// fate says what an error of [raft.Raft.Apply] means for the commands in the
// entry. Everything is unknown but these three, which Raft v1.8.0 returns
// before it has touched the log:
//
//   - ErrEnqueueTimeout: api.go ApplyLog. One select either hands the future to
//     applyCh or takes the timer; applyCh is unbuffered (BatchApplyCh is false),
//     so on the timer's branch nobody has the future.
//   - ErrNotLeader: raft.go answers a future from applyCh with it in runFollower,
//     runCandidate, and leaderLoop while it is removing itself. In all three the
//     future is only held by that select case and goes nowhere else. The other
//     uses of ErrNotLeader answer futures of other kinds (verify, restore,
//     configuration, transfer). A future that has reached dispatchLogs, the one
//     place that appends, is in leaderState.inflight and is answered by
//     ErrLeadershipLost when runLeader ends, never by ErrNotLeader.
//   - ErrLeadershipTransferInProgress: leaderLoop, case applyCh, before the
//     future joins the group that is dispatched.
//
// ErrLeadershipLost (runLeader's cleanup): the entry is in our log and perhaps
// in others; the next leader may commit it. ErrAbortedByRestore
// (restoreUserSnapshot): in flight. ErrRaftShutdown: ApplyLog returns it before
// handing over, but processLogs returns the same for an entry that is already
// committed. Any other error is StoreLogs' own (dispatchLogs): the disk may
// well hold the entry, and a restart would find it.
func (p *proposer) fate(err error) string {
	switch {
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return "UNAVAIL raft took no entry for " + p.limits.Timeout.String()
	case errors.Is(err, raft.ErrNotLeader):
		return p.redirect()
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return "UNAVAIL leadership is being transferred"
	}
	return "UNKNOWN " + err.Error()
}

// expire answers what has waited too long: commands still queued are certainly
// not done and are withdrawn, commands in flight are unknown.
func (p *proposer) expire(now time.Time) {
	limit := now.Add(-time.Duration(p.limits.Timeout))
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.inflight {
		if s.at.Before(limit) {
			s.answer(failure("UNKNOWN no answer from a quorum within " + p.limits.Timeout.String()))
		}
	}
	for _, s := range p.queue {
		if !s.at.Before(limit) {
			break
		}
		s.answer(failure("UNAVAIL waited " + p.limits.Timeout.String() + " behind other writes and was withdrawn"))
	}
}

// waiting is how many commands are in the queue.
func (p *proposer) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

// shut refuses what waits and all that comes.
func (p *proposer) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range p.queue {
		s.answer(failure("UNAVAIL server is shutting down"))
	}
}

// abandon answers what is still in flight after shut and the grace period.
func (p *proposer) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.inflight {
		s.answer(failure("UNKNOWN server shut down before a quorum answered"))
	}
}
