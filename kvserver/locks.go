package kvserver

import (
	"cmp"
	"math/bits"
	"sync"
	"time"
)

// Lock modes: what keeps the one who applies and those who read apart.
const (
	lockGlobal  = "global"        // one mutex over applying and reading
	lockRW      = "rw"            // one readers-writer lock
	lockSharded = "sharded"       // one of lock_shards readers-writer locks for each key
	lockFree    = "lockfree-read" // readers look at the last state that was published, and wait for nobody
)

var lockModes = []string{lockGlobal, lockRW, lockSharded, lockFree}

// locks guard a state. Who applies is one at a time already, by fsm.mu, which is
// taken first and which readers do not know.
//
// In the modes global and rw a turn (a run of entries that is applied, or of
// reads that are answered) holds the lock from its beginning to its end. In mode
// sharded each of its commands holds the locks of its own keys, all of them if
// there are many, taken in one order: so a command of many keys is atomic there,
// too. What tells of all keys at once, as DBSIZE, changes while they are held.
// In mode lockfree-read a turn of applying shows all that it did at its end, by
// one atomic pointer, before anybody is answered.
type locks struct {
	mode   string
	whole  sync.Mutex
	rw     sync.RWMutex
	some   []shardLock
	meter  *lockMeter
	faults *lockFaults
	watch  *lockWatch
}

// A lockMeter counts what turns waited for locks and how long they held them.
type lockMeter struct{ applyWait, applyHold, readWait, readHold histogram }

// A shardLock is alone on its cache line: neighbours must not slow each other down.
type shardLock struct {
	sync.RWMutex
	_ [64 - 24]byte
}

func newLocks(c Config) *locks {
	l := &locks{mode: cmp.Or(c.Lock, lockRW), meter: &lockMeter{}, faults: &lockFaults{}, watch: &lockWatch{}}
	if l.mode == lockSharded {
		l.some = make([]shardLock, c.LockShards)
	}
	return l
}

var started = time.Now()

// monotonic is a time in ns.
func monotonic() int64 { return int64(time.Since(started)) }

// A turn is what holds locks: a run of entries, or of reads. Times are in ns.
type turn struct {
	writes bool
	timed  int   // for how many turns its times count; 0: it is not timed
	begun  int64 // if it is timed
	waited int64 // for locks
	held   bool  // it has had its first
}

// sampled is how many turns of a client's reads there are for one that is timed:
// two looks at the clock would be seen in the speed of short ones. While turns are
// held by a fault all are timed: they are not short, and few.
const sampled = 16

// beginApply begins a turn of applying. The caller unlocks mu after end.
func (l *locks) beginApply(mu *sync.Mutex) turn {
	t := turn{writes: true, timed: 1, begun: monotonic()}
	if !mu.TryLock() {
		l.await(&t, mu.Lock)
	}
	switch {
	case l.mode == lockGlobal && !l.whole.TryLock():
		l.await(&t, l.whole.Lock)
	case l.mode == lockRW && !l.rw.TryLock():
		l.await(&t, l.rw.Lock)
	}
	if l.mode != lockSharded {
		l.faults.held(&t)
	}
	return t
}

// beginRead begins a turn of reading, one of those that are timed or not.
func (l *locks) beginRead(timed bool) (t turn) {
	switch {
	case l.mode == lockFree:
		return t
	case l.faults.holds.Load() != nil:
		t.timed = 1
	case timed:
		t.timed = sampled
	}
	if t.timed > 0 {
		t.begun = monotonic()
	}
	switch {
	case l.mode == lockGlobal && !l.whole.TryLock():
		l.await(&t, l.whole.Lock)
	case l.mode == lockRW && !l.rw.TryRLock():
		l.await(&t, l.rw.RLock)
	}
	if l.mode != lockSharded {
		l.faults.held(&t)
	}
	return t
}

// await takes a lock that is not free.
func (l *locks) await(t *turn, lock func()) {
	begun := monotonic()
	defer l.watch.leave(l.watch.enter(begun))
	lock()
	t.waited += monotonic() - begun
}

// end ends a turn.
func (l *locks) end(t *turn) {
	var held time.Duration
	if t.timed > 0 {
		held = time.Duration(monotonic() - t.begun - t.waited)
	}
	switch {
	case l.mode == lockGlobal:
		l.whole.Unlock()
	case l.mode == lockRW && t.writes:
		l.rw.Unlock()
	case l.mode == lockRW:
		l.rw.RUnlock()
	}
	l.meter.count(t, held)
}

// count counts a turn that held its locks for a time, if it is timed.
func (m *lockMeter) count(t *turn, held time.Duration) {
	waited := time.Duration(t.waited)
	if t.writes {
		m.applyWait.record(waited)
		m.applyHold.record(held)
		return
	}
	if t.timed > 0 {
		m.readHold.add(held, int64(t.timed))
	}
	switch {
	case waited > 0: // all that waited are counted
		m.readWait.record(waited)
	case t.timed > 0:
		m.readWait.add(0, int64(t.timed))
	}
}

// A lockSet has a bit for each shard's lock.
type lockSet [parts / 64]uint64

// of adds the lock of a place.
func (s *lockSet) add(place uint8, locks int) {
	i := int(place) % locks
	s[i/64] |= 1 << (i % 64)
}

// lock takes the locks of one command, in their order. Only mode sharded has any.
func (l *locks) lock(t *turn, set lockSet) {
	for w, word := range set {
		for ; word != 0; word &= word - 1 {
			m := &l.some[64*w+bits.TrailingZeros64(word)].RWMutex
			switch {
			case t.writes && !m.TryLock():
				l.await(t, m.Lock)
			case !t.writes && !m.TryRLock():
				l.await(t, m.RLock)
			}
		}
	}
	if set != (lockSet{}) {
		l.faults.held(t)
	}
}

func (l *locks) unlock(t *turn, set lockSet) {
	for w, word := range set {
		for ; word != 0; word &= word - 1 {
			m := &l.some[64*w+bits.TrailingZeros64(word)].RWMutex
			if t.writes {
				m.Unlock()
			} else {
				m.RUnlock()
			}
		}
	}
}

// all is the set of all locks.
func (l *locks) all() (set lockSet) {
	for i := range l.some {
		set.add(uint8(i), len(l.some))
	}
	return set
}
