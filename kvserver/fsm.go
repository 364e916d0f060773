package kvserver

import (
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"brownout/kvserver/stages"
)

// A result is what a command came to, on its way back to the client.
type result struct {
	code resultCode
	n    int64
	s    string
	list []result
}

type resultCode uint8

const (
	resOK   resultCode = 1 + iota // +OK
	resNil                        // null
	resInt                        // n
	resBulk                       // s
	resList                       // list
	resFail                       // s is the whole error, its word first
)

var (
	okResult  = result{code: resOK}
	nilResult = result{code: resNil}
)

func number(n int) result        { return result{code: resInt, n: int64(n)} }
func bulk(s string) result       { return result{code: resBulk, s: s} }
func failure(text string) result { return result{code: resFail, s: text} }

// The map is cut into shards so that a snapshot need not copy it: a view holds
// the shards as they are, and a write to a shard that is held copies this one first.
const shards = 256

type shard struct {
	m     map[string]string
	views int // views that hold this shard; guarded by fsm.mu
}

// An fsm is the replicated state. Raft calls Apply, ApplyBatch, Snapshot and
// Restore from one goroutine; reads come from many.
type fsm struct {
	seed maphash.Seed

	mu       sync.RWMutex
	shard    [shards]*shard
	keys     int
	sessions sessions
	applied  uint64 // index of the last entry that reached this machine

	ops   []op // scratch of Raft's goroutine
	notes *stages.Recorder
	bugs  fsmBugs
}

var _ raft.BatchingFSM = (*fsm)(nil)

func newFSM() *fsm {
	f := &fsm{seed: maphash.MakeSeed()}
	f.clear()
	return f
}

func (f *fsm) clear() {
	for i := range f.shard {
		f.shard[i] = &shard{m: map[string]string{}}
	}
	f.keys, f.sessions = 0, newSessions()
}

// Apply implements [raft.FSM].
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements [raft.BatchingFSM]. The response to a command entry is
// its []result. An entry that cannot be read is a broken log or a newer
// version's: the only safe answer is to stop.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	begun := f.notes.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	locked := f.notes.Now()
	defer func() {
		f.notes.Note(&stages.Record{
			Kind: stages.Apply, Peer: stages.NoPeer, A: logs[0].Index, B: logs[len(logs)-1].Index,
			T: [9]int64{stages.ApplyBegun: begun, stages.ApplyLocked: locked, stages.ApplyDone: f.notes.Now()},
		})
	}()
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			ops, err := decodeEntry(l.Data, f.ops[:0])
			if err != nil {
				panic(fmt.Sprintf("kvserver: apply entry %d: %v", l.Index, err))
			}
			res := make([]result, len(ops))
			for j := range ops {
				k := f.bugs.place(j, len(ops))
				res[k] = f.apply(&ops[k])
			}
			clear(ops) // do not hold the entry's bytes
			f.ops, out[i] = ops, res
		}
		f.applied = l.Index
	}
	return out
}

func (f *fsm) apply(o *op) result {
	if f.bugs.bug != "" {
		if r, forget := f.buggy(o); forget {
			return r
		}
	}
	if o.session != nil {
		return f.sessions.once(o.session, o.seq, func() result { return f.do(o) })
	}
	return f.do(o)
}

// do runs one command. It must depend on nothing but the state and the command.
func (f *fsm) do(o *op) result {
	switch a := o.args; o.kind {
	case opSet:
		f.set(a[0], string(a[1]))
		return okResult
	case opSetNX, opSetXX:
		if _, there := f.get(a[0]); there != (o.kind == opSetXX) {
			return nilResult
		}
		f.set(a[0], string(a[1]))
		return okResult
	case opDel:
		n := 0
		for _, k := range a {
			n += f.del(k)
		}
		return number(n)
	case opAppend:
		old, _ := f.get(a[0])
		if len(old)+len(a[1]) > maxValue {
			return failure(fmt.Sprintf("ERR string exceeds maximum allowed size (%d bytes)", maxValue))
		}
		f.set(a[0], old+string(a[1]))
		return number(len(old) + len(a[1]))
	case opCAS:
		old, there := f.get(a[0])
		switch {
		case !there:
			return result{code: resList, list: []result{number(0), nilResult}}
		case old != string(a[1]) && f.bugs.bug != bugBlindCAS:
			return result{code: resList, list: []result{number(0), bulk(old)}}
		}
		f.set(a[0], string(a[2]))
		return result{code: resList, list: []result{number(1), bulk(old)}}
	case opMSet:
		for i := 0; i < len(a); i += 2 {
			f.set(a[i], string(a[i+1]))
		}
		return okResult
	case opSession:
		return number(int(f.sessions.open(string(a[0]))))
	}
	return f.query(o)
}

// query answers a read. The caller holds mu.
func (f *fsm) query(o *op) result {
	switch o.kind {
	case opGet:
		if v, there := f.get(o.args[0]); there {
			return bulk(v)
		}
		return nilResult
	case opMGet:
		list := make([]result, len(o.args))
		for i, k := range o.args {
			list[i] = nilResult
			if v, there := f.get(k); there {
				list[i] = bulk(v)
			}
		}
		return result{code: resList, list: list}
	case opExists:
		n := 0
		for _, k := range o.args {
			if _, there := f.get(k); there {
				n++
			}
		}
		return number(n)
	case opStrlen:
		v, _ := f.get(o.args[0])
		return number(len(v))
	case opDBSize:
		return number(f.keys)
	}
	panic(fmt.Sprintf("kvserver: command kind %d has no meaning", o.kind))
}

// read answers reads from the state as it is here and now, and says since when.
func (f *fsm) read(ops []op, res []result) (locked int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	locked = f.notes.Now()
	for i := range ops {
		res[i] = f.query(&ops[i])
	}
	return locked
}

func (f *fsm) home(key []byte) int { return int(maphash.Bytes(f.seed, key) % shards) }

func (f *fsm) get(key []byte) (string, bool) {
	v, there := f.shard[f.home(key)].m[string(key)]
	return v, there
}

// own returns the shard of key, fit to be written to.
func (f *fsm) own(key []byte) map[string]string {
	i := f.home(key)
	if f.shard[i].views > 0 {
		f.shard[i] = &shard{m: maps.Clone(f.shard[i].m)}
	}
	return f.shard[i].m
}

func (f *fsm) set(key []byte, value string) {
	m := f.own(key)
	before := len(m)
	m[string(key)] = value
	f.keys += len(m) - before
}

func (f *fsm) del(key []byte) int {
	if _, there := f.get(key); !there {
		return 0
	}
	delete(f.own(key), string(key))
	f.keys--
	return 1
}

// A view is the state at one instant. It must be released.
type view struct {
	shard    [shards]*shard
	keys     int
	sessions []session
	applied  uint64
	release  func()
}

func (f *fsm) view() *view {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &view{shard: f.shard, keys: f.keys, sessions: f.sessions.copy(), applied: f.applied}
	for _, s := range v.shard {
		s.views++
	}
	v.release = sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, s := range v.shard {
			s.views--
		}
	})
	return v
}

// hash returns a digest of the state that is equal on replicas which applied the same entries.
func (v *view) hash() (digest [sha256.Size]byte) {
	h := sha256.New()
	keys := make([]string, 0, v.keys)
	values := make(map[string]string, v.keys)
	for _, s := range v.shard {
		for k, val := range s.m {
			keys = append(keys, k)
			values[k] = val
		}
	}
	slices.Sort(keys)
	var buf []byte
	for _, k := range keys {
		buf = appendBytes(appendBytes(buf[:0], k), values[k])
		h.Write(buf)
	}
	for _, s := range v.sessions {
		h.Write(appendSession(buf[:0], s))
	}
	h.Sum(digest[:0])
	return digest
}

// Snapshot implements [raft.FSM].
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return f.shorten(f.view()), nil }

// Restore implements [raft.FSM]. On error the state is as it was.
func (f *fsm) Restore(from io.ReadCloser) error {
	defer from.Close()
	fresh := &fsm{seed: f.seed}
	fresh.clear()
	if err := fresh.load(from); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shard, f.keys, f.sessions, f.applied = fresh.shard, fresh.keys, fresh.sessions, fresh.applied
	return nil
}
