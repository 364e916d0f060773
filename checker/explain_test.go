package checker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"brownout/internal/history"
)

// A script builds a history by hand. Every operation is of a client of its own.
type script struct{ ops []history.Op }

func (s *script) add(kind history.Kind, call, ret int64, set func(*history.Op)) *script {
	id := int64(len(s.ops) + 1)
	o := history.Op{ID: id, Client: int(id), Key: "k7", Kind: kind, Outcome: history.OK, Call: call * 1e6, Return: ret * 1e6, Node: fmt.Sprintf("n%d", id)}
	set(&o)
	s.ops = append(s.ops, o)
	return s
}

func (s *script) put(v string, call, ret int64) *script {
	return s.add(history.Put, call, ret, func(o *history.Op) { o.Value = &v })
}

// del leaves a tombstone.
func (s *script) del(v string, call, ret int64) *script {
	return s.add(history.Delete, call, ret, func(o *history.Op) { o.Value = &v })
}

func (s *script) app(v string, call, ret int64) *script {
	return s.add(history.Append, call, ret, func(o *history.Op) { o.Value = &v })
}

// get of "-" finds the key absent.
func (s *script) get(v string, call, ret int64) *script {
	return s.add(history.Get, call, ret, func(o *history.Op) { o.Result = absentOr(v) })
}

// none leaves an operation without a value.
func none(*history.Op) {}

func absentOr(v string) *string {
	if v == "-" {
		return nil
	}
	return &v
}

func (s *script) cas(expect, v, found string, call, ret int64) *script {
	return s.add(history.CAS, call, ret, func(o *history.Op) {
		o.Expect, o.Value, o.Result = absentOr(expect), &v, absentOr(found)
		o.Swapped = expect == found
	})
}

// blind adds a swap that was told only that expect was not there.
func (s *script) blind(expect string, call, ret int64) *script {
	return s.add(history.CAS, call, ret, func(o *history.Op) {
		o.Expect, o.Value, o.Blind = absentOr(expect), absentOr("never"), true
	})
}

func (s *script) unknown() *script {
	o := &s.ops[len(s.ops)-1]
	o.Outcome, o.Result, o.Swapped = history.Unknown, nil, false
	return s
}

func (s *script) failed() *script {
	s.unknown().ops[len(s.ops)-1].Outcome = history.Fail
	return s
}

func (s *script) at(node string) *script {
	s.ops[len(s.ops)-1].Node = node
	return s
}

func (s *script) final() *script {
	s.ops[len(s.ops)-1].Phase = "final"
	return s
}

func with() *script { return &script{} }

var stories = []struct {
	name  string
	h     *script
	label string
	ops   []int64
	text  string
}{
	{
		"a read of what was overwritten", with().put("a", 0, 1).put("b", 2, 3).get("a", 10, 11).get("b", 12, 13),
		"stale read",
		[]int64{1, 2, 3},
		`client 3's get (op 3, n3, 0.010000 to 0.011000 s) found "a" at least 7ms after client 2's put (op 2, n2, 0.002000 to 0.003000 s) of "b" had been acknowledged`,
	},
	{
		"an acknowledged write that nobody ever sees", with().put("a", 0, 1).put("b", 2, 3).get("a", 10, 11).final(),
		"lost acknowledged write",
		[]int64{1, 2, 3},
		`of "b" had been acknowledged`,
	},
	{
		"a first write that is lost", with().put("a", 0, 1).get("-", 5, 6),
		"lost acknowledged write",
		[]int64{1, 2},
		"found absent",
	},
	{
		"two reads in the wrong order of two writes at once", with().put("a", 0, 9).put("b", 0, 9).get("a", 1, 2).get("b", 3, 4).get("a", 5, 6),
		"non-monotonic read",
		[]int64{1, 2, 3, 4, 5},
		`found "a" at least 1ms after client 4's get (op 4, n4, 0.003000 to 0.004000 s) had found "b"`,
	},
	{
		"a write unknown to its client, seen and then unseen", with().put("a", 0, 1).put("b", 2, 3).unknown().get("b", 4, 5).get("a", 8, 9),
		"non-monotonic read",
		[]int64{1, 2, 3, 4},
		`had found "b"`,
	},
	{
		"a value that nobody wrote", with().put("a", 0, 1).get("z", 2, 3),
		"phantom value",
		[]int64{2},
		`found "z", which nobody ever wrote`,
	},
	{
		"a value whose write certainly did not happen", with().put("a", 0, 1).put("b", 2, 3).failed().get("b", 4, 5),
		"aborted write observed",
		[]int64{2, 3},
		`found "b", the value of client 2's put`,
	},
	{
		"a failed append that shows", with().app("a,", 0, 1).app("b,", 2, 3).failed().get("a,b,", 4, 5),
		"aborted write observed",
		[]int64{2, 3},
		`found "b,"`,
	},
	{
		"an append applied twice", with().app("a,", 0, 1).app("b,", 2, 3).get("a,b,b,", 4, 5),
		"double apply",
		[]int64{2, 3},
		`found "b," twice`,
	},
	{
		"an append that is missing", with().app("a,", 0, 1).app("b,", 2, 3).app("c,", 4, 5).get("a,c,", 6, 7),
		"lost append",
		[]int64{2, 4},
		`which lacks "b,"`,
	},
	{
		"two swaps from one value", with().put("a", 0, 1).cas("a", "b", "a", 2, 9).cas("a", "c", "a", 3, 8),
		"lost update",
		[]int64{1, 2, 3},
		`both took effect on the same version, "a" of operation 1`,
	},
	{
		"a swap that found what was overwritten before", with().put("a", 0, 1).put("b", 2, 3).cas("a", "c", "a", 5, 6),
		"lost update",
		[]int64{1, 2, 3},
		`found "a" at least 2ms after`,
	},
	{
		"appends in two orders", with().put("x", 0, 1).app("a,", 2, 9).app("b,", 2, 9).get("xa,b,", 3, 20).get("xb,a,", 3, 20),
		"diverging appends",
		[]int64{1, 2, 3, 4, 5},
		"both took effect on the same version",
	},
	{
		"an append that one read lacks and a later one has", with().app("a,", 0, 1).app("b,", 2, 3).get("a,", 4, 5).get("a,b,", 6, 7),
		"stale read",
		[]int64{2, 3},
		`found "a,"`,
	},
	{
		"an append on top of a version without the one before", with().put("x", 0, 1).app("a,", 2, 3).app("b,", 4, 5).get("xb,", 6, 7),
		"lost append",
		[]int64{2, 4},
		`which lacks "a,"`,
	},
	{
		"a swap of what had been swapped away long before", with().put("a", 0, 1).cas("a", "b", "a", 2, 3).cas("a", "c", "a", 4, 5),
		"lost acknowledged write",
		[]int64{1, 2, 3},
		"both took effect on the same version",
	},
	{
		"what a final read lacks is lost, whoever saw it first to be late", with().put("a", 0, 1).put("b", 2, 3).get("a", 4, 5).get("b", 6, 7).get("a", 8, 9).final(),
		"lost acknowledged write",
		[]int64{1, 2, 3},
		`of "b" had been acknowledged`,
	},
	{
		"an old value at a node that may be late with a delete", with().put("a", 0, 1).del("x", 2, 3).at("n1").get("a", 4, 5).at("n2").put("c", 6, 7).get("c", 8, 9),
		"stale read",
		[]int64{1, 2, 3},
		`found "a"`,
	},
	{
		"an old value at a node that had shown the delete", with().put("a", 0, 1).del("x", 2, 3).get("x", 3, 4).at("n2").get("a", 5, 6).at("n2").put("c", 7, 8).get("c", 9, 10),
		"resurrected value",
		nil,
		`found "a"`,
	},
	{
		"an old value of two that were written at once", with().put("a", 0, 9).put("b", 0, 8).get("b", 10, 11).get("a", 12, 13).app("+c", 14, 15).get("a+c", 16, 17).get("b", 18, 19),
		"stale read",
		nil,
		`found "a"`,
	},
	{
		"a read before its write", with().get("a", 0, 1).put("a", 2, 3),
		"read from the future",
		[]int64{1, 2},
		"before it was written",
	},
	{"a swap on a mismatch", with().put("a", 0, 1).add(history.CAS, 2, 3, func(o *history.Op) {
		o.Expect, o.Value, o.Result, o.Swapped = ptr("z"), ptr("b"), ptr("a"), true
	}), "cas ignored its expectation", []int64{2}, `swapped although it found "a" and expected "z"`},
	{"no swap on a match", with().put("a", 0, 1).add(history.CAS, 2, 3, func(o *history.Op) {
		o.Expect, o.Value, o.Result = ptr("a"), ptr("b"), ptr("a")
	}), "cas refused a match", []int64{2}, `did not swap although it found what it expected, "a"`},
	{
		"a read of what a swap replaced", with().put("a", 0, 9).cas("a", "b", "a", 1, 2).get("a", 3, 4).get("b", 5, 6),
		"stale read",
		[]int64{1, 2, 3},
		"took effect directly after that version",
	},
	{
		"values that repeat, so that only a search can tell", with().put("a", 0, 1).put("b", 2, 3).put("b", 2, 3).put("a", 4, 5).put("c", 6, 7).put("d", 6, 7).get("b", 20, 21),
		"not linearizable", nil, "no order of these operations explains what was found",
	},
}

func TestConflictsAreToldInWords(t *testing.T) {
	for _, tt := range stories {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, tt.h.ops, Options{})
			if res.Verdict != Illegal || len(res.Conflicts) != 1 {
				t.Fatalf("Check = %s, %d conflicts; want one illegal key\n%s", res.Verdict, len(res.Conflicts), dump(tt.h.ops))
			}
			if reference(tt.h.ops) {
				t.Fatal("porcupine takes it for linearizable")
			}
			c := res.Conflicts[0]
			if len(c.Arrows) == 1 || strings.Contains(c.Text, "lacks") && len(c.Arrows) != 2 || strings.Contains(c.Text, "both took effect") && len(c.Arrows) != 2 {
				t.Errorf("arrows = %q", c.Arrows)
			}
			if c.Label != tt.label || tt.ops != nil && !slices.Equal(c.Ops, tt.ops) || !strings.Contains(c.Text, tt.text) {
				t.Errorf("conflict = %s %v\n%s\nwant %s %v with %q", c.Label, c.Ops, c.Text, tt.label, tt.ops, tt.text)
			}
		})
	}
}

// TestTheOperationsNamedAreIllegalByThemselves asks plain porcupine about what
// a conflict names, on histories with unique values and single-word states, for
// which the operations named, with the writes of what they found, are enough. (The
// state of an append needs every write before it: TestCoresAreIllegalByThemselves.)
func TestNamedOperationsWithTheirWritesAreIllegal(t *testing.T) {
	for _, tt := range stories {
		if strings.Contains(tt.name, "append") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, tt.h.ops, Options{})
			var core []history.Op
			for _, o := range tt.h.ops {
				if slices.Contains(res.Conflicts[0].Ops, o.ID) {
					core = append(core, o)
				}
			}
			if reference(core) {
				t.Errorf("the core alone is linearizable:\n%s", dump(core))
			}
		})
	}
}

func TestManyConflictsOnOneKeyAreCounted(t *testing.T) {
	h := with().put("a", 0, 1).put("b", 2, 3)
	for i := range int64(30) {
		h.get("z", 10+10*i, 11+10*i)
	}
	res := check(t, h.ops, Options{})
	if res.Illegal != 1 || res.Found != 30 || res.Conflicts[0].More != 29 || res.Conflicts[0].At != 11e6 {
		t.Errorf("illegal %d, found %d, more %d, at %d; want 1, 30, 29, the first", res.Illegal, res.Found, res.Conflicts[0].More, res.Conflicts[0].At)
	}
}

func TestOnlyTheFirstBadKeysAreListed(t *testing.T) {
	var ops []history.Op
	for i := range int64(30) {
		ops = append(ops, history.Op{ID: i, Client: int(i), Key: fmt.Sprint("k", i), Kind: history.Get, Outcome: history.OK, Result: ptr("z"), Call: 100 - i, Return: 100 - i})
	}
	res := check(t, ops, Options{Keys: 4})
	if res.Illegal != 30 || res.Found != 30 || len(res.Conflicts) != 4 || res.Conflicts[0].At != 71 {
		t.Errorf("illegal %d, found %d, listed %d, first at %d; want 30, 30, 4, 71", res.Illegal, res.Found, len(res.Conflicts), res.Conflicts[0].At)
	}
}

func TestShrunkCountersexamplesAreSmallAndIllegal(t *testing.T) {
	// Repeated values: no rule names the conflict, so it must be searched and shrunk.
	h := with()
	for i := range int64(60) {
		h.put([]string{"a", "b", "c"}[i%3], 10*i, 10*i+15)
	}
	h.get("a", 2000, 2001)
	for i := range int64(10) {
		h.get("c", 3000+i, 3001+i)
	}
	res := check(t, h.ops, Options{})
	if res.Verdict != Illegal || res.Conflicts[0].Label != "not linearizable" {
		t.Fatalf("Check = %s %+v", res.Verdict, res.Conflicts)
	}
	if c := res.Conflicts[0]; c.At != 2001e6 {
		t.Errorf("known at %d, want at the return of the wrong read", c.At)
	}
}

// What explains a conflict is a conflict by itself, for the search too.
func TestCoresAreIllegalByThemselves(t *testing.T) {
	for _, tt := range stories {
		t.Run(tt.name, func(t *testing.T) {
			res := check(t, tt.h.ops, Options{})
			if len(res.Conflicts) == 0 {
				t.Fatal("no conflict")
			}
			c := res.Conflicts[0]
			for _, id := range c.Ops {
				if !slices.ContainsFunc(c.Core, func(o history.Op) bool { return o.ID == id }) {
					t.Errorf("operation %d is not in the core", id)
				}
			}
			// Whoever reads the core must not wonder where a value came from.
			for _, o := range c.Core {
				for _, w := range tt.h.ops {
					found := o.Result != nil && w.Value != nil && w.Key == o.Key && w.Outcome != history.Fail && *o.Result == *w.Value
					if found && !slices.ContainsFunc(c.Core, func(in history.Op) bool { return in.ID == w.ID }) {
						t.Errorf("operation %d found what %d wrote, which is not in the core", o.ID, w.ID)
					}
				}
			}
			k := split(c.Core)[0]
			if v, _ := search(piece{ops: k.ops}, newLimit(t.Context(), Options{}.withDefaults())); v != Illegal {
				t.Errorf("the core of %q is %s by itself: %+v", c.Text, v, c.Core)
			}
			var page strings.Builder
			if err := Visualize(c.Core, []Mark{{Row: "f1", Start: c.Core[0].Call, End: c.At, Text: "net.partition"}}, &page); err != nil || !strings.Contains(page.String(), "net.partition") {
				t.Errorf("Visualize: %v, %d bytes", err, page.Len())
			}
		})
	}
}

// A picture of what no search can decide is drawn all the same.
func TestVisualizeEnds(t *testing.T) {
	h := with()
	for i := range 60 {
		h.app(fmt.Sprintf("+%02d", i), 0, 100)
	}
	h.get("+03+05+01", 200, 201)
	var page strings.Builder
	if err := Visualize(h.ops, nil, &page); err != nil || page.Len() == 0 {
		t.Errorf("Visualize: %v, %d bytes", err, page.Len())
	}
}
