package checker

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"brownout/internal/history"
)

// A limit is the budget that all searches of a check share.
type limit struct {
	telling
	ctx      context.Context
	deadline time.Time
	heap     uint64 // bytes of live heap objects at which searches stop
	explain  atomic.Int64
}

func newLimit(ctx context.Context, opt Options) *limit {
	l := &limit{telling: telling{opt.Untimed}, ctx: ctx, deadline: time.Now().Add(opt.Budget), heap: heapBytes() + uint64(opt.Memory)}
	l.explain.Store(int64(opt.Explain))
	return l
}

// spent reports whether the time is over for good.
func (l *limit) spent() bool { return l.ctx.Err() != nil || time.Now().After(l.deadline) }

// heapBytes is the size of all objects on the heap, dead ones included until
// the next collection: an upper bound of what is in use.
func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// A step is one operation in small numbers: values are numbers of texts, 0 is absent.
type step struct {
	kind                 history.Kind
	value, expect, found int32
	swapped, unknown     bool
	blind                bool
}

// texts numbers values, so that states are compared as integers.
type texts struct {
	ids   map[string]int32
	all   []string
	boxed []any // each number as an interface, made once
	child map[[2]int32]int32
}

func newTexts() *texts {
	return &texts{ids: map[string]int32{}, all: []string{""}, boxed: []any{int32(0)}, child: map[[2]int32]int32{}}
}

func (t *texts) id(s *string) int32 {
	if s == nil {
		return 0
	}
	id, ok := t.ids[*s]
	if !ok {
		id = int32(len(t.all))
		t.ids[*s] = id
		t.all = append(t.all, *s)
		t.boxed = append(t.boxed, id)
	}
	return id
}

// append returns the number of state with elem after it; absent counts as empty.
func (t *texts) append(state, elem int32) int32 {
	id, ok := t.child[[2]int32{state, elem}]
	if !ok {
		s := t.all[state] + t.all[elem]
		id = t.id(&s)
		t.child[[2]int32{state, elem}] = id
	}
	return id
}

// apply is the model: a string that may be absent.
func (t *texts) apply(state int32, s *step) (bool, int32) {
	switch s.kind {
	case history.Get:
		return state == s.found, state
	case history.Put, history.Delete:
		return true, s.value
	case history.Append:
		return true, t.append(state, s.value)
	}
	// cas: what it does follows from the state; what it said must agree.
	match := state == s.expect
	switch {
	case s.unknown && match:
		return true, s.value
	case s.unknown:
		return true, state
	case s.swapped:
		return match && s.found == state, s.value
	case s.blind:
		return !match, state
	}
	return !match && s.found == state, state
}

func (t *texts) step(o *op) *step {
	return &step{
		kind: o.Kind, value: t.id(o.Value), expect: t.id(o.Expect), found: t.id(o.Result),
		swapped: o.Swapped, unknown: !o.completed(), blind: o.Blind,
	}
}

// A watch stops a search from inside the model: porcupine has no other way in.
type watch struct {
	limit   *limit
	until   time.Time
	steps   uint64
	entries uint64 // states accepted: an upper bound of porcupine's cache entries
	size    uint64 // bytes of one entry
	why     string // set once the search is to end
}

// mayWaste is what a search may hold, in bytes, before the heap is looked at.
const mayWaste = 64 << 20

func (w *watch) stop() bool {
	if w.why != "" {
		return true
	}
	if w.steps++; w.steps&0x3ff != 0 {
		return false
	}
	switch {
	case w.limit.ctx.Err() != nil:
		w.why = "interrupted"
	case time.Now().After(w.until):
		w.why = "out of time"
	case w.entries*w.size > mayWaste && heapBytes() > w.limit.heap:
		w.why = fmt.Sprintf("out of memory (%d MB of states)", w.entries*w.size>>20)
	}
	return w.why != ""
}

// search decides whether a piece is linearizable, and says why if it cannot.
//
// porcupine keeps one bit set of all operations per state it accepts, so its
// memory grows with the square of the piece. Once the watch says stop, no step
// is possible any more and the search backs out by itself.
func search(p piece, l *limit) (Verdict, string) { return searchUntil(p, l, l.deadline) }

func searchUntil(p piece, l *limit, until time.Time) (Verdict, string) {
	t := newTexts()
	init := t.id(p.init)
	w := &watch{limit: l, until: until, size: uint64(len(p.ops)/8 + 96)}
	if l.ctx.Err() != nil || time.Now().After(until) {
		return Unknown, "out of time"
	}
	model := porcupine.Model{
		Init: func() any { return t.boxed[init] },
		Step: func(state, input, _ any) (bool, any) {
			if w.stop() {
				return false, state
			}
			ok, next := t.apply(state.(int32), input.(*step))
			if ok {
				w.entries++
			}
			return ok, t.boxed[next]
		},
		Equal: func(a, b any) bool { return a.(int32) == b.(int32) },
		Hash:  func(s any) uint64 { return uint64(s.(int32)) * 0x9e3779b97f4a7c15 },
	}
	ops := make([]porcupine.Operation, len(p.ops))
	for i := range p.ops {
		o := &p.ops[i]
		ops[i] = porcupine.Operation{ClientId: o.Client, Input: t.step(o), Call: o.Call, Return: o.ret}
	}
	res := porcupine.CheckOperationsTimeout(model, ops, 0)
	switch {
	case res == porcupine.Ok:
		return OK, ""
	case w.why != "":
		return Unknown, w.why
	}
	return Illegal, ""
}

// A Mark is something that happened beside the operations, for a picture.
type Mark struct {
	Row        string // marks of one row are drawn on one line
	Start, End int64
	Text       string
}

// drawWithin bounds the search that a picture is of: it may be exponential.
const drawWithin = 300 * time.Millisecond

// Visualize writes porcupine's picture of a few operations on one key, a page
// of HTML. It is of porcupine's own search: the longest orders that work, as far
// as they were found in a moment.
func Visualize(ops []history.Op, marks []Mark, to io.Writer) error {
	t := newTexts()
	end := int64(math.MinInt64)
	for i := range ops {
		end = max(end, ops[i].Return)
	}
	for _, m := range marks {
		end = max(end, m.Start)
	}
	model := porcupine.Model{
		Init: func() any { return int32(0) },
		Step: func(state, input, _ any) (bool, any) {
			ok, next := t.apply(state.(int32), input.(seenStep).step)
			return ok, next
		},
		Equal:             func(a, b any) bool { return a.(int32) == b.(int32) },
		DescribeOperation: func(input, _ any) string { return describe(input.(seenStep).op) },
		DescribeState: func(state any) string {
			if n := state.(int32); n > 0 {
				return show(&t.all[n])
			}
			return show(nil)
		},
	}
	var events []porcupine.Operation
	var notes []porcupine.Annotation
	for i := range ops {
		o := &op{&ops[i], ops[i].Return}
		if o.Outcome == history.Fail || o.Outcome == history.Unknown && o.Kind == history.Get { // no part of the search, and perhaps of the story
			notes = append(notes, porcupine.Annotation{ClientId: i, Start: o.Call, End: min(o.Return, end), Description: describe(o), BackgroundColor: "#dddddd"})
			continue
		}
		if o.Outcome == history.Unknown {
			o.ret = end + (end-ops[0].Call)/10 + 1
		}
		events = append(events, porcupine.Operation{ClientId: i, Input: seenStep{t.step(o), o}, Call: o.Call, Return: o.ret})
	}
	_, info := porcupine.CheckOperationsVerbose(model, events, drawWithin)
	for _, m := range marks {
		notes = append(notes, porcupine.Annotation{Tag: m.Row, Start: m.Start, End: min(m.End, end), Description: m.Text, BackgroundColor: "#f3d9d9"})
	}
	info.AddAnnotations(notes)
	if err := porcupine.Visualize(model, info, to); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return nil
}

type seenStep struct {
	*step
	op *op
}

// describe is an operation in a picture.
func describe(o *op) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s", o.ID, o.Kind)
	if o.Node != "" {
		fmt.Fprintf(&b, "@%s", o.Node)
	}
	if o.Kind == history.CAS {
		fmt.Fprintf(&b, " %s→%s", show(o.Expect), show(o.Value))
	} else if o.Value != nil {
		fmt.Fprintf(&b, " %s", show(o.Value))
	}
	switch {
	case o.Outcome == history.Unknown:
		b.WriteString(" (unknown)")
	case o.Outcome == history.Fail:
		b.WriteString(" (certainly not done)")
	case o.Blind:
		b.WriteString(" refused")
	case o.observes():
		fmt.Fprintf(&b, " found %s", show(o.Result))
	}
	return b.String()
}
