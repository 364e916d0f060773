package judge

import (
	"slices"
	"strconv"

	"brownout/internal/expect"
	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/internal/stats"
	"brownout/kvserver/slots"
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

// of returns whether an operation is one of ops.
func (rec *record) of(ops expect.Ops) func(o *history.Op) bool {
	shards := rec.plan.Target.Shards()
	shard, err := strconv.Atoi(ops.Shard)
	return func(o *history.Op) bool {
		return (ops.Kind == allKinds || ops.Kind == string(o.Kind)) && (err != nil || slots.ShardOf(o.Key, shards) == shard)
	}
}

func (rec *record) quantile(ops expect.Ops, service bool, q float64, spans []expect.Span) (ns, n int64) {
	var h stats.Hist
	of := rec.of(ops)
	for i := range rec.ops {
		o := &rec.ops[i]
		if !of(o) || !in(spans, o.Due) {
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

func (rec *record) count(ops expect.Ops, spans []expect.Span) expect.Counts {
	var c expect.Counts
	of := rec.of(ops)
	for i := range rec.ops {
		o := &rec.ops[i]
		if !of(o) || !in(spans, o.Due) {
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

func (rec *record) completed(ops expect.Ops, spans []expect.Span) int64 {
	n := int64(0)
	of := rec.of(ops)
	for i := range rec.ops {
		if o := &rec.ops[i]; o.Outcome == history.OK && of(o) && in(spans, o.Return) {
			n++
		}
	}
	return n
}

// leaderChanges returns when a leader of another term, or another node, took
// over, by shard, from the start of the workload on. The first election is no change.
func (rec *record) leaderChanges() (out []change) {
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
			out = append(out, change{e.T, strconv.Itoa(int(shard))})
		}
		last[shard] = now
	}
	return out
}

// A change of a shard's leader.
type change struct {
	at    int64
	shard string
}

func (rec *record) changesIn(shard string, spans []expect.Span) int {
	n := 0
	for _, c := range rec.leaderChanges() {
		if in(spans, c.at) && (shard == "" || shard == c.shard) {
			n++
		}
	}
	return n
}
