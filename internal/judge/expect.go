package judge

import (
	"brownout/internal/expect"
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

// evaluate judges one sentence by the run's numbers. One that this program does
// not understand (a plan of another version) is inconclusive.
func (j *judgement) evaluate(p plan.Expectation) (run.Expectation, subject) {
	s, err := expect.Parse(p.Text)
	if err != nil {
		return run.Expectation{Text: p.Text, File: j.rec.plan.File, Line: p.Line, Verdict: run.Inconclusive, Why: oneLine(err.Error())}, aboutRun
	}
	e := expect.Eval(s, j.numbersOf())
	e.Text, e.File, e.Line = p.Text, j.rec.plan.File, p.Line
	switch {
	case s.Check == expect.Linearizable || s.Check == expect.Durable:
		return e, aboutHistory
	case s.NeedsBaseline():
		return e, aboutBaseline
	}
	return e, aboutRun
}
