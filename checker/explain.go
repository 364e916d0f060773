package checker

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"brownout/internal/history"
)

// A block is one version of a key: the state from the write that made it to
// the next write. In any linearization it is one stretch of time, in which its
// write comes first. first is the operation of the block with the earliest
// return, last the one with the latest call; the version held from the one to
// the other at least.
//
// (Zones of Gibbons and Korach 1997, Golab, Li and Shah 2011, with a version
// named by its write instead of its value.)
type block struct {
	writer      *op // nil for the initial version
	first, last *op // nil for the initial version that nobody observed
	f, s        int64
	ops         []*op       // all of them
	next        []*op       // writes known to follow immediately
	proof       map[*op]*op // of next, the read that shows it; a cas shows it itself
}

func (b *block) add(o *op) {
	if o.ret < b.f || b.first == nil && b.f != math.MinInt64 {
		b.f, b.first = o.ret, o
	}
	if o.Call > b.s || b.last == nil {
		b.s, b.last = o.Call, o
	}
	b.ops = append(b.ops, o)
}

// after returns the operation of the block that was called first after t, other than not.
func (b *block) after(t int64, not *op) *op {
	var first *op
	for _, o := range b.ops {
		if o != not && o.Call > t && (first == nil || o.Call < first.Call) {
			first = o
		}
	}
	return first
}

// A finder looks for operations of one key that contradict each other. Every
// rule is a proof; none needs a search.
type finder struct {
	telling
	k      *keyed
	ops    []op
	w      *words
	blocks map[*op]*block // by writer; nil key: the initial version
	order  []*block       // those, in the order of their first appearance
	found  []Conflict
	told   map[*op]bool   // operations that a conflict of pairs or chains ends with
	gone   map[int64]bool // acknowledged writes that a final read proves lost
	more   int            // beyond maxTold, only counted
}

// maxTold is how many conflicts of a key are put into words, to find the best.
const maxTold = 200

// explain returns the most telling conflict that follows from a rule, of those
// the earliest.
func explain(k *keyed, ops []op, w *words, t telling) (Conflict, bool) {
	f := &finder{telling: t, k: k, ops: ops, w: w, blocks: map[*op]*block{}, told: map[*op]bool{}, gone: map[int64]bool{}}
	f.casAnswers()
	if !w.empty {
		f.strangers()
		f.build()
		f.lose()
		f.future()
		f.successors()
		f.chains()
		f.pairs()
		f.missing()
	}
	if len(f.found) == 0 {
		return Conflict{}, false
	}
	best := slices.MinFunc(f.found, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(rank(a.Label), rank(b.Label)), cmp.Compare(a.At, b.At), cmp.Compare(len(a.Ops), len(b.Ops)))
	})
	if f.k.key != "" {
		best.Text = f.k.key + ": " + best.Text
	}
	best.More = len(f.found) - 1 + f.more
	return best, true
}

// conflict notes one. at is when the last of ops made it certain.
func (f *finder) conflict(label, text string, at int64, ops ...*op) {
	ops = slices.DeleteFunc(ops, func(o *op) bool { return o == nil })
	slices.SortFunc(ops, func(a, b *op) int { return cmp.Or(cmp.Compare(a.Call, b.Call), cmp.Compare(a.ID, b.ID)) })
	c := Conflict{Key: f.k.key, Label: label, Text: text, At: at}
	for _, o := range ops {
		if !slices.Contains(c.Ops, o.ID) {
			c.Ops = append(c.Ops, o.ID)
		}
	}
	f.found = append(f.found, c)
}

// casAnswers finds compare-and-set answers that contradict themselves.
func (f *finder) casAnswers() {
	for i := range f.ops {
		o := &f.ops[i]
		if o.Kind != history.CAS || !o.observes() {
			continue
		}
		switch same := equal(o.Expect, o.Result); {
		case o.Swapped && !same:
			f.conflict("cas ignored its expectation", fmt.Sprintf("%s swapped although it found %s and expected %s", f.who(o), show(o.Result), show(o.Expect)), o.Return, o)
		case !o.Swapped && same:
			f.conflict("cas refused a match", fmt.Sprintf("%s did not swap although it found what it expected, %s", f.who(o), show(o.Result)), o.Return, o)
		}
	}
}

// strangers finds values that nobody wrote, or that were made by applying a write twice.
func (f *finder) strangers() {
	var all *words // with those of failed writes
	for i := range f.ops {
		o := &f.ops[i]
		if !o.observes() {
			continue
		}
		p := f.w.parse(o.Result)
		if p.ways == 1 {
			f.twice(o, p)
		}
		if p.ways != 0 {
			continue
		}
		if all == nil {
			all = f.withFailed()
		}
		if q := all.parse(o.Result); q.ways > 0 && !all.empty {
			f.aborted(o, q)
			continue
		}
		f.conflict("phantom value", fmt.Sprintf("%s found %s, which nobody ever wrote", f.who(o), show(o.Result)), o.Return, o)
	}
}

func (f *finder) withFailed() *words {
	ops := slices.Clone(f.ops)
	for _, o := range f.k.failed {
		if o.Kind != history.Get {
			failed := *o
			failed.Swapped = true // so that a failed cas counts as the writer it wanted to be
			failed.Outcome = history.Unknown
			ops = append(ops, op{&failed, never})
		}
	}
	return newWords(ops)
}

func (f *finder) aborted(o *op, p parse) {
	for _, bad := range f.k.failed {
		if bad.Value != nil && slices.Contains(p.words, *bad.Value) {
			f.conflict("aborted write observed", fmt.Sprintf("%s found %s, the value of %s, which was reported as certainly not done",
				f.who(o), show(bad.Value), f.who(&op{bad, bad.Return})), o.Return, o, &op{bad, bad.Return})
			return
		}
	}
}

func (f *finder) twice(o *op, p parse) {
	if len(p.words) < 2 {
		return
	}
	seen := map[string]bool{}
	for _, v := range p.words {
		i, only := f.w.owner(v)
		if seen[v] && only {
			f.conflict("double apply", fmt.Sprintf("%s found %s twice, which was written once, by %s", f.who(o), show(&v), f.who(&f.ops[i])), o.Return, o, &f.ops[i])
			return
		}
		seen[v] = true
	}
}

// version returns the block that o observed, or nil if it cannot be told.
func (f *finder) version(found *string) *block {
	p := f.w.parse(found)
	if p.ways != 1 {
		return nil
	}
	if len(p.words) == 0 {
		return f.blocks[nil]
	}
	if i, only := f.w.owner(p.words[len(p.words)-1]); only {
		return f.blocks[&f.ops[i]]
	}
	return nil
}

// build collects the versions, who observed them, and which follow each other.
func (f *finder) build() {
	add := func(b *block) {
		f.blocks[b.writer] = b
		f.order = append(f.order, b)
	}
	if !f.w.bare { // else absent is no single version
		add(&block{f: math.MinInt64, s: math.MinInt64})
	}
	for i := range f.ops {
		if o := &f.ops[i]; o.writes() && o.ret != never {
			add(&block{writer: o, f: never, s: math.MinInt64})
		}
	}
	parsed := map[string]bool{}
	for i := range f.ops {
		o := &f.ops[i]
		if o.observes() {
			if b := f.version(o.Result); b != nil {
				b.add(o)
			}
			f.adjacent(o, parsed)
		}
		if o.Kind == history.CAS && o.writes() && o.ret != never {
			if b := f.version(o.Expect); b != nil {
				b.next = append(b.next, o)
			}
		}
	}
	for _, b := range f.order { // after the observers, so that they are preferred as witnesses
		if b.writer != nil {
			b.add(b.writer)
		}
	}
}

// adjacent notes which append follows which version, from one value found.
func (f *finder) adjacent(reader *op, done map[string]bool) {
	found := reader.Result
	if found == nil || len(f.w.elem) == 0 || done[*found] {
		return
	}
	done[*found] = true
	p := f.w.parse(found)
	if p.ways != 1 {
		return
	}
	at := f.blocks[nil]
	for n, v := range p.words {
		i, only := f.w.owner(v)
		if !only {
			return
		}
		o := &f.ops[i]
		if (n > 0 || !p.based) && at != nil && !slices.Contains(at.next, o) {
			at.next = append(at.next, o)
			if at.proof == nil {
				at.proof = map[*op]*op{}
			}
			at.proof[o] = reader
		}
		if at = f.blocks[o]; at == nil {
			return
		}
	}
}

// future finds reads that returned before a write of what they found was called.
func (f *finder) future() {
	for i := range f.ops {
		o := &f.ops[i]
		if !o.observes() {
			continue
		}
		p := f.w.parse(o.Result)
		if p.ways != 1 {
			continue
		}
		for _, v := range p.words {
			if n, only := f.w.owner(v); only && o.Return < f.ops[n].Call && !f.full() {
				w := &f.ops[n]
				f.conflict("read from the future", fmt.Sprintf("%s found %s before it was written by %s", f.who(o), show(&v), f.who(w)), w.Call, o, w)
				break
			}
		}
	}
}

// successors finds two writes that both followed one version immediately.
func (f *finder) successors() {
	for _, b := range f.order {
		for n, o := range b.next {
			if n == 0 || slices.Contains(b.next[:n], o) {
				continue
			}
			prev := b.next[0]
			label := "lost update"
			switch {
			case f.lost(prev, b):
				label = lostLabel(prev)
			case o.Kind == history.Append && prev.Kind == history.Append:
				label = "diverging appends"
			}
			f.conflict(label, fmt.Sprintf("%s and %s both took effect on the same version, %s", f.who(prev), f.who(o), f.madeBy(b)),
				max(prev.ret, o.ret), prev, o, b.writer, b.proof[prev], b.proof[o])
			f.arrows(f.directly(b, prev), f.directly(b, o))
		}
	}
}

// arrows gives the last conflict what makes it one.
func (f *finder) arrows(texts ...string) { f.found[len(f.found)-1].Arrows = texts }

// directly says how it is known that o came directly after version b.
func (f *finder) directly(b *block, o *op) string {
	how := fmt.Sprintf("it is a cas that swapped %s", show(o.Expect))
	if proof := b.proof[o]; proof != nil {
		how = f.did(proof)
	}
	return fmt.Sprintf("operation %d directly after %s: %s", o.ID, f.madeBy(b), strings.TrimSuffix(how, ","))
}

// madeBy names a version.
func (f *finder) madeBy(b *block) string {
	if b.writer == nil {
		return "the absent key"
	}
	return fmt.Sprintf("%s of operation %d", show(b.writer.Value), b.writer.ID)
}

// pairs finds versions a and b of which each would have to precede the other:
// an operation of a returned before one of b was called, and the reverse.
func (f *finder) pairs() {
	var forward, backward []*block // held over a stretch; over an instant
	for _, b := range f.order {
		switch {
		case b.last == nil:
		case b.f < b.s:
			forward = append(forward, b)
		default:
			backward = append(backward, b)
		}
	}
	slices.SortStableFunc(forward, func(a, b *block) int { return cmp.Compare(a.f, b.f) })
	longest := make([]*block, len(forward)) // of forward[:i+1], the one with the largest s
	for i, b := range forward {
		if longest[i] = b; i > 0 {
			if a := longest[i-1]; a.s > b.f {
				f.pair(a, b)
			}
			if longest[i-1].s > b.s {
				longest[i] = longest[i-1]
			}
		}
	}
	for _, b := range backward {
		n, _ := slices.BinarySearchFunc(forward, b.s, func(a *block, s int64) int { return cmp.Compare(a.f, s) })
		if n > 0 && longest[n-1].s > b.f {
			f.pair(longest[n-1], b)
		}
	}
}

// pair tells of versions a and b with a.f < b.s and b.f < a.s.
func (f *finder) pair(a, b *block) {
	if f.full() {
		return
	}
	x, z := b.after(a.f, nil), a.after(b.f, nil) // the first that prove it
	if b.writer == nil || a.writer != nil && x.Call > z.Call {
		a, b, x, z = b, a, z, x
	}
	f.late(a, b, z, fmt.Sprintf("%s was there before %s was called", f.held(a), f.did(x)), a.first, x)
}

// full reports that enough conflicts are in words; one more is only counted.
func (f *finder) full() bool {
	if len(f.found) < maxTold {
		return false
	}
	f.more++
	return true
}

// held says since when a version was there.
func (f *finder) held(a *block) string {
	if a.first == nil {
		return "the absent key"
	}
	if a.first == a.writer {
		return fmt.Sprintf("its write (op %d) had returned at %s, and so it", a.first.ID, f.sec(a.first.ret))
	}
	return fmt.Sprintf("it had been found by op %d, which returned at %s, and so it", a.first.ID, f.sec(a.first.ret))
}

// late tells of z, which observed version a although b had taken its place.
func (f *finder) late(a, b *block, z *op, because string, more ...*op) {
	if f.told[z] {
		return
	}
	f.told[z] = true
	gap := z.Call - b.f
	var seen string // how it is known that b was in force
	switch {
	case b.first == b.writer && b.writer.completed():
		seen = fmt.Sprintf("%s had been acknowledged", f.did(b.first))
	case b.first == b.writer:
		seen = fmt.Sprintf("%s had taken effect, as a read shows,", f.did(b.first))
	default:
		seen = fmt.Sprintf("%s had found %s", f.who(b.first), show(b.first.Result))
	}
	verb := "found " + show(z.Result)
	if z == a.writer {
		verb = "wrote " + show(z.Value)
	}
	text := fmt.Sprintf("%s %s at least %s after %s; %s", f.who(z), verb, f.gap(gap), seen, because)
	at := z.Return
	for _, o := range more {
		if o != nil && o.ret != never {
			at = max(at, o.ret)
		}
	}
	f.conflict(f.lateLabel(a, b, z), text, at, append(more, z, b.first, a.writer, b.writer)...)
	f.arrows(fmt.Sprintf("%s before %s: %s", f.madeBy(a), f.madeBy(b), because),
		fmt.Sprintf("%s before %s: operation %d returned at %s, before operation %d was called at %s", f.madeBy(b), f.madeBy(a), b.first.ID, f.sec(b.f), z.ID, f.sec(z.Call)))
}

// chains finds versions that were observed after their successor was there.
func (f *finder) chains() {
	for _, a := range f.order {
		for _, o := range a.next {
			b := f.blocks[o]
			if b == nil || b.first == nil || a.s <= b.f {
				continue
			}
			if z := a.after(b.f, o); z != nil && z != a.writer && !f.full() {
				f.late(a, b, z, fmt.Sprintf("%s took effect directly after that version, which could not come back", f.who(o)), o, a.proof[o])
			}
		}
	}
}

// maxComparisons bounds the search for missing elements on one key.
const maxComparisons = 4_000_000

// missing finds reads of appended values that lack an acknowledged write.
func (f *finder) missing() {
	if len(f.w.elem) == 0 {
		return
	}
	latest := map[string]*op{} // the last observer of each value
	var values []string
	for i := range f.ops {
		o := &f.ops[i]
		if !o.observes() || o.Result == nil {
			continue
		}
		if old := latest[*o.Result]; old == nil {
			values = append(values, *o.Result)
			latest[*o.Result] = o
		} else if o.Call > old.Call {
			latest[*o.Result] = o
		}
	}
	left := maxComparisons
	for _, v := range values {
		since, ok := f.derivation(v)
		if !ok {
			continue
		}
		p, z := f.w.parse(&v), latest[v]
		// Operations are in the order of their calls: none called after z matters.
		from, _ := slices.BinarySearchFunc(f.ops, since, func(o op, t int64) int { return cmp.Compare(o.Call, t+1) })
		for i := from; i < len(f.ops) && f.ops[i].Call < z.Call; i++ {
			if left--; left < 0 {
				return
			}
			x := &f.ops[i]
			if !x.writes() || x.ret >= z.Call || x.Call <= since || x.Value != nil && slices.Contains(p.words, *x.Value) || x.bare() && !p.based {
				continue
			}
			label := labelStale
			if f.lost(x, f.version(&v)) || x.completed() && f.after(p, x) {
				label = lostLabel(x)
			}
			f.conflict(label, fmt.Sprintf("%s found %s, which lacks %s of %s, although that was done after the value's beginning and before the read",
				f.who(z), show(z.Result), show(x.Value), f.who(x)), z.Return, z, x)
			begun := "the value began with the absent key"
			if p.based {
				begun = fmt.Sprintf("the value began with %s, written by %s", show(&p.words[0]), f.sec(since))
			}
			f.arrows(fmt.Sprintf("operation %d after the value's beginning: %s, and operation %d was called at %s", x.ID, begun, x.ID, f.sec(x.Call)),
				fmt.Sprintf("operation %d before operation %d: it returned at %s, and the other was called at %s", x.ID, z.ID, f.sec(x.ret), f.sec(z.Call)))
			break
		}
	}
}

// derivation returns the time by which the base of an appended value was
// written. Not ok: the value has no single derivation, or is none of appends.
func (f *finder) derivation(v string) (since int64, ok bool) {
	p := f.w.parse(&v)
	if p.ways != 1 || len(p.words) == 0 || !p.based && f.w.bare || p.based && len(p.words) == 1 {
		return 0, false
	}
	if !p.based {
		return math.MinInt64 + 1, true
	}
	i, only := f.w.owner(p.words[0])
	return f.ops[max(i, 0)].ret, only && f.ops[i].ret != never
}

func equal(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// A telling puts operations into words.
type telling struct{ untimed bool } // times are places in a file

// did names an operation and what it saw or wrote.
func (t telling) did(o *op) string {
	if o.observes() {
		return t.who(o) + ", which found " + show(o.Result) + ","
	}
	return t.who(o) + " of " + show(o.Value)
}

// who names an operation: "client 3's get (op 23, n2, 1.204 to 1.206 s)".
func (t telling) who(o *op) string {
	if o.Client < 0 {
		return "the state at the start"
	}
	from, to := seconds(o.Call), seconds(o.Return)+" s"
	if t.untimed {
		from, to = fmt.Sprintf("line %d", o.Call), fmt.Sprint(o.Return)
	}
	if o.Outcome == history.Unknown {
		to = "unknown"
	}
	node := ""
	if o.Node != "" {
		node = ", " + o.Node
	}
	return fmt.Sprintf("client %d's %s (op %d%s, %s to %s)", o.Client, o.Kind, o.ID, node, from, to)
}

func (t telling) sec(at int64) string {
	if t.untimed {
		return fmt.Sprintf("line %d", at)
	}
	return seconds(at) + " s"
}

// seconds prints a time; those of the first millisecond, where others' made-up times
// are, in full.
func seconds(ns int64) string {
	if ns > -1e6 && ns < 1e6 {
		return fmt.Sprintf("%.9f", float64(ns)/1e9)
	}
	return fmt.Sprintf("%.6f", float64(ns)/1e9)
}

// gap says how much later something was.
func (t telling) gap(ns int64) string {
	switch {
	case t.untimed && ns == 1:
		return "1 line"
	case t.untimed:
		return fmt.Sprintf("%d lines", ns)
	}
	return time.Duration(ns).String()
}

// show prints a value, shortened.
func show(s *string) string {
	if s == nil {
		return "absent"
	}
	const most = 40
	v := *s
	if len(v) > most {
		v = strings.ToValidUTF8(v[:most/2], "") + "…" + strings.ToValidUTF8(v[len(v)-most/2:], "")
	}
	return fmt.Sprintf("%q", v)
}
