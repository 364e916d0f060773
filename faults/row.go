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
	ErrorNS     int64   `json:"error_ns"`  // of a time
	InjectNS    int64   `json:"inject_ns"` // how long it took to put in force,
	HealNS      int64   `json:"heal_ns"`   // and to take away
	Verdict     string  `json:"verdict"`   // ok, off, unavailable
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

// Goals of a dose: its error, of a time also in absolute terms; and how long it
// may take to put it in force, or to take it away.
const (
	GoalPct    = 5.0
	GoalTime   = 200 * time.Microsecond
	GoalChange = 50 * time.Millisecond
)

// Missed says in what a measured row misses the goals, "" if in nothing.
func (r Row) Missed() string {
	var out []string
	late := func(what string, ns int64) {
		if d := time.Duration(ns); d > GoalChange {
			out = append(out, fmt.Sprintf("%s took %s", what, short(d)))
		}
	}
	small := r.ErrorNS != 0 && time.Duration(r.ErrorNS).Abs() <= GoalTime
	switch {
	case r.Verdict == RowUnavailable:
		return ""
	case math.Abs(r.ErrorPct) > GoalPct && !small:
		out = append(out, fmt.Sprintf("dose off by %+.1f %%", r.ErrorPct))
	case r.Verdict == RowOff:
		out = append(out, "the meter says no")
	}
	late("injection", r.InjectNS)
	late("heal", r.HealNS)
	return strings.Join(out, ", ")
}

// Verdicts of a Row.
const (
	RowOK          = "ok"
	RowOff         = "off"         // measured outside the meter's tolerance
	RowUnavailable = "unavailable" // no provider works here
)
