package checker

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strings"

	"brownout/internal/history"
)

// The block engine decides a key whose values are unique, exactly and in
// O(n log n), whatever the number of clients and of unknown outcomes.
//
// A version is a state of the key: the absent value, what a put or a delete
// wrote, or what a swap or an append made of the version before it. As values
// are unique, a read names its version, and a swap or an append its
// predecessor. Versions linked that way make a chain, and a chain is a block: in any
// linearization its versions follow each other with no other write between, for
// each must last until the next is made of it. With f the earliest return and s
// the latest call of a block's operations, A must precede B if and only if
// f(A) < s(B). The key is linearizable if and only if
//
//   - every value found was written, no version is made twice or has two
//     successors, and every chain begins with a put, a delete or the absent value;
//   - along each chain, no operation returned before one of an earlier version was called;
//   - no two blocks must each precede the other.
//
// Then the blocks in the order of f+s are a linearization: A before B means
// f(A) < s(B) and not f(B) < s(A), so f+s of A is less than that of B. (Zones of
// Gibbons and Korach, SIAM J. Comput. 26, 1997, and of Golab, Li and Shah, PODC
// 2011, with chains of read-modify-writes in place of single writes.)
//
// A write of unknown outcome that nobody observed may be left out: if it took
// effect in some linearization, nothing that depends on the state came between it
// and the next put, so leaving it out changes no answer. One that was observed
// did take effect, and its own return says nothing. Observed is what a completed
// operation found, what an effective swap expected, and what either is made of.
//
// A refused swap that does not say what it found, a delete that leaves no
// tombstone, a value that is written twice or can be taken apart in two ways:
// such keys are not for this engine.

// A ruling is what the block engine says of a key.
type ruling struct {
	verdict Verdict // Unknown: not for this engine
	why     string  // of Unknown and Illegal
	core    []op    // of Illegal: operations that are illegal by themselves, see [blockEngine.core]
	whole   []op    // of Illegal: these with all that their versions are made of, if that is not too much
	around  []op    // of Illegal: the first contradictions with all that they are made of; nil if that is too much
	more    int     // of Illegal: contradictions that are not in around
	dropped int     // unknown writes that were left out
	bounded int     // unknown writes that took effect
	order   []int32 // of OK, if asked for: operations in an order that is a linearization
}

// A kept is a version of a key; number 0 is the absent value at the start.
type kept struct {
	writer     int32 // the operation that made it; -1 for version 0
	pred, succ int32 // versions; 0 for none, as version 0 has no predecessor and is no successor
	linked     bool  // pred counts: the writer is a swap or an append
	effective  bool  // it existed
	visited    bool
	least      int32 // reader with the earliest return; -1 for none
	latest     int32 // reader with the latest call
}

// A fact is what the engine needs of an operation, close together: a history of
// millions is many times what a processor's cache holds.
type fact struct {
	call, ret int64
	wrote     int32 // version, if it writes
	found     int32 // version, if it observes
	writes    bool
	observes  bool
	swapped   bool
	denied    bool // a swap that did not do what it says it found
	appends   bool
	unknown   bool // its outcome
}

// version is the one that it wrote, else the one that it read.
func (f *fact) version() int32 {
	if f.writes {
		return f.wrote
	}
	return f.found
}

type blockEngine struct {
	ops      []op
	facts    []fact
	ids      *table // version by the value that was written; of an append, by its element
	versions []kept
	words    *words           // only if there are appends
	made     map[string]int32 // version by a whole value that was found, if there are appends
	work     []int32          // versions found to exist, whose predecessors are to be looked at
	hits     []int32          // operations of collisions so far
	collided int
	told     map[int32]bool // blocks that collided, by the operation that returned first
	bad      *ruling
}

// register gives every write its version and finds the version of every value that
// was read, or says why the engine cannot judge the operations.
func (e *blockEngine) register() (why string) {
	appends := false
	n := 1
	for i := range e.ops {
		o := &e.ops[i]
		if o.Blind {
			return "a refused swap did not say what it found"
		}
		if o.writes() {
			n++
		}
		appends = appends || o.Kind == history.Append
	}
	e.facts = make([]fact, len(e.ops))
	e.ids = newTable(n)
	e.versions = make([]kept, 1, n)
	e.versions[0] = kept{writer: -1, effective: true, least: -1, latest: -1}
	var later []unseen
	for from := 0; from < len(e.ops); from += together {
		some := e.ops[from:min(from+together, len(e.ops))]
		var wrote, found [together]uint64
		var texts [2 * together]*string
		for i := range some {
			texts[2*i], texts[2*i+1] = some[i].Value, some[i].Result
		}
		e.ids.fetchTexts(texts[:2*len(some)])
		for i := range some {
			o := &some[i]
			f := &e.facts[from+i]
			*f = fact{call: o.Call, ret: o.ret, writes: o.writes(), observes: o.observes(), swapped: o.Swapped, appends: o.Kind == history.Append, unknown: !o.completed()}
			switch {
			case !f.writes:
			case o.Value == nil:
				return "a delete left no tombstone"
			case *o.Value == "":
				return "an empty value"
			default:
				wrote[i] = e.ids.hash(o.Value)
			}
			if f.observes && o.Result != nil && !appends {
				found[i] = e.ids.hash(o.Result)
			}
			f.denied = o.Kind == history.CAS && f.observes && equal(o.Expect, o.Result) != o.Swapped
		}
		e.ids.fetch(wrote[:len(some)])
		e.ids.fetch(found[:len(some)])
		for i := range some {
			o := &some[i]
			f := &e.facts[from+i]
			if f.writes {
				if f.wrote = e.ids.add(o.Value, wrote[i]); f.wrote == 0 {
					return "a value is written twice"
				}
				// A put and a delete that was acknowledged made its version in any case.
				resets := o.Kind == history.Put || o.Kind == history.Delete
				e.versions = append(e.versions, kept{writer: int32(from + i), effective: resets && o.completed(), least: -1, latest: -1})
			}
			if f.observes && o.Result != nil {
				if !appends {
					f.found, _ = e.ids.find(o.Result, found[i])
				}
				if f.found == 0 {
					later = append(later, unseen{int32(from + i), found[i]})
				}
			}
		}
	}
	if appends {
		e.words = newWords(e.ops)
		e.made = map[string]int32{}
	}
	for some := range slices.Chunk(later, together) {
		var hashes [together]uint64
		for i, l := range some {
			hashes[i] = l.hash
		}
		e.ids.fetch(hashes[:len(some)])
		for _, l := range some {
			f, o := &e.facts[l.op], &e.ops[l.op]
			switch {
			case appends:
				f.found = e.version(o.Result)
			default:
				if f.found, _ = e.ids.find(o.Result, l.hash); f.found == 0 {
					f.found = stranger
				}
			}
		}
	}
	return ""
}

// An unseen is an operation that found what no operation before it in the history wrote.
type unseen struct {
	op   int32
	hash uint64
}

// Not a version.
const (
	stranger  = -1 // nobody wrote it
	ambiguous = -2 // it can be taken apart in two ways
	twice     = -3 // an element is in two places
)

// version returns that of a value that was found or expected.
func (e *blockEngine) version(v *string) int32 {
	if v == nil {
		return 0
	}
	if e.words == nil {
		if id := e.ids.version(v); id != 0 {
			return id
		}
		return stranger
	}
	if id, ok := e.made[*v]; ok {
		return id
	}
	id := e.assemble(*v)
	e.made[*v] = id
	return id
}

// assemble finds the version of a value that may hold appended elements: a base
// and one append after the other, each of which made a version.
func (e *blockEngine) assemble(v string) int32 {
	p := e.words.parse(&v)
	switch {
	case p.ways == 0:
		return stranger
	case p.ways > 1:
		return ambiguous
	}
	at := int32(0)
	for i, w := range p.words {
		id := e.ids.version(&w)
		if i == 0 && p.based {
			at = id
			continue
		}
		x := &e.versions[id]
		if !x.linked {
			x.linked, x.pred = true, at
		} else if x.pred != at {
			return twice
		}
		at = id
	}
	return at
}

// decide judges a key. With order it also returns a linearization.
func decide(ops []op, order bool) ruling {
	e := &blockEngine{ops: ops}
	if why := e.register(); why != "" {
		return ruling{verdict: Unknown, why: why}
	}
	for _, step := range []func(){e.observe, e.link, e.chain} {
		if step(); e.bad != nil {
			return *e.bad
		}
	}
	blocks := e.blocks()
	if e.bad != nil {
		return *e.bad
	}
	if e.collide(blocks); e.bad != nil {
		return *e.bad
	}
	r := ruling{verdict: OK}
	for i := range e.versions {
		if v := &e.versions[i]; v.writer >= 0 && e.facts[v.writer].unknown {
			if v.effective {
				r.bounded++
			} else {
				r.dropped++
			}
		}
	}
	if order {
		r.order = e.order(blocks)
	}
	return r
}

// illegal ends the engine with a contradiction between operations.
func (e *blockEngine) illegal(why string, is ...int32) {
	if e.bad == nil {
		e.bad = &ruling{verdict: Illegal, why: why, core: e.core(is, 0), whole: e.core(is, maxWhole)}
		e.bad.around = e.complete(is)
	}
}

// unfit ends the engine without an answer, whatever it held for illegal so far.
func (e *blockEngine) unfit(why string) {
	e.bad = &ruling{verdict: Unknown, why: why}
}

// observe takes all that completed operations found.
func (e *blockEngine) observe() {
	for i := range e.facts {
		f := &e.facts[i]
		if !f.observes {
			continue
		}
		v := f.found
		switch {
		case v == ambiguous:
			e.unfit("a value can be taken apart in two ways")
			return
		case v < 0 && e.bad == nil:
			// Go on: what is ambiguous makes even this uncertain.
			core := e.strange(int32(i))
			e.bad = &ruling{verdict: Illegal, why: "found what nobody wrote", core: core, whole: core, around: core}
			continue
		case v < 0 || e.bad != nil:
			continue
		}
		e.exists(v)
		if f.denied {
			e.illegal("a swap contradicts itself", int32(i))
			continue
		}
		if f.swapped {
			e.versions[f.wrote].linked, e.versions[f.wrote].pred = true, v
			e.exists(f.wrote)
			continue
		}
		x := &e.versions[v]
		if x.least < 0 || f.ret < e.facts[x.least].ret {
			x.least = int32(i)
		}
		if x.latest < 0 || f.call > e.facts[x.latest].call {
			x.latest = int32(i)
		}
	}
}

func (e *blockEngine) exists(v int32) {
	if x := &e.versions[v]; !x.effective {
		x.effective = true
		e.work = append(e.work, v)
	}
}

// link finds what else must have existed: what versions that did were made of.
func (e *blockEngine) link() {
	for len(e.work) > 0 {
		v := e.work[len(e.work)-1]
		e.work = e.work[:len(e.work)-1]
		x := &e.versions[v]
		o := &e.ops[x.writer]
		if o.Kind == history.CAS && !x.linked {
			p := e.version(o.Expect)
			switch {
			case p == ambiguous:
				e.unfit("a value can be taken apart in two ways")
				return
			case p < 0: // it cannot have swapped, and yet its value was seen
				e.illegal("found what a swap cannot have written", e.witnesses(v)...)
				return
			}
			x.linked, x.pred = true, p
		}
		if x.linked {
			e.exists(x.pred)
		}
	}
	for v := 1; v < len(e.versions); v++ {
		x := &e.versions[v]
		if !x.effective || !x.linked {
			continue
		}
		p := &e.versions[x.pred]
		if p.succ != 0 {
			is := append(e.witnesses(p.succ), e.witnesses(int32(v))...)
			if p.writer >= 0 {
				is = append(is, p.writer)
			}
			e.illegal("two writes follow the same version", is...)
			return
		}
		p.succ = int32(v)
	}
}

// witnesses are the operations that show that a version existed: its writer and a reader
// of it, or of what was made of it.
func (e *blockEngine) witnesses(v int32) []int32 {
	out := []int32{}
	seen := map[int32]bool{}
	for !seen[v] {
		seen[v] = true
		x := &e.versions[v]
		if x.writer >= 0 {
			out = append(out, x.writer)
		}
		if x.least >= 0 {
			return append(out, x.least)
		}
		if x.writer < 0 || e.ops[x.writer].completed() && e.ops[x.writer].Kind != history.Append {
			return out
		}
		next := int32(0) // an unknown write or an append: somebody made something of it
		for u := range e.versions {
			if y := &e.versions[u]; y.effective && y.linked && y.pred == v {
				next = int32(u)
			}
		}
		if next == 0 {
			return out
		}
		v = next
	}
	return out
}

// Times of a chain so far.
const (
	ever = int64(math.MinInt64)
)

// chain checks each chain's versions against each other.
func (e *blockEngine) chain() {
	for root := range e.versions {
		x := &e.versions[root]
		if !x.effective || x.linked {
			continue
		}
		called, by := ever, int32(-1) // the latest call so far, and whose
		for v := int32(root); ; {
			x := &e.versions[v]
			x.visited = true
			if x.writer >= 0 {
				f := &e.facts[x.writer]
				if f.ret < called {
					e.illegal("a write returned before what it was made of", append(e.path(by, v), x.writer, by)...)
					return
				}
				if f.call > called {
					called, by = f.call, x.writer
				}
			}
			if x.least >= 0 {
				if e.facts[x.least].ret < called {
					e.illegal("a read returned before what it found was written", append(e.path(by, v), x.least, by)...)
					return
				}
				if f := &e.facts[x.latest]; f.call > called {
					called, by = f.call, x.latest
				}
			}
			if x.succ == 0 {
				break
			}
			v = x.succ
		}
	}
	for v := range e.versions {
		if x := &e.versions[v]; x.effective && !x.visited {
			e.illegal("writes are made of each other", e.circle(int32(v))...)
			return
		}
	}
}

// path are the writers of the versions from that of an operation to v.
func (e *blockEngine) path(from, v int32) []int32 { return e.ancestry(e.facts[from].version(), v) }

func (e *blockEngine) ancestry(start, v int32) (out []int32) {
	for {
		if w := e.versions[v].writer; w >= 0 {
			out = append(out, w)
		}
		if v == start || !e.versions[v].linked {
			return out
		}
		v = e.versions[v].pred
	}
}

func (e *blockEngine) circle(v int32) (out []int32) {
	for seen := map[int32]bool{}; !seen[v]; v = e.versions[v].pred {
		seen[v] = true
		out = append(out, e.witnesses(v)...)
		if !e.versions[v].linked {
			break
		}
	}
	return out
}

// A span is a block: its first version, f and s and the operations that have them.
type span struct {
	root     int32 // -1: an append that nobody saw, which is a block of its own
	f, s     int64
	fOp, sOp int32
}

func (e *blockEngine) blocks() []span {
	n := 0
	for root := range e.versions {
		if x := &e.versions[root]; !x.linked || !x.effective {
			n++
		}
	}
	out := make([]span, 0, n)
	for root := range e.versions {
		x := &e.versions[root]
		switch {
		case x.writer >= 0 && !x.effective:
			// An acknowledged append that nobody saw took effect at the end of some
			// block, where what follows is a put: it stands alone.
			if f := &e.facts[x.writer]; f.appends && !f.unknown {
				out = append(out, span{-1, f.ret, f.call, x.writer, x.writer})
			}
			continue
		case x.linked, root == 0 && x.succ == 0 && x.least < 0:
			continue
		}
		b := span{root: int32(root), f: math.MaxInt64, s: ever, fOp: -1, sOp: -1}
		if root == 0 {
			b.f = ever
		}
		for v := int32(root); ; v = e.versions[v].succ {
			x := &e.versions[v]
			for _, i := range [...]int32{x.writer, x.least, x.latest} {
				if i < 0 {
					continue
				}
				f := &e.facts[i]
				if f.ret < b.f {
					b.f, b.fOp = f.ret, i
				}
				if f.call > b.s {
					b.s, b.sOp = f.call, i
				}
			}
			if x.succ == 0 {
				break
			}
		}
		out = append(out, b)
	}
	return out
}

// collide looks for two blocks that must each precede the other.
func (e *blockEngine) collide(blocks []span) {
	forward := make([]span, 0, len(blocks))
	for _, b := range blocks {
		if b.f < b.s {
			forward = append(forward, b)
		}
	}
	slices.SortFunc(forward, func(a, b span) int { return cmp.Or(cmp.Compare(a.f, b.f), cmp.Compare(a.s, b.s)) })
	e.told = map[int32]bool{}
	defer e.tell()
	longest := 0 // of those so far, the one that lasts longest
	for i := 1; i < len(forward); i++ {
		a, b := forward[longest], forward[i]
		if b.f < a.s {
			e.collision(a, b)
		}
		if b.s > a.s {
			longest = i
		}
	}
	near := 0
	for _, b := range blocks {
		if b.f < b.s {
			continue
		}
		// The last forward block that must precede it, near that of the block before.
		low, high := near, near
		for step := 1; low > 0 && forward[low-1].f >= b.s; step *= 2 {
			low = max(low-step, 0)
		}
		for step := 1; high < len(forward) && forward[high].f < b.s; step *= 2 {
			high = min(high+step, len(forward))
		}
		i, _ := slices.BinarySearchFunc(forward[low:high], b.s, func(a span, s int64) int { return cmp.Compare(a.f, s) })
		i += low
		near = i
		if i > 0 && b.f < forward[i-1].s {
			e.collision(forward[i-1], b)
		}
	}
}

// maxCollisions is how many collisions are looked at to find the one that is best to tell.
const maxCollisions = 32

// tell ends the engine with the collisions that were found.
func (e *blockEngine) tell() {
	if e.collided == 0 {
		return
	}
	if around := e.complete(e.hits); around != nil {
		e.bad.around, e.bad.more = around, max(e.collided-maxCollisions, 0)
	}
}

func (e *blockEngine) collision(a, b span) {
	// One wrong read makes its block collide with all that it reaches over: that
	// is one contradiction, not many.
	known := e.told[a.fOp] || e.told[b.fOp]
	e.told[a.fOp], e.told[b.fOp] = true, true
	if known {
		return
	}
	if e.collided++; e.collided > maxCollisions {
		return
	}
	var is []int32
	for _, x := range []span{a, b} {
		if x.root < 0 {
			is = append(is, x.fOp)
			continue
		}
		ends := []int32{x.sOp}
		if x.fOp >= 0 {
			ends = append(ends, x.fOp)
		}
		first, last := e.stretch(x.root, ends)
		is = append(is, ends...)
		if x.root == 0 { // it begins before everything, whoever was first to look
			is = append(is, e.ancestry(0, e.facts[last].version())...)
			continue
		}
		is = append(is, e.path(first, e.facts[last].version())...)
	}
	e.hits = append(e.hits, is...)
	e.illegal("two versions would each have to precede the other", is...)
}

// stretch says which of a chain's operations is of its earliest, and which of its latest version.
func (e *blockEngine) stretch(root int32, is []int32) (first, last int32) {
	if len(is) == 1 {
		return is[0], is[0]
	}
	a, b := e.facts[is[0]].version(), e.facts[is[1]].version()
	for v := root; ; v = e.versions[v].succ {
		switch {
		case v == a:
			return is[0], is[1]
		case v == b:
			return is[1], is[0]
		case e.versions[v].succ == 0:
			return is[0], is[1]
		}
	}
}

// strange are a read of what nobody wrote and all that it could be made of.
func (e *blockEngine) strange(i int32) []op {
	core := []op{e.ops[i]}
	if e.words == nil || e.ops[i].Result == nil {
		return core
	}
	for _, w := range e.words.parse(e.ops[i].Result).words {
		if id := e.ids.version(&w); id != 0 {
			core = append(core, e.ops[e.versions[id].writer])
			// Its element is in another place for somebody else: that is what contradicts.
			core = append(core, e.pick(e.witnesses(id))...)
		}
	}
	return unique(core)
}

func (e *blockEngine) pick(is []int32) (out []op) {
	for _, i := range is {
		out = append(out, e.ops[i])
	}
	return out
}

// Bounds of what is told of a contradiction: operations of a counterexample, and
// of what it is looked for in.
const (
	maxWhole  = 200
	maxAround = 20_000
)

// core makes a history of some operations that is illegal by itself. A swap or an
// append whose predecessor is left out becomes the put of what it made, which
// constrains less; predecessors are taken in as far as so many operations go.
func (e *blockEngine) core(is []int32, most int) []op {
	in := e.closure(is, most)
	var out []op
	for i := range in {
		o := e.ops[i]
		if o.writes() {
			if x := &e.versions[e.facts[i].wrote]; x.linked && x.pred != 0 && !in[e.versions[x.pred].writer] {
				put := *o.Op
				put.Kind, put.Value, put.Expect, put.Result, put.Swapped = history.Put, e.text(e.facts[i].wrote), nil, nil, false
				o.Op = &put
			}
		}
		out = append(out, o)
	}
	return unique(out)
}

// complete are operations with all that their versions are made of; nil if that is too much.
func (e *blockEngine) complete(is []int32) (out []op) {
	in := e.closure(is, maxAround)
	if len(in) >= maxAround {
		return nil
	}
	for i := range in {
		out = append(out, e.ops[i])
	}
	return unique(out)
}

// closure adds to operations those that show what they show, and up to so many
// that made what they are made of.
func (e *blockEngine) closure(is []int32, most int) map[int32]bool {
	in := map[int32]bool{}
	for len(is) > 0 {
		i := is[0]
		if is = is[1:]; in[i] {
			continue
		}
		in[i] = true
		v := e.facts[i].version()
		if v < 0 {
			continue
		}
		if w := e.versions[v].writer; w >= 0 {
			is = append(is, w) // a read without its write would be another contradiction
		}
		if x := &e.versions[v]; x.linked && x.pred != 0 && len(in) < most {
			is = append(is, e.versions[x.pred].writer)
		}
		if o := &e.ops[i]; o.writes() && (!o.completed() || o.Kind == history.Append && e.versions[v].linked) {
			is = append(is, e.witnesses(v)...) // who shows that it took effect, and where
		}
	}
	return in
}

// text is the whole value of a version.
func (e *blockEngine) text(v int32) *string {
	var parts []string
	for {
		x := &e.versions[v]
		if x.writer < 0 {
			break
		}
		o := &e.ops[x.writer]
		parts = append(parts, *o.Value)
		if o.Kind != history.Append {
			break
		}
		v = x.pred
	}
	slices.Reverse(parts)
	whole := strings.Join(parts, "")
	return &whole
}

func unique(ops []op) []op {
	sortOps(ops)
	return slices.CompactFunc(ops, func(a, b op) bool { return a.Op == b.Op })
}

// order returns a linearization: the blocks by the middle of f and s, in each
// the versions of its chain, and of each its write and then its reads by call.
func (e *blockEngine) order(blocks []span) []int32 {
	readers := make([][]int32, len(e.versions))
	for i := range e.facts {
		if f := &e.facts[i]; f.observes && !f.writes {
			readers[f.found] = append(readers[f.found], int32(i))
		}
	}
	slices.SortStableFunc(blocks, func(a, b span) int {
		if (a.root == 0) != (b.root == 0) {
			return cmp.Compare(min(uint32(a.root), 1), min(uint32(b.root), 1)) // version 0 is first
		}
		ah, al := sum(a.f, a.s)
		bh, bl := sum(b.f, b.s)
		return cmp.Or(cmp.Compare(ah, bh), cmp.Compare(al, bl))
	})
	out := make([]int32, 0, len(e.ops))
	for _, b := range blocks {
		if b.root < 0 {
			out = append(out, b.fOp)
			continue
		}
		for v := b.root; ; v = e.versions[v].succ {
			x := &e.versions[v]
			if x.writer >= 0 {
				out = append(out, x.writer)
			}
			rs := readers[v]
			slices.SortStableFunc(rs, func(a, b int32) int { return cmp.Compare(e.facts[a].call, e.facts[b].call) })
			out = append(out, rs...)
			if x.succ == 0 {
				break
			}
		}
	}
	return out
}

// sum adds two times without overflow, as a number of two words that compares.
func sum(a, b int64) (hi int64, lo uint64) {
	l, carry := bits.Add64(uint64(a), uint64(b), 0)
	return a>>63 + b>>63 + int64(carry), l
}
