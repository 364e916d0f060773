package checker

import (
	"slices"

	"brownout/internal/history"
)

// prune drops unknown writes that nobody observed and bounds those that
// somebody did. Both are exact: the history that is left is linearizable if
// and only if the given one is. A porcupine that has to try every subset of
// the unknown writes is thereby spared almost all of them.
//
// Observed is the smallest set of values such that every word of a value that a
// completed get or cas found is in it, and, with the value of an unknown cas,
// every word of what that cas expects. (Where a found value can be taken apart
// in several ways, the words of all ways count.)
//
// Dropping, where nobody was told only what was not there ([history.Op].Blind):
// Let L be a linearization, and P the unknown writes whose value is
// not observed. Call the state tainted while it is made of a word of P. No
// completed get or cas takes place while it is, for what it found would be
// observed. An unknown cas that swaps then expects a word of P, so it is in P
// too. So what ends a taint is a put or a delete, which does not depend on the
// state. Take P out of L, and move every unknown cas outside P that stood in a
// tainted stretch (there it changed nothing, but may now) to the end of L,
// which its open return allows and where nobody looks. Every other operation
// that can see the state sees what it saw before. The other direction is
// clear: an unknown write may be linearized after everything else.
//
// Bounding. If a value has one writer, and a completed read found a state that
// can only be made with it, the write precedes that read in every
// linearization, so it took effect before the read returned. Its own return
// constrains nothing else. For an unknown cas that is bounded the same holds
// of the writes it expects, as it swapped.
func prune(ops []op) (kept []op, w *words, pruned, bounded int) {
	w = newWords(ops)
	if !slices.ContainsFunc(ops, func(o op) bool { return o.ret == never }) {
		return ops, w, 0, 0
	}
	if w.empty { // the empty word is everywhere: nothing can be told
		return ops, w, 0, 0
	}
	bound := observations(ops, w)
	blind := slices.ContainsFunc(ops, func(o op) bool { return o.Blind })
	kept = make([]op, 0, len(ops))
	for i := range ops {
		o := ops[i]
		if o.ret == never && o.Value != nil {
			at, seen := bound[*o.Value]
			switch {
			case !seen && blind:
				at = never
			case !seen:
				pruned++
				continue
			}
			if _, only := w.owner(*o.Value); only && at != never {
				// A read that returned before the call is a conflict of its own,
				// which this keeps: the value has no other writer.
				o.ret = max(at, o.Call)
				bounded++
			}
		}
		kept = append(kept, o)
	}
	if pruned > 0 {
		w = newWords(kept)
	}
	return kept, w, pruned, bounded
}

// observations returns the observed values, each with the earliest return of a
// read before which it was certainly written, or [never].
func observations(ops []op, w *words) map[string]int64 {
	bound := map[string]int64{}
	var again []string // values whose bound changed
	see := func(found *string, ret int64) {
		p := w.parse(found)
		if p.ways != 1 {
			ret = never
		}
		for _, v := range p.words {
			if old, ok := bound[v]; !ok || ret < old {
				bound[v] = ret
				again = append(again, v)
			}
		}
	}
	for i := range ops {
		if ops[i].observes() {
			see(ops[i].Result, ops[i].Return)
		}
	}
	for len(again) > 0 {
		v := again[len(again)-1]
		again = again[:len(again)-1]
		for _, i := range w.owners[v] {
			if o := &ops[i]; o.Kind == history.CAS && o.Outcome == history.Unknown {
				at := bound[v]
				if len(w.owners[v]) > 1 {
					at = never
				}
				see(o.Expect, at)
			}
		}
	}
	return bound
}
