package expect

import (
	"cmp"
	"slices"

	"brownout/internal/run"
)

// Ops are the operations that a number is about: a kind (get, put, cas, append,
// delete or all), on the keys of one shard or, where that is "", on all.
type Ops struct{ Kind, Shard string }

// Numbers are what sentences are judged by. Times are ns since the run's zero.
// The functions count operations by the time they were due, without the final
// reads; spans do not overlap.
type Numbers struct {
	// Quantile returns the value that the share q of all operations of spans do
	// not exceed, from the operations themselves (never from other quantiles),
	// and how many there were. service counts from call, else from due.
	Quantile func(ops Ops, service bool, q float64, spans []Span) (ns, n int64)

	// Count returns the outcomes of the operations that were due in spans.
	Count func(ops Ops, spans []Span) Counts

	// Completed returns how many operations came back ok within spans, whenever they were due.
	Completed func(ops Ops, spans []Span) int64

	// LeaderChanges returns how often the leader of a shard changed within spans,
	// or any leader where the shard is "".
	LeaderChanges func(shard string, spans []Span) int

	Phases      []run.Phase // name, start and end are read
	Faults      []Fault     // of the plan, all of them
	Consistency run.Consistency
	Durability  run.Durability
	Diagnosis   run.Diagnosis // Suspects is nil if no diagnosis was made
}

// A Span is the time from Start to before End.
type Span struct{ Start, End int64 }

// Counts are numbers of operations.
type Counts struct{ OK, Fail, Unknown int64 }

// All is the number of operations.
func (c Counts) All() int64 { return c.OK + c.Fail + c.Unknown }

// A Fault is what is known of one fault of the plan.
type Fault struct {
	run.Fault
	Fired bool // Start and End are the times that it was really in force
}

// Union returns spans that cover the same time in order and without overlap.
func Union(spans []Span) []Span {
	sorted := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	var out []Span
	for _, s := range sorted {
		if n := len(out); n > 0 && s.Start <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, s.End)
		} else {
			out = append(out, s)
		}
	}
	return out
}
