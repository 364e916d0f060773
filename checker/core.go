package checker

import (
	"slices"

	"brownout/internal/history"
)

// maxCore bounds the operations of a core: a list of a thousand elements would
// bring all their writers.
const maxCore = 64

// coreOf returns the operations numbered ids, and with them the writers of all
// that they found or expected, as far as there are not too many. w are the words
// of ops.
func coreOf(ids []int64, ops []op, failed []*history.Op, w *words) []history.Op {
	picked := map[int]bool{}
	var todo []int
	pick := func(i int) {
		if !picked[i] && len(picked) < maxCore {
			picked[i] = true
			todo = append(todo, i)
		}
	}
	for i := range ops {
		if slices.Contains(ids, ops[i].ID) {
			pick(i)
		}
	}
	for len(todo) > 0 {
		o := &ops[todo[0]]
		todo = todo[1:]
		for _, v := range []*string{o.Result, o.Expect} {
			for _, word := range w.parse(v).words {
				for _, i := range w.owners[word] {
					pick(i)
				}
			}
		}
	}
	out := []op{}
	for i := range picked {
		out = append(out, ops[i])
	}
	for _, o := range failed {
		if slices.Contains(ids, o.ID) {
			out = append(out, op{o, never})
		}
	}
	sortOps(out)
	core := make([]history.Op, len(out))
	for i := range out {
		core[i] = *out[i].Op
	}
	return core
}
