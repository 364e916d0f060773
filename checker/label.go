package checker

import (
	"slices"

	"brownout/internal/history"
)

// Labels of conflicts that leave open what became of the data.
const (
	labelStale     = "stale read"
	labelBackwards = "non-monotonic read"
)

// rank puts first what says that data is gone or wrong, and last what may only
// have been late.
func rank(label string) int {
	if label == labelStale || label == labelBackwards {
		return 1
	}
	return 0
}

// lostLabel names the loss of an acknowledged write.
func lostLabel(x *op) string {
	if x.Kind == history.Append {
		return "lost append"
	}
	return "lost acknowledged write"
}

// lose notes what the final reads do not find any more.
func (f *finder) lose() {
	for i := range f.ops {
		if r := &f.ops[i]; r.Phase == final && r.observes() {
			lost, _, _ := lostBy(r, f.ops, f.w)
			for _, x := range lost {
				f.gone[x.ID] = true
			}
		}
	}
}

// lost reports whether the acknowledged write x, which came after version a, is
// gone for good: the final reads say so, or something was written on top of that
// version after x had returned.
func (f *finder) lost(x *op, a *block) bool {
	return x.completed() && (f.gone[x.ID] || a != nil && slices.ContainsFunc(a.next, func(o *op) bool { return o.Call > x.ret }))
}

// lateLabel names what z, which observed version a although b had taken its
// place, shows.
func (f *finder) lateLabel(a, b *block, z *op) string {
	switch {
	case z == a.writer:
		return "read from the future"
	case z.Kind == history.CAS && z.Swapped:
		return "lost update"
	case b.writer != nil && b.writer.Kind == history.Delete && b.s < z.Return && (f.gone[b.writer.ID] || cameBack(b, z)): // and nobody found it deleted again
		return "resurrected value"
	case b.writer != nil && f.gone[b.writer.ID]:
		return lostLabel(b.writer)
	case b.writer != nil && a.f < b.writer.Call && f.lost(b.writer, a): // else b's write may have come before a's
		return lostLabel(b.writer)
	case b.first != b.writer:
		return labelBackwards
	case a.f < b.writer.Call && b.writer.completed() && f.neverSeen(b, z):
		return lostLabel(b.writer)
	}
	return labelStale
}

// neverSeen reports whether no read from z on found anything newer than z did:
// then b's write is gone, and not just late.
func (f *finder) neverSeen(b *block, z *op) bool {
	if z.Phase == final {
		return true
	}
	for i := range f.ops {
		o := &f.ops[i]
		if o.observes() && o.Call >= b.f && !equal(o.Result, z.Result) {
			return false
		}
		if o.writes() && o != b.writer && o.Call >= b.f {
			return false // it may have been overwritten
		}
	}
	return true
}

// cameBack reports whether the node that answered z had shown b before: then
// what z found was not just late in going.
func cameBack(b *block, z *op) bool {
	return slices.ContainsFunc(b.ops, func(o *op) bool { return o.observes() && o.Node == z.Node && o.ret < z.Call })
}

// after reports whether part of a value was written after x had returned.
func (f *finder) after(p parse, x *op) bool {
	return slices.ContainsFunc(p.words, func(v string) bool {
		i, only := f.w.owner(v)
		return only && f.ops[i].Call > x.ret
	})
}
