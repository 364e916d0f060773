package checker

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"brownout/internal/history"
)

func online(ops []history.Op) bool {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b history.Op) int { return cmp.Compare(a.Return, b.Return) })
	c := NewOnline()
	for i := range ops {
		if _, bad := c.Add(&ops[i]); bad {
			return true
		}
	}
	return false
}

// What is found while a history grows is found in the whole of it too.
func TestOnlineHasNoFalseAlarms(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	alarms, missed := 0, 0
	for i := range 4000 {
		c := genConfig{ops: 2 + rng.IntN(30), clients: 1 + rng.IntN(5), keys: 1 + rng.IntN(2), span: 12, gap: 6, deletes: i%2 == 0, unknown: 0.1, fail: 0.05}
		b := noBug
		if rng.IntN(2) == 0 {
			b = []bug{staleRead, loseWrite, resurrectDead}[rng.IntN(3)]
		}
		ops, _ := generate(rng, c, b)
		illegal := check(t, ops, Options{}).Verdict == Illegal
		switch found := online(ops); {
		case found && !illegal:
			t.Fatalf("a false alarm: %+v", ops)
		case found:
			alarms++
		case illegal:
			missed++
		}
	}
	if alarms < 200 || missed > alarms {
		t.Errorf("%d found, %d missed", alarms, missed)
	}
	t.Logf("%d found, %d missed", alarms, missed)
}

func TestOnlineStories(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    *script
		want bool
	}{
		{"a stale read", with().put("a", 0, 1).put("b", 2, 3).get("a", 10, 11), true},
		{"a fresh read", with().put("a", 0, 1).put("b", 2, 3).get("b", 10, 11), false},
		{"an old version after an append", with().put("v1", 0, 1).app("+a2", 2, 3).get("v1+a2", 4, 5).get("v1", 6, 7), true},
		{"absent after a write", with().put("a", 0, 1).get("-", 2, 3), true},
		{"absent after a delete that left a tombstone", with().put("a", 0, 1).del("t", 2, 3).get("-", 4, 5), true},
		{"absent after a bare delete", with().put("a", 0, 1).add(history.Delete, 2, 3, none).get("-", 4, 5), false},
		{"an append that is there twice", with().put("v1", 0, 1).app("+a2", 2, 3).get("v1+a2+a2", 4, 5), true},
		{"an append whose name begins with another's", with().put("v1", 0, 1).app("+a2", 2, 3).app("+a25", 4, 5).get("v1+a2+a25", 6, 7), false},
		{"the same the other way round", with().put("v1", 0, 1).app("+a25", 2, 3).app("+a2", 4, 5).get("v1+a25+a2", 6, 7), false},
		{"a swap on a mismatch", with().put("a", 0, 1).add(history.CAS, 2, 3, func(o *history.Op) {
			o.Expect, o.Value, o.Result, o.Swapped = ptr("z"), ptr("b"), ptr("a"), true
		}), true},
		{"a swap on a match", with().put("a", 0, 1).cas("a", "b", "a", 2, 3), false},
		{"no swap on a mismatch", with().put("a", 0, 1).cas("z", "b", "a", 2, 3), false},
		{"unknown, seen, then unseen", with().put("a", 0, 1).put("b", 2, 3).unknown().get("b", 4, 5).get("a", 8, 9), true},
	} {
		if got := online(tt.h.ops); got != tt.want {
			t.Errorf("%s: found %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Memory is bounded, and a long history is worked through quickly.
func TestOnlineForgets(t *testing.T) {
	c := NewOnline()
	for i := range int64(2*maxZones + 10) {
		v := "v" + string(rune('a'+i%26)) + strconv.FormatInt(i, 10)
		o := history.Op{ID: i + 1, Client: 1, Key: "k", Kind: history.Put, Value: &v, Outcome: history.OK, Call: i * 1e5, Return: i*1e5 + 5e4}
		if text, bad := c.Add(&o); bad {
			t.Fatal(text)
		}
	}
	k := c.keys["k"]
	if len(k.zones) > maxZones+1 || len(k.buckets) > maxBuckets || len(c.queue) > maxZones {
		t.Errorf("%d versions, %d buckets, %d queued", len(k.zones), len(k.buckets), len(c.queue))
	}
}

// BenchmarkOnline reports the share of a core that 20 000 operations a second would
// take, and the memory that is held after as many operations as can be remembered, and more.
func BenchmarkOnline(b *testing.B) {
	const perSecond, enough = 20_000, 1_000_000
	for _, keys := range []int{1, 1000, 30_000} {
		b.Run(fmt.Sprintf("%d keys", keys), func(b *testing.B) {
			before := heap()
			c := NewOnline()
			add := func(i int) {
				v := "v" + strconv.Itoa(i/2)
				o := history.Op{ID: int64(i), Client: i % 64, Key: "k" + strconv.Itoa(i/2%keys), Kind: history.Put, Value: &v, Outcome: history.OK, Call: int64(i) * 5e4, Return: int64(i)*5e4 + 4e4}
				if i%2 == 1 {
					o.Kind, o.Value, o.Result = history.Get, nil, &v
				}
				if text, bad := c.Add(&o); bad {
					b.Fatal(text)
				}
			}
			for i := range enough {
				add(i)
			}
			held := heap() - before
			n := enough
			used := cpuTime()
			for b.Loop() {
				add(n)
				n++
			}
			runtime.KeepAlive(c)
			b.ReportMetric(float64(held)/1e6, "MB-held")
			b.ReportMetric(100*perSecond*(cpuTime()-used).Seconds()/float64(b.N), "core-%")
		})
	}
}

// heap is what is alive, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestOnlineForgetsKeys(t *testing.T) {
	c := NewOnline()
	v := func(i int) *string { return ptr(fmt.Sprintf("v%d.", i)) }
	gone := history.Op{ID: 1, Key: "first", Kind: history.Delete, Outcome: history.OK, Call: 1, Return: 2}
	c.Add(&gone)
	for i := range 3 * maxKeys {
		c.Add(&history.Op{ID: int64(i), Key: fmt.Sprint("k", i), Kind: history.Put, Value: v(i), Outcome: history.OK, Call: int64(10 + i), Return: int64(20 + i)})
	}
	if len(c.keys) > maxKeys || len(c.recent) > maxKeys {
		t.Errorf("%d keys are remembered", len(c.keys))
	}
	// The bare delete is forgotten; nobody may take an absent key for a contradiction after it.
	for i, o := range []history.Op{
		{Kind: history.Put, Value: v(-1), Call: 1e6, Return: 1e6 + 1},
		{Kind: history.Get, Call: 1e6 + 5, Return: 1e6 + 6},
	} {
		o.ID, o.Key, o.Outcome = int64(1e6+i), "first", history.OK
		if text, bad := c.Add(&o); bad {
			t.Error("false alarm:", text)
		}
	}
}

// TestOnlineInAnyOrder: operations come in the order in which they are listed.
func TestOnlineInAnyOrder(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    *script
		want []string // of the text; nil: no alarm
	}{
		{"absent, and then who wrote before that", with().get("-", 20, 25).put("a", 0, 10), []string{`"a"`, "absent"}},
		{"the same with a bare delete between", with().get("-", 20, 25).add(history.Delete, 12, 14, none).put("a", 0, 10), nil},
		{"absent after a bare delete that failed", with().put("a", 0, 1).add(history.Delete, 2, 3, none).failed().get("-", 4, 5), []string{"absent", `"a"`}},
		{"stale after a bare delete of later", with().put("a", 0, 1).put("b", 2, 3).add(history.Delete, 4, 5, none).put("c", 6, 7).get("a", 10, 11), []string{`"a"`}},
		{"a swap to what was there before, from what was not", with().get("x", 0, 1).put("c", 5, 6).cas("b", "x", "b", 10, 11), []string{`"x"`, `"c"`}},
		{"a write of unknown outcome contradicts nobody", with().put("u", 0, 1).unknown().put("a", 2, 3).put("b", 4, 5), nil},
	} {
		c, told := NewOnline(), ""
		for i := range tt.h.ops {
			text, bad := c.Add(&tt.h.ops[i])
			if bad != (text != "") {
				t.Errorf("%s: bad is %t, and said is %q", tt.name, bad, text)
			}
			if bad {
				told = text
				break
			}
		}
		if tt.want == nil && told != "" || tt.want != nil && told == "" {
			t.Errorf("%s: told %q, want %q", tt.name, told, tt.want)
		}
		for _, w := range tt.want {
			if !strings.Contains(told, w) {
				t.Errorf("%s: told %q, want %q in it", tt.name, told, w)
			}
		}
	}
	c := NewOnline()
	c.Add(&with().put("u", 0, 1).unknown().ops[0])
	if n := len(c.keys["k7"].buckets); n != 0 {
		t.Errorf("a write of which nobody knows when it was there is in %d buckets", n)
	}
}

// TestOnlineBuckets holds the buckets against lists of all that was offered.
func TestOnlineBuckets(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 8))
	for range rounds(t, 400) {
		k := &onlineKey{zones: map[string]*zone{}}
		var model []bucketModel
		var all []*zone
		most := 1 + rng.IntN(6)
		for n := range 60 {
			if n > 30 && most > 1 && rng.IntN(10) == 0 {
				most--
			}
			z := &zone{f: rng.Int64N(12) * zoneWidth, s: rng.Int64N(9)}
			if len(all) > 0 && rng.IntN(4) == 0 {
				z = all[rng.IntN(len(all))]
			}
			all = append(all, z)
			k.offer(z, most)
			model = offerModel(model, z, most)
			if len(k.buckets) != len(model) {
				t.Fatalf("%d buckets of %d at most, want %d", len(k.buckets), most, len(model))
			}
			for i, b := range k.buckets {
				var got []int64
				for _, z := range b.top {
					if z != nil {
						got = append(got, z.s)
					}
				}
				slices.Sort(got)
				want := model[i].best()
				if b.at != model[i].at || !slices.Equal(got, want) || b.s != want[len(want)-1] || b.top[0] == b.top[1] {
					t.Fatalf("bucket %d is of %d with %v and %d, want %d with %v", i, b.at, got, b.s, model[i].at, want)
				}
			}
		}
	}
}

// A bucketModel remembers all.
type bucketModel struct {
	at int64
	of map[*zone]bool
}

// best are the two largest ends, ascending.
func (b bucketModel) best() []int64 {
	var all []int64
	for z := range b.of {
		all = append(all, z.s)
	}
	slices.Sort(all)
	return all[max(0, len(all)-2):]
}

func offerModel(model []bucketModel, z *zone, most int) []bucketModel {
	at := z.f / zoneWidth
	i := slices.IndexFunc(model, func(b bucketModel) bool { return b.at == at })
	if i >= 0 {
		model[i].of[z] = true
		return model
	}
	if len(model) >= most && at < model[0].at {
		return model // older than what is remembered
	}
	model = append(model, bucketModel{at, map[*zone]bool{z: true}})
	slices.SortFunc(model, func(a, b bucketModel) int { return cmp.Compare(a.at, b.at) })
	return model[max(0, len(model)-most):]
}
