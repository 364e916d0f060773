package faults

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"brownout/kvserver"
)

// TestLocksAreJudgedFromBothSides: what a client feels and what the target says
// must both be what was asked for.
func TestLocksAreJudgedFromBothSides(t *testing.T) {
	const ms = time.Millisecond
	all := func(n int, d time.Duration) (out []time.Duration) {
		for range n {
			out = append(out, d)
		}
		return out
	}
	account := func(n int64, each time.Duration) kvserver.Latency {
		return kvserver.Latency{Count: n, SumNS: n * int64(each)}
	}
	hold := func(share float64) lockJudge {
		return holdJudge{kvserver.LockHold{AddNS: int64(10 * ms), Which: "apply", Share: share}}
	}
	convoy := convoyJudge{kvserver.LockConvoy{HoldNS: int64(10 * ms), PeriodNS: int64(100 * ms), Contenders: 2}}
	usual := lockLook{writes: all(50, 2*ms), locks: kvserver.Locks{ApplyHold: account(50, ms/10)}}
	for _, tt := range []struct {
		name  string
		judge lockJudge
		is    lockLook
		want  string // "" for yes
	}{
		{"as asked", hold(100), lockLook{writes: all(50, 12*ms), locks: kvserver.Locks{ApplyHold: account(80, 10*ms)}}, ""},
		{"behind another's turn", hold(100), lockLook{writes: all(50, 22*ms), locks: kvserver.Locks{ApplyHold: account(80, 10*ms)}}, ""},
		{"the account only", hold(100), lockLook{writes: all(50, 2*ms), locks: kvserver.Locks{ApplyHold: account(80, 10*ms)}}, "a client waits for"},
		{"clients only", hold(100), lockLook{writes: all(50, 12*ms), locks: kvserver.Locks{ApplyHold: account(80, ms/10)}}, "the target's account says"},
		{"half of it", hold(100), lockLook{writes: all(50, 7*ms), locks: kvserver.Locks{ApplyHold: account(80, 5*ms)}}, "a client waits for"},
		{"another slowness beside it", hold(100), lockLook{writes: all(50, 120*ms), locks: kvserver.Locks{ApplyHold: account(80, 10*ms)}}, "a client waits for"},
		{"nothing came through", hold(100), lockLook{}, "no request"},
		{"a fifth", hold(20), lockLook{writes: append(all(40, 2*ms), all(10, 12*ms)...), locks: kvserver.Locks{ApplyHold: account(50, 2*ms)}}, ""},
		{"all instead of a fifth", hold(20), lockLook{writes: all(50, 12*ms), locks: kvserver.Locks{ApplyHold: account(50, 10*ms)}}, "the target's account says"},

		{"a convoy", convoy, lockLook{looked: time.Second, writes: append(all(90, 2*ms), all(10, 28*ms)...), locks: kvserver.Locks{ApplyWait: account(100, 3*ms)}}, ""},
		{"its account only", convoy, lockLook{looked: time.Second, writes: all(100, 2*ms), locks: kvserver.Locks{ApplyWait: account(100, 3*ms)}}, "0 writes waited"},
		{"its clients only", convoy, lockLook{looked: time.Second, writes: append(all(90, 2*ms), all(10, 28*ms)...)}, "by the target's account"},
		{"too seldom", convoy, lockLook{looked: time.Second, writes: append(all(90, 2*ms), all(3, 28*ms)...), locks: kvserver.Locks{ApplyWait: account(100, 3*ms)}}, "3 writes waited"},
		{"too long", convoy, lockLook{looked: time.Second, writes: append(all(90, 2*ms), all(10, 90*ms)...), locks: kvserver.Locks{ApplyWait: account(100, 9*ms)}}, "tolerance"},
		{"from one lock to the next", convoy, lockLook{looked: time.Second, writes: append(all(90, 2*ms), all(10, 35*ms)...), locks: kvserver.Locks{Shards: 4, ApplyWait: account(15, ms)}}, ""},
		{"longer than through all locks", convoy, lockLook{looked: time.Second, writes: append(all(90, 2*ms), all(10, 47*ms)...), locks: kvserver.Locks{Shards: 4, ApplyWait: account(15, ms)}}, "tolerance"},
		{"no lock waited for", convoy, lockLook{looked: time.Second, writes: append(all(90, 2*ms), all(10, 9*ms)...), locks: kvserver.Locks{Shards: 4, ApplyWait: account(5, ms)}}, "by the target's account"},
		{"shared among locks", convoy, lockLook{looked: time.Second, writes: append(all(90, 2*ms), all(10, 9*ms)...), locks: kvserver.Locks{Shards: 4, ApplyWait: account(100, ms)}}, ""},
	} {
		why, bad := tt.judge.judge(usual, tt.is, map[string]any{})
		if (bad == "") != (tt.want == "") || !strings.Contains(bad, tt.want) {
			t.Errorf("%s: %q (%s), want %q", tt.name, bad, why, tt.want)
		}
	}
	for _, tt := range []struct {
		name  string
		judge lockJudge
		is    lockLook
		want  bool
	}{
		{"no more hold", hold(100), usual, true},
		{"still held", hold(100), lockLook{writes: all(50, 12*ms), locks: kvserver.Locks{ApplyHold: account(80, 10*ms)}}, false},
		{"still slow", hold(100), lockLook{writes: all(50, 12*ms), locks: usual.locks}, false},
		{"no more convoy", convoy, usual, true},
		{"still a convoy", convoy, lockLook{looked: 300 * ms, writes: append(all(20, 2*ms), all(3, 28*ms)...), locks: kvserver.Locks{ApplyWait: account(30, 3*ms)}}, false},
	} {
		if bad := tt.judge.healed(usual, tt.is); (bad == "") != tt.want {
			t.Errorf("%s: %q", tt.name, bad)
		}
	}
}

// TestAnAccountOfANewProcessIsAllNew: a node that was started again counts from 0.
func TestAnAccountOfANewProcessIsAllNew(t *testing.T) {
	was := kvserver.Locks{ApplyHold: kvserver.Latency{Count: 100, SumNS: 1000}, ReadWait: kvserver.Latency{Count: 5, SumNS: 50}}
	now := kvserver.Locks{ApplyHold: kvserver.Latency{Count: 7, SumNS: 70}, ReadWait: kvserver.Latency{Count: 8, SumNS: 110}}
	got := since(now, was)
	if mean(got.ApplyHold) != 10 || mean(got.ReadWait) != 20 || mean(got.ApplyWait) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestConvoyIsMeasuredWhole: a probe comes at any moment of a convoy, and still
// says how long it is.
func TestConvoyIsMeasuredWhole(t *testing.T) {
	const ms, rounds = time.Millisecond, 1000
	for _, want := range []time.Duration{5 * ms, 10 * ms, 80 * ms} {
		usual, now, rng := ms/2, time.Duration(0), rand.New(rand.NewPCG(1, 2))
		var took []time.Duration
		for r := range rounds {
			begin := time.Duration(r)*100*ms + time.Duration(rng.Int64N(int64(2*ms)))
			end := begin + want
			for now < end+20*ms {
				d := usual // all of it before the lock
				if at := now + d; at >= begin && at < end {
					d += end - at
				}
				took = append(took, d)
				now += d + convoyPause
			}
			now = begin + 99*ms
		}
		values := map[string]any{}
		j := convoyJudge{kvserver.LockConvoy{HoldNS: int64(want), PeriodNS: int64(100 * ms)}}
		_, bad := j.judge(lockLook{writes: []time.Duration{usual}}, lockLook{writes: took, looked: (rounds - 1) * 100 * ms, locks: kvserver.Locks{ApplyWait: kvserver.Latency{Count: rounds, SumNS: rounds * int64(want)}}}, values)
		if got := time.Duration(values["p50_ns"].(int64)); (got-want).Abs() > 100*time.Microsecond || bad != "" {
			t.Errorf("convoy of %s: %s measured (%s)", want, got, bad)
		}
	}
}
