package checker

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/anishathalye/porcupine"

	"brownout/internal/history"
)

// A genConfig shapes random histories of a simulated register per key.
type genConfig struct {
	ops, clients, keys int
	span               int64 // longest operation; times are small, so that many are equal
	gap                int64 // longest pause of a client
	appends, deletes   bool
	bare               bool // deletes leave the key absent
	unknown, fail      float64
	alphabet           []string // values are drawn from it (not unique); nil makes unique ones
	final              bool
}

// A bug is what the simulated register does wrong, once.
type bug string

const (
	noBug         bug = ""
	staleRead     bug = "stale read"
	loseWrite     bug = "lose an acknowledged write"
	applyTwice    bug = "apply an append twice"
	phantom       bug = "make a value up"
	applyFailed   bug = "apply a failed write"
	swapAnyway    bug = "swap without looking"
	refuseSwap    bug = "refuse a match"
	dropElement   bug = "forget an appended element"
	reorderTwo    bug = "take effect before the call"
	resurrectDead bug = "bring an old value back"
)

var bugs = []bug{staleRead, loseWrite, applyTwice, phantom, applyFailed, swapAnyway, refuseSwap, dropElement, reorderTwo, resurrectDead}

type planned struct {
	op history.Op
	at int64 // when it takes effect; never if not
	n  int
}

func ptr(s string) *string { return &s }

// generate simulates clients on a correct register (but for one bug) and
// returns what they recorded, and whether the bug found something to spoil.
func generate(rng *rand.Rand, c genConfig, b bug) ([]history.Op, bool) {
	plans := schedule(rng, c)
	victim := -1
	slices.SortStableFunc(plans, func(a, b planned) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) })
	if b != noBug {
		var may []int
		for i := range plans {
			if fits(b, &plans[i].op) {
				may = append(may, i)
			}
		}
		if len(may) == 0 {
			return nil, false
		}
		victim = may[rng.IntN(len(may))]
		if b == reorderTwo || b == applyFailed {
			v := &plans[victim]
			victim, v.at = v.n, rng.Int64N(v.op.Call+1)
			if b == applyFailed {
				v.at = v.op.Call
			}
			slices.SortStableFunc(plans, func(a, b planned) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) })
			victim = slices.IndexFunc(plans, func(p planned) bool { return p.n == victim })
		}
	}
	state, past := map[string]*string{}, map[string][]*string{}
	ops := make([]history.Op, len(plans))
	for i := range plans {
		p := &plans[i]
		bad := noBug
		if i == victim {
			bad = b
		}
		if p.op.Kind == history.CAS && p.op.Expect == nil && rng.IntN(4) > 0 {
			p.op.Expect = state[p.op.Key] // often right
		}
		if p.at != never || bad == applyFailed {
			past[p.op.Key] = append(past[p.op.Key], state[p.op.Key])
			apply(rng, &p.op, state, past[p.op.Key], bad)
		}
		ops[p.n] = p.op
	}
	return ops, true
}

func fits(b bug, o *history.Op) bool {
	if o.Outcome == history.Fail {
		return b == applyFailed && o.Kind != history.Get
	}
	if o.Outcome != history.OK {
		return false
	}
	switch b {
	case staleRead, phantom:
		return o.Kind == history.Get
	case loseWrite, reorderTwo, resurrectDead:
		return o.Kind == history.Put || o.Kind == history.Append || o.Kind == history.Delete
	case applyTwice, dropElement:
		return o.Kind == history.Append
	case swapAnyway, refuseSwap:
		return o.Kind == history.CAS
	}
	return false
}

// apply runs one operation on the state, with the given fault.
func apply(rng *rand.Rand, o *history.Op, state map[string]*string, past []*string, bad bug) {
	now := state[o.Key]
	set := func(v *string) { state[o.Key] = v }
	switch o.Kind {
	case history.Get:
		if bad == staleRead {
			now = past[rng.IntN(len(past))]
		}
		if bad == phantom {
			now = ptr("nobody wrote this")
		}
		if o.Outcome == history.OK {
			o.Result = now
		}
		return
	case history.Put, history.Delete:
		if bad == loseWrite {
			return
		}
		if bad == resurrectDead {
			set(past[rng.IntN(len(past))])
			return
		}
		set(o.Value)
	case history.Append:
		if bad == loseWrite || bad == dropElement {
			return
		}
		set(concat(now, *o.Value))
		if bad == applyTwice {
			set(concat(state[o.Key], *o.Value))
		}
		if bad == resurrectDead {
			set(past[rng.IntN(len(past))])
		}
	case history.CAS:
		match := equal(now, o.Expect)
		if bad == swapAnyway {
			match = true
		}
		if bad == refuseSwap || bad == applyFailed && rng.IntN(2) == 0 {
			match = false
		}
		if o.Outcome == history.OK {
			o.Result, o.Swapped = now, match
		}
		if match {
			set(o.Value)
		}
	}
}

func schedule(rng *rand.Rand, c genConfig) []planned {
	type client struct {
		id   int
		free int64
	}
	clients := make([]client, c.clients)
	for i := range clients {
		clients[i] = client{i, rng.Int64N(c.gap + 1)}
	}
	next, last := c.clients, int64(0)
	keys := make([]string, c.keys) // one text for each, as readers and recorders have
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d", i)
	}
	var plans []planned
	for n := range c.ops {
		cl := &clients[rng.IntN(len(clients))]
		o := history.Op{
			ID: int64(n + 1), Client: cl.id, Key: keys[rng.IntN(c.keys)], Outcome: history.OK,
			Call: cl.free, Node: "n1", Kind: randomKind(rng, c),
		}
		o.Due = o.Call
		o.Return = o.Call + rng.Int64N(c.span+1)
		switch v := value(rng, c, n); o.Kind {
		case history.Put, history.Append, history.CAS:
			o.Value = &v
		case history.Delete:
			if !c.bare {
				o.Value = &v
			}
		}
		if o.Kind == history.CAS && rng.IntN(3) == 0 && n > 0 {
			v := value(rng, c, rng.IntN(n))
			o.Expect = &v
		}
		at := o.Call + rng.Int64N(o.Return-o.Call+1)
		switch x := rng.Float64(); {
		case x < c.unknown:
			o.Outcome = history.Unknown
			if at = never; rng.IntN(2) == 0 {
				at = o.Call + rng.Int64N(4*c.span+1)
			}
			cl.id = next
			next++
		case x < c.unknown+c.fail:
			o.Outcome, at = history.Fail, never
		}
		cl.free = o.Return + rng.Int64N(c.gap+1)
		last = max(last, cl.free)
		plans = append(plans, planned{o, at, n})
	}
	if c.final {
		last += 5 * c.span
		for k := range c.keys {
			n := len(plans)
			o := history.Op{
				ID: int64(n + 1), Client: next + k, Key: keys[k], Kind: history.Get, Outcome: history.OK,
				Due: last, Call: last, Return: last + 1, Node: "n1", Phase: "final",
			}
			plans = append(plans, planned{o, last + 1, n})
		}
	}
	return plans
}

func randomKind(rng *rand.Rand, c genConfig) history.Kind {
	kinds := []history.Kind{history.Get, history.Get, history.Get, history.Put, history.Put, history.CAS}
	if c.appends {
		kinds = append(kinds, history.Append, history.Append)
	}
	if c.deletes {
		kinds = append(kinds, history.Delete)
	}
	return kinds[rng.IntN(len(kinds))]
}

func value(rng *rand.Rand, c genConfig, n int) string {
	if c.alphabet != nil {
		return c.alphabet[rng.IntN(len(c.alphabet))]
	}
	return fmt.Sprintf("v%d.", n)
}

// reference judges a history with porcupine alone, a model written anew, and
// nothing dropped, bounded or cut.
func reference(ops []history.Op) bool {
	type input struct{ *history.Op }
	var in []porcupine.Operation
	for i := range ops {
		o := &ops[i]
		if o.Outcome == history.Fail || o.Outcome == history.Unknown && o.Kind == history.Get {
			continue
		}
		ret := o.Return
		if o.Outcome == history.Unknown {
			ret = never
		}
		in = append(in, porcupine.Operation{ClientId: o.Client, Input: input{o}, Call: o.Call, Return: ret})
	}
	text := func(s *string) string {
		if s == nil {
			return "-"
		}
		return "+" + *s
	}
	return porcupine.CheckOperations(porcupine.Model{
		Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, o := range all {
				k := o.Input.(input).Key
				byKey[k] = append(byKey[k], o)
			}
			var out [][]porcupine.Operation
			for _, part := range byKey {
				out = append(out, part)
			}
			return out
		},
		Init: func() any { return "-" },
		Step: func(state, in, _ any) (bool, any) {
			s, o := state.(string), in.(input)
			known := o.Outcome == history.OK
			switch o.Kind {
			case history.Get:
				return s == text(o.Result), s
			case history.Append:
				return true, "+" + s[1:] + *o.Value
			case history.CAS:
				if known && text(o.Result) != s {
					return false, s
				}
				swap := s == text(o.Expect)
				if known && swap != o.Swapped {
					return false, s
				}
				if swap {
					return true, text(o.Value)
				}
				return true, s
			}
			return true, text(o.Value)
		},
	}, in)
}
