// Package checker decides whether a recorded history is linearizable, and
// whether acknowledged writes survived.
//
// The idea: linearizability is local (Herlihy and Wing 1990), so a history is
// split by key and each key is judged alone. Where values are unique, a read
// names its write, and blocks of versions decide in O(n log n) (blocks.go). Where
// they are not, unknown outcomes are dropped or bounded as far as that is exact
// (prune.go), long keys are cut where nothing is open and the state is forced
// (cut.go), and what is left is searched by porcupine (porcupine.go) within a
// budget of time and memory. Conflicts are told in words (explain.go).
//
// Tests hold both engines against each other on random histories: a linearization
// found by blocks is replayed, a contradiction is searched by porcupine. When the
// budget ends first the verdict is Unknown, with the reason; it is never a pass.
//
// It does not judge operations on several keys, and imports nothing of ours
// but the history.
package checker

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"brownout/internal/history"
)

// A Verdict is the checker's answer.
type Verdict string

// Answers. Unknown is not OK: the search ended before it was done.
const (
	OK      Verdict = "ok"
	Illegal Verdict = "illegal"
	Unknown Verdict = "unknown"
)

// Options bound a check. Zero values mean the default beside each field.
type Options struct {
	Budget  time.Duration // wall time of the search; 2 min
	Memory  int64         // bytes that the search may add to the heap; 2 GiB
	Workers int           // keys searched at once; GOMAXPROCS
	Keys    int           // bad keys that are explained; 20
	Untimed bool          // times are places in a file, in words too
	Explain time.Duration // wall time for shrinking counterexamples without a known shape; 5 s
}

func (o Options) withDefaults() Options {
	o.Budget = cmp.Or(max(o.Budget, 0), 2*time.Minute)
	o.Memory = cmp.Or(max(o.Memory, 0), 2<<30)
	o.Workers = cmp.Or(max(o.Workers, 0), runtime.GOMAXPROCS(0))
	o.Keys = cmp.Or(max(o.Keys, 0), 20)
	o.Explain = cmp.Or(max(o.Explain, 0), 5*time.Second)
	return o
}

// A Result is what a check found.
type Result struct {
	Model   string // "kv"
	Verdict Verdict
	Engine  string // "blocks", or "porcupine" if some key's values are not unique
	Ops     int    // of the history, all outcomes; the state at the start, if it is told as one, is none
	Keys    int
	CPU     time.Duration // the workers' busy time, summed
	Why     string        // of Unknown

	Illegal   int        // keys that are illegal; Conflicts explains the best of them
	Conflicts []Conflict // the most telling first, then in the order of time
	Found     int        // distinct conflicts counted on all bad keys

	// What the history could show. An OK without reads says nothing.
	Counts Counts
}

// Counts say how telling a history is.
type Counts struct {
	Reads   int // completed gets and cas, each of which constrains the order
	Writes  int // acknowledged writes
	Unknown int // operations without a known outcome
	Failed  int
	Pruned  int // unknown writes that nobody observed, dropped
	Bounded int // unknown writes that somebody observed, bounded by that read
	Pieces  int // pieces that were searched
	Longest int // operations in the largest piece
}

// A Conflict explains why one key is not linearizable.
type Conflict struct {
	Key   string
	Label string  // stale read, lost update, ...
	Ops   []int64 // the operations that contradict each other, in the order of their calls
	Text  string  // one or two sentences
	At    int64   // ns since the run's start when it could be known
	More  int     // further conflicts on the same key

	Arrows []string     // where two versions would each have to precede the other: why
	Core   []history.Op // Ops, and who wrote what they found; in the order of their calls
}

// An InvalidError says that a history is not one: no verdict follows from it.
type InvalidError struct {
	Index int // of the operation in the history, from 0
	Op    int64
	Why   string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("history: operation %d (number %d from the start): %s", e.Op, e.Index+1, e.Why)
}

// never is the return time of an operation whose outcome is unknown: it may
// take effect at any time after its call.
const never = math.MaxInt64

// An op is an operation as the engines see it.
type op struct {
	*history.Op
	ret int64 // [never], or a time by which it has certainly taken effect
}

func (o *op) completed() bool { return o.Outcome == history.OK }

// observes reports whether the client was told what it found.
func (o *op) observes() bool {
	return o.completed() && (o.Kind == history.Get || o.Kind == history.CAS && !o.Blind)
}

// writes reports whether o may change the state.
func (o *op) writes() bool {
	switch o.Kind {
	case history.Get:
		return false
	case history.CAS:
		return !o.completed() || o.Swapped
	}
	return true
}

// bare reports a delete that leaves the key absent rather than a tombstone.
func (o *op) bare() bool { return o.Kind == history.Delete && o.Value == nil }

// Validate checks what every engine relies on: operation numbers are unique,
// and a client has one operation at a time, the last of which may be unknown.
func Validate(ops []history.Op) error {
	r := newRules(ops)
	for i := range ops {
		if !r.keeps(i) {
			return violation(ops)
		}
	}
	return nil
}

// violation finds the rule that a history breaks, if any.
func violation(ops []history.Op) error {
	seen := make(map[int64]int, len(ops))
	order := make([]int, len(ops))
	for i := range ops {
		if j, dup := seen[ops[i].ID]; dup {
			return &InvalidError{i, ops[i].ID, fmt.Sprintf("the number was used before, by the one on place %d", j+1)}
		}
		if ops[i].Return < ops[i].Call {
			return &InvalidError{i, ops[i].ID, "it returned before it was called"}
		}
		seen[ops[i].ID] = i
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := &ops[a], &ops[b]
		return cmp.Or(cmp.Compare(x.Client, y.Client), cmp.Compare(x.Call, y.Call), cmp.Compare(x.Return, y.Return), cmp.Compare(a, b))
	})
	for n := 1; n < len(order); n++ {
		a, b := &ops[order[n-1]], &ops[order[n]]
		if a.Client != b.Client {
			continue
		}
		if a.Outcome == history.Unknown {
			return &InvalidError{order[n], b.ID, fmt.Sprintf("client %d goes on although its operation %d is unknown (it needs a new number)", b.Client, a.ID)}
		}
		if b.Call < a.Return {
			return &InvalidError{order[n], b.ID, fmt.Sprintf("client %d called it while its operation %d was open", b.Client, a.ID)}
		}
	}
	return nil
}

// rules watch a history go by, and know that it keeps all rules if it has the
// operations of each client in their order, as recorders write them, and numbers
// that lie close together. Else anything may be wrong or nothing.
type rules struct {
	ops  []history.Op
	seen map[int64]*[page]uint64 // bits by operation's number
	at   int64                   // of recent
	near *[page]uint64           // most numbers are in the page of the one before
	last []int32                 // by client: the place of its last operation, from 1
}

const page = 1 << 10 // words

func newRules(ops []history.Op) *rules { return &rules{ops: ops, seen: map[int64]*[page]uint64{}} }

// keeps takes the next operation in.
func (r *rules) keeps(i int) bool {
	o := &r.ops[i]
	if o.ID < 0 || o.Client < 0 || o.Client > 16*len(r.ops) || o.Return < o.Call {
		return false
	}
	at, word, bit := o.ID/(64*page), o.ID/64%page, uint64(1)<<(o.ID%64)
	if r.near == nil || at != r.at {
		if r.near = r.seen[at]; r.near == nil {
			if 4*page*len(r.seen) > 64*page+len(r.ops) {
				return false // more room for bits than for operations
			}
			r.near = new([page]uint64)
			r.seen[at] = r.near
		}
		r.at = at
	}
	if r.near[word]&bit != 0 {
		return false
	}
	r.near[word] |= bit
	if o.Client >= len(r.last) {
		r.last = append(r.last, make([]int32, o.Client+1-len(r.last))...)
	}
	if n := r.last[o.Client]; n > 0 {
		if before := &r.ops[n-1]; before.Outcome == history.Unknown || o.Call < before.Return {
			return false
		}
	}
	r.last[o.Client] = int32(i + 1)
	return true
}

// A keyed is the history of one key.
type keyed struct {
	key    string
	ops    []op // may have happened: ok and unknown; unknown gets left out
	failed []*history.Op
}

// split divides a history by key. The order of the keys is that of their names,
// that of each key's operations the history's.
func split(ops []history.Op) []keyed {
	s := newSplitter(ops)
	for i := range ops {
		s.place(i)
	}
	return s.split()
}

// A splitter sees a history go by and then divides it. There may be millions of
// operations: each key's are counted first, and names looked at once.
type splitter struct {
	ops    []history.Op
	at     map[string]int32
	keys   []keyed
	sizes  []int
	places []int32 // by operation, the key's
	k      int32   // of the operation before
}

func newSplitter(ops []history.Op) *splitter {
	return &splitter{ops: ops, at: map[string]int32{}, places: make([]int32, len(ops)), k: -1}
}

// place takes the next operation in.
func (s *splitter) place(i int) {
	o := &s.ops[i]
	if s.k < 0 || s.keys[s.k].key != o.Key {
		var ok bool
		if s.k, ok = s.at[o.Key]; !ok {
			s.k = int32(len(s.keys))
			s.at[o.Key] = s.k
			s.keys = append(s.keys, keyed{key: o.Key})
			s.sizes = append(s.sizes, 0)
		}
	}
	s.places[i] = s.k
	if o.Outcome == history.OK || o.Outcome != history.Fail && o.Kind != history.Get {
		s.sizes[s.k]++
	}
}

func (s *splitter) split() []keyed {
	keys := s.keys
	for i := range keys {
		keys[i].ops = make([]op, 0, s.sizes[i])
	}
	for i := range s.ops {
		o, k := &s.ops[i], s.places[i]
		switch {
		case o.Outcome == history.Fail:
			keys[k].failed = append(keys[k].failed, o)
		case o.Outcome == history.OK:
			keys[k].ops = append(keys[k].ops, op{o, o.Return})
		case o.Kind != history.Get:
			keys[k].ops = append(keys[k].ops, op{o, never})
		}
	}
	slices.SortFunc(keys, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	return keys
}

func sortOps(ops []op) {
	slices.SortFunc(ops, func(a, b op) int {
		return cmp.Or(cmp.Compare(a.Call, b.Call), cmp.Compare(a.Return, b.Return), cmp.Compare(a.ID, b.ID))
	})
}

// Check decides whether ops, in any order, is linearizable as a map of strings.
//
// Its error is an [*InvalidError] for a history that breaks the rules, or ctx's
// error; there is no verdict then. Running out of the budget is no error but
// Unknown.
func Check(ctx context.Context, ops []history.Op, opt Options) (Result, error) {
	opt = opt.withDefaults()
	res := Result{Model: "kv", Engine: "blocks", Verdict: OK}
	keys, err := res.survey(ops)
	if err != nil {
		return Result{}, err
	}
	res.Keys = len(keys)
	answers := checkKeys(ctx, keys, opt)
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	var undecided []string
	for i := range answers {
		a := &answers[i]
		res.CPU += a.busy
		if !a.blocks {
			res.Engine = "porcupine"
		}
		res.Counts.Pruned += a.pruned
		res.Counts.Bounded += a.bounded
		res.Counts.Pieces += a.pieces
		res.Counts.Longest = max(res.Counts.Longest, a.longest)
		switch a.verdict {
		case Illegal:
			res.Illegal++
			res.Found += 1 + a.conflict.More
			res.Conflicts = append(res.Conflicts, a.conflict)
		case Unknown:
			undecided = append(undecided, fmt.Sprintf("key %s: %s", keys[i].key, a.why))
		}
	}
	slices.SortStableFunc(res.Conflicts, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(rank(a.Label), rank(b.Label)), cmp.Compare(a.At, b.At))
	})
	res.Conflicts = res.Conflicts[:min(len(res.Conflicts), opt.Keys)]
	if len(undecided) > 0 {
		res.Verdict = Unknown
		res.Why = fmt.Sprintf("%d of %d keys undecided; %s", len(undecided), len(keys), undecided[0])
	}
	if res.Illegal > 0 {
		res.Verdict = Illegal
	}
	return res, nil
}

// survey validates, counts and divides a history. It is one pass over what may be
// gigabytes, and a second one that divides.
func (res *Result) survey(ops []history.Op) ([]keyed, error) {
	r, s := newRules(ops), newSplitter(ops)
	kept := true
	for i := range ops {
		kept = kept && r.keeps(i)
		s.place(i)
		res.count(&ops[i])
	}
	if !kept {
		if err := violation(ops); err != nil {
			return nil, err
		}
	}
	return s.split(), nil
}

// count leaves out the state at the start, which a reader may tell as a write of a
// client below 0.
func (res *Result) count(h *history.Op) {
	if h.Client < 0 {
		return
	}
	res.Ops++
	o := op{Op: h}
	switch {
	case o.Outcome == history.Fail:
		res.Counts.Failed++
	case o.Outcome == history.Unknown:
		res.Counts.Unknown++
	default:
		if o.observes() {
			res.Counts.Reads++
		}
		if o.writes() {
			res.Counts.Writes++
		}
	}
}

// An answer is what came of one key.
type answer struct {
	verdict  Verdict
	why      string
	conflict Conflict
	blocks   bool // the block engine judged it
	busy     time.Duration
	pruned   int
	bounded  int
	pieces   int
	longest  int
}

// checkKeys judges every key, small ones first, so that a budget that ends
// leaves as few keys undecided as possible.
func checkKeys(ctx context.Context, keys []keyed, opt Options) []answer {
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(keys[a].ops), len(keys[b].ops)) })
	answers := make([]answer, len(keys))
	limit := newLimit(ctx, opt)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(opt.Workers, len(keys)) {
		wg.Go(func() {
			for i := range next {
				start := time.Now()
				answers[i] = checkKey(&keys[i], limit)
				answers[i].busy = time.Since(start)
			}
		})
	}
	for _, i := range order {
		next <- i
	}
	close(next)
	wg.Wait()
	return answers
}

// tellWhole is how long a key may be to be looked at as a whole for the best
// conflict to tell. In a longer one only what blocks found is looked at.
const tellWhole = 50_000

// checkKey judges one key: by its blocks where values are unique. Where they are not,
// first the rules that prove a conflict in little time, then the search. A
// conflict without a name yet gets a smallest counterexample.
func checkKey(k *keyed, limit *limit) answer {
	r := decide(k.ops, false)
	if r.verdict == OK {
		return answer{verdict: OK, blocks: true, pruned: r.dropped, bounded: r.bounded, pieces: 1, longest: len(k.ops)}
	}
	sortOps(k.ops) // from here on the order counts
	if r.around != nil && len(k.ops) > tellWhole {
		kept, words, _, _ := prune(r.around)
		if c, ok := explain(k, kept, words, limit.telling); ok {
			c.More += r.more
			return answer{verdict: Illegal, conflict: c, blocks: true, pieces: 1, longest: len(k.ops)}
		}
	}
	kept, words, pruned, bounded := prune(k.ops)
	a := answer{verdict: OK, pruned: pruned, bounded: bounded, blocks: r.verdict == Illegal}
	if c, ok := explain(k, kept, words, limit.telling); ok {
		c.Core = coreOf(c.Ops, kept, k.failed, words)
		a.verdict, a.conflict = Illegal, c
		return a
	}
	if r.verdict == Illegal {
		a.verdict, a.pieces, a.longest = Illegal, 1, len(k.ops)
		a.conflict = shrink(k, piece{ops: r.whole}, limit)
		return a
	}
	for _, p := range cut(kept, minPiece) {
		a.pieces++
		a.longest = max(a.longest, len(p.ops))
		switch v, why := search(p, limit); v {
		case Illegal:
			a.verdict = Illegal
			a.conflict = shrink(k, p, limit)
			a.conflict.Core = coreOf(a.conflict.Ops, kept, k.failed, words)
			return a
		case Unknown:
			a.verdict = Unknown
			a.why = fmt.Sprintf("%s at %d operations, up to %d at once", why, len(p.ops), concurrency(p.ops))
			if limit.spent() {
				return a
			}
		}
	}
	return a
}

// concurrency is the largest number of operations open at one time.
func concurrency(ops []op) int {
	type event struct {
		t    int64
		open int
	}
	events := make([]event, 0, 2*len(ops))
	for i := range ops {
		events = append(events, event{ops[i].Call, 1}, event{ops[i].ret, -1})
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(b.open, a.open)) })
	open, most := 0, 0
	for _, e := range events {
		open += e.open
		most = max(most, open)
	}
	return most
}
