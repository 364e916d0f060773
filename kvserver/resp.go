package kvserver

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A step is one command of a pipeline, parsed.
type step struct {
	spec  *spec
	args  [][]byte
	op    op
	bad   string // refused before it was tried
	at    int    // its place in the call that carries it
	shard int    // whose it is; 0 if it has no keys
	bytes int    // of its arguments
}

// A spec is one word of the protocol.
type spec struct {
	name    string
	arity   int // Redis' convention: arguments with the name; negative means at least
	kind    opKind
	barrier bool // runs alone, after everything before it has been answered
	parse   func(t table, args [][]byte) (op, string)
	local   func(f *front, w *respWriter, cl *client, args [][]byte) // answered here and now
	answer  func(w *respWriter, r *result)                           // how a result that is no error is put, if not as it is
}

// A table holds the protocol's words by name.
type table map[string]*spec

// parse finds out what a command means. args[0] is its name.
func (t table) parse(args [][]byte) step {
	s := t.meaning(args)
	for _, a := range args {
		s.bytes += len(a)
	}
	return s
}

func (t table) meaning(args [][]byte) step {
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
		return step{spec: sp, args: args}
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

// unknownCommand is Redis' own text (server.c commandCheckExistence), by which
// libraries know that a server does not have a command, and our reason.
func unknownCommand(args [][]byte) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "ERR unknown command '%.128s', with args beginning with: ", args[0])
	for _, a := range args[1:] {
		if b.Len() > 256 {
			break
		}
		fmt.Fprintf(&b, "'%.128s' ", a)
	}
	var low [16]byte
	if why := refused()[string(lower(low[:0], args[0]))]; why != "" {
		fmt.Fprintf(&b, "(%s)", why)
	}
	return b.String()
}

func parseSet(_ table, args [][]byte) (op, string) {
	o := op{kind: opSet, args: args[1:3]}
	for _, a := range args[3:] {
		switch {
		case is(a, "nx") && o.kind != opSetXX:
			o.kind = opSetNX
		case is(a, "xx") && o.kind != opSetNX:
			o.kind = opSetXX
		case is(a, "keepttl"): // there is none
		case is(a, "ex", "px", "exat", "pxat"):
			return op{}, "ERR " + strings.ToUpper(string(a)) + " is not supported: values do not expire"
		case is(a, "get"):
			return op{}, "ERR SET with GET is not supported: GET the value, then CAS"
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
	in := t.meaning(args[3:])
	switch {
	case in.bad != "":
		return op{}, in.bad
	case in.op.kind == 0 || in.op.kind.isRead() || in.op.kind == opSession || in.op.session != nil:
		return op{}, "ERR ONCE is for writes"
	}
	in.op.session, in.op.seq = args[1], seq
	return in.op, ""
}
