package trace

import (
	"cmp"
	"slices"

	"brownout/internal/history"
	"brownout/kvserver/stages"
)

// A Stage is one step of a request's way. The steps of a story follow each
// other without gaps, from when the operation was due to when its client had
// the answer, so that their lengths add up to its response time.
type Stage struct {
	Name  string `json:"stage"`
	Node  string `json:"node"` // that it passed on; "client" for the client
	Start int64  `json:"start_ns"`
	End   int64  `json:"end_ns"`
}

// Unseen is the name of stages that nobody noted.
const Unseen = "not seen"

// Length of the stage in ns.
func (s Stage) Length() int64 { return s.End - s.Start }

// A Copy is what became of the entry at one follower.
type Copy struct {
	Node   string  `json:"node"`
	Stages []Stage `json:"stages"`
	Acked  int64   `json:"acked_ns,omitempty"` // when the leader had its answer; 0 if it never had
	Quorum bool    `json:"quorum"`             // it was among those that the commit waited for
}

// A Story is the life of one operation.
type Story struct {
	Op      history.Op `json:"-"`
	Node    string     `json:"node"`                   // that answered
	Shard   int        `json:"shard,omitempty"`        // whose log has the entry
	Slow    bool       `json:"kept_as_slow,omitempty"` // noted only because it was slow; no sample of all
	Index   uint64     `json:"index,omitempty"`
	Beside  int        `json:"beside,omitempty"` // other commands in the same entry that were noted
	Stages  []Stage    `json:"stages"`
	Log     []Stage    `json:"log,omitempty"` // the leader's own log, whether or not it was waited for
	Copies  []Copy     `json:"copies,omitempty"`
	Quorum  int        `json:"quorum,omitempty"`    // members that must have the entry
	Commit  int64      `json:"commit_ns,omitempty"` // when they had
	Applied []Stage    `json:"applied,omitempty"`
}

// Unexplained is how much of the response time nobody noted.
func (s *Story) Unexplained() (sum int64) {
	for _, st := range s.Stages {
		if st.Name == Unseen {
			sum += st.Length()
		}
	}
	return sum
}

// Story tells the life of an operation. It is nil if no node noted it: notes
// are a sample where there are thousands of requests a second.
func (n *Notes) Story(op *history.Op) *Story {
	r := n.request(op)
	if r == nil {
		return nil
	}
	s := &Story{Op: *op, Node: r.node.name, Shard: int(r.Group), Index: r.B, Slow: r.Code&stages.Slow != 0}
	t := &way{at: op.Due}
	t.to("waits in the client", "client", op.Call)
	t.to("network to "+s.Node, "client", r.T[stages.Received])
	t.to("decode", s.Node, r.T[stages.Parsed])
	if r.B == 0 {
		t.to("hand over", s.Node, r.T[stages.Queued])
		t.to("confirm leadership", s.Node, r.T[stages.Proposed])
		t.to("wake", s.Node, r.T[stages.Locking])
		t.to("lock wait", s.Node, r.T[stages.Locked])
		t.to("read", s.Node, r.T[stages.Answered])
	} else {
		t.to("hand over", s.Node, r.T[stages.Queued])
		t.to("proposal queue", s.Node, r.T[stages.Proposed])
		n.replicate(s, r, t)
		t.to("wake", s.Node, r.T[stages.Answered])
		n.through(s, r, t)
	}
	t.to("answer queue", s.Node, r.T[stages.Encoding])
	t.to("encode and send", s.Node, earlier(r.T[stages.Sent], op.Return))
	t.to("network to the client", "client", op.Return)
	s.Stages = t.stages
	return s
}

// through tells how what an entry changed went downstream before the answer.
func (n *Notes) through(s *Story, r *request, t *way) {
	from, until := r.T[stages.Answered], r.T[stages.Encoding]
	down := find(r.node.through, position{r.Group, r.B}, from, until, func(d *stages.Record) bool {
		return d.T[stages.ThroughDone] <= until // else nobody waited for it
	})
	if down == nil {
		return
	}
	t.to("downstream queue", s.Node, down.T[stages.ThroughBegun])
	t.to("downstream", s.Node, down.T[stages.ThroughDone])
}

// A way grows stage by stage. A stage whose end is not known is merged into
// the next that is, under the name Unseen.
type way struct {
	at     int64
	gap    bool
	stages []Stage
}

func (p *way) to(name, node string, end int64) {
	if end == 0 {
		p.gap = true
		return
	}
	end = max(end, p.at) // two threads may note the same instant the other way round
	if p.gap {
		name, p.gap = Unseen, false
	}
	if end > p.at {
		p.stages = append(p.stages, Stage{name, node, p.at, end})
	}
	p.at = end
}

// replicate tells how an entry came into the logs of a quorum and into the
// state, and takes the path along what the commit waited for.
func (n *Notes) replicate(s *Story, r *request, t *way) {
	leader := r.node
	at := position{r.Group, r.B}
	from, until := r.T[stages.Proposed], r.T[stages.Answered]
	s.Quorum = len(leader.members)/2 + 1
	if e := find(leader.encode, at, from, until, nil); e != nil {
		t.to("encode commands", leader.name, e.T[stages.EncodeDone])
	}
	own := find(leader.store, at, from, until, nil)
	if own == nil {
		t.gap = true
		return
	}
	s.Log = store(leader.name, own)
	s.Beside = n.entries[entry{leader.name, at}] - 1
	for i, name := range leader.members {
		if name != leader.name {
			s.Copies = append(s.Copies, n.copy(leader, uint8(i), name, at, from))
		}
	}
	slices.SortStableFunc(s.Copies, func(a, b Copy) int {
		if (a.Acked == 0) != (b.Acked == 0) {
			return cmp.Compare(b.Acked, a.Acked) // those that never answered last
		}
		return cmp.Compare(a.Acked, b.Acked)
	})
	applied := find(leader.apply, at, own.T[stages.StoreBegun], until, nil)
	// The leader's main loop writes its own log before it looks at answers: the
	// commit waits for that, and for the slowest follower of the fastest quorum.
	s.Commit = own.T[stages.StoreDone]
	var last *Copy
	for i := range min(s.Quorum-1, len(s.Copies)) {
		if c := &s.Copies[i]; c.Acked > 0 && (applied == nil || c.Acked <= applied.T[stages.ApplyLocked]) {
			c.Quorum = true
			if c.Acked > s.Commit {
				s.Commit, last = c.Acked, c
			}
		}
	}
	begun := own.T[stages.StoreBegun]
	if last == nil {
		t.to("raft takes it", leader.name, begun)
		t.follow("leader's log: ", s.Log)
	} else {
		sent := last.Stages[0].Start
		t.to("raft takes it", leader.name, min(begun, sent))
		if sent > own.T[stages.StoreDone] { // first its own disk, then the others'
			t.follow("leader's log: ", s.Log)
			t.to("to the senders", leader.name, sent)
		} else {
			t.to("to the senders", leader.name, sent)
		}
		t.follow("follower: ", last.Stages)
	}
	if applied == nil {
		t.gap = true
		return
	}
	if voters := 1 + quorum(s.Copies); voters < s.Quorum {
		t.gap = true // who else made the quorum, nobody noted
	} else {
		t.to("commit", leader.name, s.Commit)
	}
	t.to("apply queue", leader.name, applied.T[stages.ApplyBegun])
	p := way{at: applied.T[stages.ApplyBegun]}
	if decoded := applied.T[stages.ApplyDecoded]; decoded != 0 { // else its node knew no such stage
		p.to("decode commands", leader.name, decoded)
	}
	p.to("lock wait", leader.name, applied.T[stages.ApplyLocked])
	p.to("apply", leader.name, applied.T[stages.ApplyDone])
	s.Applied = p.stages
	t.follow("", s.Applied)
}

func quorum(copies []Copy) (n int) {
	for _, c := range copies {
		if c.Quorum {
			n++
		}
	}
	return n
}

// follow appends stages that are known.
func (p *way) follow(prefix string, stages []Stage) {
	for _, st := range stages {
		p.to(prefix+st.Name, st.Node, st.End)
	}
}

// store are the stages of entries on their way into a node's log.
func store(name string, r *stages.Record) []Stage {
	p := way{at: r.T[stages.StoreBegun]}
	if r.T[stages.StoreSynced] == 0 { // a store that does not tell more
		p.to("write and sync", name, r.T[stages.StoreDone])
		return p.whole("write and sync")
	}
	p.to("encode", name, r.T[stages.StoreCoded])
	p.to("write", name, r.T[stages.StoreWritten])
	p.to("fsync", name, r.T[stages.StoreSynced])
	p.to("index", name, r.T[stages.StoreDone])
	return p.whole("index")
}

// copy tells what became of an entry at a follower.
func (n *Notes) copy(leader *node, peer uint8, name string, at position, from int64) Copy {
	c := Copy{Node: name}
	const never = int64(1) << 62
	sent := find(leader.send, at, from, never, func(r *stages.Record) bool { return r.Peer == peer && r.T[stages.SendAcked] != 0 })
	if sent == nil {
		return c
	}
	c.Acked = sent.T[stages.SendAcked]
	p := way{at: sent.T[stages.SendBegun]}
	f := n.nodes[name]
	var got, kept *stages.Record
	if f != nil {
		// It may arrive before the sender has noted that it is gone.
		got = find(f.receive, at, sent.T[stages.SendBegun], c.Acked, nil)
		if got != nil {
			kept = find(f.store, at, got.T[stages.ReceiveBegun], c.Acked, nil)
		}
	}
	if got == nil {
		p.to("not seen at "+name, name, c.Acked)
		c.Stages = p.whole("send")
		return c
	}
	p.to("send", leader.name, earlier(sent.T[stages.SendDone], got.T[stages.ReceiveBegun]))
	p.to("network to "+name, name, got.T[stages.ReceiveBegun])
	p.to("decode", name, got.T[stages.ReceiveDecoded])
	if kept != nil {
		p.to("raft takes it", name, kept.T[stages.StoreBegun])
		for _, st := range store(name, kept) {
			p.to(st.Name, name, st.End)
		}
	}
	// Whoever writes may note it only after the other side has read it.
	p.to("answer", name, earlier(got.T[stages.ReceiveAnswered], c.Acked))
	p.to("network to "+leader.name, leader.name, c.Acked)
	c.Stages = p.whole("send")
	return c
}

// earlier is a, but no later than b; 0 if a is not known.
func earlier(a, b int64) int64 {
	if a > b && b != 0 {
		return b
	}
	return a
}

// whole returns the stages; if their times contradict each other so that there is none, one of no length.
func (p *way) whole(name string) []Stage {
	if p.stages == nil {
		return []Stage{{name, "", p.at, p.at}}
	}
	return p.stages
}
