package checker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"brownout/internal/history"
)

// rounds is how many random histories a test tries: 1 in `-short`, more by BROWNOUT_ROUNDS.
func rounds(t *testing.T, n int) int {
	if s := os.Getenv("BROWNOUT_ROUNDS"); s != "" {
		k, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n * k
	}
	if testing.Short() {
		return n / 10
	}
	return n
}

func newSeed(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BROWNOUT_TEST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("BROWNOUT_TEST_SEED=%d", seed)
	return seed
}

func dump(ops []history.Op) string {
	var b strings.Builder
	for i := range ops {
		b.Write(history.AppendJSON(nil, &ops[i]))
		b.WriteByte('\n')
	}
	return b.String()
}

func check(t *testing.T, ops []history.Op, opt Options) Result {
	t.Helper()
	res, err := Check(context.Background(), ops, opt)
	if err != nil {
		t.Fatalf("Check: %v\n%s", err, dump(ops))
	}
	return res
}

// confirm checks that the operations a conflict names exist, and that an
// illegal beginning of the history really has been reached when it says so.
func confirm(t *testing.T, ops []history.Op, res Result) {
	t.Helper()
	for _, c := range res.Conflicts {
		if c.Label == "" || c.Text == "" || len(c.Ops) == 0 {
			t.Errorf("conflict without label, text or operations: %+v\n%s", c, dump(ops))
		}
		if c.Label == "not linearizable" {
			core(t, ops, c)
		}
		for _, id := range c.Ops {
			if id < 1 || int(id) > len(ops) || ops[id-1].Key != c.Key {
				t.Errorf("conflict names operation %d, which is none of %s\n%s", id, c.Key, dump(ops))
			}
		}
	}
}

// core checks that a shrunk counterexample is illegal by itself, and that no
// write was taken away whose value is still found.
func core(t *testing.T, ops []history.Op, c Conflict) {
	t.Helper()
	if len(ops) > minPiece {
		return // it may start from another state than an absent key
	}
	var kept []history.Op
	for _, o := range ops {
		if !slices.Contains(c.Ops, o.ID) {
			continue
		}
		if o.Return > c.At && o.Outcome == history.OK {
			o.Outcome, o.Result, o.Swapped = history.Unknown, nil, false
		}
		kept = append(kept, o)
	}
	if reference(kept) {
		t.Errorf("the shrunk counterexample %v is linearizable:\n%s", c.Ops, dump(ops))
	}
	for _, o := range kept {
		for _, w := range ops {
			unique := w.Value != nil && strings.HasSuffix(*w.Value, ".")
			if o.Result != nil && unique && w.Key == o.Key && w.Call <= c.At && w.Outcome != history.Fail && strings.Contains(*o.Result, *w.Value) && !slices.Contains(c.Ops, w.ID) {
				t.Errorf("operation %d of the counterexample %v found what %d wrote, which is not in it:\n%s", o.ID, c.Ops, w.ID, dump(ops))
			}
		}
	}
}

var families = []struct {
	name string
	c    genConfig
}{
	{"registers", genConfig{ops: 12, clients: 4, keys: 1, span: 8, gap: 3, unknown: 0.15, fail: 0.1}},
	{"registers with tombstones and appends", genConfig{ops: 11, clients: 4, keys: 1, span: 8, gap: 3, unknown: 0.2, fail: 0.1, appends: true, deletes: true, final: true}},
	{"bare deletes", genConfig{ops: 11, clients: 3, keys: 1, span: 8, gap: 3, unknown: 0.15, appends: true, deletes: true, bare: true, final: true}},
	{"two keys, mostly unknown", genConfig{ops: 14, clients: 4, keys: 2, span: 6, gap: 4, unknown: 0.5, appends: true, final: true}},
	{"values that repeat and cannot be told apart", genConfig{ops: 10, clients: 3, keys: 1, span: 6, gap: 3, unknown: 0.2, fail: 0.1, appends: true, deletes: true, alphabet: []string{"a", "aa", "b", "ab", "ba"}, final: true}},
	{"values that repeat, with empty ones", genConfig{ops: 9, clients: 3, keys: 1, span: 6, gap: 3, unknown: 0.2, appends: true, alphabet: []string{"", "a", "b"}, final: true}},
	{"unique values made of each other", genConfig{ops: 9, clients: 3, keys: 1, span: 8, gap: 2, unknown: 0.3, appends: true, deletes: true, alphabet: []string{"1", "2", "3", "11", "12", "21", "112", "31", "131", "1112"}}},
	{"long ones with quiet moments", genConfig{ops: 220, clients: 2, keys: 1, span: 6, gap: 30, unknown: 0.01, appends: true, deletes: true}},
}

// TestAgreesWithPlainPorcupine is the checker's licence: whatever is dropped,
// bounded, cut or ruled must never change the answer.
func TestAgreesWithPlainPorcupine(t *testing.T) {
	seed := newSeed(t)
	for f, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(f)))
			n, illegal, lost, labels := rounds(t, 3000), 0, 0, map[string]int{}
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
				want := reference(ops)
				res := check(t, ops, Options{Workers: 1})
				if got := res.Verdict == OK; got != want || res.Verdict == Unknown {
					t.Fatalf("Check = %s %v, porcupine alone says linearizable = %v, bug %q\n%s", res.Verdict, res.Conflicts, want, b, dump(ops))
				}
				if b == noBug && !want {
					t.Fatalf("the generator made an illegal history without a bug\n%s", dump(ops))
				}
				confirm(t, ops, res)
				d := Durability(ops)
				if d.Verdict == Lost {
					lost++
				}
				if d.Verdict == Lost && want {
					t.Fatalf("false loss: %+v\n%s", d.Lost, dump(ops))
				}
				if !want {
					illegal++
					labels[res.Conflicts[0].Label]++
				}
			}
			t.Logf("%d histories, %d illegal, %d with lost writes: %v", n, illegal, lost, labels)
			if illegal < n/50 {
				t.Errorf("only %d of %d histories were illegal: the mutations do not bite", illegal, n)
			}
		})
	}
}

func TestEveryPlantedBugIsFoundAtSize(t *testing.T) {
	seed := newSeed(t)
	c := genConfig{ops: 2000, clients: 8, keys: 4, span: 900, gap: 2000, unknown: 0.03, fail: 0.02, appends: true, deletes: true, final: true}
	for i, b := range bugs {
		t.Run(string(b), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
			found, labels, runs := 0, map[string]int{}, max(rounds(t, 40), 24) // a bug is found in a third of the runs or more
			for range runs {
				ops, ok := generate(rng, c, b)
				if !ok {
					continue
				}
				res := check(t, ops, Options{Budget: 20 * time.Second})
				confirm(t, ops, res)
				switch res.Verdict {
				case Illegal:
					found++
					labels[res.Conflicts[0].Label]++
				case Unknown:
					t.Errorf("unknown: %s", res.Why)
				}
			}
			t.Logf("%d of %d runs illegal, labels %v", found, runs, labels)
			if found == 0 {
				t.Errorf("bug never found in %d runs", runs)
			}
		})
	}
}

func TestNoFalseAlarmAtSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 7))
	n := rounds(t, 600)
	for range n {
		c := genConfig{ops: 300 + rng.IntN(900), clients: 1 + rng.IntN(10), keys: 1 + rng.IntN(4), span: 1 + rng.Int64N(500), gap: rng.Int64N(3000), unknown: rng.Float64() * 0.1, fail: 0.02, appends: rng.IntN(2) == 0, deletes: rng.IntN(2) == 0, final: true}
		ops, _ := generate(rng, c, noBug)
		res := check(t, ops, Options{Budget: 10 * time.Second})
		if res.Verdict == Illegal {
			t.Fatalf("false alarm: %+v\n%s", res.Conflicts, dump(ops))
		}
		if d := Durability(ops); d.Verdict == Lost {
			t.Fatalf("false loss: %+v\n%s", d, dump(ops))
		}
	}
}

func TestValidateRefusesWhatIsNoHistory(t *testing.T) {
	put := func(id int64, client int, call, ret int64, out history.Outcome) history.Op {
		return history.Op{ID: id, Client: client, Key: "k", Kind: history.Put, Value: ptr(fmt.Sprint(id)), Outcome: out, Call: call, Return: ret}
	}
	for _, tt := range []struct {
		name string
		ops  []history.Op
		want string
	}{
		{"nothing is a history", nil, ""},
		{"a client may go on at the instant of its answer", []history.Op{put(1, 1, 0, 5, history.OK), put(2, 1, 5, 6, history.OK)}, ""},
		{"the order of the lines does not matter", []history.Op{put(2, 1, 5, 6, history.OK), put(1, 1, 0, 5, history.OK)}, ""},
		{"a client may end with unknown", []history.Op{put(1, 1, 0, 5, history.OK), put(2, 1, 5, 6, history.Unknown)}, ""},
		{"a number twice", []history.Op{put(1, 1, 0, 5, history.OK), put(1, 2, 5, 6, history.OK)}, "operation 1 (number 2 from the start): the number was used before"},
		{"two at once of one client", []history.Op{put(1, 1, 0, 5, history.OK), put(2, 1, 4, 6, history.OK)}, "client 1 called it while its operation 1 was open"},
		{"going on after unknown", []history.Op{put(1, 1, 0, 5, history.Unknown), put(2, 1, 9, 10, history.OK)}, "goes on although its operation 1 is unknown"},
		{"a return before the call", []history.Op{put(1, 1, 5, 4, history.OK)}, "returned before it was called"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Check(t.Context(), tt.ops, Options{})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Check = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestRulesNeverKeepWhatBreaksThem: the quick look at a history that goes by, against
// the thorough one, which is what decides when the quick one does not know.
func TestRulesNeverKeepWhatBreaksThem(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 21))
	ids := []int64{-1, 0, 1, 63, 64, 64*page - 1, 64 * page, 64*page + 1, 1 << 40}
	sure, wrong := 0, 0
	for range rounds(t, 20_000) {
		ops := make([]history.Op, 1+rng.IntN(6))
		now := int64(0)
		for i := range ops {
			now += rng.Int64N(3)
			ops[i] = history.Op{ID: ids[rng.IntN(len(ids))], Client: rng.IntN(4), Outcome: history.OK, Call: now, Return: now + rng.Int64N(4) - rng.Int64N(20)/19}
			if rng.IntN(9) == 0 {
				ops[i].Outcome = history.Unknown
			}
			if rng.IntN(20) == 0 {
				ops[i].Client = -1
			}
		}
		r, kept := newRules(ops), true
		for i := range ops {
			kept = kept && r.keeps(i)
		}
		err := violation(ops)
		if kept && err != nil {
			t.Fatalf("the quick look keeps what is %v\n%s", err, dump(ops))
		}
		if got := Validate(ops); (got == nil) != (err == nil) {
			t.Fatalf("Validate = %v, the thorough look says %v", got, err)
		}
		if _, got := new(Result).survey(ops); (got == nil) != (err == nil) {
			t.Fatalf("survey = %v, the thorough look says %v", got, err)
		}
		if kept {
			sure++
		}
		if err != nil {
			wrong++
		}
	}
	if sure < 100 || wrong < 100 {
		t.Errorf("%d kept, %d broken: lopsided", sure, wrong)
	}
}

// TestRulesKnowWhatRecordersWrite: no second look at what generators and recorders
// make, and not much room for numbers that lie far apart.
func TestRulesKnowWhatRecordersWrite(t *testing.T) {
	ops, _ := generate(rand.New(rand.NewPCG(1, 1)), genConfig{ops: 150_000, clients: 50, keys: 3, span: 100, gap: 100, unknown: 0.05}, noBug)
	r := newRules(ops)
	for i := range ops {
		if !r.keeps(i) {
			t.Fatalf("operation on place %d of what is right needs a second look", i)
		}
	}
	for i := range ops {
		ops[i].ID *= 64 * page
	}
	r = newRules(ops)
	for i := range ops {
		if !r.keeps(i) {
			break
		}
	}
	if most := len(ops)/(4*page) + 17; len(r.seen) > most {
		t.Errorf("%d pages for %d numbers, want %d at most", len(r.seen), len(ops), most)
	}
	if err := Validate(ops); err != nil {
		t.Errorf("numbers that lie far apart: %v", err)
	}
}

// TestCounts: what an answer says of the history, and of who gave it.
func TestCounts(t *testing.T) {
	h := with().put("s", -2, -1).by(-1, "").put("a", 0, 1).put("u", 2, 3).unknown().put("x", 2, 3).failed().get("a", 4, 5).get("a", 4, 5).unknown().
		cas("a", "b", "a", 6, 7).cas("z", "c", "b", 8, 9).blind("q", 10, 11).del("d", 12, 13).app("+e", 14, 15).get("d+e", 16, 17)
	h.ops[1].ID, h.ops[1].Client = 0, 0
	res := check(t, h.ops, Options{})
	if res.Verdict != OK || res.Ops != 11 || res.Keys != 1 {
		t.Errorf("%v of %d operations and %d keys (%s), want ok, 11 and 1", res.Verdict, res.Ops, res.Keys, res.Why)
	}
	if c := res.Counts; c.Reads != 4 || c.Writes != 4 || c.Unknown != 2 || c.Failed != 1 {
		t.Errorf("%+v, want 4 reads, 4 writes, 2 unknown, 1 failed", c)
	}
	for _, tt := range []struct {
		name    string
		h       *script
		engine  string
		verdict Verdict
	}{
		{"values are unique", with().put("a", 0, 1).get("a", 2, 3), "blocks", OK},
		{"unique, and a stale read", with().put("a", 0, 1).put("b", 2, 3).get("a", 4, 5), "blocks", Illegal},
		{"one is written twice", with().put("a", 0, 1).put("a", 2, 3).get("a", 4, 5), "porcupine", OK},
		{"written twice, and a stale read", with().put("a", 0, 1).put("a", 2, 3).put("b", 4, 5).put("b", 6, 7).get("a", 8, 9), "porcupine", Illegal},
		{"one of two keys", &script{append(with().put("a", 0, 1).put("a", 2, 3).ops, history.Op{ID: 9, Client: 9, Key: "other", Kind: history.Get, Outcome: history.OK})}, "porcupine", OK},
	} {
		if res := check(t, tt.h.ops, Options{}); res.Engine != tt.engine || res.Verdict != tt.verdict {
			t.Errorf("%s: %v by %s, want %v by %s", tt.name, res.Verdict, res.Engine, tt.verdict, tt.engine)
		}
	}
}

func TestABudgetThatEndsIsUnknownAndSaysWhy(t *testing.T) {
	// Repeated values, so that no rule applies, and many operations at once.
	rng := rand.New(rand.NewPCG(1, 1))
	c := genConfig{ops: 600, clients: 40, keys: 1, span: 500, gap: 1, alphabet: []string{"a", "b", "c"}, appends: false}
	ops, _ := generate(rng, c, noBug)
	for i := range ops { // impossible, but only a search can tell
		if ops[i].Kind == history.Get && i > 500 {
			ops[i].Result = ptr("b")
		}
	}
	start := time.Now()
	res := check(t, ops, Options{Budget: 300 * time.Millisecond})
	if res.Verdict == OK {
		t.Errorf("Check = ok for a history that is not")
	}
	if res.Verdict == Unknown && !strings.Contains(res.Why, "out of time at 600 operations") {
		t.Errorf("Why = %q, want the reason and the size", res.Why)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %v for a budget of 300 ms", d)
	}
	res = check(t, ops, Options{Budget: time.Minute, Memory: 1})
	if res.Verdict == Unknown && !strings.Contains(res.Why, "out of memory") {
		t.Errorf("Why = %q, want out of memory", res.Why)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Check(ctx, ops, Options{}); err == nil {
		t.Error("Check of an ended context gave a verdict")
	}
}

// TestTheModelAlone tries the model without the rules that go before it.
func TestTheModelAlone(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    *script
		want Verdict
	}{
		{"a swap says what it found", with().put("a", 0, 1).cas("a", "b", "a", 2, 3).get("b", 4, 5), OK},
		{"a swap that found something else", with().put("a", 0, 1).add(history.CAS, 2, 3, func(o *history.Op) {
			o.Expect, o.Value, o.Result, o.Swapped = ptr("a"), ptr("b"), ptr("z"), true
		}), Illegal},
		{"no swap on a mismatch", with().put("a", 0, 1).cas("z", "b", "a", 2, 3).get("a", 4, 5), OK},
		{"no swap on a match", with().put("a", 0, 1).add(history.CAS, 2, 3, func(o *history.Op) {
			o.Expect, o.Value, o.Result = ptr("a"), ptr("b"), ptr("a")
		}), Illegal},
		{"an unknown swap may have happened", with().put("a", 0, 1).cas("a", "b", "a", 2, 3).unknown().get("b", 4, 5), OK},
		{"or not", with().put("a", 0, 1).cas("a", "b", "a", 2, 3).unknown().get("a", 4, 5), OK},
		{"but not on a mismatch", with().put("a", 0, 1).cas("z", "b", "z", 2, 3).unknown().get("b", 4, 5), Illegal},
		{"absent counts as empty for an append", with().app("a", 0, 1).get("a", 2, 3), OK},
		{"a bare delete", with().put("a", 0, 1).add(history.Delete, 2, 3, none).get("-", 4, 5), OK},
		{"a tombstone is a value", with().put("a", 0, 1).add(history.Delete, 2, 3, func(o *history.Op) { o.Value = ptr("t") }).get("t", 4, 5), OK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p piece
			for i := range tt.h.ops {
				o := op{&tt.h.ops[i], tt.h.ops[i].Return}
				if !o.completed() {
					o.ret = never
				}
				p.ops = append(p.ops, o)
			}
			if got, why := search(p, newLimit(t.Context(), Options{}.withDefaults())); got != tt.want {
				t.Errorf("search = %s %s, want %s", got, why, tt.want)
			}
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
