package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/clock"
	"brownout/internal/history"
	"brownout/internal/plan"
	"brownout/internal/stats"
)

// A store is a target in memory. before may hold an operation up or decide it.
type store struct {
	mu     sync.Mutex
	values map[string]string
	calls  int
	before func(n int, req history.Request) (history.Reply, bool)
}

func (s *store) Dial(context.Context, Cluster) (Client, error) {
	return &storeClient{s: s}, nil
}

type storeClient struct {
	s    *store
	busy bool
}

func (c *storeClient) Close() error { return nil }

func (c *storeClient) Do(ctx context.Context, req history.Request) history.Reply {
	if c.busy {
		panic("two operations of one client at a time")
	}
	c.busy = true
	defer func() { c.busy = false }()
	s := c.s
	s.mu.Lock()
	s.calls++
	n := s.calls
	s.mu.Unlock()
	if s.before != nil {
		if rep, decided := s.before(n, req); decided {
			return rep
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rep := history.Reply{Outcome: history.OK, Node: "n1"}
	if s.values == nil {
		s.values = map[string]string{}
	}
	old, there := s.values[req.Key]
	found := &old
	if !there {
		found = nil
	}
	switch req.Kind {
	case history.Get:
		rep.Found = found
	case history.Put, history.Delete:
		s.values[req.Key] = req.Value
	case history.Append:
		s.values[req.Key] = old + req.Value
	case history.CAS:
		rep.Found, rep.Swapped = found, there && old == req.Expect
		if rep.Swapped {
			s.values[req.Key] = req.Value
		}
	}
	return rep
}

// offer runs a load against a store and returns its history.
func offer(t *testing.T, s *store, l plan.Load, length time.Duration) (Report, []history.Op) {
	t.Helper()
	var spool bytes.Buffer
	spec := Spec{
		Zero: clock.Raw() + int64(10*time.Millisecond), Load: l, Seed: 42, Rate: l.Rate, End: length,
		Endpoints: []Endpoint{{Node: "n1"}},
	}
	p, err := newPool(t.Context(), spec, s, history.NewRecorder(&spool))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	rep, err := p.run(t.Context(), sleepUntil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.finalReads(t.Context(), s, []string{"k0", "k1"}, time.Second); err != nil {
		t.Fatal(err)
	}
	var ops []history.Op
	for op, err := range history.ReadSpool(bytes.NewReader(spool.Bytes()), int64(spool.Len())) {
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, op)
	}
	return rep, ops
}

func quantile(ops []history.Op, q float64, f func(history.Op) int64) time.Duration {
	var h stats.Hist
	for _, op := range ops {
		if op.Phase == "" {
			h.Record(f(op))
		}
	}
	return time.Duration(h.Quantile(q))
}

func responseTime(op history.Op) int64 { return op.Return - op.Due }
func serviceTime(op history.Op) int64  { return op.Return - op.Call }

// A stall of 300 ms in 3 s concerns a tenth of all arrivals: response times must
// show it at p99 and service times hide it, as a closed loop would.
func TestStallIsSeenInResponseTimesAndNotInServiceTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := someLoad
		l.Clients = 4
		var stalled time.Time
		s := &store{}
		s.before = func(n int, _ history.Request) (history.Reply, bool) {
			s.mu.Lock()
			if n == 2000 {
				stalled = time.Now().Add(300 * time.Millisecond)
			}
			d := time.Until(stalled)
			s.mu.Unlock()
			time.Sleep(max(d, 500*time.Microsecond))
			return history.Reply{}, false
		}
		rep, ops := offer(t, s, l, 3*time.Second)
		if rep.Dropped+rep.Unsent+rep.Fail+rep.Unknown != 0 || rep.OK != rep.Offered || rep.Offered < 5500 {
			t.Errorf("report = %+v, want some 6000 operations, all ok", rep)
		}
		if got := quantile(ops, 0.99, responseTime); got < 200*time.Millisecond || got > 310*time.Millisecond {
			t.Errorf("p99 of response = %v, want nearly 300ms", got)
		}
		if got := quantile(ops, 0.99, serviceTime); got > time.Millisecond {
			t.Errorf("p99 of service = %v, want 500µs: only %d of %d operations were in flight", got, l.Clients, len(ops))
		}
		if rep.Lateness.P99 > int64(time.Millisecond) {
			t.Errorf("p99 of the pacer's lateness = %v: waiting for the target must not count", time.Duration(rep.Lateness.P99))
		}
		if rep.MaxInFlight != int64(l.Clients) || rep.MaxQueued < 400 {
			t.Errorf("at most %d in flight and %d queued, want %d and some 600", rep.MaxInFlight, rep.MaxQueued, l.Clients)
		}
	})
}

func TestSameSeedSameOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain := func(ops []history.Op) (rows []string) {
			for _, op := range ops {
				if op.Phase != "" {
					continue
				}
				value := ""
				if op.Value != nil {
					value = *op.Value
				}
				rows = append(rows, fmt.Sprint(op.ID, op.Key, op.Kind, value, op.Due))
			}
			slices.Sort(rows)
			return rows
		}
		_, a := offer(t, &store{}, someLoad, time.Second)
		_, b := offer(t, &store{}, someLoad, time.Second)
		if diff := cmp.Diff(plain(a), plain(b)); diff != "" || len(a) < 1800 {
			t.Errorf("%d operations (-first +second):\n%s", len(a), diff)
		}
	})
}

func TestClientGoesOnUnderANewNumberAfterUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := someLoad
		l.Clients = 3
		s := &store{before: func(n int, _ history.Request) (history.Reply, bool) {
			if n%100 == 0 {
				return history.Reply{Outcome: history.Unknown, Node: "n2", Err: errors.New("no answer")}, true
			}
			if n%150 == 1 {
				return history.Reply{Outcome: history.Fail, Node: "n2", Err: errors.New("refused")}, true
			}
			return history.Reply{}, false
		}}
		rep, ops := offer(t, s, l, time.Second)
		if rep.Unknown < 10 || rep.Fail < 5 {
			t.Errorf("report = %+v, want some unknown and failed", rep)
		}
		ended := map[int]int64{} // client → return of its last operation
		dead := map[int]bool{}
		for _, op := range ops {
			if dead[op.Client] {
				t.Fatalf("client %d goes on after an unknown operation", op.Client)
			}
			if op.Call < ended[op.Client] {
				t.Fatalf("client %d: operation %d called before the last one returned", op.Client, op.ID)
			}
			ended[op.Client] = op.Return
			dead[op.Client] = op.Outcome == history.Unknown
			if (op.Outcome == history.OK) != (op.Error == "") {
				t.Fatalf("operation %d is %s because of %q", op.ID, op.Outcome, op.Error)
			}
		}
	})
}

func TestFullQueueDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := someLoad
		l.Clients, l.Rate, l.Timeout = 2, 100_000, 100*time.Millisecond
		s := &store{before: func(int, history.Request) (history.Reply, bool) {
			time.Sleep(2 * time.Second)
			return history.Reply{}, false
		}}
		rep, ops := offer(t, s, l, time.Second)
		if rep.Dropped == 0 || rep.Sent+rep.Dropped+rep.Unsent != rep.Offered {
			t.Errorf("report = %+v: want drops, and nothing unaccounted for", rep)
		}
		unsent := int64(0)
		for _, op := range ops {
			if op.Outcome == history.Fail && strings.HasPrefix(op.Error, "not sent") {
				unsent++
			}
		}
		if unsent != rep.Unsent || unsent == 0 {
			t.Errorf("%d unsent operations in the history, %d reported", unsent, rep.Unsent)
		}
	})
}

func TestClosedLoopSendsWhenAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := someLoad
		l.Closed, l.Rate, l.Clients = true, 0, 5
		s := &store{before: func(int, history.Request) (history.Reply, bool) {
			time.Sleep(10 * time.Millisecond)
			return history.Reply{}, false
		}}
		rep, ops := offer(t, s, l, time.Second)
		if rep.OK < 490 || rep.OK > 510 || rep.Offered != rep.OK {
			t.Errorf("report = %+v, want 500 operations", rep)
		}
		for _, op := range ops {
			if op.Due != op.Call {
				t.Fatalf("operation %d due at %d, called at %d", op.ID, op.Due, op.Call)
			}
		}
	})
}

func TestInterruptedLoadEndsSoonAndAccountsForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		l := someLoad
		l.Clients = 2
		s := &store{before: func(int, history.Request) (history.Reply, bool) {
			time.Sleep(100 * time.Millisecond)
			return history.Reply{}, false
		}}
		spec := Spec{Zero: clock.Raw(), Load: l, Seed: 1, End: time.Hour, Endpoints: []Endpoint{{}}}
		p, err := newPool(ctx, spec, s, history.NewRecorder(io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		rep, err := p.run(ctx, sleepUntil, nil)
		if took := time.Since(began); took > 700*time.Millisecond || err != nil {
			t.Errorf("ended after %v, %v", took, err)
		}
		if rep.Unsent == 0 || rep.Sent+rep.Unsent != rep.Offered {
			t.Errorf("report = %+v: want the rest unsent", rep)
		}
	})
}

func TestFullDiskEndsTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := Spec{Zero: clock.Raw(), Load: someLoad, Seed: 1, End: time.Hour, Endpoints: []Endpoint{{}}}
		r, w := io.Pipe()
		r.CloseWithError(errors.New("no space left on device"))
		p, err := newPool(t.Context(), spec, &store{}, history.NewRecorder(w))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.run(t.Context(), sleepUntil, nil); err == nil || !strings.Contains(err.Error(), "no space") {
			t.Errorf("error = %v, want the full disk", err)
		}
	})
}

// The history of real operations replayed: what a key holds is what reads and
// cas saw, in short form.
func TestHistoryHoldsShortValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := someLoad
		l.Keys, l.Clients = 3, 1
		_, ops := offer(t, &store{}, l, time.Second)
		state := map[string]*string{}
		swapped := 0
		for _, op := range ops {
			old := state[op.Key]
			switch op.Kind {
			case history.Put, history.Delete:
				state[op.Key] = op.Value
			case history.Append:
				v := *op.Value
				if old != nil {
					v = *old + v
				}
				state[op.Key] = &v
			case history.CAS:
				if op.Swapped {
					state[op.Key] = op.Value
					swapped++
				}
				if op.Swapped != (old != nil && *old == *op.Expect) {
					t.Fatalf("operation %d: swapped %v though expected %q and found %v", op.ID, op.Swapped, *op.Expect, old)
				}
				fallthrough
			case history.Get:
				if diff := cmp.Diff(old, op.Result); diff != "" {
					t.Fatalf("operation %d of %s (-written +read):\n%s", op.ID, op.Key, diff)
				}
			}
		}
		if n := len(ops); n < 1500 || ops[n-1].Phase != "final" || ops[n-3].Phase != "" {
			t.Errorf("%d operations, the last in phase %q", n, ops[n-1].Phase)
		}
		if swapped == 0 {
			t.Error("no cas ever swapped")
		}
	})
}

func TestFinalReadsGoOnUntilAnsweredAndNameWhatDidNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		s.before = func(n int, req history.Request) (history.Reply, bool) {
			if req.Key == "k1" || n < 5 {
				return history.Reply{Outcome: history.Fail, Err: errors.New("no leader")}, true
			}
			return history.Reply{}, false
		}
		var spool bytes.Buffer
		spec := Spec{Zero: clock.Raw(), Load: someLoad, Seed: 1, End: time.Second, Endpoints: []Endpoint{{}}}
		p, err := newPool(t.Context(), spec, s, history.NewRecorder(&spool))
		if err != nil {
			t.Fatal(err)
		}
		missing, err := p.finalReads(t.Context(), s, []string{"k0", "k1", "k2"}, time.Second)
		if diff := cmp.Diff([]string{"k1"}, missing); diff != "" || err != nil {
			t.Errorf("missing: %v\n%s", err, diff)
		}
		outcomes := map[string]history.Outcome{}
		for op, err := range history.ReadSpool(bytes.NewReader(spool.Bytes()), int64(spool.Len())) {
			if err != nil || op.Phase != "final" {
				t.Fatalf("%+v, %v", op, err)
			}
			outcomes[op.Key] = op.Outcome
		}
		want := map[string]history.Outcome{"k0": "ok", "k1": "fail", "k2": "ok"}
		if diff := cmp.Diff(want, outcomes); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCalibrateFindsWhatTheTargetSustains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := someLoad
		l.Clients = 10
		s := &store{before: func(int, history.Request) (history.Reply, bool) {
			time.Sleep(10 * time.Millisecond)
			return history.Reply{}, false
		}}
		var spool bytes.Buffer
		p, err := newPool(t.Context(), Spec{Load: l, Endpoints: []Endpoint{{}}}, s, history.NewRecorder(&spool))
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.calibrate(t.Context(), 3*time.Second)
		if err != nil || got < 950 || got > 1050 {
			t.Errorf("calibrated %v/s, %v; want 1000/s", got, err)
		}
		for key := range s.values {
			if !strings.HasPrefix(key, "cal") {
				t.Fatalf("calibration wrote key %q of the load", key)
			}
		}
		s.before = func(int, history.Request) (history.Reply, bool) {
			time.Sleep(10 * time.Millisecond)
			return history.Reply{Outcome: history.Fail, Err: errors.New("no leader")}, true
		}
		if _, err := p.calibrate(t.Context(), time.Second); err == nil || !strings.Contains(err.Error(), "no leader") {
			t.Errorf("error = %v, want the reason", err)
		}
	})
}

// What a killed generator leaves is completed from the plan: every write that
// may have been sent is there, and what was recorded is untouched.
func TestRecoverAddsWhatMayHaveBeenSent(t *testing.T) {
	for _, closed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			l := someLoad
			if l.Closed = closed; closed {
				l.Rate = 0
			}
			var spool bytes.Buffer
			spec := Spec{
				Zero: clock.Raw(), Load: l, Seed: 5, End: time.Second, Endpoints: []Endpoint{{}},
				Spool: filepath.Join(dir, "history.bin"), History: filepath.Join(dir, "history.jsonl"),
			}
			s := &store{before: func(int, history.Request) (history.Reply, bool) {
				time.Sleep(3 * time.Millisecond)
				return history.Reply{}, false
			}}
			p, err := newPool(t.Context(), spec, s, history.NewRecorder(&spool))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.run(t.Context(), sleepUntil, nil); err != nil {
				t.Fatal(err)
			}
			cut := spool.Len() * 2 / 3
			if err := os.WriteFile(spec.Spool, spool.Bytes()[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Recover(spec); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(spec.History)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := history.ReadAll(f)
			if err != nil {
				t.Fatal(err)
			}
			recorded := map[int64]history.Op{}
			for op := range history.ReadSpool(bytes.NewReader(spool.Bytes()[:cut]), int64(cut)) {
				if op.ID != 0 {
					recorded[op.ID] = op
				}
			}
			writes := map[string]bool{}
			lost, last := 0, int64(0)
			for _, op := range got {
				if op.Call < last {
					t.Fatalf("operation %d is out of order", op.ID)
				}
				last = op.Call
				if op.Value != nil {
					writes[*op.Value] = true
				}
				if want, ok := recorded[op.ID]; ok {
					if diff := cmp.Diff(want, op); diff != "" {
						t.Fatal(diff)
					}
					delete(recorded, op.ID)
					continue
				}
				if lost++; op.Outcome != history.Unknown || op.Kind == history.Get {
					t.Fatalf("added %+v", op)
				}
			}
			if lost == 0 || len(recorded) != 0 {
				t.Errorf("%d lost operations added, %d recorded ones missing", lost, len(recorded))
			}
			for _, op := range got {
				if op.Result == nil {
					continue
				}
				for _, token := range strings.FieldsFunc(strings.ReplaceAll(*op.Result, "+", " +"), func(r rune) bool { return r == ' ' }) {
					if !writes[token] {
						t.Fatalf("operation %d read %q, which nobody is known to have written", op.ID, token)
					}
				}
			}
		})
	}
}

func TestReasonIsOneBoundedLine(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"an empty error", "", "no reason given"},
		{"several lines", "a\n\tb\r\nc", "a b c"},
		{"text that is not UTF-8", "a\xff", "a?"},
		{"a long one, cut within a character", strings.Repeat("x", 199) + "éé", strings.Repeat("x", 199) + "…"},
	} {
		if got := reason(errors.New(tt.in)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestALoadSaysWhenItStoodStillItself has the pacer sleep for too long once.
func TestALoadSaysWhenItStoodStillItself(t *testing.T) {
	const at, long = 300 * time.Millisecond, 400 * time.Millisecond
	light, s := someLoad, &store{}
	light.Rate, light.Clients = 200, 4
	spec := Spec{
		Zero: clock.Raw() + int64(10*time.Millisecond), Load: light,
		Seed: 42, Rate: 200, End: time.Second, Endpoints: []Endpoint{{Node: "n1"}},
	}
	p, err := newPool(t.Context(), spec, s, history.NewRecorder(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	slept := false
	rep, err := p.run(t.Context(), func(ctx context.Context, until time.Time) error {
		if !slept && !until.Before(p.clock.Time(at)) {
			slept = true
			until = until.Add(long)
		}
		return sleepUntil(ctx, until)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(rep.Still, func(s Still) bool { return s.Start <= int64(at+50*time.Millisecond) && s.End >= int64(at+long) })
	if i < 0 {
		t.Errorf("still = %+v, want one from %v to %v", rep.Still, at, at+long)
	}
	got, _ := rep.Data()["still"].([]any)
	if len(got) != len(rep.Still) {
		t.Errorf("event data has still = %v", got)
	}
}
