package faults

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// A Row says of one kind of fault what this host can do, or how exactly it did
// it. `brownout doctor` and `brownout calibrate` print rows.
type Row struct {
	Kind        string  `json:"kind"`
	Provider    string  `json:"provider"`
	Requested   string  `json:"requested"`
	MeasuredP50 string  `json:"measured_p50"`
	MeasuredP99 string  `json:"measured_p99"`
	Sigma       string  `json:"sigma"` // of what was measured; of a share, its standard error
	N           int     `json:"n"`
	ErrorPct    float64 `json:"error_pct"`
	SigmaPct    float64 `json:"sigma_pct"` // of a share that was counted: the standard error of ErrorPct
	ErrorNS     int64   `json:"error_ns"`  // of a time
	InjectNS    int64   `json:"inject_ns"` // how long it took to put in force,
	HealNS      int64   `json:"heal_ns"`   // and to take away; in both, the target's own start:
	InjectUpNS  int64   `json:"inject_up_ns"`
	HealUpNS    int64   `json:"heal_up_ns"`
	Verdict     string  `json:"verdict"` // ok, off, unavailable
	Why         string  `json:"why"`
	Cure        string  `json:"cure"`
	Others      Names   `json:"other_providers"` // that work here as well
}

// Names are a list that is never null in JSON.
type Names []string

// MarshalJSON writes a list.
func (n Names) MarshalJSON() ([]byte, error) {
	if n == nil {
		n = Names{}
	}
	return json.Marshal([]string(n))
}

// Goals of a dose: its error, of a time also in absolute terms, of pauses others;
// and how long it may take to put it in force, or to take it away, besides what
// the target itself takes from the birth of its process until it is ready.
const (
	GoalPct       = 5.0
	GoalTime      = 200 * time.Microsecond
	GoalPausePct  = 3.0
	GoalPauseTime = 5 * time.Millisecond
	GoalChange    = 50 * time.Millisecond
)

// goal is what the dose of a row may be off by.
func (r Row) goal() (pct float64, least time.Duration) {
	switch r.Kind {
	case "process.pause", "gc.pause", "memory.stall":
		return GoalPausePct, GoalPauseTime
	}
	return GoalPct, GoalTime
}

// chance is what chance alone may add to the error of a share, in 95 of 100
// samples of this size.
func (r Row) chance() float64 { return 2 * r.SigmaPct }

// hit reports whether the dose was as exact as it is to be.
func (r Row) hit() bool {
	pct, least := r.goal()
	return math.Abs(r.ErrorPct) <= pct || r.ErrorNS != 0 && time.Duration(r.ErrorNS).Abs() <= least
}

// Unshown says why a measured row shows neither that the dose is as exact as it
// is to be nor that it is not, "" if it shows one of them.
func (r Row) Unshown() string {
	pct, _ := r.goal()
	if r.Verdict == RowUnavailable || r.chance() == 0 || !r.hit() && math.Abs(r.ErrorPct)-r.chance() > pct {
		return ""
	}
	if r.hit() && r.chance() <= pct*1.02 { // the sample is as large as it was asked for, give or take
		return ""
	}
	return fmt.Sprintf("%+.1f %% off, to which chance adds up to ±%.1f %% in a sample of %d", r.ErrorPct, r.chance(), r.N)
}

// Missed says in what a measured row misses the goals, "" if in nothing.
func (r Row) Missed() string {
	var out []string
	late := func(what string, ns int64) {
		if d := time.Duration(ns); d > GoalChange {
			out = append(out, fmt.Sprintf("%s took %s", what, short(d)))
		}
	}
	switch {
	case r.Verdict == RowUnavailable:
		return ""
	case !r.hit() && r.Unshown() == "":
		out = append(out, fmt.Sprintf("dose off by %+.1f %%", r.ErrorPct))
	case r.Verdict == RowOff:
		out = append(out, "the meter says no")
	}
	late("injection", r.InjectNS-r.InjectUpNS)
	late("heal", r.HealNS-r.HealUpNS)
	return strings.Join(out, ", ")
}

// Verdicts of a Row.
const (
	RowOK          = "ok"
	RowOff         = "off"         // measured outside the meter's tolerance
	RowUnavailable = "unavailable" // no provider works here
)
