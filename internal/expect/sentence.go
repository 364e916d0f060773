// Package expect reads the sentences of a scenario's expect list and judges
// them by a run's numbers.
//
// A sentence compares one number with one limit over one period, or names a
// check that is made anyway. Judging has three answers: a sentence about a
// fault that never fired or did not bite, or about too few operations, is
// inconclusive and never passes. The package computes no numbers itself and
// knows neither files nor time.
package expect

import (
	"strconv"
	"strings"
	"time"

	"brownout/internal/quantity"
)

// A Check is what kind of sentence it is.
type Check string

// Checks.
const (
	Compare      Check = "compare"
	Linearizable Check = "linearizable"
	Durable      Check = "no acknowledged write is lost"
	Diagnosis    Check = "diagnosis"
)

// A Sentence is one expectation. Sentences are comparable: two that mean the
// same are equal and print the same.
type Sentence struct {
	Check  Check
	Metric Metric // of Compare
	Period Period // of Compare and Diagnosis
	Cmp    string // of Compare: < <= > >= =
	Limit  Limit  // of Compare

	Culprit string // of Diagnosis: network, cpu, ..., none
	At      string // of Diagnosis: a role, a node, or "" for anywhere
}

// A Metric is a number of a run.
type Metric struct {
	Name    string // p50, p90, p99, p999, max, throughput, errors, unknown, fails, leader_changes, time_to_recover
	Op      string // get, put, ..., all; "" where it has no meaning
	Service bool   // latency from call to return; else from due to return
	Shard   string // only operations on keys of this shard, or its leaders; "" for all
	Fault   string // of time_to_recover: a kind or an id
}

// A Place says what Period.Name is.
type Place string

// Places.
const (
	InPhase     Place = "in"     // warmup, baseline, fault, recovery, run
	DuringFault Place = "during" // a kind or an id
)

// A Period is when a metric counts. The zero value means from the first
// fault's start to the last one's end: the phase named fault.
type Period struct {
	Place Place
	Name  string
}

// Form says how a limit is written.
type Form string

// Forms of a limit.
const (
	Time    Form = "duration" // 20ms
	Ratio   Form = "ratio"    // 3x baseline
	Percent Form = "percent"  // 1%
	Count   Form = "count"    // 0
	Rate    Form = "rate"     // 500/s
)

// A Limit is what a metric is compared with.
type Limit struct {
	Form  Form
	Value float64        // of Percent, Count, Rate
	Time  time.Duration  // of Time
	Ratio quantity.Ratio // of Ratio
}

// Words that sentences are made of.
var (
	quantiles = []string{"p50", "p90", "p99", "p999", "max"}
	counters  = []string{"throughput", "errors", "unknown", "fails"}
	ops       = []string{"get", "put", "cas", "append", "delete", "all"}
	phases    = []string{"warmup", "baseline", "fault", "recovery", "run"}
	compares  = []string{"<", "<=", ">", ">=", "=", "is"}
	culprits  = []string{"network", "cpu", "disk", "gc", "serialization", "throttling", "locks", "downstream", "none"}
	roles     = []string{"leader", "follower"}
)

// quantile returns which quantile a metric is; ok is false if it is none.
func (m Metric) quantile() (q float64, ok bool) {
	switch m.Name {
	case "p50":
		return 0.5, true
	case "p90":
		return 0.9, true
	case "p99":
		return 0.99, true
	case "p999":
		return 0.999, true
	case "max":
		return 1, true
	}
	return 0, false
}

// forms returns how the limit of a metric can be written.
func (m Metric) forms() []Form {
	switch m.Name {
	case "throughput":
		return []Form{Ratio, Rate}
	case "errors", "unknown", "fails":
		return []Form{Count, Percent}
	case "leader_changes":
		return []Form{Count}
	case "time_to_recover":
		return []Form{Time}
	}
	return []Form{Time, Ratio}
}

// String prints the sentence as [Parse] reads it.
func (s Sentence) String() string {
	switch s.Check {
	case Compare:
		return strings.Join(nonempty(s.Metric.String(), s.Period.String(), s.Cmp, s.Limit.String()), " ")
	case Diagnosis:
		at := ""
		if s.At != "" {
			at = "@" + s.At
		}
		return strings.Join(nonempty("diagnosis", s.Period.String(), "is", s.Culprit+at), " ")
	}
	return string(s.Check)
}

func nonempty(words ...string) []string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

func (m Metric) String() string {
	var b strings.Builder
	if m.Service {
		b.WriteString("service ")
	}
	b.WriteString(m.Name)
	switch {
	case m.Fault != "":
		b.WriteString("(" + m.Fault + ")")
	case m.Op != "" && m.Op != "all":
		b.WriteString("(" + m.Op + ")")
	}
	return b.String() + m.ofShard()
}

func (m Metric) ofShard() string {
	if m.Shard == "" {
		return ""
	}
	return " of shard " + m.Shard
}

func (m Metric) ops() Ops { return Ops{m.Op, m.Shard} }

func (p Period) String() string {
	if p.Name == "" {
		return ""
	}
	return string(p.Place) + " " + p.Name
}

func (l Limit) String() string {
	switch l.Form {
	case Time:
		return quantity.Duration(l.Time)
	case Ratio:
		return l.Ratio.String()
	case Percent:
		return quantity.Percent(l.Value)
	case Rate:
		return quantity.PerSecond(l.Value)
	case Count:
		return strconv.FormatFloat(l.Value, 'f', -1, 64)
	}
	return ""
}

// NeedsBaseline reports whether the sentence compares with the baseline.
func (s Sentence) NeedsBaseline() bool {
	return s.Limit.Form == Ratio || s.Metric.Name == "time_to_recover" || s.Period == Period{InPhase, "baseline"}
}

// Fault returns the kind or id of the fault that the sentence is about, or "".
func (s Sentence) Fault() string {
	if s.Period.Place == DuringFault {
		return s.Period.Name
	}
	return s.Metric.Fault
}

// NeedsFault reports whether the sentence can only be judged if faults fired.
func (s Sentence) NeedsFault() bool {
	switch s.Check {
	case Compare:
		return s.Period != Period{InPhase, "baseline"} && s.Period != Period{InPhase, "warmup"}
	case Diagnosis:
		return true
	}
	return false
}
