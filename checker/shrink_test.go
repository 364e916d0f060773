package checker

import (
	"slices"
	"strings"
	"testing"

	"brownout/internal/history"
)

func numbers(ops []op) (ids []int64) {
	for i := range ops {
		ids = append(ids, ops[i].ID)
	}
	return ids
}

// TestWithoutRelaxes: with a write goes whatever depends on it, and nothing else.
func TestWithoutRelaxes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		h        *script
		from, to int
		left     []int64
	}{
		{"a read", with().put("a", 0, 1).get("a", 2, 3).get("a", 4, 5), 1, 2, []int64{1, 3}},
		{"a write and who read it", with().put("a", 0, 1).get("a", 2, 3).put("b", 4, 5).get("b", 6, 7), 0, 1, []int64{3, 4}},
		{"all of them", with().put("a", 0, 1).get("a", 2, 3), 0, 2, nil},
		{"none of them", with().put("a", 0, 1).get("a", 2, 3), 1, 1, []int64{1, 2}},
		{"what was swapped for it, and who read that", with().put("a", 0, 1).cas("a", "b", "a", 2, 3).get("b", 4, 5).put("c", 6, 7), 0, 1, []int64{4}},
		{"a swap of unknown outcome that expects it", with().put("a", 0, 1).cas("a", "b", "a", 2, 3).unknown().put("c", 6, 7), 0, 1, []int64{3}},
		{"who expected it and found another", with().put("a", 0, 1).put("c", 2, 3).cas("a", "b", "c", 4, 5).get("c", 6, 7), 0, 1, []int64{2, 4}},
		{"an element and who found it", with().put("v1", 0, 1).app("+a2", 2, 3).get("v1+a2", 4, 5).get("v1", 2, 3), 1, 2, []int64{1, 4}},
		{"what elements were put after", with().put("v1", 0, 1).app("+a2", 2, 3).get("v1+a2", 4, 5), 0, 1, []int64{2}},
		{"one of two that wrote the same stays", with().put("a", 0, 1).put("a", 2, 3).get("a", 4, 5), 0, 1, []int64{1, 2, 3}},
		{"with one of a pair the other goes", with().put("a", 0, 1).put("a", 2, 3).put("b", 4, 5).get("b", 6, 7), 1, 3, []int64{1, 2}},
		{"a delete that leaves nothing stays", with().put("a", 0, 1).add(history.Delete, 2, 3, none).get("-", 4, 5), 1, 2, []int64{1, 2, 3}},
		{"where a value is empty all writes stay", with().put("", 0, 1).put("a", 2, 3).get("a", 4, 5), 1, 2, []int64{1, 2, 3}},
		{"what depends on it cannot go: all stay", with().put("a", 0, 1).cas("a", "b", "a", 2, 3).put("b", 4, 5).get("b", 6, 7), 0, 1, []int64{1, 2, 3, 4}},
		{"who was told what was not there goes with any write", with().put("a", 0, 1).put("b", 2, 3).blind("q", 4, 5).get("b", 6, 7), 0, 1, []int64{2, 4}},
		{"and stays without one", with().put("a", 0, 1).get("a", 2, 3).blind("q", 4, 5), 1, 2, []int64{1, 3}},
	} {
		k := split(tt.h.ops)[0]
		if got := numbers(without(k.ops, tt.from, tt.to, newWords(k.ops))); !slices.Equal(got, tt.left) {
			t.Errorf("%s: %v are left, want %v", tt.name, got, tt.left)
		}
	}
}

// TestMinimizeLeavesNothingThatCanGo holds it against oracles that say which numbers matter.
func TestMinimizeLeavesNothingThatCanGo(t *testing.T) {
	all := func(ids ...int64) func([]int64) bool {
		return func(have []int64) bool {
			return !slices.ContainsFunc(ids, func(id int64) bool { return !slices.Contains(have, id) })
		}
	}
	for _, tt := range []struct {
		name    string
		n       int64
		illegal func(have []int64) bool
		want    []int64
	}{
		{"the first", 40, all(1), []int64{1}},
		{"the last", 40, all(40), []int64{40}},
		{"three that lie apart", 41, all(3, 20, 41), []int64{3, 20, 41}},
		{"all", 7, all(1, 2, 3, 4, 5, 6, 7), []int64{1, 2, 3, 4, 5, 6, 7}},
		{"one at a time from the end", 20, func(have []int64) bool {
			return len(have) > 0 && have[0] == 1 && have[len(have)-1] == int64(len(have))
		}, []int64{1}},
		{"alone", 1, all(1), []int64{1}},
	} {
		h := with()
		for i := range tt.n {
			h.get("-", tt.n-i, tt.n+10) // in the order of their numbers, not of their calls
		}
		ops, asked := split(h.ops)[0].ops, 0
		got := minimize(ops, newWords(ops), func(rest []op) bool {
			asked++
			return tt.illegal(numbers(rest))
		})
		want := slices.Clone(tt.want)
		slices.Reverse(want) // by call
		if !slices.Equal(numbers(got), want) {
			t.Errorf("%s: %v are left, want %v", tt.name, numbers(got), want)
		}
		if asked > 200 {
			t.Errorf("%s: %d questions for %d operations", tt.name, asked, tt.n)
		}
	}
}

// TestUntil: what is known of a history at a time, ms.
func TestUntil(t *testing.T) {
	ops := split(with().put("a", 0, 5).get("a", 1, 9).put("b", 2, 9).cas("a", "c", "a", 3, 9).cas("x", "d", "a", 4, 9).
		put("e", 4, 6).unknown().put("f", 9, 12).get("a", 4, 5).app("g", 5, 9).cas("a", "h", "a", 5, 7).unknown().ops)[0].ops
	for _, tt := range []struct {
		at   int64
		want map[int64]history.Outcome
	}{
		{-1, nil},
		{4, map[int64]history.Outcome{1: history.Unknown, 3: history.Unknown, 4: history.Unknown, 6: history.Unknown}},
		{5, map[int64]history.Outcome{1: history.OK, 3: history.Unknown, 4: history.Unknown, 6: history.Unknown, 8: history.OK, 9: history.Unknown, 10: history.Unknown}},
		{8, map[int64]history.Outcome{1: history.OK, 3: history.Unknown, 4: history.Unknown, 6: history.Unknown, 8: history.OK, 9: history.Unknown, 10: history.Unknown}},
		{9, map[int64]history.Outcome{1: history.OK, 2: history.OK, 3: history.OK, 4: history.OK, 5: history.OK, 6: history.Unknown, 7: history.Unknown, 8: history.OK, 9: history.OK, 10: history.Unknown}},
	} {
		got := until(ops, tt.at*1e6)
		if len(got) != len(tt.want) {
			t.Errorf("at %d ms: %v are known, want %v", tt.at, numbers(got), tt.want)
		}
		for i := range got {
			o := &got[i]
			if want, there := tt.want[o.ID]; !there || o.Outcome != want {
				t.Errorf("at %d ms: operation %d is %v, want %v", tt.at, o.ID, o.Outcome, want)
			}
			if open := o.Outcome == history.Unknown; open && (o.Result != nil || o.Swapped || o.ret != never) {
				t.Errorf("at %d ms: operation %d is open and has %s, swapped %t, until %d", tt.at, o.ID, show(o.Result), o.Swapped, o.ret)
			}
		}
	}
}

func TestShortest(t *testing.T) {
	ops := split(with().put("a", 0, 1).put("b", 2, 3).get("b", 4, 5).get("a", 6, 7).get("b", 8, 9).put("u", 8, 9).unknown().ops)[0].ops
	from := func(n int64) func([]op) bool {
		return func(some []op) bool { return slices.Contains(numbers(some), n) }
	}
	for _, tt := range []struct {
		name    string
		illegal func([]op) bool
		want    []int64
		at      int64
	}{
		{"from the first return on", func([]op) bool { return true }, []int64{1}, 1},
		{"from the fourth on", from(4), []int64{1, 2, 3, 4}, 7},
		{"by the last", from(5), []int64{1, 2, 3, 4, 5, 6}, 9},
		{"the oracle had no time", func([]op) bool { return false }, []int64{1, 2, 3, 4, 5, 6}, 9},
	} {
		if got, at := shortest(ops, tt.illegal); !slices.Equal(numbers(got), tt.want) || at != tt.at*1e6 {
			t.Errorf("%s: %v until %d ns, want %v until %d ms", tt.name, numbers(got), at, tt.want, tt.at)
		}
	}
}

func TestTellingOfOperations(t *testing.T) {
	for _, tt := range []struct {
		h    *script
		want string
	}{
		{with().put("a", 0, 1), ` "a"`},
		{with().get("a", 0, 1), ` found "a"`},
		{with().get("-", 0, 1), " found " + show(nil)},
		{with().get("a", 0, 1).unknown(), ""},
		{with().cas("a", "b", "a", 0, 1), ` "a"→"b" found "a"`},
		{with().cas("a", "b", "c", 0, 1), ` "a"→"b" found "c", not swapped`},
		{with().cas("a", "b", "c", 0, 1).unknown(), ` "a"→"b"`},
		{with().add(history.Delete, 0, 1, none), ""},
	} {
		o := op{&tt.h.ops[0], never}
		who := telling{}.who(&o)
		if got := (telling{}).tell(&o); got != who+tt.want {
			t.Errorf("told: %q, want %q", got, who+tt.want)
		}
	}
}

// TestShrunkStories: what only a search proves is told with few operations, and
// with how many more there are.
func TestShrunkStories(t *testing.T) {
	few := with().put("a", 0, 1).put("a", 2, 3).put("b", 4, 5).put("b", 6, 7)
	for i := range int64(20) {
		few.get("b", 10+2*i, 11+2*i)
	}
	few.get("a", 60, 61)
	many := with() // each value twice at one time, and a read of neither between
	for range 12 {
		many.put("a", 0, 100)
	}
	for i := range int64(13) {
		many.put("b", 1+8*i, 2+8*i).get("a", 3+8*i, 4+8*i)
	}
	for _, tt := range []struct {
		name string
		h    *script
		most int
		more bool
	}{{"few", few, 5, false}, {"many", many, 40, true}} {
		c := split(tt.h.ops)[0]
		sortOps(c.ops)
		got := shrink(&c, piece{ops: c.ops}, newLimit(t.Context(), Options{}.withDefaults()))
		if len(got.Ops) == 0 || len(got.Ops) > tt.most {
			t.Errorf("%s: %d operations are told of, want 1..%d: %s", tt.name, len(got.Ops), tt.most, got.Text)
		}
		if told := strings.Count(got.Text, "; ") + 1; tt.more != strings.Contains(got.Text, "more") || told != min(len(got.Ops), 8)+map[bool]int{true: 1}[len(got.Ops) > 8] {
			t.Errorf("%s: %d told of %d: %s", tt.name, told, len(got.Ops), got.Text)
		}
	}
}
