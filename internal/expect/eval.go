package expect

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"brownout/internal/quantity"
	"brownout/internal/run"
)

// fewest is how many operations any statement about latency or throughput needs.
const fewest = 20

// Eval judges one sentence. Text is the sentence as it prints; file and line
// are the caller's. The verdict is pass, fail or inconclusive, and why has the
// numbers in words.
func Eval(s Sentence, n Numbers) run.Expectation {
	out := run.Expectation{Text: s.String()}
	e := evaluation{s, n, &out}
	switch s.Check {
	case Linearizable:
		e.linearizable()
	case Durable:
		e.durable()
	case Diagnosis:
		e.diagnosis()
	case Compare:
		e.compare()
	default:
		e.unclear("no sentence")
	}
	return out
}

type evaluation struct {
	s   Sentence
	n   Numbers
	out *run.Expectation
}

func (e *evaluation) say(v run.Verdict, format string, a ...any) {
	e.out.Verdict, e.out.Why = v, fmt.Sprintf(format, a...)
}

func (e *evaluation) unclear(format string, a ...any) { e.say(run.Inconclusive, format, a...) }

func (e *evaluation) linearizable() {
	switch c := e.n.Consistency; {
	case c.Verdict == "illegal":
		texts := make([]string, 0, len(c.Violations))
		for _, v := range c.Violations {
			texts = append(texts, fmt.Sprintf("%s of %s", v.Label, v.Key))
		}
		e.say(run.Fail, "not linearizable: %s", first(texts, "see consistency"))
	case c.Verdict != "ok":
		e.unclear("the checker does not know: %s", or(c.Why, "it gave no answer"))
	case c.Ops == 0:
		e.unclear("no operation was checked")
	default:
		e.say(run.Pass, "%d operations on %d keys", c.Ops, c.Keys)
	}
}

func (e *evaluation) durable() {
	switch d := e.n.Durability; {
	case d.Verdict == "lost":
		texts := make([]string, 0, len(d.Lost))
		for _, l := range d.Lost {
			texts = append(texts, l.Text)
		}
		e.say(run.Fail, "%d of %d acknowledged writes are lost: %s", len(d.Lost), d.Acknowledged, first(texts, "see durability"))
	case d.Verdict != "ok":
		e.unclear("it is not known: %s", or(d.Why, "the final reads gave no answer"))
	case d.Acknowledged == 0:
		e.unclear("no write was acknowledged")
	default:
		e.say(run.Pass, "%d acknowledged writes are there", d.Acknowledged)
	}
}

func (e *evaluation) diagnosis() {
	if why := e.unproven(); why != "" {
		e.unclear("%s", why)
		return
	}
	suspects := e.n.Diagnosis.Suspects
	if suspects == nil {
		e.unclear("no diagnosis was made")
		return
	}
	if len(suspects) == 0 {
		e.verdict(e.s.Culprit == "none", "the diagnosis found nothing slow")
		return
	}
	top := suspects[0]
	named := top.Culprit + "@" + top.Node
	if top.Role != "" {
		named += " (" + top.Role + ")"
	}
	ok := top.Culprit == e.s.Culprit && (e.s.At == "" || e.s.At == top.Role || e.s.At == top.Node)
	e.verdict(ok, "the diagnosis names %s, confidence %.2f", named, top.Confidence)
}

// verdict passes or fails.
func (e *evaluation) verdict(ok bool, format string, a ...any) {
	v := run.Fail
	if ok {
		v = run.Pass
	}
	e.say(v, format, a...)
}

// faults returns the faults that the sentence rests on.
func (e *evaluation) faults() (out []Fault) {
	if !e.s.NeedsFault() {
		return nil
	}
	name := e.s.Fault()
	for _, f := range e.n.Faults {
		if name == "" || f.Kind == name || f.ID == name {
			out = append(out, f)
		}
	}
	return out
}

// unproven says why the sentence cannot be judged whatever the numbers are: a
// fault that it rests on did not happen, was not seen to bite, or was never
// healed. It is empty if nothing stands in the way.
func (e *evaluation) unproven() string {
	faults := e.faults()
	if name := e.s.Fault(); name != "" && len(faults) == 0 {
		return fmt.Sprintf("there was no fault %s", name)
	}
	for _, f := range faults {
		switch {
		case !f.Fired:
			return fmt.Sprintf("%s %s never fired%s", f.ID, f.Kind, because(f.Why))
		case f.Bit == run.BitNo:
			return fmt.Sprintf("%s %s did not bite%s", f.ID, f.Kind, because(f.Why))
		case f.Bit != run.BitYes:
			return fmt.Sprintf("%s %s was not measured%s", f.ID, f.Kind, because(f.Why))
		case f.Healed == run.HealedNo && e.afterwards():
			return fmt.Sprintf("%s %s was not seen to heal%s", f.ID, f.Kind, because(f.Why))
		}
	}
	return ""
}

// afterwards reports whether the sentence is about the time after faults.
func (e *evaluation) afterwards() bool {
	return e.s.Metric.Name == "time_to_recover" || e.s.Period.Name == "recovery"
}

func because(why string) string {
	if why == "" || why == "it never fired" {
		return ""
	}
	return ": " + why
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func first(texts []string, none string) string {
	switch len(texts) {
	case 0:
		return none
	case 1:
		return texts[0]
	}
	return fmt.Sprintf("%s, and %d more", texts[0], len(texts)-1)
}

// phase returns the span of a phase; run is all but the warm-up.
func (e *evaluation) phase(name string) (Span, bool) {
	var all Span
	for _, p := range e.n.Phases {
		if p.Name == name {
			return Span{p.Start, p.End}, p.End > p.Start
		}
		if p.Name != "warmup" {
			if all.End == 0 {
				all.Start = p.Start
			}
			all.End = p.End
		}
	}
	return all, name == "run" && all.End > all.Start
}

// spans returns when the sentence counts, and that in words.
func (e *evaluation) spans() (spans []Span, words string) {
	if e.s.Period.Place == DuringFault {
		for _, f := range e.faults() {
			if end := e.end(f); end > f.Start {
				spans = append(spans, Span{f.Start, end})
			}
		}
		return Union(spans), e.s.Period.String()
	}
	name, words := e.s.Period.Name, e.s.Period.String()
	if name == "" {
		name, words = "fault", "while faults lasted"
	}
	if sp, ok := e.phase(name); ok {
		spans = []Span{sp}
	}
	return spans, words
}

// end is when a fault ended; the end of the run if it never did.
func (e *evaluation) end(f Fault) int64 {
	if f.End > f.Start {
		return f.End
	}
	sp, _ := e.phase("run")
	return sp.End
}

func (e *evaluation) compare() {
	if why := e.unproven(); why != "" {
		e.unclear("%s", why)
		return
	}
	if e.s.Metric.Name == "time_to_recover" {
		e.recovery()
		return
	}
	spans, words := e.spans()
	if len(spans) == 0 {
		e.unclear("the run has no such time (%s)", words)
		return
	}
	switch _, isQuantile := e.s.Metric.quantile(); {
	case isQuantile:
		e.measured(e.latency(spans, words))
	case e.s.Metric.Name == "throughput":
		e.measured(e.throughput(spans, words))
	case e.s.Metric.Name == "leader_changes":
		v := float64(e.n.LeaderChanges(e.s.Metric.Shard, spans))
		e.judge(v, e.s.Limit.Value, "count", fmt.Sprintf("%v%s %s", plural(v, "leader change"), e.s.Metric.ofShard(), words))
	default:
		e.counted(spans, words)
	}
	for _, f := range e.faults() {
		if f.RoleMoved != "" {
			e.out.Why += fmt.Sprintf(" (%s: %s)", f.ID, f.RoleMoved)
		}
	}
}

// A figure is a number with the words that show it; problem is why it is none.
type figure struct {
	v       float64
	show    string
	problem string
}

// latency takes a quantile over spans.
func (e *evaluation) latency(spans []Span, words string) (f, base figure) {
	m := e.s.Metric
	q, _ := m.quantile()
	take := func(spans []Span, words string) figure {
		v, n := e.n.Quantile(m.ops(), m.Service, q, spans)
		if need := needed(q); n < need {
			return figure{problem: fmt.Sprintf("only %s %s; %s needs %d", plural(float64(n), opWord(m.Op)+"operation")+m.ofShard(), words, m.Name, need)}
		}
		return figure{v: float64(v), show: fmt.Sprintf("%s %s (n=%d)", Nanoseconds(float64(v)), words, n)}
	}
	f = take(spans, words)
	if sp, ok := e.phase("baseline"); ok {
		base = take([]Span{sp}, "in baseline")
	} else {
		base.problem = "the run has no baseline"
	}
	return f, base
}

// needed is how many values a quantile needs to be more than the largest value.
func needed(q float64) int64 {
	if q == 1 {
		return fewest
	}
	return max(fewest, int64(math.Round(1/(1-q))))
}

func opWord(op string) string {
	if op == "all" || op == "" {
		return ""
	}
	return op + " "
}

// throughput counts what came back ok within spans.
func (e *evaluation) throughput(spans []Span, words string) (f, base figure) {
	m := e.s.Metric
	take := func(spans []Span, words string) figure {
		var length int64
		for _, s := range spans {
			length += s.End - s.Start
		}
		n := e.n.Completed(m.ops(), spans)
		rate := float64(n) / (float64(length) / 1e9)
		return figure{v: rate, show: fmt.Sprintf("%s/s %s (n=%d)", digits(rate), words, n)}
	}
	f = take(spans, words)
	if due := e.n.Count(m.ops(), spans).All(); due < fewest {
		f.problem = fmt.Sprintf("only %s due %s", plural(float64(due), opWord(m.Op)+"operation")+m.ofShard(), words)
	}
	sp, ok := e.phase("baseline")
	if !ok {
		base.problem = "the run has no baseline"
		return f, base
	}
	base = take([]Span{sp}, "in baseline")
	if n := e.n.Completed(m.ops(), []Span{sp}); n < fewest {
		base.problem = fmt.Sprintf("only %s in baseline", plural(float64(n), opWord(m.Op)+"operation")+m.ofShard())
	}
	return f, base
}

// measured compares a figure with a limit, of its own or of the baseline's.
func (e *evaluation) measured(f, base figure) {
	l, name := e.s.Limit, e.s.Metric.String()
	if f.problem != "" {
		e.unclear("%s", f.problem)
		return
	}
	switch l.Form {
	case Time:
		e.judge(f.v, float64(l.Time), "ns", name+" "+f.show)
		return
	case Rate:
		e.judge(f.v, l.Value, "per_s", name+" "+f.show)
		return
	}
	if base.problem != "" {
		e.unclear("%s", base.problem)
		return
	}
	if base.v == 0 {
		e.unclear("%s was 0 in baseline: nothing to compare with", name)
		return
	}
	scale, unit := 1.0, "x"
	if l.Ratio.Percent {
		scale, unit = 100, "%"
	}
	e.judge(f.v/base.v*scale, l.Ratio.Value, unit, fmt.Sprintf("%s %s against %s", name, f.show, base.show))
}

// counted compares errors, unknown or fails.
func (e *evaluation) counted(spans []Span, words string) {
	m := e.s.Metric
	c := e.n.Count(m.ops(), spans)
	if c.All() == 0 {
		e.unclear("no %soperation%s was due %s", opWord(m.Op), m.ofShard(), words)
		return
	}
	v, what := float64(c.Fail+c.Unknown), "error"
	switch m.Name {
	case "unknown":
		v, what = float64(c.Unknown), "unknown outcome"
	case "fails":
		v, what = float64(c.Fail), "fail"
	}
	show := fmt.Sprintf("%s of %d operations%s %s", plural(v, what), c.All(), m.ofShard(), words)
	if e.s.Limit.Form == Percent {
		e.judge(v/float64(c.All())*100, e.s.Limit.Value, "%", show)
		return
	}
	e.judge(v, e.s.Limit.Value, "count", show)
}

// recovery compares the slowest recovery of the sentence's faults.
func (e *evaluation) recovery() {
	limit := int64(e.s.Limit.Time)
	sp, _ := e.phase("run")
	if _, ok := e.phase("baseline"); !ok {
		e.unclear("the run has no baseline to come back to")
		return
	}
	var slowest Fault
	for _, f := range e.faults() {
		if f.Recovery < 0 {
			left := max(0, sp.End-e.end(f))
			if left < limit {
				e.unclear("%s had not recovered when the run ended %s after its heal; the limit is %s", f.ID, Nanoseconds(float64(left)), quantity.Duration(e.s.Limit.Time))
				return
			}
			e.verdict(e.s.Cmp[0] == '>', "%s had not recovered when the run ended %s after its heal, limit %s %s", f.ID, Nanoseconds(float64(left)), e.s.Cmp, quantity.Duration(e.s.Limit.Time))
			e.out.Limit, e.out.Unit = pointer(float64(limit)), "ns"
			return
		}
		if slowest.ID == "" || f.Recovery > slowest.Recovery {
			slowest = f
		}
	}
	after := "as soon as it was healed"
	if slowest.Recovery > 0 {
		after = Nanoseconds(float64(slowest.Recovery)) + " after its heal"
	}
	e.judge(float64(slowest.Recovery), float64(limit), "ns", fmt.Sprintf("%s: as in baseline %s", slowest.ID, after))
}

// judge compares, and says both numbers.
func (e *evaluation) judge(observed, limit float64, unit, show string) {
	ok := false
	switch e.s.Cmp {
	case "<":
		ok = observed < limit
	case "<=":
		ok = observed <= limit
	case ">":
		ok = observed > limit
	case ">=":
		ok = observed >= limit
	case "=":
		ok = observed == limit
	}
	e.out.Observed, e.out.Limit, e.out.Unit = pointer(observed), pointer(limit), unit
	switch unit {
	case "x":
		show += fmt.Sprintf(": %sx, limit %s %sx", digits(observed), e.s.Cmp, number(limit))
	case "%":
		show += fmt.Sprintf(": %s %%, limit %s %s %%", digits(observed), e.s.Cmp, number(limit))
	case "ns":
		show += fmt.Sprintf(", limit %s %s", e.s.Cmp, quantity.Duration(time.Duration(limit)))
	case "per_s":
		show += fmt.Sprintf(", limit %s %s/s", e.s.Cmp, number(limit))
	default:
		show += fmt.Sprintf(", limit %s %s", e.s.Cmp, number(limit))
	}
	e.verdict(ok, "%s", show)
}

func pointer(v float64) *float64 { return &v }

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// digits prints three significant digits, and more before the point if there are.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || a == math.Trunc(a) && a < 1e15:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// Nanoseconds prints a time as people say it: 22.1 ms.
func Nanoseconds(ns float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if math.Abs(ns) >= u.size {
			return digits(ns/u.size) + " " + u.name
		}
	}
	return digits(ns) + " ns"
}

func plural(n float64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}
