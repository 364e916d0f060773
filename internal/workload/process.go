package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"brownout/internal/plan"
)

// A Spec tells the load generator what to do. Times count from the run's zero.
type Spec struct {
	Zero      int64         `json:"zero"` // raw reading of CLOCK_MONOTONIC, ns
	Load      plan.Load     `json:"load"`
	Seed      uint64        `json:"seed"`
	Rate      float64       `json:"rate_per_s"` // where the load is a share of the maximum: what that came to
	Start     time.Duration `json:"start_ns"`
	End       time.Duration `json:"end_ns"`
	Target    string        `json:"target"` // kind, as in [Register]
	Endpoints []Endpoint    `json:"endpoints"`
	Shards    int           `json:"shards"`  // of the target; 0 means 1
	Spool     string        `json:"spool"`   // path of history.bin
	History   string        `json:"history"` // path of history.jsonl
	Watch     bool          `json:"watch"`   // look for contradictions while the load goes on, and end it with the first
}

// maxClients bounds the connections of a load: each is a goroutine and a file.
const maxClients = 10_000

// check says what is wrong with s.
func (s Spec) check() error {
	errs := []error{Check(s.Load)}
	if s.Load.Clients < 1 || s.Load.Clients > maxClients {
		errs = append(errs, fmt.Errorf("clients: %d is not in 1..%d", s.Load.Clients, maxClients))
	}
	if s.Load.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout: %v is not positive", s.Load.Timeout))
	}
	if len(s.Endpoints) == 0 {
		errs = append(errs, errors.New("endpoints: none"))
	}
	if s.Spool == "" {
		errs = append(errs, errors.New("spool: no path"))
	}
	if _, err := dialer(s.Target); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkRun says what is wrong with s for a run of the load.
func (s Spec) checkRun() error {
	err := s.check()
	if !s.Load.Closed && s.Load.Rate <= 0 && !(s.Rate > 0) {
		err = errors.Join(err, fmt.Errorf("rate: %v is not positive", s.Rate))
	}
	return err
}

var dialers = map[string]Dialer{}

// Register makes d the dialer of a kind of target, for the load generator's own
// process, which is told the kind by name. It is called from init functions.
func Register(kind string, d Dialer) { dialers[kind] = d }

func dialer(kind string) (Dialer, error) {
	if d, ok := dialers[kind]; ok {
		return d, nil
	}
	return nil, fmt.Errorf("target: no client for %q", kind)
}

// sleepUntil waits with the runtime's timers, which are late by up to a millisecond.
func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
