// Package report prints a result: for a terminal, a page of Markdown, a JUnit
// file. Each form is one function of the result (and, where it needs more, of
// the run's files), so that every form can be made again from a run's directory.
//
// Nothing is judged here, and nothing is said by colour alone.
package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"brownout/internal/run"
)

// marks go before a line; the words beside them say the same.
var marks = map[string]string{
	"pass": "✓", "ok": "✓", "yes": "✓", "quiet": "✓",
	"fail": "✗", "violation": "✗", "illegal": "✗", "lost": "✗", "no": "✗", "diverged": "✗", "hang": "✗", "stalled": "?",
	"inconclusive": "?", "unknown": "?", "unmeasured": "?", "starved": "?", "noisy": "?",
}

// A style colours words, or does not.
type style bool

func (s style) paint(code, text string) string {
	if !s {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) verdict(word, text string) string {
	switch marks[word] {
	case "✓":
		return s.paint("32", text)
	case "✗":
		return s.paint("31", text)
	}
	return s.paint("33", text)
}

// Text prints what a person at a terminal wants to know, the most important
// first: the verdict and its reason, what was missed, what was measured, and
// what to do next.
func Text(w io.Writer, r run.Result, colour bool) error {
	s := style(colour)
	var b bytes.Buffer
	verdict := strings.ToUpper(string(r.Verdict))
	fmt.Fprintf(&b, "%s  %s  (exit %d)  %s\n", s.verdict(string(r.Verdict), s.paint("1", verdict)), r.Scenario, r.ExitCode, target(r))
	fmt.Fprintf(&b, "  %s\n", r.Why)
	if st := r.Stopped; st != nil {
		fmt.Fprintf(&b, "  %s (--on-violation continue goes on)\n", stopped(st))
	}
	expectations(&b, s, r)
	history(&b, s, r)
	faults(&b, s, r)
	phases(&b, r)
	trust(&b, s, r)
	if next := Next(r); next != "" {
		fmt.Fprintf(&b, "\nNext  %s\n", next)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func stopped(st *run.Stopped) string {
	return fmt.Sprintf("stopped %s, %s after operation %d returned, with which it could be seen", clock(st.Returned+st.StoppedIn), Duration(st.StoppedIn), st.Op)
}

func target(r run.Result) string {
	return fmt.Sprintf("%d nodes of %s, seed %d", r.Target.Nodes, r.Target.Kind, r.Seed)
}

func expectations(b *bytes.Buffer, s style, r run.Result) {
	if len(r.Expectations) == 0 {
		return
	}
	met := 0
	wide := 0
	for _, e := range r.Expectations {
		wide = max(wide, min(len(e.Text), 60))
		if e.Verdict == run.Pass {
			met++
		}
	}
	fmt.Fprintf(b, "\nExpectations  %d of %d met\n", met, len(r.Expectations))
	for _, e := range r.Expectations {
		mark := s.verdict(string(e.Verdict), marks[string(e.Verdict)]+" "+fmt.Sprintf("%-12s", e.Verdict))
		fmt.Fprintf(b, "  %s  %-*s  %s\n", mark, wide, e.Text, strings.TrimSpace(fmt.Sprintf("%-24s %s", Observed(e), Where(e))))
		if e.Verdict != run.Pass && e.Why != "" {
			fmt.Fprintf(b, "       %s\n", e.Why)
		}
	}
}

// Observed says what an expectation measured, and its limit.
func Observed(e run.Expectation) string {
	if e.Observed == nil {
		return ""
	}
	if e.Limit == nil {
		return Quantity(*e.Observed, e.Unit)
	}
	return fmt.Sprintf("%s (limit %s)", Quantity(*e.Observed, e.Unit), Quantity(*e.Limit, e.Unit))
}

// Where is the place of an expectation in its file.
func Where(e run.Expectation) string {
	if e.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", strings.TrimPrefix(e.File, "./"), e.Line)
}

// Quantity prints a number with its unit, with three digits that matter.
func Quantity(v float64, unit string) string {
	switch unit {
	case "ns":
		return short(Duration(int64(v)))
	case "%":
		return short(digits(v)) + " %"
	case "x":
		return short(digits(v)) + "x"
	case "per_s":
		return fmt.Sprintf("%.0f/s", v)
	case "count":
		return fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSpace(fmt.Sprintf("%.4g %s", v, unit))
}

// Duration prints ns with three digits that matter.
func Duration(ns int64) string {
	switch d := math.Abs(float64(ns)); {
	case ns == 0:
		return "0"
	case d < 1e3:
		return fmt.Sprintf("%dns", ns)
	case d < 1e6:
		return fmt.Sprintf("%sµs", digits(float64(ns)/1e3))
	case d < 1e9:
		return fmt.Sprintf("%sms", digits(float64(ns)/1e6))
	}
	return fmt.Sprintf("%ss", digits(float64(ns)/1e9))
}

// short drops zeros that say nothing: 5.00s is 5s.
func short(s string) string {
	i := strings.LastIndexAny(s, "0123456789") + 1
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s[:i], "0"), ".") + s[i:]
}

func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func history(b *bytes.Buffer, s style, r run.Result) {
	b.WriteString("\nHistory\n")
	consistency(b, s, r.Consistency)
	d := r.Durability
	line := fmt.Sprintf("%s durable: %s", mark(d.Verdict, d.Acknowledged), d.Verdict)
	fmt.Fprintf(b, "  %s  %d acknowledged writes", s.verdict(d.Verdict, line), d.Acknowledged)
	if d.Why != "" {
		fmt.Fprintf(b, "; %s", d.Why)
	}
	b.WriteByte('\n')
	for i, l := range d.Lost {
		if i == shown {
			fmt.Fprintf(b, "       and %d more\n", len(d.Lost)-shown)
			break
		}
		fmt.Fprintf(b, "       lost: %s\n", l.Text)
	}
	for _, x := range []struct{ what, verdict, why string }{{"replicas", r.Replicas.Verdict, r.Replicas.Why}, {"progress", r.Progress.Verdict, r.Progress.Why}} {
		if x.why != "" {
			fmt.Fprintf(b, "  %s  %s\n", s.verdict(x.verdict, fmt.Sprintf("%s %s: %s", marks[x.verdict], x.what, x.verdict)), x.why)
		}
	}
}

// mark of a verdict over n things: of none, nothing is shown.
func mark(verdict string, n int) string {
	if n == 0 {
		return marks["unknown"]
	}
	return marks[verdict]
}

// shown is how many conflicts, or lost writes, a terminal is told of.
const shown = 5

func consistency(b *bytes.Buffer, s style, c run.Consistency) {
	line := fmt.Sprintf("%s linearizable: %s", mark(c.Verdict, c.Ops), c.Verdict)
	fmt.Fprintf(b, "  %s  %d operations, %d keys, model %s, engine %s, %s of CPU", s.verdict(c.Verdict, line), c.Ops, c.Keys, c.Model, c.Engine, Duration(c.CPU))
	if c.Why != "" {
		fmt.Fprintf(b, "; %s", c.Why)
	}
	b.WriteByte('\n')
	if n := c.Counts; n.Reads+n.Writes+n.Unknown > 0 {
		fmt.Fprintf(b, "       %d reads, %d acknowledged writes; unknown whether they were done: %d (%.2g %%)\n",
			n.Reads, n.Writes, n.Unknown, n.UnknownShare*100)
	}
	for i, v := range c.Violations {
		if i == shown {
			fmt.Fprintf(b, "       and %d more\n", len(c.Violations)-shown)
			break
		}
		fmt.Fprintf(b, "       %s: %s\n", v.Label, v.Text)
		for _, line := range v.Context {
			fmt.Fprintf(b, "         %s\n", line)
		}
	}
	levels(b, c.Levels)
}

func levels(b *bytes.Buffer, all []run.Level) {
	for _, l := range all {
		fmt.Fprintf(b, "       of %d reads %s: %d stale", l.Reads, l.Mode, l.Stale)
		if l.Stale > 0 {
			fmt.Fprintf(b, ", by up to %s and %d versions", Duration(l.StaleMax), l.VersionsMax)
		}
		for _, g := range []struct {
			name string
			run.Guarantee
		}{{"read your writes", l.ReadYourWrites}, {"monotonic reads", l.MonotonicReads}, {"monotonic writes", l.MonotonicWrites}, {"writes follow reads", l.WritesFollowReads}} {
			fmt.Fprintf(b, "; %s %s %s", g.name, marks[g.Verdict], g.Verdict)
			if g.Broken > 0 {
				fmt.Fprintf(b, " (%d of %d)", g.Broken, g.Checked)
			}
		}
		b.WriteByte('\n')
	}
}

// Consistency prints the check of a history that belongs to no run.
func Consistency(w io.Writer, name string, c run.Consistency, colour bool) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n", path.Clean(name))
	consistency(&b, style(colour), c)
	_, err := w.Write(b.Bytes())
	return err
}

func faults(b *bytes.Buffer, s style, r run.Result) {
	if len(r.Faults) == 0 {
		return
	}
	b.WriteString("\nFaults\n")
	for _, f := range r.Faults {
		if f.Start == 0 && f.End == 0 {
			fmt.Fprintf(b, "  %s %s\n       asked for %s; %s\n", f.ID, f.Kind, params(f.Requested), f.Why)
			continue
		}
		fmt.Fprintf(b, "  %s %s  %s", f.ID, f.Kind, strings.Join(f.Nodes, ","))
		if f.Provider != "" {
			fmt.Fprintf(b, "  by %s, %s for %s", f.Provider, clock(f.Start), Duration(f.End-f.Start))
		}
		fmt.Fprintf(b, "\n       asked for %s; measured %s\n", params(f.Requested), params(f.Measured))
		fmt.Fprintf(b, "       %s  %s  recovery %s\n",
			s.verdict(string(f.Bit), fmt.Sprintf("%s bit: %s", marks[string(f.Bit)], f.Bit)),
			s.verdict(string(f.Healed), fmt.Sprintf("%s healed: %s", marks[string(f.Healed)], f.Healed)), recovery(f))
		if f.Overlap > 0 && f.Answered == 0 {
			fmt.Fprintf(b, "       none of the %d operations that were open then was answered while it lasted\n", f.Overlap)
		}
		if f.Why != "" && (f.Bit != run.BitYes || f.Healed != run.HealedYes) {
			fmt.Fprintf(b, "       %s\n", f.Why)
		}
		if f.RoleMoved != "" {
			fmt.Fprintf(b, "       role moved: %s\n", f.RoleMoved)
		}
	}
}

// recovery says how long a fault's traces stayed, in words where there is no number.
func recovery(f run.Fault) string {
	if f.Recovery < 0 {
		return "not within this run"
	}
	return Duration(f.Recovery)
}

// clock is a time of the run.
func clock(ns int64) string { return fmt.Sprintf("at %.1fs", float64(ns)/1e9) }

// params prints a dose with the units of its names.
func params(p map[string]any) string {
	if len(p) == 0 {
		return "nothing"
	}
	var words []string
	for _, k := range slices.Sorted(maps.Keys(p)) {
		words = append(words, param(k, p[k]))
	}
	return strings.Join(words, ", ")
}

func param(name string, v any) string {
	f, ok := v.(float64)
	switch {
	case !ok:
		return fmt.Sprintf("%s %v", name, v)
	case strings.HasSuffix(name, "_ns"):
		return fmt.Sprintf("%s %s", strings.TrimSuffix(name, "_ns"), Duration(int64(f)))
	case strings.HasSuffix(name, "percent"):
		return fmt.Sprintf("%s %.4g %%", name, f)
	}
	return fmt.Sprintf("%s %.6g", name, f)
}

// kindsOf returns the kinds of operation of all phases, "all" last.
func kindsOf(phases []run.Phase) []string {
	seen := map[string]bool{}
	for _, p := range phases {
		for k := range p.Ops {
			seen[k] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b string) int {
		if (a == "all") != (b == "all") {
			return cmp.Compare(boolInt(a == "all"), boolInt(b == "all"))
		}
		return strings.Compare(a, b)
	})
}

// A row is one line of a phase's numbers.
type row struct {
	name string
	run.Ops
}

// shownShards is how many shards get lines of their own; result.json has all.
const shownShards = 8

// rowsOf returns a phase's lines: by kind, and if there are several but not many, by shard.
func rowsOf(p run.Phase, kinds []string) (rows []row) {
	for _, k := range kinds {
		if o, ok := p.Ops[k]; ok {
			rows = append(rows, row{k, o})
		}
	}
	for i, o := range p.Shards[:min(len(p.Shards), shownShards)] {
		rows = append(rows, row{fmt.Sprint("shard ", i), o})
	}
	return rows
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func phases(b *bytes.Buffer, r run.Result) {
	if len(r.Phases) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%-10s %-7s %9s %9s %9s %9s %9s %8s %8s\n", "Phase", "op", "rate/s", "p50", "p99", "max", "n", "fail", "unknown")
	for _, p := range r.Phases {
		for _, row := range rowsOf(p, kindsOf(r.Phases)) {
			o := row.Ops
			if o.Response.N == 0 && row.name != "all" {
				continue
			}
			fmt.Fprintf(b, "%-10s %-7s %9.0f %9s %9s %9s %9d %8d %8d\n", p.Name, row.name, o.Rate,
				Duration(o.Response.P50), Duration(o.Response.P99), Duration(o.Response.Max), o.Response.N, o.Fail, o.Unknown)
		}
	}
	b.WriteString("(response times count from when an operation was due; failed and unknown ones with the time they took)\n")
}

func trust(b *bytes.Buffer, s style, r run.Result) {
	b.WriteString("\nTestbed\n")
	l := r.Load
	fmt.Fprintf(b, "  %s  late by %s at p50, %s at p99; %d never sent", s.verdict(l.Verdict, mark(l.Verdict, int(l.Lateness.N))+" load: "+l.Verdict), Duration(l.Lateness.P50), Duration(l.Lateness.P99), l.Dropped)
	if l.OfferedPerS > 0 {
		fmt.Fprintf(b, "; offered %.0f/s", l.OfferedPerS)
	}
	if l.MaxPerS > 0 {
		fmt.Fprintf(b, " of at most %.0f/s", l.MaxPerS)
	}
	b.WriteByte('\n')
	h := r.Host
	fmt.Fprintf(b, "  %s  others use %.0f %% of the CPU, fsync p50 %s\n", s.verdict(h.Noise, marks[h.Noise]+" host: "+h.Noise), h.ForeignCPU*100, Duration(h.FsyncP50))
	if r.Wire.Frames > 0 {
		mark := " "
		if r.Wire.LatenessMax > lateFlag.Nanoseconds() {
			mark = "!"
		}
		fmt.Fprintf(b, "  %s wire: %s\n", mark, wireWords(r.Wire))
	}
	if r.Downstream != nil {
		fmt.Fprintf(b, "    cache: %s\n", downstreamWords(*r.Downstream))
	}
	fmt.Fprintf(b, "    leader changes: %d\n", r.LeaderChanges)
	for _, left := range r.Cleanup.Residue {
		fmt.Fprintf(b, "    not known to be undone: %s\n", left)
	}
}

// lateFlag is how late a single packet may be delivered before a report says so.
const lateFlag = 5 * time.Millisecond

// downstreamWords says how writing through to the cache went.
func downstreamWords(d run.Downstream) string {
	return fmt.Sprintf("%d writes through to it, each waited %s on average and %s at most; %d failed, %d of them for want of room; %d attempts timed out, %d were repeated",
		d.Writes, Duration(d.WaitMean), Duration(d.WaitMax), d.Failed, d.Dropped, d.Late, d.Retried)
}

// wireWords says how exactly the wire worked.
func wireWords(w run.Wire) string {
	s := fmt.Sprintf("%d packets held, late by %s at p99", w.Frames, Duration(w.LatenessP99))
	if w.LatenessMax > 0 {
		s += fmt.Sprintf(", %s at most", Duration(w.LatenessMax))
	}
	if w.LatenessMax > lateFlag.Nanoseconds() {
		s += fmt.Sprintf(", which is more than %s", Duration(lateFlag.Nanoseconds()))
	}
	if w.Lost > 0 {
		s += fmt.Sprintf("; it could not keep up and lost %d", w.Lost)
	}
	return s
}

// Next says what to do about a verdict, by the reason that decided it.
func Next(r run.Result) string {
	switch {
	case r.Verdict == run.Violation:
		again := fmt.Sprintf("--seed %d", r.Seed)
		if v := r.Consistency.Violations; len(v) > 0 && v[0].Again != "" {
			again = v[0].Again
		}
		return fmt.Sprintf("look at the operations above in %s, or at the pictures in %s/; the nodes' logs are in %s/. The same plan again: %s", run.HistoryFile, run.ViolationsDir, run.NodesDir, again)
	case r.Verdict == run.Fail:
		return fmt.Sprintf("compare the phases above; the nodes' logs are in %s/, samples in %s. The same plan again: --seed %d", run.NodesDir, run.TelemetryFile, r.Seed)
	case r.Verdict != run.Inconclusive:
		return ""
	case r.Interrupted:
		return "let it run to its end"
	case strings.HasPrefix(r.Why, "testbed starved"):
		return "offer less load, or give the host fewer nodes; brownout doctor shows what the host can do"
	case strings.HasPrefix(r.Why, "host too noisy"):
		return "wait until the host is quieter; brownout doctor shows its noise now"
	case strings.HasPrefix(r.Why, "linearizability undecided"):
		return "check it again with more time (--budget), or use more keys or less load"
	}
	return "nothing is proven either way; the reason above says what to change"
}
