// Package faultstest is what every provider of a fault must pass: it probes,
// bites, changes its dose, heals, heals twice, and leaves nothing.
//
// It believes no provider: a meter says whether the fault is there and whether
// it is gone. It does not test meters; those see nothing bite in their own
// tests (sabotage).
package faultstest

import (
	"context"
	"testing"
	"time"

	"brownout/faults"
)

// A Subject is a provider in a place where it can work.
type Subject struct {
	Provider faults.Provider
	Meter    func(faults.Site, faults.Dose) (faults.Meter, error)
	Site     faults.Site
	Dose     faults.Dose
	Changed  faults.Dose   // in place of Dose while in force; nil if the fault cannot change
	Nowhere  faults.Site   // where it cannot be injected
	Hold     time.Duration // that the meter needs for a reading
	Residue  func() string // what is left of it, "" for nothing
}

// healWithin bounds a heal and the proof of it.
const healWithin = 20 * time.Second

// Conform tests a provider. It takes a few times Hold.
func Conform(t *testing.T, s Subject) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*s.Hold+2*healWithin)
	defer cancel()
	if err := s.Provider.Probe(ctx); err != nil {
		t.Fatalf("Probe = %v, want nil", err)
	}
	if _, err := s.Provider.Inject(ctx, s.Nowhere, s.Dose); err == nil {
		t.Errorf("Inject at %v succeeded", s.Nowhere.Names())
	}
	left(t, s, "a failed Inject")

	first, second := open(ctx, t, s, s.Dose), faults.Meter(nil)
	if s.Changed != nil { // before the injection: its baseline must be healthy
		second = open(ctx, t, s, s.Changed)
	}
	begun := time.Now()
	inj, err := s.Provider.Inject(ctx, s.Site, s.Dose)
	if err != nil {
		t.Fatalf("Inject = %v", err)
	}
	t.Logf("took      %v to inject", time.Since(begun).Round(100*time.Microsecond))
	healed := false
	defer func() {
		if !healed {
			heal(t, inj)
		}
	}()
	bites(ctx, t, s, first, s.Dose, "injected")
	if s.Changed != nil {
		if err := inj.Set(ctx, s.Changed); err != nil {
			t.Errorf("Set = %v", err)
		}
		bites(ctx, t, s, second, s.Changed, "changed")
	}
	heal(t, inj)
	gone(ctx, t, first)
	heal(t, inj)
	healed = true
	left(t, s, "a heal")

	// One whose context has ended must not stay behind unseen.
	over, stop := context.WithCancel(ctx)
	stop()
	if inj, err := s.Provider.Inject(over, s.Site, s.Dose); err == nil {
		heal(t, inj)
	}
	gone(ctx, t, first)
	left(t, s, "an Inject that was interrupted")
}

func open(ctx context.Context, t *testing.T, s Subject, d faults.Dose) faults.Meter {
	t.Helper()
	m, err := s.Meter(s.Site, d)
	if err != nil {
		t.Fatalf("meter: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	r, err := m.Baseline(ctx)
	if err != nil {
		t.Fatalf("baseline: %v", err)
	}
	t.Logf("baseline  %v", r.Values)
	return m
}

// bites looks again if it has to: the host may have been busy.
func bites(ctx context.Context, t *testing.T, s Subject, m faults.Meter, d faults.Dose, what string) {
	t.Helper()
	const tries = 3
	for try := range tries {
		look, cancel := context.WithTimeout(ctx, s.Hold)
		r, answer, err := m.Measure(look, d)
		cancel()
		t.Logf("%-9s %v\n  %s", what, r.Values, answer.Why)
		if err == nil && answer.Yes {
			return
		}
		if try == tries-1 {
			t.Errorf("%s %v: the meter says no: %s (%v)", what, d, answer.Why, err)
		}
	}
}

func heal(t *testing.T, inj faults.Injection) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), healWithin)
	defer cancel()
	begun := time.Now()
	if err := inj.Heal(ctx); err != nil {
		t.Errorf("Heal = %v", err)
	}
	t.Logf("took      %v to heal", time.Since(begun).Round(100*time.Microsecond))
}

func gone(ctx context.Context, t *testing.T, m faults.Meter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, healWithin)
	defer cancel()
	for {
		r, answer, err := m.Healed(ctx)
		if err == nil && answer.Yes {
			t.Logf("healed    %v\n  %s", r.Values, answer.Why)
			return
		}
		if ctx.Err() != nil {
			t.Errorf("not healed: %s (%v)", answer.Why, err)
			return
		}
	}
}

func left(t *testing.T, s Subject, after string) {
	t.Helper()
	if r := s.Residue(); r != "" {
		t.Errorf("left after %s: %s", after, r)
	}
}
