package judge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"brownout/checker"
	"brownout/internal/expect"
	"brownout/internal/history"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/internal/stats"
)

// A judgement fills in what a result says in words.
//
// The order of reasons, the first that applies decides:
//
//  1. violation: the history is not linearizable, an acknowledged write is lost,
//     or replicas differ.
//  2. fail: the target hung with no fault in force, or an expectation was missed. If the testbed itself was starved, the
//     host too noisy, a part of it failed, or the run was cut short, a missed
//     expectation about times or counts proves nothing: it is inconclusive.
//  3. inconclusive: something that the run should have shown is not known. A
//     testbed that kept no time hides nothing from a plan that asks only for what
//     the history proves.
//  4. pass.
type judgement struct {
	rec     *record
	res     *run.Result
	checked checker.Result
	timed   bool // some expectation is about times or counts
}

func (j *judgement) decide() {
	res := j.res
	broken, late := j.broken(), unfit(res)
	j.expectations(cmp.Or(broken, late))
	if !j.timed {
		late = ""
	}
	doubt := j.withFault(cmp.Or(broken, late))
	verdict, why := run.Pass, ""
	note := func(v run.Verdict, reason string) {
		if reason != "" && run.Worst(verdict, v) != verdict {
			verdict, why = v, reason
		}
	}
	note(run.Violation, j.violated())
	if res.Progress.Verdict == hang {
		note(run.Fail, res.Progress.Why)
	}
	note(run.Fail, j.missed(run.Fail))
	note(run.Inconclusive, doubt)
	note(run.Inconclusive, j.stoodStill())
	note(run.Inconclusive, j.undecided())
	note(run.Inconclusive, nothingObserved(j.checked))
	note(run.Inconclusive, j.unread())
	for i := range res.Faults {
		note(run.Inconclusive, doseDoubt(&res.Faults[i]))
	}
	note(run.Inconclusive, j.missed(run.Inconclusive))
	if why == "" {
		why = j.passed()
	}
	res.Verdict, res.ExitCode, res.Why = verdict, verdict.ExitCode(), oneLine(why)
}

// stoodStill says that writes were silent for so long that it would be a hang,
// had not the load generator stood still; empty if there was no such time.
func (j *judgement) stoodStill() string {
	if p := j.res.Progress; p.Verdict == unknown && p.End > p.Start { // else nothing was tried
		return p.Why
	}
	return ""
}

// headline is the first line of a text that may quote a log, which the event keeps.
func headline(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(s, "; the end of its log:")
}

// oneLine keeps a reason on one line, whatever a part of it said.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// broken says why the run itself did not go as it should; empty if it did. What
// it would have shown is not known.
func (j *judgement) broken() string {
	if e, ok := j.rec.last(run.Interrupted); ok {
		return strings.TrimSuffix("interrupted: "+e.Text, ": ")
	}
	for _, e := range j.rec.events {
		switch expected, _ := e.Data["expected"].(bool); {
		case e.Type == run.TestbedFailed:
			return "the testbed failed: " + headline(e.Text)
		case e.Type == run.NodeExited && !expected:
			return fmt.Sprintf("%s ended by itself after %v: %s; its log is in %s/%s/", e.Node, round(time.Duration(e.T)), headline(e.Text), run.NodesDir, e.Node)
		}
	}
	if e, ok := j.rec.last(run.RunEnded); !ok {
		return "the run never ended: its record stops in the middle"
	} else if e.Text != "" {
		return "the run ended early: " + headline(e.Text)
	}
	if lost := j.res.Wire.Lost; lost > 0 { // a fault that nobody asked for
		return fmt.Sprintf("testbed starved: the wire could not keep up and lost %d packets", lost)
	}
	return ""
}

func (j *judgement) violated() string {
	c, d := j.res.Consistency, j.res.Durability
	switch {
	case c.Verdict == string(checker.Illegal) && len(c.Violations) > 0:
		v := c.Violations[0]
		return fmt.Sprintf("not linearizable: %s: %s", v.Label, v.Text)
	case c.Verdict == string(checker.Illegal):
		return "not linearizable: " + c.Why
	case d.Verdict == string(checker.Lost):
		return fmt.Sprintf("%d acknowledged writes lost: %s", len(d.Lost), d.Lost[0].Text)
	case j.res.Replicas.Verdict == diverged:
		return j.res.Replicas.Why
	}
	return ""
}

// missed returns the first expectation with the verdict v.
func (j *judgement) missed(v run.Verdict) string {
	for _, e := range j.res.Expectations {
		if e.Verdict == v {
			return fmt.Sprintf("%s: %s", e.Text, e.Why)
		}
	}
	return ""
}

func (j *judgement) undecided() string {
	switch c, d := j.res.Consistency, j.res.Durability; {
	case c.Verdict == string(checker.Unknown):
		return "linearizability undecided: " + c.Why
	case d.Verdict == string(checker.Unknown):
		return "durability undecided: " + d.Why
	}
	return ""
}

// unread says that nobody looked while the run went on, although it was to show
// that what one sees is linearizable; empty if somebody did, or it was not.
func (j *judgement) unread() string {
	looked := slices.ContainsFunc(j.rec.ops, func(o history.Op) bool {
		return o.Outcome == history.OK && (o.Kind == history.Get || o.Kind == history.CAS)
	})
	asked := slices.ContainsFunc(j.rec.plan.Expect, func(p plan.Expectation) bool {
		s, err := expect.Parse(p.Text)
		return err == nil && s.Check == expect.Linearizable
	})
	if looked || !asked {
		return ""
	}
	return fmt.Sprintf("nothing observed: none of the workload's %d operations was a completed read, and the final reads cannot say what was seen before", len(j.rec.ops))
}

// withFault adds to a doubt about the run which fault it made doubtful, or came from.
func (j *judgement) withFault(doubt string) string {
	if _, ended := j.rec.last(run.Interrupted); doubt == "" || ended {
		return doubt // who interrupts a run knows why its faults are not done
	}
	for i := range j.res.Faults {
		if why := doseDoubt(&j.res.Faults[i]); why != "" {
			return doubt + "; " + why
		}
	}
	return doubt
}

// doseDoubt says why a fault may not have been what was asked for.
func doseDoubt(f *run.Fault) string {
	name := f.ID + " " + f.Kind
	because := ""
	if f.Why != "" {
		because = ": " + f.Why
	}
	switch {
	case f.Provider == "" && f.End == 0 && f.Start == 0:
		return fmt.Sprintf("fault %s never fired%s", name, because)
	case f.Bit == run.BitNo:
		return fmt.Sprintf("fault %s did not bite%s", name, because)
	case f.Bit != run.BitYes:
		return fmt.Sprintf("the dose of fault %s was not measured%s", name, because)
	case f.Overlap == 0:
		return fmt.Sprintf("no operation was open during fault %s: nothing was seen of it", name)
	case f.Healed != run.HealedYes:
		return fmt.Sprintf("fault %s was not seen healed%s", name, because)
	}
	return ""
}

func (j *judgement) passed() string {
	res := j.res
	return fmt.Sprintf("%d of %d expectations met, linearizable (%d operations, %d keys), %d acknowledged writes kept",
		len(res.Expectations), len(res.Expectations), res.Consistency.Ops, res.Consistency.Keys, res.Durability.Acknowledged)
}

// expectations evaluates every sentence, and weakens what cannot be known.
func (j *judgement) expectations(doubt string) {
	unsteady := j.unsteady()
	excuse := cmp.Or(doubt, j.rec.busy(), j.stoodStill())
	j.res.Expectations = []run.Expectation{}
	for _, p := range j.rec.plan.Expect {
		e, about := j.evaluate(p)
		j.timed = j.timed || about != aboutHistory
		switch {
		case about == aboutHistory || e.Verdict == run.Inconclusive:
		case excuse != "" && e.Verdict == run.Fail:
			e.Verdict, e.Why = run.Inconclusive, fmt.Sprintf("%s; but %s", e.Why, excuse)
		case about == aboutBaseline && unsteady != "" && j.holdsByParts(p, e.Verdict):
			e.Why = join(e.Why, fmt.Sprintf("the baseline was not steady (%s), but the same follows from each third of it", unsteady))
		case about == aboutBaseline && unsteady != "":
			e.Verdict, e.Why = run.Inconclusive, join(e.Why, "the baseline was not steady: "+unsteady)
		}
		j.res.Expectations = append(j.res.Expectations, e)
	}
}

// holdsByParts reports whether an expectation has the same verdict with each
// third of the baseline in its place. What a wandering baseline could turn is
// unknown; what it cannot turn, by far, is known all the same.
func (j *judgement) holdsByParts(p plan.Expectation, v run.Verdict) bool {
	b, ok := phase(j.res.Phases, "baseline")
	if !ok {
		return false
	}
	const parts = 3
	width := (b.End - b.Start) / parts
	for i := range int64(parts) {
		phases := slices.Clone(j.res.Phases)
		for k := range phases {
			if phases[k].Name == "baseline" {
				phases[k].Start = b.Start + i*width
				phases[k].End = phases[k].Start + width
			}
		}
		part := *j.res
		part.Phases, part.Faults = phases, j.rec.faults(phases)
		if e, _ := (&judgement{rec: j.rec, res: &part, checked: j.checked}).evaluate(p); e.Verdict != v {
			return false
		}
	}
	return true
}

// unsteady says why the baseline is no base; empty if it is one.
func (j *judgement) unsteady() string {
	b, ok := phase(j.res.Phases, "baseline")
	if !ok {
		return "there was none"
	}
	_, why := stats.Steady(j.rec.samples(), b.Start, b.End)
	return why
}
