package kvserver

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// lockConfigs are the modes that tests go through.
var lockConfigs = []Config{{Lock: lockGlobal}, {Lock: lockRW}, {Lock: lockSharded, LockShards: 1}, {Lock: lockSharded, LockShards: 16}, {Lock: lockSharded, LockShards: 256}, {Lock: lockFree}}

func lockName(c Config) string { return fmt.Sprint(c.Lock, c.LockShards) }

func words(kind opKind, args ...string) op {
	o := op{kind: kind}
	for _, a := range args {
		o.args = append(o.args, []byte(a))
	}
	return o
}

func entryOf(index uint64, ops ...op) *raft.Log {
	b, err := appendCommands([]byte{entryVersion}, ops, &extras{})
	if err != nil {
		panic(err)
	}
	return &raft.Log{Index: index, Type: raft.LogCommand, Data: b}
}

// TestLockModesAgree has state machines of all modes do the same, with many keys
// and few, deletes, sessions and snapshots on the way: they must end in one state.
func TestLockModesAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	key := func() string { return "k" + strconv.Itoa(rng.IntN(700)) }
	var entries []*raft.Log
	for i := range uint64(400) {
		var ops []op
		for range 1 + rng.IntN(20) {
			switch rng.IntN(9) {
			case 0:
				ops = append(ops, words(opDel, key(), key(), key()))
			case 1:
				ops = append(ops, words(opMSet, key(), "a", key(), "b"))
			case 2:
				ops = append(ops, words(opAppend, key(), "x"))
			case 3:
				ops = append(ops, words(opCAS, key(), "a", "c"))
			case 4:
				ops = append(ops, words(opMGet, key(), key()), words(opDBSize), words(opExists, key(), key()))
			case 5:
				o := words(opSetNX, key(), "n")
				o.session, o.seq = []byte("s"), uint64(rng.IntN(50))
				ops = append(ops, words(opSession, "s"), o)
			default:
				ops = append(ops, words(opSet, key(), strconv.Itoa(int(i))))
			}
		}
		entries = append(entries, entryOf(i+1, ops...))
	}
	var first []any
	var digest [32]byte
	for i, c := range lockConfigs {
		f := newFSM(c)
		out := f.ApplyBatch(entries[:150])
		half := snapshotOf(t, f)
		v := f.view()
		want := v.hash()
		out = append(out, f.ApplyBatch(entries[150:])...)
		if v.hash() != want {
			t.Errorf("%s: a view was disturbed", lockName(c))
		}
		v.release()
		g := newFSM(lockConfigs[(i+1)%len(lockConfigs)]) // what one mode wrote, another reads
		g.ApplyBatch(entries[:7])
		if err := g.Restore(io.NopCloser(bytes.NewReader(half))); err != nil {
			t.Fatal(err)
		}
		g.ApplyBatch(entries[150:])
		if g.view().hash() != f.view().hash() || g.keys.size() != f.keys.size() {
			t.Errorf("%s: a snapshot in the middle leads to another state", lockName(c))
		}
		if first == nil {
			first, digest = out, f.view().hash()
		}
		if d := cmp.Diff(first, out, cmp.AllowUnexported(result{})); d != "" {
			t.Errorf("%s answers otherwise: %s", lockName(c), d)
		}
		if f.view().hash() != digest {
			t.Errorf("%s ends in another state", lockName(c))
		}
	}
}

// TestReadersSeeWholeCommands: one applies, many read. A command of two keys is
// seen whole or not at all, what was answered is seen by who asks after it, and
// time does not go back. There is one writer, so this is all that linearizability asks.
func TestReadersSeeWholeCommands(t *testing.T) {
	const rounds = 900
	for _, c := range lockConfigs {
		t.Run(lockName(c), func(t *testing.T) {
			t.Parallel()
			f := newFSM(c)
			f.ApplyBatch([]*raft.Log{entryOf(1, words(opMSet, "a", "0", "b", "0"))})
			var begun, answered, seen atomic.Int64
			var stop atomic.Bool
			var wg sync.WaitGroup
			for r := range 4 {
				wg.Go(func() {
					ops := []op{words(opMGet, "a", "b"), words(opDBSize), words(opGet, "b"), words(opExists, "x", "y")}
					res := make([]result, len(ops))
					for n := 0; !stop.Load(); n++ {
						least := max(answered.Load(), seen.Load())
						f.read(ops, res, true)
						most := begun.Load()
						a, b := res[0].list[0].s, res[0].list[1].s
						got, _ := strconv.ParseInt(a, 10, 64)
						later, _ := strconv.ParseInt(res[2].s, 10, 64)
						if a != b || got < least || later < got || later > most || res[1].n%2 != 0 || res[3].n%2 != 0 {
							t.Errorf("reader %d: a %s, b %s, then b %d, %d keys, %d of x and y; %d was answered, %d begun", r, a, b, later, res[1].n, res[3].n, least, most)
							return
						}
						for old := seen.Load(); old < later && !seen.CompareAndSwap(old, later); old = seen.Load() {
						}
					}
				})
			}
			wg.Go(func() { // who looks at the whole
				for !stop.Load() {
					v := f.view()
					a := map[string]string{}
					maps.Insert(a, v.keys.all())
					if a["a"] != a["b"] || len(a) != v.keys.size() || a["a"] != strconv.Itoa(max(0, int(v.applied)-1)) {
						t.Errorf("view of entry %d: %v, %d keys", v.applied, a, v.keys.size())
						stop.Store(true)
					}
					v.release()
				}
			})
			for i := range int64(rounds) {
				begun.Store(i + 1)
				n := strconv.FormatInt(i+1, 10)
				other := words(opDel, "x", "y")
				if i%2 == 0 {
					other = words(opMSet, "x", n, "y", n)
				}
				f.ApplyBatch([]*raft.Log{entryOf(uint64(i)+2, words(opMSet, "a", n, "b", n), other)})
				answered.Store(i + 1)
				if i%500 == 499 { // a snapshot of this very state is installed
					if err := f.Restore(io.NopCloser(bytes.NewReader(snapshotOf(t, f)))); err != nil {
						t.Error(err)
					}
				}
			}
			stop.Store(true)
			wg.Wait()
		})
	}
}

// TestWaitsAndHoldsAreCounted holds a reader up behind one who applies.
func TestWaitsAndHoldsAreCounted(t *testing.T) {
	for _, c := range lockConfigs[:4] {
		t.Run(lockName(c), func(t *testing.T) {
			f := newFSM(c)
			f.ApplyBatch([]*raft.Log{entryOf(1, words(opSet, "a", "1"))})
			o := words(opGet, "a")
			mine := f.locks.beginApply(&f.mu)
			f.locks.lock(&mine, f.locks.all())
			waits := make(chan int64)
			go func() {
				res := make([]result, 1)
				waits <- f.read([]op{o}, res, true)
			}()
			const pause = 20 * time.Millisecond
			time.Sleep(pause) // how long it is held is what is tested
			f.locks.unlock(&mine, f.locks.all())
			f.locks.end(&mine)
			f.mu.Unlock()
			waited := time.Duration(<-waits)
			m := f.locks.meter
			if got := time.Duration(m.applyHold.summary().MaxNS); got < pause {
				t.Errorf("held for %v, counted as %v", pause, got)
			}
			// The reader may have come late.
			if got := time.Duration(m.readWait.summary().MaxNS); got != waited || waited == 0 {
				t.Errorf("it waited for %v, counted as %v", waited, got)
			}
		})
	}
}

func TestTrieKeepsKeysOfOneHash(t *testing.T) {
	tr := newTrie(maphash.MakeSeed())
	tr.now.root = &trieNode{batch: tr.batch}
	put := func(hash uint64, key, value string) {
		var fresh bool
		if tr.now.root, fresh = tr.put(tr.now.root, &trieLeaf{hash: hash, key: key, value: value}, 0); fresh {
			tr.now.keys++
		}
	}
	for _, k := range []string{"a", "b", "c"} {
		put(7, k, "1")
	}
	put(7|1<<63, "far", "1") // parts from them at the last level only
	tr.publish()
	before := tr.freeze()
	put(7, "b", "2")
	tr.now.root = tr.cut(tr.now.root, []byte("a"), 7, 0)
	tr.now.keys--
	tr.publish()
	got, old := maps.Collect(tr.freeze().all()), maps.Collect(before.all())
	if d := cmp.Diff(map[string]string{"b": "2", "c": "1", "far": "1"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{"a": "1", "b": "1", "c": "1", "far": "1"}, old); d != "" {
		t.Error("a frozen state changed: ", d)
	}
}

// TestReadsAllocateNothing: locks and what counts them are on every read's way.
func TestReadsAllocateNothing(t *testing.T) {
	if underRace {
		t.Skip("the race detector allocates")
	}
	for _, c := range lockConfigs {
		f := newFSM(c)
		f.ApplyBatch([]*raft.Log{entryOf(1, words(opSet, "a", "1"))})
		ops, res := []op{words(opGet, "a")}, make([]result, 1)
		if n := testing.AllocsPerRun(1000, func() { f.read(ops, res, true) }); n != 0 {
			t.Errorf("%s: a read allocates %v times", lockName(c), n)
		}
	}
}
