package judge

import (
	"slices"

	"brownout/internal/expect"
	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/internal/stats"
)

// numbersOf gives the sentences of expect what they ask for, always computed
// from the operations themselves.
func (j *judgement) numbersOf() expect.Numbers {
	n := expect.Numbers{
		Quantile: j.rec.quantile, Count: j.rec.count, Completed: j.rec.completed, LeaderChanges: j.rec.changesIn,
		Phases: j.res.Phases, Consistency: j.res.Consistency, Durability: j.res.Durability,
	}
	for _, f := range j.res.Faults {
		n.Faults = append(n.Faults, expect.Fault{Fault: f, Fired: j.rec.fired(f.ID)})
	}
	return n
}

func (rec *record) fired(id string) bool {
	return slices.ContainsFunc(rec.events, func(e run.Event) bool { return e.Type == run.FaultFired && e.Fault == id })
}

func in(spans []expect.Span, t int64) bool {
	return slices.ContainsFunc(spans, func(s expect.Span) bool { return t >= s.Start && t < s.End })
}

func of(op string, o *history.Op) bool { return op == allKinds || op == string(o.Kind) }

func (rec *record) quantile(op string, service bool, q float64, spans []expect.Span) (ns, n int64) {
	var h stats.Hist
	for i := range rec.ops {
		o := &rec.ops[i]
		if !of(op, o) || !in(spans, o.Due) {
			continue
		}
		if service {
			h.Record(o.Return - o.Call)
		} else {
			h.Record(o.Return - o.Due)
		}
	}
	return h.Quantile(q), h.N()
}

func (rec *record) count(op string, spans []expect.Span) expect.Counts {
	var c expect.Counts
	for i := range rec.ops {
		o := &rec.ops[i]
		if !of(op, o) || !in(spans, o.Due) {
			continue
		}
		switch o.Outcome {
		case history.OK:
			c.OK++
		case history.Fail:
			c.Fail++
		default:
			c.Unknown++
		}
	}
	return c
}

func (rec *record) completed(op string, spans []expect.Span) int64 {
	n := int64(0)
	for i := range rec.ops {
		if o := &rec.ops[i]; o.Outcome == history.OK && of(op, o) && in(spans, o.Return) {
			n++
		}
	}
	return n
}

// leaderChanges returns when a leader of another term, or another node, took
// over, from the start of the workload on. The first election is no change.
func (rec *record) leaderChanges() []int64 {
	var at []int64
	type reign struct {
		node string
		term float64
	}
	last := map[float64]reign{} // by shard
	for _, e := range sortedEvents(rec.events) {
		if e.Type != run.LeaderChanged || e.Node == "" {
			continue
		}
		shard, now := number(e.Data, "shard"), reign{e.Node, number(e.Data, "term")}
		if was, led := last[shard]; led && now != was && e.T >= 0 {
			at = append(at, e.T)
		}
		last[shard] = now
	}
	return at
}

func (rec *record) changesIn(spans []expect.Span) int {
	n := 0
	for _, t := range rec.leaderChanges() {
		if in(spans, t) {
			n++
		}
	}
	return n
}
