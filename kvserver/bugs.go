package kvserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Planted bugs, to see whether a testbed finds them. A node has one only if
// Config.AllowBugs says so as well.
const (
	bugFollowerRead  = "stale-follower-read"  // a follower answers reads from its own state
	bugUnguarded     = "unguarded-lease"      // a lease does not end with time, but when another leader is heard of (reads: lease)
	bugDirtyRead     = "dirty-read"           // a deposed leader answers reads, with writes that it could not commit
	bugEarlyAck      = "ack-before-quorum"    // a write is acknowledged when it is proposed
	bugUnsynced      = "ack-before-fsync"     // entries are written, and synced once in a while (log: wal)
	bugDoubleApply   = "double-apply"         // an entry that takes long is proposed again
	bugLostAppend    = "append-lost"          // an append during a snapshot is acknowledged, and not done
	bugBlindCAS      = "cas-ignores-expected" // a cas swaps whatever is there
	bugResurrection  = "delete-resurrects"    // what was deleted comes back
	bugReordered     = "reordered-apply"      // the last node applies the writes of an entry from back to front
	bugShortSnapshot = "short-snapshot"       // a snapshot lacks the last writes
	bugHang          = "hang-after-election"  // a leader that follows another stores nothing
)

const noBug = "none" // to say so

// Bugs lists the planted bugs.
var Bugs = []string{
	bugFollowerRead, bugUnguarded, bugDirtyRead, bugEarlyAck, bugUnsynced, bugDoubleApply, bugLostAppend, bugBlindCAS,
	bugResurrection, bugReordered, bugShortSnapshot, bugHang,
}

// checkBug says what is wrong with the bug of a configuration.
func (c Config) checkBug() error {
	switch {
	case c.Bug == "" || c.Bug == noBug:
		return nil
	case !slices.Contains(Bugs, c.Bug):
		return fmt.Errorf("bug: %q is none of %s", c.Bug, strings.Join(Bugs, ", "))
	case !c.AllowBugs:
		return fmt.Errorf("bug: %s is a planted bug, which allow_bugs must allow", c.Bug)
	}
	return nil
}

// retryAfter is how long an entry may take before bugDoubleApply proposes it again.
const retryAfter = 100 * time.Millisecond

// proposed plants the bugs of an entry under way. The caller ends them when the
// entry's fate is known.
func (p *proposer) proposed(batch []slot, ops []op, entry []byte) (end func()) {
	switch p.limits.Bug {
	case bugEarlyAck:
		for i, s := range batch {
			switch ops[i].kind {
			case opSet:
				s.answer(okResult)
			case opAppend:
				s.answer(number(0))
			}
		}
	case bugDoubleApply:
		t := time.AfterFunc(retryAfter, func() { p.raft.Apply(entry, time.Second) })
		return func() { t.Stop() }
	}
	return func() {}
}

// buggy reports whether a node that does not lead answers reads all the same.
func (f *confirmer) buggy() bool {
	switch f.c.Bug {
	case bugFollowerRead:
		return true
	case bugDirtyRead:
		return f.currentTerm() > 0 // it led once
	case bugUnguarded:
		return f.currentTerm() == f.raft.CurrentTerm()
	}
	return false
}

// A dirtyState is what a leader was asked to write.
type dirtyState struct{ m sync.Map } // key → value

func (d *dirtyState) note(ops []op) {
	for i := range ops {
		if ops[i].kind == opSet {
			d.m.Store(string(ops[i].args[0]), string(ops[i].args[1]))
		}
	}
}

// readDirty overlays what a node that does not lead has read with what it was
// asked to write when it did.
func (p *proposer) readDirty(ops []op, res []result) {
	if p.raft.State() == raft.Leader {
		return
	}
	for i := range ops {
		if ops[i].kind != opGet {
			continue
		}
		if v, ok := p.dirty.m.Load(string(ops[i].args[0])); ok {
			res[i] = bulk(v.(string))
		}
	}
}

// fsmBugs are the bugs of a state machine.
type fsmBugs struct {
	bug  string
	last bool // this is the last of the nodes

	deleted []deletion // in the order of their time
	done    int        // commands
	recent  []before   // the state before the last writes
}

type deletion struct {
	key, value string
	done       int
}

type before struct {
	key, value string
	there      bool
}

const (
	resurrectAfter = 200 // commands
	shortBy        = 16  // writes
)

func newFSMBugs(c Config) fsmBugs {
	return fsmBugs{bug: c.Bug, last: c.Peers[len(c.Peers)-1].ID == c.ID}
}

// place says which of the n commands of an entry is the i-th to be applied.
func (b *fsmBugs) place(i, n int) int {
	if b.bug == bugReordered && b.last {
		return n - 1 - i
	}
	return i
}

// buggy plants bugs before a command is applied. It reports whether the
// command is to be forgotten.
func (f *fsm) buggy(o *op) (r result, forget bool) {
	b := &f.bugs
	b.done++
	switch b.bug {
	case bugLostAppend:
		if o.kind == opAppend && f.open > 0 {
			old, _ := f.keys.get(o.args[0])
			return number(len(old) + len(o.args[1])), true
		}
	case bugResurrection:
		f.resurrect(o)
	case bugShortSnapshot:
		if !o.kind.isRead() && len(o.args) > 0 {
			v, there := f.keys.get(o.args[0])
			b.recent = append(b.recent, before{string(o.args[0]), v, there})
			b.recent = b.recent[max(0, len(b.recent)-shortBy):]
		}
	}
	return result{}, false
}

// resurrect notes deletes, of which one may be a SET of a tombstone, and undoes
// those of long ago.
func (f *fsm) resurrect(o *op) {
	b := &f.bugs
	tombstone := func(v string) bool { return strings.HasPrefix(v, "x") }
	if o.kind == opDel || o.kind == opSet && tombstone(string(o.args[1])) {
		if v, there := f.keys.get(o.args[0]); there && !tombstone(v) {
			b.deleted = append(b.deleted, deletion{string(o.args[0]), v, b.done})
		}
	}
	for len(b.deleted) > 0 && b.deleted[0].done+resurrectAfter < b.done {
		d := b.deleted[0]
		b.deleted = b.deleted[1:]
		if v, there := f.keys.get([]byte(d.key)); !there || tombstone(v) {
			f.keys.set([]byte(d.key), d.value)
		}
	}
}

// shorten takes the last writes out of a view.
func (f *fsm) shorten(v *view) *view {
	if f.bugs.bug != bugShortSnapshot {
		return v
	}
	fresh := f.empty()
	for k, val := range v.keys.all() {
		fresh.keys.set([]byte(k), val)
	}
	for _, b := range slices.Backward(f.bugs.recent) {
		if b.there {
			fresh.keys.set([]byte(b.key), b.value)
		} else {
			fresh.keys.del([]byte(b.key))
		}
	}
	v.release()
	fresh.keys.publish()
	return &view{keys: fresh.keys.freeze(), sessions: v.sessions, applied: v.applied, release: func() {}}
}

// syncEvery is how often bugUnsynced makes the disk durable.
const syncEvery = time.Second

// lazily reports whether a sync of a file that was synced before may be left out.
func lazily(bug string, last, now time.Time) bool {
	return bug == bugUnsynced && now.Sub(last) < syncEvery
}

// A hangingLog is a log that may store nothing more, until a channel is closed.
type hangingLog struct {
	raft.LogStore
	hung atomic.Value // of that channel
}

func plantInLog(c Config, store raft.LogStore) raft.LogStore {
	if c.Bug != bugHang {
		return store
	}
	return &hangingLog{LogStore: store}
}

// elected makes a leader hang that is not the first, until ctx ends.
func (g *group) elected(ctx context.Context) {
	if h, ok := g.store.meter.LogStore.(*hangingLog); ok && g.raft.LastIndex() > 20 {
		h.hung.Store(ctx.Done())
	}
}

// StoreLogs implements [raft.LogStore].
func (h *hangingLog) StoreLogs(logs []*raft.Log) error {
	if until, ok := h.hung.Load().(<-chan struct{}); ok {
		<-until
	}
	return h.LogStore.StoreLogs(logs)
}

// StoreLog implements [raft.LogStore].
func (h *hangingLog) StoreLog(l *raft.Log) error { return h.StoreLogs([]*raft.Log{l}) }

// IsMonotonic implements [raft.MonotonicLogStore].
func (h *hangingLog) IsMonotonic() bool {
	s, ok := h.LogStore.(raft.MonotonicLogStore)
	return ok && s.IsMonotonic()
}
