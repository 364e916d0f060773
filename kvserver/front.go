package kvserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"brownout/kvserver/stages"
)

// A front serves the Redis protocol. Every connection has a reader, which
// parses commands, answers reads, starts writes and goes on reading, and a
// writer, which answers those when they are done. A connection shared by many
// clients would else carry one batch of writes at a time. Reads are quicker:
// what comes in while one batch of them is under way makes the next.
type front struct {
	c      Config
	table  table
	groups []*group
	info   func() string
	clock  *wallClock
	notes  *stages.Recorder

	clients, accepted, rejected atomic.Int64
	pending                     atomic.Int64 // runs begun and not answered
	commands, failures          atomic.Uint64

	mu    sync.Mutex
	conns map[*client]struct{}
}

// serve answers clients on ln until ctx ends, and then waits for their connections to end.
func (f *front) serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		ln.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		for cl := range f.conns {
			cl.conn.Close()
		}
	})
	defer stop()
	var wg sync.WaitGroup // readers and writers
	defer wg.Wait()
	for {
		conn, err := accept(ctx, ln)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil:
			return fmt.Errorf("serve clients on %s: %w", ln.Addr(), err)
		}
		f.accept(&wg, conn)
		if ctx.Err() != nil {
			conn.Close() // it may have come too late for stop
		}
	}
}

func (f *front) accept(wg *sync.WaitGroup, conn net.Conn) {
	if f.clients.Load() >= int64(f.c.MaxClients) {
		f.rejected.Add(1)
		io.WriteString(conn, "-ERR max number of clients reached\r\n")
		conn.Close()
		return
	}
	f.clients.Add(1)
	cl := &client{
		id: f.accepted.Add(1), conn: conn, in: newRespReader(conn), w: &respWriter{w: conn},
		finished: make(chan struct{}, 1), room: make(chan struct{}, 1), over: make(chan struct{}),
	}
	cl.own.call = newCall(make(chan struct{}, 1))
	cl.own.call.turns = uint(cl.id) // many short connections are like a long one
	f.mu.Lock()
	f.conns[cl] = struct{}{}
	f.mu.Unlock()
	wg.Go(func() { f.read(cl) })
	wg.Go(func() { f.write(cl) })
}

// What one connection may have waiting for answers: runs of writes, and their bytes.
const (
	maxPending      = 64
	maxPendingBytes = 2 * maxRequest
)

// A client is one connection's state.
type client struct {
	id   int64
	conn net.Conn

	// The reader's own.
	in    *respReader
	stale bool // READONLY: reads are local
	quit  bool
	own   run // what needs no writer
	plan  []step
	// When what the reader has last read came in, and was understood.
	received, parsed int64

	wmu   sync.Mutex // guards w, name and notes
	w     *respWriter
	name  string
	notes []stages.Record // of requests whose answers wait for the next flush

	mu      sync.Mutex // guards what follows
	pending []*run     // writes, in the order of arrival
	bytes   int        // what they hold
	free    []*run

	finished chan struct{} // something in pending may have become answerable
	room     chan struct{} // pending has become shorter
	over     chan struct{} // closed by the reader when all is answered
}

// A run is a part of a pipeline that is done together.
type run struct {
	class class
	group *group // of its reads or writes; of the first of reads on several shards
	plan  []step
	call  *call
	bytes int // of the arguments

	refused []string // why reads cannot be done, by shard; "" if they can

	received, parsed int64 // as the client's then
}

type class uint8

const (
	classLocal class = iota // needs no other node
	classRead
	classWrite // writes; reads between them are answered out of the log
)

// read reads commands until the connection ends, then waits for their answers.
func (f *front) read(cl *client) {
	for err := error(nil); err == nil && !cl.quit; {
		if err = cl.in.fill(); err == nil {
			cl.received = f.notes.Now()
			err = f.serveBuffered(cl)
		}
		f.flush(cl)
	}
	cl.drain(0, 0)
	f.flush(cl)
	close(cl.over)
	cl.conn.Close()
	f.mu.Lock()
	delete(f.conns, cl)
	f.mu.Unlock()
	f.clients.Add(-1)
}

// serveBuffered does all commands that have been read in full.
func (f *front) serveBuffered(cl *client) error {
	for !cl.quit {
		var err error
		cl.plan = cl.plan[:0]
		for len(cl.plan) < maxBurst && err == nil {
			var args [][]byte
			if args, err = cl.in.next(); args == nil {
				break
			}
			s := f.table.parse(args)
			if len(f.groups) > 1 {
				s.route(len(f.groups))
			}
			cl.plan = append(cl.plan, s)
		}
		cl.parsed = f.notes.Now()
		f.commands.Add(uint64(len(cl.plan)))
		if isProtocol(err) {
			cl.plan = append(cl.plan, step{bad: "ERR " + err.Error()})
		}
		for plan := cl.plan; len(plan) > 0 && !cl.quit; {
			plan = plan[f.begin(cl, plan):]
		}
		more := len(cl.plan) >= maxBurst
		clear(cl.plan)
		if !more || err != nil {
			return err
		}
	}
	return nil
}

// begin does the reads or starts the writes at the head of plan that belong
// together, and returns how many commands that were.
//
// Commands of one connection take effect in their order, those on one shard at
// least: writes keep it by their place in the log, and anything else waits for
// the writes before it.
func (f *front) begin(cl *client, plan []step) (n int) {
	local := cl.stale || f.c.Reads == "local"
	n, class, shard := cut(plan, local)
	if class == classWrite {
		cl.drain(maxPending-1, maxPendingBytes)
		f.start(cl, f.groups[shard], plan[:n])
		return n
	}
	cl.drain(0, 0)
	r := &cl.own
	r.class, r.group, r.refused = class, f.groups[shard], r.refused[:0]
	r.plan, r.received, r.parsed = plan[:n], cl.received, cl.parsed
	r.call.fill(r.plan)
	r.call.at = passage{queued: f.notes.Now()}
	if class == classRead && !local {
		f.pending.Add(1)
		defer f.pending.Add(-1)
		f.confirm(r)
		r.call.at.proposed = f.notes.Now()
	}
	cl.wmu.Lock()
	defer cl.wmu.Unlock()
	f.answer(cl, r)
	return n
}

// start proposes a run of writes. The writer will answer it.
func (f *front) start(cl *client, g *group, plan []step) {
	r := cl.next()
	r.class, r.group, r.plan, r.bytes = classWrite, g, append(r.plan[:0], plan...), 0
	r.received, r.parsed = cl.received, cl.parsed
	for i := range plan {
		r.bytes += plan[i].bytes
	}
	cl.in.pin()
	r.call.fill(r.plan)
	if refused := r.group.writes.submit(r.call); refused != "" {
		r.call.fail(refused)
	}
	f.pending.Add(1)
	cl.mu.Lock()
	cl.pending = append(cl.pending, r)
	cl.bytes += r.bytes
	cl.mu.Unlock()
	if r.call.finished.Load() { // perhaps before it was pending
		nudge(cl.finished)
	}
}

// cut returns how many commands at the head of plan make a run, its class and its
// shard, the first of reads on several.
func cut(plan []step, local bool) (n int, c class, shard int) {
	several := false // reads on several shards, which no write can join
	for i := range plan {
		s := &plan[i]
		switch {
		case s.bad != "":
		case s.spec.barrier:
			return max(n, 1), c, shard // with n 0, c is classLocal
		case s.op.kind == 0:
		case c == classRead && s.op.kind.isRead():
			several = several || s.shard != shard
		case several, c != classLocal && s.shard != shard:
			return n, c, shard
		case local && c != classLocal && (c == classRead) != s.op.kind.isRead():
			return n, c, shard
		case !s.op.kind.isRead():
			c, shard = classWrite, s.shard
		case c == classLocal:
			c, shard = classRead, s.shard
		}
		n++
	}
	return n, c, shard
}

// fill gives the call the operations of plan.
func (c *call) fill(plan []step) {
	c.ops, c.shards = c.ops[:0], c.shards[:0]
	c.finished.Store(false)
	for i := range plan {
		if s := &plan[i]; s.bad == "" && s.op.kind != 0 {
			s.at = len(c.ops)
			c.ops, c.shards = append(c.ops, s.op), append(c.shards, uint8(s.shard))
		}
	}
	for len(c.res) < len(c.ops) {
		c.res = append(c.res, result{})
	}
}

// fail answers all of a call that nobody else knows.
func (c *call) fail(text string) {
	for i := range c.ops {
		c.res[i] = failure(text)
	}
	c.finished.Store(true)
}

// write answers finished runs, in order, until the reader is done.
func (f *front) write(cl *client) {
	for {
		select {
		case <-cl.finished:
		case <-cl.over:
			return
		}
		cl.wmu.Lock()
		for r := cl.head(); r != nil && r.call.finished.Load(); r = cl.head() {
			f.answer(cl, r)
			cl.mu.Lock()
			cl.pending = append(cl.pending[:0], cl.pending[1:]...)
			cl.bytes -= r.bytes
			cl.mu.Unlock()
			cl.recycle(r)
			f.pending.Add(-1)
		}
		f.send(cl)
		cl.wmu.Unlock()
		nudge(cl.room)
	}
}

// answer writes the replies of a finished run. The caller holds wmu.
func (f *front) answer(cl *client, r *run) {
	c := r.call
	if r.class == classRead {
		f.look(r)
	}
	f.note(cl, r)
	for i := range r.plan {
		switch s := &r.plan[i]; {
		case s.bad != "":
			f.failures.Add(1)
			cl.w.fail(s.bad)
		case s.op.kind == 0:
			s.spec.local(f, cl.w, cl, s.args)
		default:
			res := &c.res[s.at]
			if res.code == resFail {
				res.s = withSlot(res.s, &s.op)
			}
			if s.spec.answer != nil && res.code != resFail {
				s.spec.answer(cl.w, res)
			} else {
				f.reply(cl.w, res)
			}
			c.res[s.at] = result{}
		}
	}
	clear(r.plan)
	clear(c.ops)
}

func (f *front) reply(w *respWriter, r *result) {
	switch r.code {
	case resOK:
		w.word("OK")
	case resNil:
		w.null()
	case resInt:
		w.number(r.n)
	case resBulk:
		w.bulk(r.s)
	case resList:
		w.array(len(r.list))
		for i := range r.list {
			f.reply(w, &r.list[i])
		}
	default:
		f.failures.Add(1)
		w.fail(r.s)
	}
}

// next returns a run to use.
func (cl *client) next() *run {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if n := len(cl.free); n > 0 {
		r := cl.free[n-1]
		cl.free = cl.free[:n-1]
		return r
	}
	return &run{call: newCall(cl.finished)}
}

func (cl *client) recycle(r *run) {
	if cap(r.plan) > maxBurst/8 {
		return // one long pipeline must not cost its memory for ever
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.free = append(cl.free, r)
}

func (cl *client) head() *run {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if len(cl.pending) == 0 {
		return nil
	}
	return cl.pending[0]
}

// drain waits until at most n runs of writes are under way, and hold no more
// than so many bytes. The proposer answers everything within Config.Timeout, so
// it does end.
func (cl *client) drain(n, bytes int) {
	for {
		cl.mu.Lock()
		enough := len(cl.pending) <= n && cl.bytes <= bytes
		cl.mu.Unlock()
		if enough {
			return
		}
		<-cl.room
	}
}

// flush sends what the reader has answered itself.
func (f *front) flush(cl *client) {
	cl.wmu.Lock()
	defer cl.wmu.Unlock()
	f.send(cl)
}

// send gives what has been answered to the socket. The caller holds wmu.
func (f *front) send(cl *client) {
	cl.w.flush()
	if len(cl.notes) == 0 {
		return
	}
	now := f.notes.Now()
	for i := range cl.notes {
		cl.notes[i].T[stages.Sent] = now
		f.notes.Note(&cl.notes[i])
	}
	cl.notes = cl.notes[:0]
}

// note keeps when the commands of a run passed their stages, until they are
// sent. The caller holds wmu.
func (f *front) note(cl *client, r *run) {
	if len(r.call.ops) == 0 || f.notes == nil {
		return
	}
	at, now := &r.call.at, f.notes.Now()
	keep, slow := f.notes.Wants(now-r.received, len(r.call.ops))
	if !keep {
		return
	}
	mark := uint8(0)
	if slow {
		mark = stages.Slow
	}
	for i := range r.call.ops {
		o := &r.call.ops[i]
		var value []byte
		switch o.kind {
		case opSet, opSetNX, opSetXX, opAppend, opCAS:
			value = o.args[len(o.args)-1]
		case opGet, opDel:
		default:
			continue // not of a history's kinds
		}
		cl.notes = append(cl.notes, stages.Record{
			Kind: stages.Request, Group: r.call.shards[i], Code: uint8(o.kind) | mark, Peer: stages.NoPeer, N: uint32(cl.id),
			A: stages.Hash(o.args[0], value), B: at.index,
			T: [...]int64{
				stages.Received: r.received, stages.Parsed: r.parsed, stages.Queued: at.queued, stages.Proposed: at.proposed,
				stages.Locking: at.locking, stages.Locked: at.locked, stages.Answered: at.answered, stages.Encoding: now, stages.Sent: 0,
			},
		})
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// mode is how clients should see this cluster, in Redis' words.
func (f *front) mode() string {
	if len(f.groups) > 1 {
		return "cluster"
	}
	return "standalone"
}

// role is this node's in Redis' words: it is a master if it leads any group.
func (f *front) role() string {
	for _, g := range f.groups {
		if _, leader := g.reads.leads(); leader {
			return "master"
		}
	}
	return "slave"
}
