package kvserver

import (
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"io"
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

// An fsm is the replicated state. Raft calls Apply, ApplyBatch, Snapshot and
// Restore from one goroutine; reads come from many.
type fsm struct {
	keys  keyspace
	locks *locks // of keys, between who applies and who reads

	mu       sync.Mutex // the state is being changed, or looked at as a whole
	sessions sessions
	applied  uint64 // index of the last entry that reached this machine
	open     int    // views

	ops   []op  // scratch of Raft's goroutine
	ends  []int // the same: where in ops each entry's end
	codec *codecState
	notes *stages.Recorder
	group uint8 // for notes
	bugs  fsmBugs
}

var _ raft.BatchingFSM = (*fsm)(nil)

// newFSM needs Lock and LockShards of a node's configuration.
func newFSM(c Config) *fsm {
	f := &fsm{locks: newLocks(c), sessions: newSessions(), codec: &codecState{}}
	if seed := maphash.MakeSeed(); c.Lock == lockFree {
		f.keys = newTrie(seed)
	} else {
		f.keys = newPartedMap(seed)
	}
	return f
}

// Apply implements [raft.FSM].
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements [raft.BatchingFSM]. The response to a command entry is
// its []result. An entry that cannot be read is a broken log or a newer
// version's: the only safe answer is to stop.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	begun := f.notes.Now()
	f.decode(logs) // under no lock
	decoded := f.notes.Now()
	t := f.locks.beginApply(&f.mu)
	defer f.mu.Unlock()
	defer func() {
		f.keys.publish()
		f.locks.end(&t)
		f.notes.Note(&stages.Record{
			Kind: stages.Apply, Group: f.group, Peer: stages.NoPeer, A: logs[0].Index, B: logs[len(logs)-1].Index,
			T: [9]int64{stages.ApplyBegun: begun, stages.ApplyDecoded: decoded, stages.ApplyLocked: decoded + t.waited, stages.ApplyDone: f.notes.Now()},
		})
	}()
	first := 0
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			ops := f.ops[first:f.ends[i]]
			first = f.ends[i]
			res := make([]result, len(ops))
			for j := range ops {
				k := f.bugs.place(j, len(ops))
				res[k] = f.turn(&t, &ops[k])
			}
			out[i] = res
		}
		f.applied = l.Index
	}
	clear(f.ops) // do not hold the entries' bytes
	return out
}

// decode puts the commands of all entries into f.ops.
func (f *fsm) decode(logs []*raft.Log) {
	f.ops, f.ends = f.ops[:0], f.ends[:0]
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			ops, err := f.codec.decode(l.Data, f.ops)
			if err != nil {
				panic(fmt.Sprintf("kvserver: apply entry %d: %v", l.Index, err))
			}
			f.ops = ops
		}
		f.ends = append(f.ends, len(f.ops))
	}
}

// turn applies a command of a turn.
func (f *fsm) turn(t *turn, o *op) result {
	if f.locks.mode != lockSharded {
		r := f.apply(o)
		f.keys.done()
		return r
	}
	set := f.lockSet(o)
	if f.bugs.bug != "" {
		set = f.locks.all() // it may do anything
	}
	f.locks.lock(t, set)
	defer f.locks.unlock(t, set)
	r := f.apply(o)
	f.keys.done()
	return r
}

// lockSet returns the locks of a command's keys.
func (f *fsm) lockSet(o *op) (set lockSet) {
	step := 1
	switch o.kind {
	case opSession, opDBSize:
		return set
	case opDel, opMGet, opExists:
	case opMSet:
		step = 2
	default:
		step = len(o.args)
	}
	for i := 0; i < len(o.args); i += step {
		set.add(f.keys.place(o.args[i]), len(f.locks.some))
	}
	return set
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
		f.keys.set(a[0], string(a[1]))
		return okResult
	case opSetNX, opSetXX:
		if _, there := f.keys.get(a[0]); there != (o.kind == opSetXX) {
			return nilResult
		}
		f.keys.set(a[0], string(a[1]))
		return okResult
	case opDel:
		n := 0
		for _, k := range a {
			if f.keys.del(k) {
				n++
			}
		}
		return number(n)
	case opAppend:
		old, _ := f.keys.get(a[0])
		if len(old)+len(a[1]) > maxValue {
			return failure(fmt.Sprintf("ERR string exceeds maximum allowed size (%d bytes)", maxValue))
		}
		f.keys.set(a[0], old+string(a[1]))
		return number(len(old) + len(a[1]))
	case opCAS:
		old, there := f.keys.get(a[0])
		switch {
		case !there:
			return result{code: resList, list: []result{number(0), nilResult}}
		case old != string(a[1]) && f.bugs.bug != bugBlindCAS:
			return result{code: resList, list: []result{number(0), bulk(old)}}
		}
		f.keys.set(a[0], string(a[2]))
		return result{code: resList, list: []result{number(1), bulk(old)}}
	case opMSet:
		for i := 0; i < len(a); i += 2 {
			f.keys.set(a[i], string(a[i+1]))
		}
		return okResult
	case opSession:
		return number(int(f.sessions.open(string(a[0]))))
	}
	return query(f.keys, o)
}

// query answers a read from what the caller may look at.
func query(from glance, o *op) result {
	switch o.kind {
	case opGet:
		if v, there := from.get(o.args[0]); there {
			return bulk(v)
		}
		return nilResult
	case opMGet:
		list := make([]result, len(o.args))
		for i, k := range o.args {
			list[i] = nilResult
			if v, there := from.get(k); there {
				list[i] = bulk(v)
			}
		}
		return result{code: resList, list: list}
	case opExists:
		n := 0
		for _, k := range o.args {
			if _, there := from.get(k); there {
				n++
			}
		}
		return number(n)
	case opStrlen:
		v, _ := from.get(o.args[0])
		return number(len(v))
	case opDBSize:
		return number(from.size())
	}
	panic(fmt.Sprintf("kvserver: command kind %d has no meaning", o.kind))
}

// read answers reads from the state as it is here and now, and says how long it
// had to wait for that, in ns. One in sampled should be timed.
func (f *fsm) read(ops []op, res []result, timed bool) (waited int64) {
	t := f.locks.beginRead(timed)
	defer func() { f.locks.end(&t); waited = t.waited }()
	from := f.keys.reader()
	if f.locks.mode != lockSharded {
		for i := range ops {
			res[i] = query(from, &ops[i])
		}
		return
	}
	for i := range ops {
		set := f.lockSet(&ops[i])
		f.locks.lock(&t, set)
		res[i] = query(from, &ops[i])
		f.locks.unlock(&t, set)
	}
	return
}

// A view is the state at one instant. It must be released.
type view struct {
	keys     frozen
	sessions []session
	applied  uint64
	release  func()
}

func (f *fsm) view() *view {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys.publish()
	v := &view{keys: f.keys.freeze(), sessions: f.sessions.copy(), applied: f.applied}
	f.open++
	v.release = sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		v.keys.release()
		f.open--
	})
	return v
}

// hash returns a digest of the state that is equal on replicas which applied the same entries.
func (v *view) hash() (digest [sha256.Size]byte) {
	h := sha256.New()
	keys := make([]string, 0, v.keys.size())
	values := make(map[string]string, v.keys.size())
	for k, val := range v.keys.all() {
		keys = append(keys, k)
		values[k] = val
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
	fresh := f.empty()
	if err := fresh.load(from); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	t := f.locks.beginApply(&f.mu)
	defer f.mu.Unlock()
	defer f.locks.end(&t)
	all := f.locks.all()
	f.locks.lock(&t, all)
	defer f.locks.unlock(&t, all)
	f.keys.replace(fresh.keys)
	f.sessions, f.applied = fresh.sessions, fresh.applied
	return nil
}

// empty returns a state without anything in it, for this one to take over.
func (f *fsm) empty() *fsm {
	return &fsm{keys: f.keys.empty(), locks: f.locks, sessions: newSessions()}
}
