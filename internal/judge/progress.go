package judge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/kvserver/slots"
)

// A cluster that is whole needs some time for an election, and clients need
// some to find the leader. Beyond it, silence is a hang.
const (
	hangAfter = 5 * time.Second
	hangTried = 3 // writes that must have been tried
)

// Words of run.Progress and run.Replicas.
const (
	progressOK = "ok"
	stalled    = "stalled"
	hang       = "hang"
	diverged   = "diverged"
	unknown    = "unknown"
)

// progress looks for the longest time in which writes were tried and none was
// acknowledged. Where no fault was in force for so long, all nodes were healthy
// and should have answered: that is a hang. Shards are looked at one by one, for
// one may hang while the others go on.
func (rec *record) progress(faults []run.Fault) run.Progress {
	worst := run.Progress{Verdict: unknown, Why: "no write was tried"}
	severity := []string{progressOK, stalled, unknown, hang}
	any := false
	for shard, w := range rec.writes() {
		if len(w.calls) == 0 {
			continue
		}
		p := rec.progressOf(w, faults)
		if p.Shard = shard; shard > 0 || rec.plan.Target.Shards() > 1 {
			p.Why = strings.Replace(p.Why, "no write was", fmt.Sprintf("no write to shard %d was", shard), 1)
		}
		graver := cmp.Or(slices.Index(severity, p.Verdict)-slices.Index(severity, worst.Verdict), int(p.End-p.Start-(worst.End-worst.Start)))
		if !any || graver > 0 {
			worst, any = p, true
		}
	}
	return worst
}

// A shardWrites is when the writes to a shard were called and acknowledged, in order.
type shardWrites struct{ calls, acks []int64 }

func (rec *record) writes() []shardWrites {
	out := make([]shardWrites, rec.plan.Target.Shards())
	for i := range rec.all {
		o := &rec.all[i]
		if o.Kind == history.Get {
			continue
		}
		w := &out[slots.ShardOf(o.Key, len(out))]
		if o.Outcome == history.OK && (o.Kind != history.CAS || o.Swapped) {
			w.acks = append(w.acks, o.Return)
		}
		if o.Error == "" || o.Return > o.Call { // else never sent
			w.calls = append(w.calls, o.Call)
		}
	}
	for i := range out {
		slices.Sort(out[i].calls)
		slices.Sort(out[i].acks)
	}
	return out
}

func (rec *record) progressOf(w shardWrites, faults []run.Fault) run.Progress {
	longest, excused := run.Progress{}, run.Progress{}
	for _, quiet := range rec.quiet(faults) {
		p := rec.standstill(w, quiet)
		silent := p.End - p.Start
		if silent < int64(hangAfter) || p.Tried < hangTried {
			continue
		}
		if stood := rec.stood(span{p.Start, p.End}); silent-stood < int64(hangAfter) {
			p.Verdict, p.Why = unknown, fmt.Sprintf("no write was acknowledged for %v from %s on, but the load generator itself stood still for %v of it",
				round(time.Duration(silent)), seconds(p.Start), round(time.Duration(stood)))
			if silent > excused.End-excused.Start {
				excused = p
			}
			continue
		}
		if silent > longest.End-longest.Start {
			longest = p
		}
	}
	switch {
	case longest.End > longest.Start:
		longest.Verdict = hang
		longest.Why = fmt.Sprintf("hang: no write was acknowledged for %v from %s on, of %d tried, although no fault was in force and a quorum was there",
			round(time.Duration(longest.End-longest.Start)), seconds(longest.Start), longest.Tried)
		return longest
	case excused.End > excused.Start:
		return excused
	}
	longest = rec.standstill(w, span{w.calls[0], max(rec.end(), w.calls[0])})
	longest.Verdict = progressOK
	if longest.End-longest.Start >= int64(hangAfter) && longest.Tried >= hangTried {
		longest.Verdict = stalled
		longest.Why = fmt.Sprintf("no write was acknowledged for %v from %s on", round(time.Duration(longest.End-longest.Start)), seconds(longest.Start))
	}
	return longest
}

// stood returns for how long of s the load generator itself stood still, by its
// own account of when it did. Without that, as in older runs, the longest that it
// ever was late may have been then.
func (rec *record) stood(s span) (sum int64) {
	e, _ := rec.last(run.LoadEnded)
	all, ok := e.Data["still"].([]any)
	if !ok {
		return min(int64(number(e.Data, "lateness_max_ns")), s.end-s.start)
	}
	for _, x := range all {
		m, _ := x.(map[string]any)
		sum += max(min(int64(number(m, "end_ns")), s.end)-max(int64(number(m, "start_ns")), s.start), 0)
	}
	return sum
}

type span struct{ start, end int64 }

// standstill returns the longest time within s from a write's call, or an
// acknowledgement, to the next acknowledgement or the end of s.
func (rec *record) standstill(w shardWrites, s span) run.Progress {
	calls, acks := w.calls, w.acks
	var best run.Progress
	take := func(start, end int64) {
		from, _ := slices.BinarySearch(calls, start)
		to, _ := slices.BinarySearch(calls, end)
		if from < to && end-calls[from] > best.End-best.Start {
			best = run.Progress{Start: calls[from], End: end, Tried: to - from}
		}
	}
	at := s.start
	i, _ := slices.BinarySearch(acks, s.start)
	for ; i < len(acks) && acks[i] < s.end; i++ {
		take(at, acks[i])
		at = acks[i]
	}
	take(at, s.end)
	return best
}

// quiet returns the times of the run in which no fault was in force and every
// node was up.
func (rec *record) quiet(faults []run.Fault) []span {
	end := rec.end()
	busy := []span{}
	for _, f := range faults {
		if f.End > 0 {
			until := f.End
			if f.Healed != run.HealedYes {
				until = end // who knows
			}
			busy = append(busy, span{f.Start, until})
		}
	}
	down := map[string]int64{}
	for _, e := range sortedEvents(rec.events) {
		switch e.Type {
		case run.NodeExited:
			down[e.Node] = e.T
		case run.NodeReady:
			if t, ok := down[e.Node]; ok {
				busy = append(busy, span{t, e.T})
				delete(down, e.Node)
			}
		}
	}
	for _, t := range down {
		if t < end {
			busy = append(busy, span{t, end})
		}
	}
	slices.SortFunc(busy, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var out []span
	at := int64(0)
	for _, b := range busy {
		if b.start > at {
			out = append(out, span{at, b.start})
		}
		at = max(at, b.end)
	}
	if at < end {
		out = append(out, span{at, end})
	}
	return out
}

// replicas compares the digests that the nodes gave of their states.
func (rec *record) replicas() run.Replicas {
	out := run.Replicas{Verdict: progressOK, States: []run.Replica{}}
	var missing []string
	for _, e := range rec.events {
		if e.Type != run.ReplicaState {
			continue
		}
		sum, _ := e.Data["sha256"].(string)
		if sum == "" {
			missing = append(missing, e.Node+": "+e.Text)
			continue
		}
		out.States = append(out.States, run.Replica{
			Node: e.Node, Shard: int(number(e.Data, "shard")), Applied: int64(number(e.Data, "applied")), SHA256: sum,
		})
	}
	compared, wanted := 0, 0
	for i, a := range out.States {
		peers := 0 // before it, of its shard
		for _, b := range out.States[:i] {
			if a.Shard != b.Shard {
				continue
			}
			peers++
			if a.Applied != b.Applied {
				continue
			}
			if compared++; a.SHA256 != b.SHA256 {
				of := rec.shardName(a.Shard)
				if of != "" {
					of = " of" + of
				}
				out.Verdict = diverged
				out.Why = fmt.Sprintf("replicas differ: %s and %s have both applied the log%s up to %d, but their states are not the same (sha256 %.12s… and %.12s…)",
					b.Node, a.Node, of, a.Applied, b.SHA256, a.SHA256)
				return out
			}
		}
		wanted += min(peers, 1)
	}
	switch {
	case len(missing) > 0:
		out.Verdict, out.Why = unknown, "no digest of a state: "+strings.Join(missing, "; ")
	case compared < wanted:
		out.Verdict, out.Why = unknown, "the nodes were not at one index of the log when they were asked"
	case len(out.States) == 0:
		out.Verdict = unknown // nobody asked
	}
	return out
}

// shardName says which shard it is, where there are several.
func (rec *record) shardName(shard int) string {
	if rec.plan.Target.Shards() == 1 {
		return ""
	}
	return fmt.Sprintf(" shard %d", shard)
}

// overlap counts the operations that were open while each fault was in force.
func (rec *record) overlap(faults []run.Fault) {
	for i := range faults {
		f := &faults[i]
		if f.End == 0 && f.Start == 0 {
			continue
		}
		for n := range rec.ops {
			if o := &rec.ops[n]; o.Call <= f.End && o.Return >= f.Start {
				f.Overlap++
				if o.Outcome == history.OK && o.Return <= f.End {
					f.Answered++
				}
			}
		}
	}
}

func seconds(t int64) string { return fmt.Sprintf("%.3f s", float64(t)/1e9) }
