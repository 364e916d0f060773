// Package faults makes nodes and links of a cluster slow or broken, and proves that it did.
//
// A fault is a row of a table: its kind, the providers that can give it in
// order of preference, and the meter that measures it without trusting them.
// The eight steps of a fault's life (Probe, Setup, Inject, Measure, Hold, Heal,
// VerifyHealed, Teardown) are written once, in the [Nemesis]; a new fault
// writes two short methods and a row.
package faults

import (
	"context"

	"brownout/internal/plan"
	"brownout/internal/sys/unsupported"
)

// A Dose is how much of a fault is asked for; see [plan.Kinds] for the names.
type Dose = plan.Params

// A Link is a directed pair of endpoints.
type Link struct{ From, To string }

// A Site is where a fault is applied: nodes, or directed links between endpoints.
type Site struct {
	Nodes []string
	Links []Link
}

// A Reading is one measurement of a dose.
type Reading struct {
	// Values are named with their unit as doses are: p50_ns, n, percent, bits_per_s, ...
	// They are written to the run as they are.
	Values map[string]any
}

// A Provider is one mechanism that can give faults of one kind.
type Provider interface {
	// Probe reports whether this host can do it: nil if it can, an error that
	// is [errors.ErrUnsupported] if it cannot, any other error if the probe
	// itself failed and nothing is known.
	Probe(ctx context.Context) error

	// Inject applies d at site. On error, nothing stays applied.
	Inject(ctx context.Context, site Site, d Dose) (Injection, error)
}

// An Injection is one fault in force.
//
// One that comes to an end by itself (a single pause) may have a method
// Done() <-chan struct{} that says when; such a fault needs no end of its own.
type Injection interface {
	// Set changes the dose in place. Ramps and flapping are repeated Sets.
	Set(ctx context.Context, d Dose) error

	// Heal ends the fault. Healing twice is no error. It must not depend on
	// Inject's ctx, which may have ended.
	Heal(ctx context.Context) error
}

// A finite injection ends by itself.
type finite interface{ Done() <-chan struct{} }

// A Meter measures a dose without trusting the provider that gave it. One
// meter lives as long as its fault: it reads before the injection (its own
// baseline), during it, and after the heal.
type Meter interface {
	// Baseline takes the reading that the others are compared with.
	Baseline(ctx context.Context) (Reading, error)

	// Measure observes until ctx ends or enough was seen, whichever is first,
	// and says whether the fault bit: whether what was observed beyond the
	// baseline is the dose within the meter's tolerance, and why. It may be
	// called again while the fault holds; all that it saw then counts together.
	// The end of ctx is no error.
	Measure(ctx context.Context, d Dose) (Reading, Answer, error)

	// Healed observes shortly and says whether the fault is gone.
	Healed(ctx context.Context) (Reading, Answer, error)

	Close() error
}

// An Answer is a meter's yes or no with its reason.
type Answer struct {
	Yes bool
	Why string
}

// Unsupported says that this host cannot give a fault, why, and what would
// help. It matches [errors.ErrUnsupported].
type Unsupported = unsupported.Error
