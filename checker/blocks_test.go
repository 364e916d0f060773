package checker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"brownout/internal/history"
)

// replay says what is wrong with an order of a key's operations as a
// linearization. It knows nothing of blocks: it plays the operations one after
// the other on a string that may be absent, and looks at their times.
func replay(ops []op, order []int32) string {
	state := (*string)(nil)
	same := func(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }
	placed := make([]bool, len(ops))
	latest := int64(-1 << 63) // call so far
	for _, i := range order {
		o := ops[i]
		if placed[i] {
			return "an operation is placed twice"
		}
		placed[i] = true
		if o.Outcome == history.OK && o.Return < latest {
			return "an operation returned before an earlier one was called"
		}
		latest = max(latest, o.Call)
		switch o.Kind {
		case history.Get:
			if !same(state, o.Result) {
				return "a get found something else"
			}
		case history.Put, history.Delete:
			state = o.Value
		case history.Append:
			joined := *o.Value
			if state != nil {
				joined = *state + joined
			}
			state = &joined
		case history.CAS:
			match := same(state, o.Expect)
			if o.Outcome == history.OK && (!same(state, o.Result) || match != o.Swapped) {
				return "a cas found or did something else"
			}
			if match {
				state = o.Value
			}
		}
	}
	for i := range ops {
		if !placed[i] && ops[i].Outcome == history.OK {
			return "a completed operation is missing"
		}
	}
	return ""
}

// TestBlocksAgreeWithPorcupine holds the engine against plain porcupine: every
// linearization that it gives is replayed, every contradiction is searched.
func TestBlocksAgreeWithPorcupine(t *testing.T) {
	seed := newSeed(t)
	all := append(slices.Clone(families),
		struct {
			name string
			c    genConfig
		}{"many swaps", genConfig{ops: 10, clients: 5, keys: 1, span: 4, gap: 1, unknown: 0.3}},
		struct {
			name string
			c    genConfig
		}{"crowded, with appends", genConfig{ops: 9, clients: 6, keys: 1, span: 10, gap: 1, unknown: 0.25, appends: true, deletes: true}},
	)
	judged := 0
	for f, fam := range all {
		t.Run(fam.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(1000+f)))
			n, illegal, unfit, small := rounds(t, 3000), 0, 0, 0
			if fam.c.ops > 100 {
				n /= 10
			}
			for range n {
				b := noBug
				if rng.IntN(5) < 3 {
					b = bugs[rng.IntN(len(bugs))]
				}
				ops, ok := generate(rng, fam.c, b)
				if !ok {
					continue
				}
				if rng.IntN(3) == 0 {
					scramble(rng, ops)
				}
				for _, k := range split(ops) {
					r := decide(k.ops, true)
					if r.verdict == Unknown {
						unfit++
						continue
					}
					judged++
					want := reference(ofKey(ops, k.key))
					if (r.verdict == OK) != want {
						t.Fatalf("blocks say %s (%s), porcupine says linearizable = %v\n%s", r.verdict, r.why, want, dump(ofKey(ops, k.key)))
					}
					if r.verdict == OK {
						if wrong := replay(k.ops, r.order); wrong != "" {
							t.Fatalf("the order %v is no linearization: %s\n%s", r.order, wrong, dump(ofKey(ops, k.key)))
						}
						continue
					}
					illegal++
					if v, why := search(piece{ops: r.core}, newLimit(t.Context(), Options{}.withDefaults())); v != Illegal {
						t.Fatalf("the core of %q is %s %s by itself: %v\n%s", r.why, v, why, r.core, dump(ofKey(ops, k.key)))
					}
					if len(r.core) <= 5 {
						small++
					}
				}
			}
			t.Logf("%d histories: %d keys not for blocks, %d illegal, of these %d with a core of at most 5 operations", n, unfit, illegal, small)
		})
	}
	if judged < 10_000 && !testing.Short() {
		t.Errorf("only %d keys were judged by blocks", judged)
	}
}

func ofKey(ops []history.Op, key string) (out []history.Op) {
	for _, o := range ops {
		if o.Key == key {
			out = append(out, o)
		}
	}
	return out
}

// scramble spoils a history as no bug of the simulated register would: reads
// find another's value, times move, outcomes change.
func scramble(rng *rand.Rand, ops []history.Op) {
	i, j := rng.IntN(len(ops)), rng.IntN(len(ops))
	switch a, b := &ops[i], &ops[j]; rng.IntN(4) {
	case 0:
		if a.Kind == history.Get && b.Key == a.Key && a.Outcome == history.OK && (b.Kind == history.Get && b.Outcome == history.OK) {
			a.Result, b.Result = b.Result, a.Result
		}
	case 1:
		a.Call -= rng.Int64N(6)
	case 2:
		a.Return += rng.Int64N(6)
	case 3:
		if a.Kind == history.Get && a.Outcome == history.OK && b.Key == a.Key && b.Value != nil && b.Kind != history.Append {
			a.Result = b.Value
		}
	}
}

func TestBlocksRefuseWhatTheyCannotJudge(t *testing.T) {
	for _, tt := range []struct {
		name string
		ops  []history.Op
		why  string
	}{
		{"a value twice", []history.Op{
			{ID: 1, Client: 1, Key: "k", Kind: history.Put, Value: ptr("a"), Outcome: history.OK, Return: 1},
			{ID: 2, Client: 2, Key: "k", Kind: history.Put, Value: ptr("a"), Outcome: history.OK, Return: 1},
		}, "written twice"},
		{"a bare delete", []history.Op{{ID: 1, Key: "k", Kind: history.Delete, Outcome: history.OK}}, "tombstone"},
		{"an empty value", []history.Op{{ID: 1, Key: "k", Kind: history.Put, Value: ptr(""), Outcome: history.OK}}, "empty"},
		{"a blind refusal", []history.Op{{ID: 1, Key: "k", Kind: history.CAS, Value: ptr("a"), Expect: ptr("b"), Blind: true, Outcome: history.OK}}, "did not say"},
		{"two ways to read", []history.Op{
			{ID: 1, Client: 1, Key: "k", Kind: history.Append, Value: ptr("a"), Outcome: history.OK, Return: 1},
			{ID: 2, Client: 2, Key: "k", Kind: history.Append, Value: ptr("aa"), Outcome: history.OK, Return: 1},
			{ID: 3, Client: 3, Key: "k", Kind: history.Append, Value: ptr("aaa"), Outcome: history.OK, Return: 1},
			{ID: 4, Client: 4, Key: "k", Kind: history.Get, Result: ptr("aaaaaa"), Outcome: history.OK, Return: 1},
		}, "two ways"},
		{"two ways to read, after what nobody wrote", []history.Op{
			{ID: 1, Client: 1, Key: "k", Kind: history.Append, Value: ptr("a"), Outcome: history.OK, Return: 1},
			{ID: 2, Client: 2, Key: "k", Kind: history.Append, Value: ptr("aa"), Outcome: history.OK, Return: 1},
			{ID: 3, Client: 3, Key: "k", Kind: history.Append, Value: ptr("aaa"), Outcome: history.OK, Return: 1},
			{ID: 4, Client: 4, Key: "k", Kind: history.Get, Result: ptr("b"), Outcome: history.OK, Return: 1},
			{ID: 5, Client: 5, Key: "k", Kind: history.Get, Result: ptr("aaaaaa"), Outcome: history.OK, Return: 1},
		}, "two ways"},
		{"two ways to expect", []history.Op{
			{ID: 1, Client: 1, Key: "k", Kind: history.Append, Value: ptr("a"), Outcome: history.OK, Return: 1},
			{ID: 2, Client: 2, Key: "k", Kind: history.Append, Value: ptr("aa"), Outcome: history.OK, Return: 1},
			{ID: 3, Client: 3, Key: "k", Kind: history.Append, Value: ptr("aaa"), Outcome: history.OK, Return: 1},
			{ID: 4, Client: 4, Key: "k", Kind: history.CAS, Expect: ptr("aaaaaa"), Value: ptr("c"), Outcome: history.Unknown},
			{ID: 5, Client: 5, Key: "k", Kind: history.Get, Result: ptr("c"), Outcome: history.OK, Return: 1},
		}, "two ways"},
	} {
		if r := decide(split(tt.ops)[0].ops, false); r.verdict != Unknown || !strings.Contains(r.why, tt.why) {
			t.Errorf("%s: %s %q, want it refused with %q", tt.name, r.verdict, r.why, tt.why)
		}
	}
}

func TestBlocksCountWhatTheyDropAndBound(t *testing.T) {
	put := func(id int64, v string, outcome history.Outcome, at int64) history.Op {
		return history.Op{ID: id, Client: int(id), Key: "k", Kind: history.Put, Value: &v, Outcome: outcome, Call: at, Return: at + 1}
	}
	get := func(id int64, v string, at int64) history.Op {
		return history.Op{ID: id, Client: int(id), Key: "k", Kind: history.Get, Result: &v, Outcome: history.OK, Call: at, Return: at + 1}
	}
	// The first is unknown too: a place of 0 is one.
	ops := []history.Op{
		put(1, "a", history.Unknown, 0), put(2, "b", history.OK, 10), put(3, "c", history.Unknown, 20),
		put(4, "d", history.Unknown, 30), get(5, "d", 40),
	}
	if r := decide(split(ops)[0].ops, false); r.verdict != OK || r.dropped != 2 || r.bounded != 1 {
		t.Errorf("%s, %d dropped, %d bounded; want ok, 2, 1", r.verdict, r.dropped, r.bounded)
	}
}

// TestBlocksCountWhatTheyDoNotTell: each read of an old value is a contradiction of
// its own, however many writes it reaches over.
func TestBlocksCountWhatTheyDoNotTell(t *testing.T) {
	const n = maxCollisions + 8
	var ops []history.Op
	at := int64(0)
	add := func(kind history.Kind, v string) {
		o := history.Op{ID: at, Client: 1, Key: "k", Kind: kind, Outcome: history.OK, Call: at, Return: at + 1}
		if o.Value = &v; kind == history.Get {
			o.Value, o.Result = nil, &v
		}
		ops, at = append(ops, o), at+2
	}
	for i := range n {
		add(history.Put, fmt.Sprint("a", i))
		add(history.Put, fmt.Sprint("b", i))
		add(history.Get, fmt.Sprint("a", i))
	}
	if r := decide(split(ops)[0].ops, false); r.verdict != Illegal || r.more != n-maxCollisions || len(r.around) != 3*maxCollisions {
		t.Errorf("%d reads of old values: %s, %d operations told of, and %d contradictions more", n, r.verdict, len(r.around), r.more)
	}
	ops = nil
	add(history.Put, "a")
	for i := range n {
		add(history.Put, fmt.Sprint("b", i))
	}
	add(history.Get, "a")
	if r := decide(split(ops)[0].ops, false); r.verdict != Illegal || r.more != 0 || len(r.around) != 3 {
		t.Errorf("one read of an old value: %s, %d operations told of, and %d contradictions more", r.verdict, len(r.around), r.more)
	}
}

// TestACoreStandsAlone: what an append was made of is left out of a core, and the
// append is the put of the whole value then, so that nothing else contradicts.
func TestACoreStandsAlone(t *testing.T) {
	ops := []history.Op{
		{ID: 1, Client: 1, Key: "k", Kind: history.Put, Value: ptr("v1"), Outcome: history.OK, Call: 1, Return: 2},
		{ID: 2, Client: 1, Key: "k", Kind: history.Append, Value: ptr("+a2"), Outcome: history.OK, Call: 3, Return: 4},
		{ID: 3, Client: 2, Key: "k", Kind: history.Get, Result: ptr("v1+a2+a3"), Outcome: history.OK, Call: 5, Return: 6},
		{ID: 4, Client: 1, Key: "k", Kind: history.Append, Value: ptr("+a3"), Outcome: history.OK, Call: 7, Return: 8},
	}
	r := decide(split(ops)[0].ops, false)
	if r.verdict != Illegal || len(r.core) != 2 || r.core[0].ID != 3 || r.core[1].Kind != history.Put || *r.core[1].Value != "v1+a2+a3" {
		t.Errorf("%s, core %s", r.verdict, dump(ops))
	}
	if len(r.whole) != 4 || r.whole[3].Kind != history.Append {
		t.Errorf("%d operations of the whole, want all 4, as they were", len(r.whole))
	}
}

// TestBlocksTellNothingFromAnEmptyValue where appended elements are taken apart.
func TestBlocksTellNothingFromAnEmptyValue(t *testing.T) {
	ops := []history.Op{
		{ID: 1, Client: 1, Key: "k", Kind: history.Append, Value: ptr("+a1"), Outcome: history.OK, Call: 5, Return: 9},
		{ID: 2, Client: 2, Key: "k", Kind: history.Get, Result: ptr(""), Outcome: history.OK, Call: 1, Return: 2},
	}
	if r := decide(split(ops)[0].ops, false); r.verdict != Illegal {
		t.Errorf("an absent key read as an empty string is %s", r.verdict)
	}
	ops[1].Result = nil
	if r := decide(split(ops)[0].ops, false); r.verdict != OK {
		t.Errorf("an absent key read as absent is %s", r.verdict)
	}
}
