package kvserver

import (
	"encoding/json"
	"testing"
	"time"
)

func TestWallClockSkew(t *testing.T) {
	var c wallClock
	ask := func(body string) error {
		_, err := c.serve(t.Context(), json.RawMessage(body))
		return err
	}
	at := time.Now()
	if got := c.at(at); got != at {
		t.Errorf("a clock that nobody set shows %v at %v", got, at)
	}
	for _, bad := range []string{"x", `{"rate":-1}`, `{"rate":11}`, `{"offset_ns":9000000000000000000}`} {
		if ask(bad) == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if err := ask(`{"offset_ns":-5000000000}`); err != nil {
		t.Fatal(err)
	}
	if got := c.at(at).Sub(at.Round(0)); got != -5*time.Second {
		t.Errorf("it is off by %v, want -5s", got)
	}
	if err := ask(`{"rate":0.5}`); err != nil {
		t.Fatal(err)
	}
	since := c.skew.Load().since
	if got := c.at(since.Add(10*time.Second)).Sub(since.Round(0)) - 10*time.Second; got != 5*time.Second {
		t.Errorf("in 10s it gained %v, want 5s", got)
	}
	c.skew.Store(&clockSkew{since: time.Now().Add(-10 * time.Second), rate: 0.5})
	if err := ask(`{"rate":-0.5}`); err != nil {
		t.Fatal(err)
	}
	if got := c.skew.Load().offset; got < 5*time.Second || got > 10*time.Second {
		t.Errorf("what it had gained at another rate became %v, want a little more than 5s", got)
	}
	if err := ask(`{}`); err != nil {
		t.Fatal(err)
	}
	if got := c.at(at); got != at {
		t.Errorf("a clock that is right again shows %v at %v", got, at)
	}
}

// TestALeaseOfASkewedClockOutlivesItself: what a clock that is set back does to
// leases, and what a monotonic one prevents.
func TestALeaseOfASkewedClockOutlivesItself(t *testing.T) {
	f := &confirmer{c: Config{Lease: Duration(100 * time.Millisecond)}, need: 1, clock: new(wallClock)}
	sent := time.Now()
	f.peers = []*peerProbe{{sent: f.clock.at(sent)}}
	later := sent.Add(time.Second)
	if f.leased(f.clock.at(later)) {
		t.Error("a lease of 100ms held for a second")
	}
	f.clock.skew.Store(&clockSkew{since: sent, offset: -10 * time.Second})
	if !f.leased(f.clock.at(later)) {
		t.Error("a clock that was set back by 10s did not prolong the lease")
	}
}
