package kvserver

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"brownout/kvserver/stages"
)

// Replication beside the leader's own disk.
//
// The library writes a leader's entries to its log and then sends them: one
// fsync after the other. The Raft thesis (Ongaro, 10.2.1) allows both at once,
// since "the leader may ... write to its disk in parallel with replicating to
// the followers", as long as it counts itself only when its own write is done.
// So when Raft stores entries as a leader, they are first sent to every follower
// that has everything before them ([groupLink.ahead]); then they are stored. When
// the library comes to send the same request, it gets the answer of the one that
// is on its way. Why this is safe:
//
//   - What is sent ahead is a message that a leader of this term may send:
//     its entries have their final index and term, it is sent only while this
//     node leads that term (checked by the caller, in Raft's main goroutine),
//     and the entry before them, its term and the commit index are those of the
//     log. A leader never has two different entries with one index and term:
//     if its store fails, it steps down, and a restarted node must win another
//     term, because terms and votes are durable before they count.
//   - The library's request that is answered this way is equal to it but for a
//     newer commit index, which followers learn from the next message.
//     A follower's answer to it says that the follower holds these
//     entries durably in this term; that cannot become untrue later, it can only
//     become known later, as if the network had been slow.
//   - The leader counts itself as before, when StoreLogs has returned, and the
//     library counts followers only from the answers that it is given, after
//     that. So nothing is committed, and no client answered, earlier than the
//     library would with a faster disk.
//
// What remains serial is the library's limit: an entry whose followers are done
// still waits for the leader's own disk.

// maxInFlight bounds the requests under way in one pipeline.
const maxInFlight = 4

// A pipeline sends entries to one follower without waiting for answers.
type pipeline struct {
	lane  *lane
	l     *groupLink
	ready chan raft.AppendFuture

	mu       sync.Mutex
	room     sync.Cond
	broken   error
	inflight int
	order    []*appendFuture // what the library waits for
	header   raft.RPCHeader
	term     uint64          // of the library's requests; 0 before the first
	end      uint64          // the last index that has been sent
	endTerm  uint64          // and its term
	early    []*appendFuture // sent ahead, and not asked for yet
}

// An appendFuture is one request of a pipeline.
type appendFuture struct {
	exchange
	p    *pipeline
	req  *raft.AppendEntriesRequest
	resp raft.AppendEntriesResponse
	note stages.Record // if it has entries
	over bool
	err  error
	wait chan struct{}
}

var _ raft.AppendFuture = (*appendFuture)(nil)

func (f *appendFuture) Start() time.Time                      { return f.sent }
func (f *appendFuture) Request() *raft.AppendEntriesRequest   { return f.req }
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return &f.resp }

// Error implements [raft.Future].
func (f *appendFuture) Error() error {
	<-f.wait
	return f.err
}

func newPipeline(l *groupLink, n *lane) *pipeline {
	p := &pipeline{l: l, lane: n, ready: make(chan raft.AppendFuture, 32*maxInFlight)}
	p.room.L = &p.mu
	l.pmu.Lock()
	l.pipelines[p] = struct{}{}
	l.pmu.Unlock()
	return p
}

// Consumer implements [raft.AppendPipeline].
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.ready }

// Close implements [raft.AppendPipeline].
func (p *pipeline) Close() error {
	p.l.pmu.Lock()
	delete(p.l.pipelines, p)
	p.l.pmu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail(raft.ErrPipelineShutdown)
	return nil
}

// fail ends the pipeline's use. The caller holds mu.
func (p *pipeline) fail(err error) {
	if p.broken == nil {
		p.broken = err
	}
	p.room.Broadcast()
}

// AppendEntries implements [raft.AppendPipeline]. The response is the future's.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.claim(req); f != nil {
		p.order = append(p.order, f)
		p.deliver()
		return f, nil
	}
	for p.inflight >= maxInFlight && p.broken == nil {
		p.room.Wait()
	}
	f, err := p.send(req)
	if err != nil {
		return nil, err
	}
	p.order = append(p.order, f)
	p.header = req.RPCHeader
	end, endTerm := req.PrevLogEntry, req.PrevLogTerm
	if n := len(req.Entries); n > 0 {
		end, endTerm = req.Entries[n-1].Index, req.Entries[n-1].Term
	}
	if p.term = req.Term; end >= p.end {
		p.end, p.endTerm = end, endTerm
	}
	return f, nil
}

// claim returns the request sent ahead that is answered when req would be: the
// library may ask at once for what was sent in several. A follower that has
// accepted the last of them has all before it. What was sent ahead otherwise than
// the library now asks for is forgotten; the follower will skip what it has twice.
func (p *pipeline) claim(req *raft.AppendEntriesRequest) *appendFuture {
	n := len(req.Entries)
	if n == 0 || len(p.early) == 0 {
		return nil
	}
	first, last := p.early[0].req, req.Entries[n-1]
	if first.Term == req.Term && first.PrevLogEntry == req.PrevLogEntry && first.PrevLogTerm == req.PrevLogTerm {
		for i, f := range p.early {
			if end := f.req.Entries[len(f.req.Entries)-1]; end.Index == last.Index && end.Term == last.Term {
				f.req, p.early = req, p.early[i+1:]
				p.l.claimed.Add(uint64(i) + 1)
				return f
			}
		}
	}
	p.early = nil
	return nil
}

// send sends a request. The caller holds mu, so that requests keep their order.
func (p *pipeline) send(req *raft.AppendEntriesRequest) (*appendFuture, error) {
	if p.broken != nil {
		return nil, p.broken
	}
	f := &appendFuture{p: p, req: req, wait: make(chan struct{})}
	f.exchange.resp, f.done = &f.resp, f.finish
	if len(req.Entries) > 0 {
		f.note = p.l.sending(p.lane.addr, req)
	}
	if err := p.lane.send(p.l.group, kindAppend, req, &f.exchange); err != nil {
		p.fail(err)
		return nil, err
	}
	f.note.T[stages.SendDone] = p.l.notes.Now()
	p.inflight++
	return f, nil
}

// finish takes the answer.
func (f *appendFuture) finish(err error) {
	p := f.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.over, f.err = true, err; err != nil {
		p.fail(err)
	} else if f.note.Kind != 0 {
		f.note.T[stages.SendAcked] = p.l.notes.Now()
		p.l.notes.Note(&f.note)
	}
	close(f.wait)
	p.inflight--
	p.deliver()
	p.room.Signal()
}

// deliver hands finished requests to the library, in the order of its calls. The caller holds mu.
func (p *pipeline) deliver() {
	n := 0
	for n < len(p.order) && p.order[n].over {
		select {
		case p.ready <- p.order[n]:
			n++
		default: // nobody has read for long: the library has given up on this pipeline
			p.fail(raft.ErrPipelineShutdown)
			return
		}
	}
	rest := copy(p.order, p.order[n:])
	clear(p.order[rest:])
	p.order = p.order[:rest]
}

// ahead sends entries that the library will ask to be sent, if the follower has
// been sent all before them, and nothing is in the way.
func (p *pipeline) ahead(logs []*raft.Log, commit uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil || p.inflight >= maxInFlight || p.term != logs[0].Term || p.end != logs[0].Index-1 {
		return
	}
	req := &raft.AppendEntriesRequest{
		RPCHeader: p.header, Term: p.term, PrevLogEntry: p.end, PrevLogTerm: p.endTerm,
		Entries: logs, LeaderCommitIndex: commit,
	}
	f, err := p.send(req)
	if err != nil {
		return
	}
	last := logs[len(logs)-1]
	p.early, p.end, p.endTerm = append(p.early, f), last.Index, last.Term
	p.l.early.Add(1)
}
