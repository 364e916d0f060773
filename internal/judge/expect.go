package judge

import (
	"brownout/checker"
	"brownout/internal/plan"
	"brownout/internal/run"
)

// What an expectation is about decides what can put it in doubt.
type subject int

const (
	aboutHistory  subject = iota // linearizability, durability: no matter how late anything was
	aboutRun                     // times and counts
	aboutBaseline                // times and counts in relation to the baseline
)

func (j *judgement) evaluate(p plan.Expectation) (run.Expectation, subject) {
	e := run.Expectation{Text: p.Text, File: j.rec.plan.File, Line: p.Line, Verdict: run.Inconclusive}
	switch p.Text {
	case "linearizable":
		c := j.res.Consistency
		e.Verdict, e.Why = historyVerdict(c.Verdict), c.Why
	case "no acknowledged write is lost":
		d := j.res.Durability
		e.Verdict, e.Why = historyVerdict(d.Verdict), d.Why
	default:
		e.Why = "not understood"
		return e, aboutRun
	}
	return e, aboutHistory
}

func historyVerdict(v string) run.Verdict {
	switch checker.Verdict(v) {
	case checker.OK:
		return run.Pass
	case checker.Illegal, checker.Lost:
		return run.Fail // of the expectation; the run's verdict is a violation by itself
	}
	return run.Inconclusive
}
