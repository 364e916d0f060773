package foreign

import (
	"fmt"

	"brownout/internal/history"
)

// An event is the beginning or the end of an operation.
type event struct {
	line int
	time *int64
	proc string
	typ  string // invoke, ok, fail, info
	f    string // the function, as written
	op   history.Op
	free bool // an end that tells nothing of what was found: it constrains nothing
}

// A builder joins events to operations.
type builder struct {
	h       *History
	open    map[string]int    // by process, the index of its operation
	f       map[string]string // and its function
	client  map[string]int
	clients int
	drop    []bool
	last    int64 // the latest time
	lastAt  int   // its line
	decided bool  // whether events have times
}

func newBuilder(h *History) *builder {
	return &builder{h: h, open: map[string]int{}, f: map[string]string{}, client: map[string]int{}}
}

// begin notes the state before the first event, as a write of a client of its own.
func (b *builder) begin(init *string) error {
	var v string
	switch {
	case init != nil && (b.h.Model == KV || b.h.Model == AppendList || b.h.Model == Mutex):
		return fmt.Errorf("--init: model %s starts %s", b.h.Model, map[Model]string{KV: "absent", AppendList: "empty", Mutex: "free"}[b.h.Model])
	case init != nil && *init == "nil":
		return nil
	case init != nil:
		v = *init
	case b.h.Format == EDN && b.h.Model == CASRegister:
		v = "0"
	case b.h.Model == Mutex:
		v = free
	default:
		return nil
	}
	b.add(history.Op{Client: -1, Kind: history.Put, Value: &v, Outcome: history.OK, Call: -2, Return: -1, Error: "the state at the start"}, 0)
	return nil
}

func (b *builder) add(op history.Op, line int) {
	op.ID = int64(line)
	if n := len(b.h.Ops); n > 0 { // several on one line
		op.ID = max(op.ID, b.h.Ops[n-1].ID+1)
	}
	op.Due = op.Call
	b.h.Ops = append(b.h.Ops, op)
	b.h.Lines = append(b.h.Lines, line)
	b.drop = append(b.drop, false)
}

// take takes the next event.
func (b *builder) take(e *event) error {
	t, err := b.at(e)
	if err != nil {
		return err
	}
	i, open := b.open[e.proc]
	if e.typ == "invoke" {
		if open {
			return e.errorf("process %s begins a %s while its operation of line %d is open", e.proc, e.f, b.h.Lines[i])
		}
		e.op.Client = b.clientOf(e.proc)
		e.op.Outcome, e.op.Call, e.op.Return = history.Unknown, t, t
		b.open[e.proc], b.f[e.proc] = len(b.h.Ops), e.f
		b.add(e.op, e.line)
		return nil
	}
	if !open {
		return e.errorf("process %s ends a %s that it did not begin", e.proc, e.f)
	}
	op := &b.h.Ops[i]
	if b.f[e.proc] != e.f {
		return e.errorf("process %s ends a %s, but its operation of line %d is a %s", e.proc, e.f, b.h.Lines[i], b.f[e.proc])
	}
	delete(b.open, e.proc)
	op.Return = t
	switch e.typ {
	case "ok", "mismatch":
		if err := e.same(op, b.h.Lines[i]); err != nil {
			return err
		}
		op.Outcome, op.Result, op.Swapped = history.OK, e.op.Result, op.Kind == history.CAS
		if op.Swapped {
			op.Result = op.Expect
		}
		if e.typ == "mismatch" {
			op.Swapped, op.Blind, op.Result = false, true, nil
		}
		b.drop[i] = e.free
	case "fail":
		op.Outcome = history.Fail
	default: // unknown: this client is not heard of again
		delete(b.client, e.proc)
	}
	return nil
}

// same says whether an end answers what was asked.
func (e *event) same(op *history.Op, line int) error {
	if op.Kind != e.op.Kind || op.Key != e.op.Key {
		return e.errorf("process %s ends a %s of %q, but its operation of line %d is a %s of %q", e.proc, e.op.Kind, e.op.Key, line, op.Kind, op.Key)
	}
	for _, v := range []struct{ asked, done *string }{{op.Value, e.op.Value}, {op.Expect, e.op.Expect}} {
		if op.Kind != history.Get && (v.asked == nil) != (v.done == nil) || v.asked != nil && v.done != nil && *v.asked != *v.done {
			return e.errorf("process %s ends a %s of %s, but that of line %d was of %s", e.proc, op.Kind, text(v.done), line, text(v.asked))
		}
	}
	return nil
}

func text(s *string) string {
	if s == nil {
		return "nil"
	}
	return *s
}

// at returns an event's time: what it says, or the number of its line, or the
// next one where a line has several.
func (b *builder) at(e *event) (int64, error) {
	if !b.decided {
		b.decided, b.h.Untimed, b.lastAt = true, e.time == nil, e.line
		if e.time != nil {
			b.last = *e.time
		}
	}
	if b.h.Untimed != (e.time == nil) {
		return 0, e.errorf("some operations have a :time, others not (line %d)", b.lastAt)
	}
	t := max(int64(e.line), b.last+1)
	if !b.h.Untimed {
		t = *e.time
	}
	if t < b.last {
		return 0, e.errorf("the time goes back: %d after %d of line %d", t, b.last, b.lastAt)
	}
	if len(b.h.Ops) > 0 && b.h.Ops[0].Client < 0 && t < 0 {
		return 0, e.errorf("the time %d is before the start", t)
	}
	b.last, b.lastAt = t, e.line
	return t, nil
}

func (b *builder) clientOf(proc string) int {
	n, ok := b.client[proc]
	if !ok {
		n = b.clients
		b.clients++
		b.client[proc] = n
	}
	return n
}

// finish leaves out what constrains nothing.
func (b *builder) finish() {
	n := 0
	for i := range b.h.Ops {
		if b.drop[i] {
			b.h.Dropped++
			continue
		}
		b.h.Ops[n], b.h.Lines[n] = b.h.Ops[i], b.h.Lines[i]
		n++
	}
	b.h.Ops, b.h.Lines = b.h.Ops[:n], b.h.Lines[:n]
}

func (e *event) errorf(format string, args ...any) error {
	return &history.LineError{Line: e.line, Err: fmt.Errorf(format, args...)}
}
