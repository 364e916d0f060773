package checker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"brownout/internal/history"
)

// shrink reduces an illegal piece to a small illegal history, by taking away
// what keeps it illegal when gone (delta debugging, Zeller and Hildebrandt
// 2002). Only relaxing steps are taken: what is left is illegal because the
// piece is, never because of the reduction. See [without].
func shrink(k *keyed, p piece, l *limit) Conflict {
	stop := time.Now().Add(min(time.Duration(max(l.explain.Load(), 0)), time.Second))
	defer func(start time.Time) { l.explain.Add(-int64(time.Since(start))) }(time.Now())
	illegal := func(ops []op) bool {
		now := time.Now()
		if len(ops) == 0 || now.After(stop) {
			return false
		}
		until := now.Add(200 * time.Millisecond)
		if until.After(stop) {
			until = stop
		}
		v, _ := searchUntil(piece{p.init, ops}, l, until)
		return v == Illegal
	}
	ops, at := shortest(p.ops, illegal)
	ops = minimize(ops, newWords(k.ops), illegal)
	c := Conflict{Key: k.key, Label: "not linearizable", At: at}
	var lines []string
	for i := range ops {
		o := &ops[i]
		c.Ops = append(c.Ops, o.ID)
		if len(lines) < 8 {
			lines = append(lines, l.tell(o))
		}
	}
	if more := len(ops) - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	c.Text = fmt.Sprintf("%s: from %s, no order of these operations explains what was found: %s", k.key, show(p.init), strings.Join(lines, "; "))
	return c
}

func (t telling) tell(o *op) string {
	var b strings.Builder
	b.WriteString(t.who(o))
	if o.Kind == history.CAS {
		fmt.Fprintf(&b, " %s→%s", show(o.Expect), show(o.Value))
	} else if o.Value != nil {
		fmt.Fprintf(&b, " %s", show(o.Value))
	}
	if o.observes() {
		fmt.Fprintf(&b, " found %s", show(o.Result))
	}
	if o.completed() && o.Kind == history.CAS && !o.Swapped {
		b.WriteString(", not swapped")
	}
	return b.String()
}

// shortest returns the shortest illegal beginning of a history, with the
// operations that were open at its end made unknown, and that end. A history
// is linearizable only if its beginnings are (Herlihy and Wing 1990).
func shortest(ops []op, illegal func([]op) bool) ([]op, int64) {
	var ends []int64
	for i := range ops {
		if ops[i].completed() {
			ends = append(ends, ops[i].Return)
		}
	}
	slices.Sort(ends)
	n, _ := slices.BinarySearchFunc(ends, true, func(t int64, _ bool) int {
		if illegal(until(ops, t)) {
			return 0
		}
		return -1
	})
	if n >= len(ends) { // the oracle had no time
		return ops, ends[len(ends)-1]
	}
	return until(ops, ends[n]), ends[n]
}

// until returns what was known of a history at time t.
func until(ops []op, t int64) []op {
	var out []op
	for _, o := range ops {
		switch {
		case o.Call > t:
		case o.Return <= t && o.completed():
			out = append(out, o)
		case o.writes():
			open := *o.Op
			open.Outcome, open.Result, open.Swapped = history.Unknown, nil, false
			out = append(out, op{&open, never})
		}
	}
	return out
}

// minimize takes away as much as keeps ops illegal.
func minimize(ops []op, w *words, illegal func([]op) bool) []op {
	for size := (len(ops) + 1) / 2; size > 0; {
		smaller := false
		for at := 0; at < len(ops); {
			rest := without(ops, at, min(at+size, len(ops)), w)
			if len(rest) < len(ops) && illegal(rest) {
				ops, smaller = rest, true
				continue
			}
			at += size
		}
		if !smaller || size > len(ops) {
			size /= 2
		}
	}
	slices.SortFunc(ops, func(a, b op) int { return cmp.Or(cmp.Compare(a.Call, b.Call), cmp.Compare(a.ID, b.ID)) })
	return ops
}

// without removes ops[from:to], and with every write whatever observed or
// expected its value. That is a relaxation: in a linearization of the whole,
// no operation that is left stands where the state was made of the value, so
// the linearization without them is one of the rest. Writes whose values
// cannot be told apart stay. What was not there tells nothing of an order
// without a write, so with any write all blind operations go.
func without(ops []op, from, to int, w *words) []op {
	gone := map[string]bool{}
	drop := make([]bool, len(ops))
	take := func(i int) {
		o := &ops[i]
		if o.writes() {
			if w.empty || o.Value == nil || len(w.owners[*o.Value]) != 1 {
				return
			}
			gone[*o.Value] = true
		}
		drop[i] = true
	}
	for i := from; i < to; i++ {
		take(i)
	}
	for i := range ops {
		drop[i] = drop[i] || len(gone) > 0 && ops[i].Blind
	}
	for changed := true; changed; {
		changed = false
		for i := range ops {
			o := &ops[i]
			if drop[i] || !w.uses(o.Result, gone) && !w.uses(o.Expect, gone) {
				continue
			}
			if take(i); !drop[i] {
				return ops // depends on what cannot go
			}
			changed = true
		}
	}
	out := make([]op, 0, len(ops))
	for i := range ops {
		if !drop[i] {
			out = append(out, ops[i])
		}
	}
	return out
}

// uses reports whether a value may be made of a word in gone.
func (w *words) uses(v *string, gone map[string]bool) bool {
	return slices.ContainsFunc(w.parse(v).words, func(word string) bool { return gone[word] })
}
