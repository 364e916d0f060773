package kvserver

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/tidwall/redcon"
)

// A front serves the Redis protocol.
type front struct {
	c      Config
	table  table
	fsm    *fsm
	writes *proposer
	reads  *confirmer
	info   func() string

	clients, accepted, rejected, busy atomic.Int64
	commands, failures                atomic.Uint64
	handlers                          sync.WaitGroup
}

// A client is one connection's state.
type client struct {
	id          int64
	name        string
	stale       bool // READONLY: reads are local
	cmds        []redcon.Command
	plan        []step
	write, read *call
}

// A step is one command of a pipeline, parsed.
type step struct {
	spec *spec
	op   op
	bad  string // refused before it was tried
	in   *call  // the call that carries it, and its place there
	at   int
}

// serve answers clients on ln until ctx ends.
func (f *front) serve(ctx context.Context, ln net.Listener) error {
	srv := redcon.NewServerNetwork("tcp", ln.Addr().String(), f.handle, f.accept, f.closed)
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err := srv.Serve(ln)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve clients on %s: %w", ln.Addr(), err)
}

func (f *front) accept(conn redcon.Conn) bool {
	if f.clients.Load() >= int64(f.c.MaxClients) {
		f.rejected.Add(1)
		conn.WriteError("ERR max number of clients reached")
		return false
	}
	f.clients.Add(1)
	f.handlers.Add(1)
	conn.SetContext(&client{id: f.accepted.Add(1), write: newCall(), read: newCall()})
	return true
}

func (f *front) closed(redcon.Conn, error) {
	f.clients.Add(-1)
	f.handlers.Done()
}

// handle answers a whole pipeline: first is its first command.
func (f *front) handle(conn redcon.Conn, first redcon.Command) {
	f.busy.Add(1)
	defer f.busy.Add(-1)
	cl := conn.Context().(*client)
	cl.cmds = append(append(cl.cmds[:0], first), conn.ReadPipeline()...)
	cl.plan = cl.plan[:0]
	for i := range cl.cmds {
		cl.plan = append(cl.plan, f.table.parse(cl.cmds[i].Args))
	}
	f.commands.Add(uint64(len(cl.cmds)))
	for at := 0; at < len(cl.plan); {
		n := f.run(cl, at)
		for i := at; i < at+n; i++ {
			if quit := f.reply(conn, cl, i); quit {
				conn.Close()
				return
			}
		}
		at += n
	}
	clear(cl.cmds)
	clear(cl.plan)
}

// run does the commands from at on that can be done together, and returns how
// many. Reads may join writes: then they are answered out of the log, in their
// order among the writes.
func (f *front) run(cl *client, at int) (n int) {
	local := cl.stale || f.c.Reads == "local"
	var reads, writes int
	for _, s := range cl.plan[at:] {
		barrier := s.bad == "" && s.spec.barrier
		if barrier && n > 0 {
			break // it changes what the commands behind it mean
		}
		if s.bad == "" && s.op.kind != 0 {
			isRead := s.op.kind.isRead()
			if local && (isRead && writes > 0 || !isRead && reads > 0) {
				break
			}
			if isRead {
				reads++
			} else {
				writes++
			}
		}
		n++
		if barrier {
			break
		}
	}
	run := cl.plan[at : at+n]
	switch {
	case writes > 0:
		f.propose(cl.write, run)
	case reads > 0:
		f.query(cl.read, run, local)
	}
	return n
}

func (c *call) fill(run []step) {
	c.ops = c.ops[:0]
	for i := range run {
		if s := &run[i]; s.bad == "" && s.op.kind != 0 {
			s.in, s.at = c, len(c.ops)
			c.ops = append(c.ops, s.op)
		}
	}
	for len(c.res) < len(c.ops) {
		c.res = append(c.res, result{})
	}
}

func (f *front) propose(c *call, run []step) {
	c.fill(run)
	if refused := f.writes.submit(c); refused != "" {
		c.fail(refused)
		return
	}
	<-c.done
}

func (f *front) query(c *call, run []step, local bool) {
	c.fill(run)
	if !local {
		now, refused := f.reads.confirm(c)
		if refused != "" {
			c.fail(refused)
			return
		}
		if !now {
			<-c.done
			if c.res[0].code == resFail {
				c.fail(c.res[0].s)
				return
			}
		}
	}
	f.fsm.read(c.ops, c.res)
}

func (c *call) fail(text string) {
	for i := range c.ops {
		c.res[i] = failure(text)
	}
}

// reply writes the answer to step i.
func (f *front) reply(conn redcon.Conn, cl *client, i int) (quit bool) {
	s := &cl.plan[i]
	switch {
	case s.bad != "":
		f.failures.Add(1)
		conn.WriteError(s.bad)
	case s.op.kind == 0:
		return s.spec.local(f, conn, cl, cl.cmds[i].Args)
	default:
		f.write(conn, s.in.res[s.at])
	}
	return false
}

func (f *front) write(conn redcon.Conn, r result) {
	switch r.code {
	case resOK:
		conn.WriteString("OK")
	case resNil:
		conn.WriteNull()
	case resInt:
		conn.WriteInt64(r.n)
	case resBulk:
		conn.WriteBulkString(r.s)
	case resList:
		conn.WriteArray(len(r.list))
		for _, e := range r.list {
			f.write(conn, e)
		}
	default:
		f.failures.Add(1)
		conn.WriteError(r.s)
	}
}

// A spec is one word of the protocol.
type spec struct {
	name    string
	arity   int // Redis' convention: arguments with the name; negative means at least
	kind    opKind
	barrier bool // ends a run
	parse   func(t table, args [][]byte) (op, string)
	local   func(f *front, conn redcon.Conn, cl *client, args [][]byte) (quit bool)
}

// A table holds the protocol's words by name.
type table map[string]*spec

// parse finds out what a command means. args[0] is its name.
func (t table) parse(args [][]byte) step {
	if len(args) == 0 {
		return step{bad: "ERR unknown command ''"}
	}
	var low [16]byte
	sp := t[string(lower(low[:0], args[0]))]
	if sp == nil {
		return step{bad: unknownCommand(args)}
	}
	if n := len(args); sp.arity >= 0 && n != sp.arity || n < -sp.arity {
		return step{bad: "ERR wrong number of arguments for '" + sp.name + "' command"}
	}
	if sp.local != nil {
		return step{spec: sp}
	}
	o := op{kind: sp.kind, args: args[1:]}
	if sp.parse != nil {
		var bad string
		if o, bad = sp.parse(t, args); bad != "" {
			return step{bad: bad}
		}
	}
	if !o.kind.takes(len(o.args)) {
		return step{bad: "ERR wrong number of arguments for '" + sp.name + "' command"}
	}
	return step{spec: sp, op: o, bad: tooLong(&o)}
}

// lower appends s in lower case; what does not fit into dst is no command of ours.
func lower(dst, s []byte) []byte {
	if len(s) > cap(dst) {
		return nil
	}
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// tooLong refuses what the log must not hold. Every replica has the same limits.
func tooLong(o *op) string {
	for i, a := range o.args {
		isValue := i > 0 && (o.kind <= opSetXX || o.kind == opAppend || o.kind == opCAS || o.kind == opMSet && i%2 == 1)
		switch {
		case !isValue && len(a) > maxKey:
			return fmt.Sprintf("ERR key exceeds maximum allowed size (%d bytes)", maxKey)
		case isValue && len(a) > maxValue:
			return fmt.Sprintf("ERR string exceeds maximum allowed size (%d bytes)", maxValue)
		}
	}
	if len(o.session) > maxSession || o.kind == opSession && len(o.args[0]) > maxSession {
		return fmt.Sprintf("ERR session id exceeds maximum allowed size (%d bytes)", maxSession)
	}
	return ""
}

// unknownCommand is Redis' own text (server.c commandCheckExistence).
func unknownCommand(args [][]byte) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "ERR unknown command '%.128s', with args beginning with: ", args[0])
	for _, a := range args[1:] {
		if b.Len() > 256 {
			break
		}
		fmt.Fprintf(&b, "'%.128s' ", a)
	}
	return b.String()
}

func parseSet(_ table, args [][]byte) (op, string) {
	o := op{kind: opSet, args: args[1:3]}
	for _, a := range args[3:] {
		switch {
		case bytes.EqualFold(a, []byte("nx")) && o.kind != opSetXX:
			o.kind = opSetNX
		case bytes.EqualFold(a, []byte("xx")) && o.kind != opSetNX:
			o.kind = opSetXX
		default:
			return op{}, "ERR syntax error"
		}
	}
	return o, ""
}

// parseOnce reads ONCE session seq command...
func parseOnce(t table, args [][]byte) (op, string) {
	seq, err := strconv.ParseUint(string(args[2]), 10, 63)
	if err != nil || seq == 0 {
		return op{}, "ERR sequence number is not a positive integer"
	}
	in := t.parse(args[3:])
	switch {
	case in.bad != "":
		return op{}, in.bad
	case in.op.kind == 0 || in.op.kind.isRead() || in.op.kind == opSession || in.op.session != nil:
		return op{}, "ERR ONCE is for writes"
	}
	in.op.session, in.op.seq = args[1], seq
	return in.op, ""
}

// role is this node's in Redis' words.
func (f *front) role() string {
	if _, leader := f.reads.leads(); leader {
		return "master"
	}
	return "slave"
}
