package checker

import (
	"math/rand/v2"
	"testing"

	"brownout/internal/history"
)

// A cas that only says that it found something else is judged exactly: the
// search without any of the reductions is the judge.
func TestBlindCASAgreesWithTheSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 7))
	verdicts := map[Verdict]int{}
	for range 20_000 {
		ops := blindHistory(rng)
		res := check(t, ops, Options{})
		k := split(ops)[0]
		want, _ := search(piece{ops: k.ops}, newLimit(t.Context(), Options{}.withDefaults()))
		if res.Verdict != want {
			t.Fatalf("Check = %s %v, the search says %s: %+v", res.Verdict, res.Conflicts, want, ops)
		}
		verdicts[want]++
	}
	if verdicts[OK] < 1000 || verdicts[Illegal] < 1000 {
		t.Errorf("the histories are lopsided: %v", verdicts)
	}
}

// blindHistory makes a few operations on one key, many of them unlikely.
func blindHistory(rng *rand.Rand) []history.Op {
	unique := rng.IntN(2) == 0
	value := func(i int) *string {
		if unique {
			return ptr(string(rune('a' + i)))
		}
		return ptr(string(rune('a' + rng.IntN(3))))
	}
	any := func() *string {
		if n := rng.IntN(6); n > 0 {
			return ptr(string(rune('a' + n - 1)))
		}
		return nil
	}
	n := 2 + rng.IntN(6)
	ops := make([]history.Op, n)
	for i := range ops {
		call := int64(rng.IntN(12))
		o := history.Op{ID: int64(i + 1), Client: i, Key: "k", Outcome: history.OK, Call: call, Return: call + int64(rng.IntN(4))}
		switch rng.IntN(5) {
		case 0, 1:
			o.Kind, o.Value = history.Put, value(i)
		case 2:
			o.Kind, o.Result = history.Get, any()
		case 3:
			o.Kind, o.Expect, o.Value = history.CAS, any(), value(i)
			o.Swapped, o.Result = true, o.Expect
		case 4:
			o.Kind, o.Expect, o.Value, o.Blind = history.CAS, any(), value(i), true
		}
		if rng.IntN(5) == 0 && o.Kind != history.Get {
			o.Outcome, o.Blind, o.Swapped, o.Result = history.Unknown, false, false, nil
		}
		ops[i] = o
	}
	return ops
}
