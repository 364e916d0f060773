package workload

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"brownout/internal/clock"
	"brownout/internal/history"
)

// A suspect checker objects to every operation from the nth on.
type suspect struct{ n int }

func (s *suspect) Add(*history.Op) (string, bool) {
	s.n--
	return "because", s.n <= 0
}

// TestAViolationEndsTheLoad at once: it is told of while an operation is still in flight.
func TestAViolationEndsTheLoad(t *testing.T) {
	NewChecker = func() Checker { return &suspect{n: 10} }
	t.Cleanup(func() { NewChecker = nil })
	synctest.Test(t, func(t *testing.T) {
		const stuck = 700 * time.Millisecond
		s := &store{before: func(n int, _ history.Request) (history.Reply, bool) {
			if n == 1 {
				time.Sleep(stuck)
			}
			return history.Reply{}, false
		}}
		spec := Spec{Zero: clock.Raw(), Load: someLoad, Seed: 1, End: time.Hour, Endpoints: []Endpoint{{}}, Watch: true}
		p, err := newPool(t.Context(), spec, s, history.NewRecorder(io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		var told []Violation
		var at time.Time
		rep, err := p.run(t.Context(), sleepUntil, func(n News) {
			if n.Violation != nil {
				told, at = append(told, *n.Violation), time.Now()
			}
		})
		if err != nil || len(told) != 1 || told[0].Text != "because" || told[0].Found < told[0].Returned {
			t.Fatalf("told of %+v, %v", told, err)
		}
		if waited := time.Since(at); waited < stuck/2 {
			t.Errorf("told only %v before the last answer", waited)
		}
		if rep.Sent < 10 || rep.Sent > 10+int64(someLoad.Clients) {
			t.Errorf("%d operations sent, want 10 and what was in flight", rep.Sent)
		}
	})
}
