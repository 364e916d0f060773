package kvserver

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// LockRequest is all that a node's locks are to suffer; {} makes them healthy.
type LockRequest struct {
	Holds   []LockHold   `json:"holds,omitempty"`
	Convoys []LockConvoy `json:"convoys,omitempty"`
}

// LockHold has turns hold their locks longer, as slow code under a lock would: once
// in each turn (a run of entries that is applied, or of reads that are answered),
// when it has the lock; in mode sharded, those of its first command.
type LockHold struct {
	AddNS int64   `json:"add_ns"`
	Which string  `json:"which"` // apply, read, both
	Share float64 `json:"share"` // of the turns, in percent, evenly
	Busy  bool    `json:"busy"`  // computing, else asleep as one who waits for a disk
}

// LockConvoy has 1 + Contenders tasks come for the lock together once in each
// period, and each keep it for so long, as background tasks that scan the state
// would. In mode sharded each goes from lock to lock and is as long at all of them
// together; in mode lockfree-read they keep out only who applies.
type LockConvoy struct {
	HoldNS     int64 `json:"hold_ns"`
	PeriodNS   int64 `json:"period_ns"`
	Contenders int64 `json:"contenders"`
	Busy       bool  `json:"busy"`
}

// Bounds of what may be asked of locks.
const (
	maxLockTime   = time.Minute
	maxContenders = 256
	convoyShare   = 0.9 // of its period
)

func (r LockRequest) check(mode string) error {
	for _, h := range r.Holds {
		switch {
		case h.AddNS <= 0 || h.AddNS > int64(maxLockTime):
			return fmt.Errorf("%w: add_ns must be in 1..%d", errBadRequest, int64(maxLockTime))
		case h.Which != "apply" && h.Which != "read" && h.Which != "both":
			return fmt.Errorf("%w: which is %q, none of apply, read, both", errBadRequest, h.Which)
		case !(h.Share > 0 && h.Share <= 100):
			return fmt.Errorf("%w: share must be above 0 and at most 100", errBadRequest)
		case mode == lockFree && h.Which != "apply":
			return fmt.Errorf("readers hold no lock in mode %s: which must be apply", lockFree)
		}
	}
	for _, c := range r.Convoys {
		switch {
		case c.HoldNS <= 0 || c.PeriodNS <= 0 || c.PeriodNS > int64(maxLockTime):
			return fmt.Errorf("%w: hold_ns must be above 0, period_ns in 1..%d", errBadRequest, int64(maxLockTime))
		case c.Contenders < 0 || c.Contenders > maxContenders:
			return fmt.Errorf("%w: contenders must be in 0..%d", errBadRequest, maxContenders)
		case float64(c.HoldNS)*float64(1+c.Contenders) > convoyShare*float64(c.PeriodNS):
			return fmt.Errorf("%w: %d tasks that hold the lock for %v each take more than %g %% of a period of %v",
				errBadRequest, 1+c.Contenders, time.Duration(c.HoldNS), 100*convoyShare, time.Duration(c.PeriodNS))
		}
	}
	return nil
}

// sleepers are how many may sleep with a lock at once: one, and in mode sharded
// all tasks of a convoy, each with another lock.
func (r LockRequest) sleepers(groups []*group) int {
	n := 0
	if len(r.Holds) > 0 {
		n = 1
	}
	for _, c := range r.Convoys {
		for _, g := range groups {
			n++
			if g.fsm.locks.mode == lockSharded {
				n += int(c.Contenders)
			}
		}
	}
	return min(n, mostSleepers)
}

const mostSleepers = 16

// lockFaults are what a node's locks suffer.
type lockFaults struct {
	holds atomic.Pointer[[]*holding] // nil: none

	mu      sync.Mutex
	end     context.CancelFunc // of what is in force; nil if nothing is
	lent    int                // Ps, to those who sleep with a lock
	convoys sync.WaitGroup
}

// A holding is a LockHold in force.
type holding struct {
	LockHold
	ctx   context.Context
	turns atomic.Uint64
}

// wants reports whether it has a turn hold longer: of every n turns, its share.
func (h *holding) wants(writes bool) bool {
	if h.Which == "apply" && !writes || h.Which == "read" && writes {
		return false
	}
	n := float64(h.turns.Add(1))
	return math.Floor(n*h.Share/100) > math.Floor((n-1)*h.Share/100)
}

// held is called by who has just taken a lock.
func (f *lockFaults) held(t *turn) {
	if t.held {
		return
	}
	t.held = true
	all := f.holds.Load()
	if all == nil {
		return
	}
	for _, h := range *all {
		if h.wants(t.writes) {
			pass(h.ctx, monotonic()+h.AddNS, h.Busy)
		}
	}
}

// pass lets time pass until end or the end of ctx, at work or asleep.
func pass(ctx context.Context, end int64, busy bool) {
	const look = 20 * time.Millisecond // at ctx
	for left := end - monotonic(); left > 0 && ctx.Err() == nil; left = end - monotonic() {
		step := monotonic() + min(left, int64(look))
		if !busy {
			doze(ctx, step)
		}
		for monotonic() < step {
		}
	}
}

// set puts r in force, in place of all that was before.
func (f *lockFaults) set(r LockRequest, groups []*group) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop()
	ctx, cancel := context.WithCancel(context.Background())
	f.end = cancel
	f.lent = r.sleepers(groups)
	lendProcs(f.lent)
	if len(r.Holds) > 0 {
		var all []*holding
		for _, h := range r.Holds {
			all = append(all, &holding{LockHold: h, ctx: ctx})
		}
		f.holds.Store(&all)
	}
	for _, c := range r.Convoys {
		for _, g := range groups {
			f.convoys.Go(func() { g.fsm.convoy(ctx, c) })
		}
	}
}

// stop ends all, and waits until no task holds a lock. The caller holds mu.
func (f *lockFaults) stop() {
	f.holds.Store(nil)
	if f.end != nil {
		f.end()
		f.convoys.Wait()
		f.end = nil
		lendProcs(-f.lent)
	}
}

func (f *lockFaults) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop()
}

// doze sleeps until about end. The last of it is the kernel's: its timer wakes 50
// to 100 µs late, Go's more than a millisecond.
func doze(ctx context.Context, end int64) {
	const last, early = int64(5 * time.Millisecond), int64(80 * time.Microsecond)
	if left := end - monotonic(); left > last {
		t := time.NewTimer(time.Duration(left - last))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
	for left := end - monotonic() - early; left > 0; left = end - monotonic() - early {
		nap(time.Duration(left))
	}
}

func (s *server) lockFault(_ context.Context, in json.RawMessage) (any, error) {
	var r LockRequest
	if err := json.Unmarshal(in, &r); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	if err := r.check(s.c.Lock); err != nil {
		return nil, err
	}
	s.lockFaults.set(r, s.groups)
	return done, nil
}

// convoy sends tasks for the lock until ctx ends.
func (f *fsm) convoy(ctx context.Context, c LockConvoy) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	calls := make([]chan struct{}, c.Contenders)
	for i := range calls {
		calls[i] = make(chan struct{}, 1)
		tasks.Go(func() {
			for range calls[i] {
				f.scan(ctx, time.Duration(c.HoldNS), c.Busy, nil)
			}
		})
	}
	defer func() {
		for _, call := range calls {
			close(call)
		}
	}()
	tick := time.NewTicker(time.Duration(c.PeriodNS))
	defer tick.Stop()
	for {
		f.scan(ctx, time.Duration(c.HoldNS), c.Busy, func() {
			for _, call := range calls { // the others come while it has the lock
				nudge(call)
			}
		})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// scan keeps the lock that who applies takes for d; in mode sharded, one after
// the other. has is called, unless nil, when it has it for the first time.
func (f *fsm) scan(ctx context.Context, d time.Duration, busy bool, has func()) {
	l := f.locks
	begin := func() int64 {
		if has != nil {
			has()
		}
		return monotonic()
	}
	switch l.mode {
	case lockGlobal:
		l.whole.Lock()
		defer l.whole.Unlock()
	case lockRW:
		l.rw.Lock()
		defer l.rw.Unlock()
	case lockFree:
		f.mu.Lock()
		defer f.mu.Unlock()
	case lockSharded:
		for i := range l.some {
			m := &l.some[i]
			m.Lock()
			now := monotonic()
			if i == 0 {
				now = begin()
			}
			pass(ctx, now+int64(d)/int64(len(l.some)), busy)
			m.Unlock()
		}
		return
	}
	pass(ctx, begin()+int64(d), busy)
}
