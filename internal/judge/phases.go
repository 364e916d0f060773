package judge

import (
	"cmp"
	"math"
	"slices"

	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/internal/stats"
	"brownout/kvserver/slots"
)

// phases returns the run's phases as they began, each until the next, and the
// numbers of each. The last ends with the plan, or with the load if that was
// sooner: an interrupted run.
func (rec *record) phases() []run.Phase {
	out := []run.Phase{}
	for _, e := range sortedEvents(rec.events) {
		if e.Type == run.PhaseStarted && e.Phase != "" {
			if n := len(out); n > 0 {
				out[n-1].End = e.T
			}
			out = append(out, run.Phase{Name: e.Phase, Start: e.T})
		}
	}
	if n := len(out); n > 0 {
		out[n-1].End = max(rec.end(), out[n-1].Start)
	}
	for i := range out {
		out[i].Ops, out[i].Shards = rec.numbers(out[i].Start, out[i].End)
	}
	return out
}

// end is when the load ended: by plan, or before.
func (rec *record) end() int64 {
	end := int64(math.MaxInt64)
	if n := len(rec.plan.Phases); n > 0 {
		end = int64(rec.plan.Phases[n-1].End)
	}
	if e, ok := rec.last(run.Violated); ok { // the load went on only for answers
		end = min(end, e.T)
	}
	if e, ok := rec.last(run.LoadEnded); ok {
		return min(end, e.T)
	}
	for _, e := range rec.events {
		if e.Type == run.RunEnded || e.Type == run.Interrupted {
			end = min(end, e.T)
		}
	}
	if end == math.MaxInt64 {
		end = 0
		for i := range rec.ops {
			end = max(end, rec.ops[i].Return)
		}
	}
	return end
}

// last returns the last event of a type.
func (rec *record) last(t run.EventType) (run.Event, bool) {
	for _, e := range slices.Backward(rec.events) {
		if e.Type == t {
			return e, true
		}
	}
	return run.Event{}, false
}

// A tally collects the operations of one kind in an interval.
type tally struct {
	ok, fail, unknown, done int64
	response, service       stats.Hist
}

func (t *tally) add(o *history.Op) {
	switch o.Outcome {
	case history.OK:
		t.ok++
	case history.Fail:
		t.fail++
	default:
		t.unknown++
	}
	t.response.Record(o.Return - o.Due)
	t.service.Record(o.Return - o.Call)
}

func (t *tally) ops(seconds float64) run.Ops {
	out := run.Ops{OK: t.ok, Fail: t.fail, Unknown: t.unknown, Response: quantiles(&t.response), Service: quantiles(&t.service)}
	if seconds > 0 {
		out.Rate = float64(t.done) / seconds
	}
	return out
}

func quantiles(h *stats.Hist) run.Quantiles {
	return run.Quantiles{P50: h.Quantile(0.5), P90: h.Quantile(0.9), P99: h.Quantile(0.99), P999: h.Quantile(0.999), Max: h.Max(), N: h.N()}
}

// allKinds is the name under which operations of every kind are counted together.
const allKinds = "all"

// numbers counts and times the operations due in [start, end), by kind and
// together, and where there are several, by shard. The rate is of those that completed in it, whenever they were due:
// what was due in a standstill and done after it is no throughput of the standstill.
func (rec *record) numbers(start, end int64) (kinds map[string]run.Ops, shards []run.Ops) {
	tallies := map[string]*tally{allKinds: {}}
	byShard := make([]tally, rec.plan.Target.Shards())
	of := func(kind string) *tally {
		t := tallies[kind]
		if t == nil {
			t = &tally{}
			tallies[kind] = t
		}
		return t
	}
	for i := range rec.ops {
		o := &rec.ops[i]
		due := o.Due >= start && o.Due < end
		done := o.Outcome == history.OK && o.Return >= start && o.Return < end
		if !due && !done {
			continue
		}
		for _, t := range [...]*tally{of(string(o.Kind)), of(allKinds), &byShard[slots.ShardOf(o.Key, len(byShard))]} {
			if due {
				t.add(o)
			}
			if done {
				t.done++
			}
		}
	}
	seconds := float64(end-start) / 1e9
	kinds = map[string]run.Ops{}
	for kind, t := range tallies {
		kinds[kind] = t.ops(seconds)
	}
	if len(byShard) > 1 {
		for i := range byShard {
			shards = append(shards, byShard[i].ops(seconds))
		}
	}
	return kinds, shards
}

// samples returns the operations as package stats wants them.
func (rec *record) samples() []stats.Sample {
	out := make([]stats.Sample, len(rec.ops))
	for i := range rec.ops {
		o := &rec.ops[i]
		out[i] = stats.Sample{Due: o.Due, Done: o.Return, Latency: o.Return - o.Due, OK: o.Outcome == history.OK}
	}
	return out
}

// phase returns the phase called name.
func phase(phases []run.Phase, name string) (run.Phase, bool) {
	i := slices.IndexFunc(phases, func(p run.Phase) bool { return p.Name == name })
	if i < 0 {
		return run.Phase{}, false
	}
	return phases[i], true
}

// faults returns what became of each planned fault, in the plan's order.
func (rec *record) faults(phases []run.Phase) []run.Fault {
	out := []run.Fault{}
	base, based := phase(phases, "baseline")
	samples := rec.samples()
	for _, p := range rec.plan.Faults {
		f := run.Fault{
			ID: p.ID, Kind: p.Kind, Nodes: []string{}, Requested: cloneOr(p.Params), Measured: map[string]any{},
			Bit: run.BitUnmeasured, Healed: run.HealedNo, Recovery: -1,
		}
		fired, healed := rec.follow(&f)
		switch {
		case !fired:
			f.Why = cmp.Or(f.Why, "it never fired")
		case !healed:
			f.End = max(rec.end(), f.Start)
		case based:
			f.Recovery = stats.Recovery(samples, base.Start, base.End, f.End, rec.end())
		}
		out = append(out, f)
	}
	return out
}

// follow reads the events of one fault into f.
func (rec *record) follow(f *run.Fault) (fired, healed bool) {
	for _, e := range sortedEvents(rec.events) {
		if e.Fault != f.ID {
			continue
		}
		switch e.Type {
		case run.FaultFired:
			fired = true
			f.Start, f.Provider = e.T, e.Provider
			f.Nodes = append(f.Nodes[:0], e.Nodes...)
			if len(e.Requested) > 0 {
				f.Requested = cloneOr(e.Requested)
			}
		case run.FaultMeasured:
			f.Measured, f.Bit, f.Why = cloneOr(e.Measured), cmp.Or(e.Bit, run.BitUnmeasured), e.Text
		case run.FaultHealed:
			healed = true
			f.End = e.T
		case run.FaultVerified:
			f.Healed = cmp.Or(e.Healed, run.HealedNo)
			if f.Healed != run.HealedYes {
				f.Why = join(f.Why, "not seen healed: "+e.Text)
			}
		case run.FaultFailed:
			f.Why = join(f.Why, e.Text)
		case run.RoleMoved:
			f.RoleMoved = join(f.RoleMoved, e.Text)
		}
	}
	return fired, healed
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
