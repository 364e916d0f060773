// Package judge turns a run's files into its result.
//
// [Judge] is a pure function of the files: no root, no clock, no other source.
// It is the only place where checker, expectations and statistics meet, and it
// decides in one order (see verdict.go): what the history proves counts more
// than an expectation, and an expectation more than a doubt, except for the
// doubt whether the testbed itself kept time. A run that the testbed starved
// is inconclusive, whatever its latencies were.
//
// It does not know how the run was made, and imports nothing of the live half.
package judge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"brownout/checker"
	"brownout/internal/foreign"
	"brownout/internal/history"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/kvserver/slots"
)

// Options bound the work of judging. The zero value is good for everybody.
type Options struct {
	Budget time.Duration // wall time of the checker; 2 min
	Memory int64         // bytes that the checker may take; 2 GiB
}

func (o Options) checker() checker.Options {
	return checker.Options{Budget: o.Budget, Memory: o.Memory}
}

// record is what the files of a run say.
type record struct {
	manifest run.Manifest
	plan     plan.Plan
	ops      []history.Op // the workload's, without the final reads
	all      []history.Op
	events   []run.Event
	residue  []string
}

// Judge judges the run whose directory is fsys. Its error names the file, and
// where it can the line, that is missing or damaged; there is no verdict then.
// The result is the same for the same files, but for cpu_ns.
func Judge(ctx context.Context, fsys fs.FS, opt Options) (run.Result, error) {
	rec, err := read(fsys)
	if err != nil {
		return run.Result{}, err
	}
	consistency, err := checker.Check(ctx, rec.all, opt.checker())
	if err != nil {
		return run.Result{}, fmt.Errorf("%s: %w", run.HistoryFile, lined(err))
	}
	durability := checker.Durability(rec.all)
	return rec.result(consistency, durability), nil
}

// History checks a history alone, in a format of any tool's. Its error is a
// [*history.LineError] if the history is damaged or breaks the rules.
func History(ctx context.Context, r io.Reader, format foreign.Options, opt Options) (run.Consistency, error) {
	h, err := foreign.Read(r, format)
	if err != nil {
		return run.Consistency{}, err
	}
	limits := opt.checker()
	limits.Untimed = h.Untimed
	res, err := checker.Check(ctx, h.Ops, limits)
	if e, ok := errors.AsType[*checker.InvalidError](err); ok {
		return run.Consistency{}, &history.LineError{Line: h.Line(e.Index), Err: fmt.Errorf("operation %d: %s", e.Op, e.Why)}
	}
	if err != nil {
		return run.Consistency{}, err
	}
	c := consistencyOf(res)
	c.Model, c.Format, c.Untimed = string(h.Model), string(h.Format), h.Untimed
	for i := range c.Violations {
		c.Violations[i].Untimed = h.Untimed
	}
	if res.Verdict == checker.Illegal && !h.Untimed {
		c.Levels = levels(h.Ops, func(*history.Op) string { return "all" })
	}
	if c.Verdict == string(checker.OK) {
		c.Why = nothingObserved(res)
	}
	return c, nil
}

// ConsistencyVerdict is the verdict of a history on its own: one that is ok but
// shows nothing is inconclusive.
func ConsistencyVerdict(c run.Consistency) run.Verdict {
	switch {
	case c.Verdict == string(checker.Illegal):
		return run.Violation
	case c.Verdict == string(checker.OK) && c.Why == "":
		return run.Pass
	}
	return run.Inconclusive
}

// lined says a damaged history's line as the other errors do.
func lined(err error) error {
	if e, ok := errors.AsType[*checker.InvalidError](err); ok {
		return &history.LineError{Line: e.Index + 1, Err: fmt.Errorf("operation %d: %s", e.Op, e.Why)}
	}
	return err
}

func read(fsys fs.FS) (*record, error) {
	var rec record
	var err error
	if rec.manifest, err = run.ReadManifest(fsys); err != nil {
		return nil, missing(err)
	}
	if err = run.ReadJSON(fsys, run.PlanFile, &rec.plan); err != nil {
		return nil, missing(err)
	}
	if rec.plan.Schema != plan.Schema {
		return nil, fmt.Errorf("%s: schema %q, this program reads %q", run.PlanFile, rec.plan.Schema, plan.Schema)
	}
	if rec.events, err = run.ReadEvents(fsys); err != nil {
		return nil, missing(err)
	}
	rec.all, _, err = history.ReadFiles(fsys, run.HistoryFile, run.SpoolFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(err)
	}
	if err != nil {
		return nil, err
	}
	rec.ops = workload(rec.all)
	rec.residue = run.Residue(fsys)
	return &rec, rec.whole()
}

// whole says whether operations are missing that the load generator counted: a
// history that lost some can prove anything. A run that did not end well is
// not measured by that; its generator may not have counted.
func (rec *record) whole() error {
	e, ok := rec.last(run.LoadEnded)
	if end, ended := rec.last(run.RunEnded); !ok || !ended || end.Text != "" {
		return nil
	}
	if want := int(number(e.Data, "sent") + number(e.Data, "unsent")); len(rec.ops) < want {
		return fmt.Errorf("%s: %d operations, but the load generator recorded %d: the file is not whole", run.HistoryFile, len(rec.ops), want)
	}
	return nil
}

// workload returns the operations without the final reads, which are the last
// as runs record them: then nothing is copied.
func workload(all []history.Op) []history.Op {
	final := func(o history.Op) bool { return o.Phase != "" }
	n := slices.IndexFunc(all, final)
	if n < 0 {
		return all
	}
	if !slices.ContainsFunc(all[n:], func(o history.Op) bool { return !final(o) }) {
		return all[:n:n]
	}
	return slices.DeleteFunc(slices.Clone(all), final)
}

// missing says that a file which is not there makes the directory no whole run.
func missing(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: the run's directory is not whole", p.Path)
	}
	return err
}

func (rec *record) result(c checker.Result, d checker.DurabilityResult) run.Result {
	res := run.Result{
		Schema: run.ResultSchema, Run: rec.manifest.Run, Scenario: rec.plan.Scenario, Seed: rec.plan.Seed,
		Target:      run.Target{Kind: rec.plan.Target.Kind, Nodes: rec.plan.Target.Nodes},
		Phases:      rec.phases(),
		Consistency: consistencyOf(c),
		Durability:  durabilityOf(d),
		Diagnosis:   run.Diagnosis{Suspects: []run.Suspect{}},
		Cleanup:     run.Cleanup{Residue: rec.residue},
		Host:        rec.noise(),
		Wire:        rec.wire(),
		Downstream:  rec.downstream(),
	}
	res.Load = rec.load(res.Phases)
	res.Faults = rec.faults(res.Phases)
	rec.overlap(res.Faults)
	if c.Verdict == checker.Illegal {
		res.Consistency.Levels = levels(rec.all, rec.readMode())
	}
	res.Progress = rec.progress(res.Faults)
	res.Replicas = rec.replicas()
	for i, v := range c.Conflicts[:len(res.Consistency.Violations)] {
		rec.explain(&res.Consistency.Violations[i], &v, res.Faults)
	}
	for _, e := range rec.events {
		res.Interrupted = res.Interrupted || e.Type == run.Interrupted
	}
	res.Stopped = rec.stopped()
	res.LeaderChanges = len(rec.leaderChanges())
	j := judgement{rec: rec, res: &res, checked: c}
	j.decide()
	return res
}

// stopped says how a violation that was seen while the run went on ended it; nil
// if none did.
func (rec *record) stopped() *run.Stopped {
	e, ok := rec.last(run.Violated)
	if !ok {
		return nil
	}
	at := int64(number(e.Data, "returned_ns"))
	return &run.Stopped{Why: e.Text, Op: int64(number(e.Data, "op")), Returned: at, Found: int64(number(e.Data, "found_ns")) - at, StoppedIn: e.T - at}
}

// sortedEvents returns events by time; equal times keep the file's order.
func sortedEvents(events []run.Event) []run.Event {
	out := slices.Clone(events)
	slices.SortStableFunc(out, func(a, b run.Event) int { return int(min(max(a.T-b.T, -1), 1)) })
	return out
}

func consistencyOf(c checker.Result) run.Consistency {
	out := run.Consistency{
		Model: c.Model, Verdict: string(c.Verdict), Engine: c.Engine, Ops: c.Ops, Keys: c.Keys, CPU: int64(c.CPU),
		Why: c.Why, Violations: []run.Conflict{},
		Counts: run.Counts{Reads: c.Counts.Reads, Writes: c.Counts.Writes, Unknown: c.Counts.Unknown, Failed: c.Counts.Failed},
	}
	if c.Counts.Writes > 0 {
		out.Counts.ReadsPerWrite = float64(c.Counts.Reads) / float64(c.Counts.Writes)
	}
	if c.Ops > 0 {
		out.Counts.UnknownShare = float64(c.Counts.Unknown) / float64(c.Ops)
	}
	if c.Verdict == checker.Illegal {
		out.Why = fmt.Sprintf("%d of %d keys are not linearizable, %d conflicts", c.Illegal, c.Keys, c.Found)
	}
	for _, v := range c.Conflicts {
		text := v.Text
		if v.More > 0 {
			text += fmt.Sprintf(" (and %d more conflicts on this key)", v.More)
		}
		c := run.Conflict{Key: v.Key, Label: v.Label, Ops: v.Ops, Text: text, At: v.At, Arrows: v.Arrows}
		for i := range v.Core {
			c.Core = append(c.Core, history.AppendJSON(nil, &v.Core[i]))
		}
		out.Violations = append(out.Violations, c)
	}
	return out
}

// levels says which weaker levels a history kept.
func levels(ops []history.Op, mode func(*history.Op) string) (out []run.Level) {
	of := func(g checker.Guarantee) run.Guarantee {
		v := unknown
		switch {
		case g.Broken > 0:
			v = "no"
		case g.Checked > 0:
			v = "ok"
		}
		return run.Guarantee{Verdict: v, Checked: g.Checked, Broken: g.Broken, First: g.First}
	}
	for _, l := range checker.Levels(ops, mode) {
		out = append(out, run.Level{
			Mode: l.Mode, Reads: l.Reads, Stale: l.Stale, StaleMax: l.StaleMax, StaleP99: l.StaleP99, VersionsMax: l.VersionsMax,
			ReadYourWrites: of(l.ReadYourWrites), MonotonicReads: of(l.MonotonicReads),
			MonotonicWrites: of(l.MonotonicWrites), WritesFollowReads: of(l.WritesFollowReads),
		})
	}
	return out
}

// readMode names reads by how the target answers them, and by whom.
func (rec *record) readMode() func(*history.Op) string {
	reads := cmp.Or(rec.plan.Target.Config["reads"], "readindex")
	all := make([][]reign, rec.plan.Target.Shards())
	for shard := range all {
		all[shard] = rec.reigns(shard)
	}
	return func(o *history.Op) string {
		reigns := all[slots.ShardOf(o.Key, len(all))]
		n, _ := slices.BinarySearchFunc(reigns, o.Return+1, func(r reign, t int64) int { return cmp.Compare(r.from, t) })
		if n > 0 && reigns[n-1].node == o.Node {
			return reads + " by the leader"
		}
		return reads + " by others"
	}
}

func durabilityOf(d checker.DurabilityResult) run.Durability {
	out := run.Durability{Verdict: string(d.Verdict), Acknowledged: d.Acknowledged, Lost: []run.LostWrite{}, Why: d.Why}
	for _, l := range d.Lost {
		out.Lost = append(out.Lost, run.LostWrite{Op: l.Op, Key: l.Key, Text: l.Text})
	}
	return out
}

// nothingObserved says why an ok of this history would say nothing; empty if it says something.
func nothingObserved(c checker.Result) string {
	switch {
	case c.Ops == 0:
		return "nothing observed: the history is empty"
	case c.Counts.Writes+c.Counts.Bounded == 0:
		return fmt.Sprintf("nothing observed: none of %d operations was an acknowledged write, and nobody saw another", c.Ops)
	case c.Counts.Reads == 0:
		return fmt.Sprintf("nothing observed: none of %d operations was a completed read", c.Ops)
	}
	return ""
}

// number reads a number of an event's data, or 0.
func number(m map[string]any, name string) float64 {
	f, _ := m[name].(float64)
	return f
}

func cloneOr(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return maps.Clone(m)
}
