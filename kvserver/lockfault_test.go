package kvserver

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// quickest is the least time that n commands took.
func quickest(c *testClient, n int, words ...string) time.Duration {
	least := time.Hour
	for range n {
		start := time.Now()
		c.do(words...)
		least = min(least, time.Since(start))
	}
	return least
}

func (k *testCluster) lockFault(r LockRequest) (status int, why string) {
	k.tb.Helper()
	body, err := json.Marshal(r)
	if err != nil {
		k.tb.Fatal(err)
	}
	var e struct{ Error string }
	status = k.admin(0, "POST", "/fault/lock", string(body), &e)
	return status, e.Error
}

// TestHeldLocksCostWhatWasAsked: no write, and no read, is quicker than what its
// turn must hold the lock for, and all are quicker once that is over.
func TestHeldLocksCostWhatWasAsked(t *testing.T) {
	const add = 20 * time.Millisecond
	for _, mode := range lockModes {
		k := startCluster(t, 1, func(c *Config) { c.Log, c.Lock = "memory", mode }, nil)
		c := k.dial(0)
		c.must("OK", "SET", "k", "v")
		for _, tt := range []struct {
			which       string
			busy        bool
			write, read bool // wait
		}{{"apply", false, true, false}, {"apply", true, true, false}, {"read", false, false, true}, {"both", false, true, true}} {
			t.Run(fmt.Sprint(mode, " ", tt.which, " ", tt.busy), func(t *testing.T) {
				status, why := k.lockFault(LockRequest{Holds: []LockHold{{AddNS: int64(add), Which: tt.which, Share: 100, Busy: tt.busy}}})
				if tt.read && mode == lockFree {
					if status != 409 || !strings.Contains(why, "readers hold no lock") {
						t.Errorf("status %d, %s", status, why)
					}
					return
				}
				if status != 200 {
					t.Fatal(status, why)
				}
				hold := k.nodes[0].s.locks.applyHold.summary().Count
				if got := quickest(c, 3, "SET", "k", "v"); (got >= add) != tt.write {
					t.Errorf("a write took %v", got)
				}
				if got := quickest(c, 20, "GET", "k"); (got >= add) != tt.read {
					t.Errorf("a read took %v", got)
				}
				var m Metrics
				k.admin(0, "GET", "/metrics", "", &m)
				if m.Locks.Mode != mode || m.Locks.ApplyHold.Count < hold+3 || tt.write && m.Locks.ApplyHold.MaxNS < int64(add) || tt.read && m.Locks.ReadHold.MaxNS < int64(add) {
					t.Errorf("%+v", m.Locks)
				}
				if status, why := k.lockFault(LockRequest{}); status != 200 {
					t.Fatal(status, why)
				}
				if got := quickest(c, 20, "SET", "k", "v"); got >= add {
					t.Errorf("afterwards a write took %v", got)
				}
			})
		}
	}
}

func TestAShareOfTurnsIsHeld(t *testing.T) {
	for _, share := range []float64{1, 10, 33, 50, 100} {
		h := holding{LockHold: LockHold{Which: "read", Share: share}}
		n := 0
		for range 1000 {
			if h.wants(true) {
				t.Error("a turn of applying is to be held")
			}
			if h.wants(false) {
				n++
			}
		}
		if n != int(share*10) {
			t.Errorf("%v %% of 1000 are %d", share, n)
		}
	}
}

// TestAConvoyIsWaitedFor: whoever comes while the tasks are at it waits for all
// that came before, and the server counts that.
// TestTheAccountHasEveryHeldTurn: of turns that a fault holds none is left out of
// the account, so that the share of them is seen in a few requests.
func TestTheAccountHasEveryHeldTurn(t *testing.T) {
	const n, add = 10, 5 * time.Millisecond
	l := newLocks(Config{Lock: lockRW})
	l.faults.set(LockRequest{Holds: []LockHold{{AddNS: int64(add), Which: "read", Share: 50}}}, nil)
	defer l.faults.close()
	for range n {
		turn := l.beginRead(false)
		l.end(&turn)
	}
	got := l.meter.readHold.summary()
	if got.Count != n || time.Duration(got.SumNS) < n/2*add {
		t.Errorf("%d turns held for %v, want %d and %v at least", got.Count, time.Duration(got.SumNS), n, n/2*add)
	}
}

func TestAConvoyIsWaitedFor(t *testing.T) {
	const hold, others = 10 * time.Millisecond, 3
	for _, mode := range lockModes {
		t.Run(mode, func(t *testing.T) {
			k := startCluster(t, 1, func(c *Config) {
				if c.Log, c.Lock = "memory", mode; mode == lockSharded {
					c.LockShards = 2
				}
			}, nil)
			c := k.dial(0)
			if status, why := k.lockFault(LockRequest{Convoys: []LockConvoy{{HoldNS: int64(hold), PeriodNS: int64(100 * time.Millisecond), Contenders: others}}}); status != 200 {
				t.Fatal(status, why)
			}
			want := (1 + others) * hold / 2
			if mode == lockSharded {
				want /= 2
			}
			worst := time.Duration(0)
			eventually(t, "long wait", func() bool {
				start := time.Now()
				c.must("OK", "SET", "k", "v")
				worst = max(worst, time.Since(start))
				return worst >= want && time.Duration(k.nodes[0].s.locks.applyWait.summary().MaxNS) >= want
			})
			if status, why := k.lockFault(LockRequest{}); status != 200 {
				t.Fatal(status, why)
			}
			before := k.nodes[0].s.locks.applyWait.summary()
			for range 50 {
				c.must("OK", "SET", "k", "v")
			}
			if after := k.nodes[0].s.locks.applyWait.summary(); after.SumNS-before.SumNS >= int64(hold) {
				t.Errorf("50 writes after the end waited for %v", time.Duration(after.SumNS-before.SumNS))
			}
		})
	}
}

func TestLockRequestsAreChecked(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.Log = "memory" }, nil)
	ms := int64(time.Millisecond)
	for _, tt := range []struct {
		r    LockRequest
		want string
	}{
		{LockRequest{Holds: []LockHold{{AddNS: 0, Which: "apply", Share: 100}}}, "add_ns"},
		{LockRequest{Holds: []LockHold{{AddNS: 1 << 50, Which: "apply", Share: 100}}}, "add_ns"},
		{LockRequest{Holds: []LockHold{{AddNS: ms, Which: "all", Share: 100}}}, "none of apply, read, both"},
		{LockRequest{Holds: []LockHold{{AddNS: ms, Which: "read", Share: 0}}}, "share"},
		{LockRequest{Convoys: []LockConvoy{{HoldNS: ms}}}, "period_ns"},
		{LockRequest{Convoys: []LockConvoy{{HoldNS: ms, PeriodNS: 10 * ms, Contenders: -1}}}, "contenders"},
		{LockRequest{Convoys: []LockConvoy{{HoldNS: 5 * ms, PeriodNS: 10 * ms, Contenders: 1}}}, "more than 90 %"},
	} {
		if status, why := k.lockFault(tt.r); status != 400 || !strings.Contains(why, tt.want) {
			t.Errorf("%+v: %d, %s; want 400 and %q", tt.r, status, why, tt.want)
		}
	}
}
