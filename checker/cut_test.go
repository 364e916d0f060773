package checker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"brownout/internal/history"
)

// TestCutsChangeNoAnswer cuts short histories wherever that is allowed: all pieces are
// linearizable, each from the state that it begins with, if and only if the whole is.
func TestCutsChangeNoAnswer(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 11))
	n, cuts, illegal, ties := rounds(t, 6000), 0, 0, 0
	for i := range n {
		c := genConfig{ops: 4 + rng.IntN(9), clients: 1 + rng.IntN(3), keys: 1, span: 1 + rng.Int64N(4), gap: rng.Int64N(5), unknown: 0.02, fail: 0.05, appends: rng.IntN(3) > 0, deletes: rng.IntN(3) == 0, bare: rng.IntN(2) == 0}
		if rng.IntN(2) == 0 {
			c.alphabet = []string{"a", "b", "ab"}
		}
		b := noBug
		if i%2 == 1 {
			b = bugs[rng.IntN(len(bugs))]
		}
		all, ok := generate(rng, c, b)
		if !ok {
			continue
		}
		var ops []op
		for i := range all {
			o := &all[i]
			if o.Outcome == history.Fail || o.Outcome == history.Unknown && o.Kind == history.Get {
				continue
			}
			ret := o.Return
			if o.Outcome == history.Unknown {
				ret = never
			}
			ops = append(ops, op{o, ret})
		}
		sortOps(ops)
		pieces := cut(ops, 1)
		cuts += len(pieces) - 1
		right, told := true, 0
		for _, p := range pieces {
			told += len(p.ops)
			if !linearizableFrom(p) {
				right = false
			}
		}
		if told != len(ops) {
			t.Fatalf("%d of %d operations are in pieces\n%s", told, len(ops), dump(all))
		}
		if want := reference(all); right != want {
			t.Fatalf("the whole is linearizable: %t, its %d pieces: %t\n%s", want, len(pieces), right, dump(all))
		}
		if !right {
			illegal++
		}
		for i := range ops[1:] {
			if ops[i].ret == ops[i+1].Call {
				ties++
			}
		}
	}
	if cuts < n/2 || illegal < n/20 || ties < n/10 {
		t.Errorf("%d histories: %d cuts, %d illegal, %d ties: too few to show anything", n, cuts, illegal, ties)
	}
}

// TestWhoWasToldNothingForcesNothing: after two writes at once, a swap that was refused
// without a word leaves open which of them was the last.
func TestWhoWasToldNothingForcesNothing(t *testing.T) {
	ops := split(with().put("a", 0, 5).put("b", 0, 5).blind("q", 6, 7).get("b", 8, 9).get("b", 10, 11).ops)[0].ops
	if pieces := cut(ops, 1); len(pieces) != 2 || pieces[1].init == nil || *pieces[1].init != "b" || len(pieces[1].ops) != 1 {
		t.Errorf("cut into %d pieces: %+v; want a cut after the first get alone", len(pieces), pieces)
	}
}

// linearizableFrom judges a piece with porcupine alone: its first state is written before it.
func linearizableFrom(p piece) bool {
	var ops []history.Op
	if p.init != nil {
		first := slices.MinFunc(p.ops, func(a, b op) int { return int(a.Call - b.Call) }).Call
		ops = append(ops, history.Op{ID: -1, Client: -1, Key: p.ops[0].Key, Kind: history.Put, Value: p.init, Outcome: history.OK, Call: first - 2, Return: first - 1})
	}
	for _, o := range p.ops {
		ops = append(ops, *o.Op)
	}
	return reference(ops)
}

func TestCutHasPiecesOfASize(t *testing.T) {
	var ops []op
	for i := range int64(10) {
		v := fmt.Sprint("v", i)
		ops = append(ops, op{&history.Op{ID: i, Key: "k", Kind: history.Put, Value: &v, Outcome: history.OK, Call: 10 * i, Return: 10*i + 5}, 10*i + 5})
	}
	for least, want := range map[int]string{1: "1 1 1 1 1 1 1 1 1 1", 3: "3 3 3 1", 5: "5 5", 10: "10", 11: "10"} {
		got := ""
		for _, p := range cut(ops, least) {
			got += fmt.Sprint(len(p.ops), " ")
		}
		if got != want+" " {
			t.Errorf("pieces of at least %d: %s, want %s", least, got, want)
		}
	}
	if len(cut(nil, 1)) != 0 {
		t.Error("nothing has a piece")
	}
}

// TestAReadForcesTheState after two writes at once, of which either may be the last.
func TestAReadForcesTheState(t *testing.T) {
	at := func(id int64, kind history.Kind, v string, call, ret int64) op {
		o := &history.Op{ID: id, Client: int(id), Key: "k", Kind: kind, Outcome: history.OK, Call: call, Return: ret}
		if kind == history.Get {
			o.Result = &v
		} else {
			o.Value = &v
		}
		return op{o, ret}
	}
	ops := []op{at(1, history.Put, "a", 0, 10), at(2, history.Put, "b", 5, 15), at(3, history.Get, "a", 20, 30), at(4, history.Get, "a", 40, 50)}
	pieces := cut(ops, 1)
	if len(pieces) != 2 || len(pieces[0].ops) != 3 || pieces[1].init == nil || *pieces[1].init != "a" {
		t.Errorf("%+v", pieces)
	}
	ops[2].Call = 15 // it may have run beside the second write
	if pieces := cut(ops, 1); len(pieces) != 1 {
		t.Errorf("cut after a read beside a write: %+v", pieces)
	}
}
