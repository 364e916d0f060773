package checker

import (
	"slices"

	"brownout/internal/history"
)

// maxCore bounds the operations of a core: a list of a thousand elements would
// bring all their writers.
const maxCore = 64

// core returns the operations numbered ids, and with them the writers of all
// that they found or expected, as far as there are not too many.
func (k *keyed) core(ids []int64) []history.Op {
	all := slices.Clone(k.ops)
	for _, o := range k.failed {
		all = append(all, op{o, never})
	}
	sortOps(all)
	w := newWords(k.ops)
	byID := make(map[int64]int, len(all))
	for i := range all {
		byID[all[i].ID] = i
	}
	picked := map[int]bool{}
	var todo []int
	pick := func(i int) {
		if !picked[i] && len(picked) < maxCore {
			picked[i] = true
			todo = append(todo, i)
		}
	}
	for _, id := range ids {
		if i, ok := byID[id]; ok {
			pick(i)
		}
	}
	for len(todo) > 0 {
		o := &all[todo[0]]
		todo = todo[1:]
		for _, v := range []*string{o.Result, o.Expect} {
			for _, word := range w.parse(v).words {
				for _, i := range w.owners[word] {
					pick(byID[k.ops[i].ID])
				}
			}
		}
	}
	out := make([]history.Op, 0, len(picked))
	for i := range all {
		if picked[i] {
			out = append(out, *all[i].Op)
		}
	}
	return out
}
