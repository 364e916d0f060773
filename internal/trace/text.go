package trace

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"brownout/internal/history"
	"brownout/internal/report"
)

// barWidth is the width of a waterfall's bars, in characters.
const barWidth = 40

// Text tells a story in words and as a waterfall.
func (n *Notes) Text(w io.Writer, s *Story) error {
	var b bytes.Buffer
	op := &s.Op
	if n.live {
		fmt.Fprintf(&b, "%s %s  took %s%s\n\n", op.Kind, command(op), report.Duration(s.response()), n.during(op.Due))
	} else {
		fmt.Fprintf(&b, "op %d  %s %s  %s in %s, due at %.3fs%s\n\n", op.ID, op.Kind, command(op), op.Outcome, report.Duration(s.response()), float64(op.Due)/1e9, n.during(op.Due))
	}
	for _, sentence := range n.words(s) {
		fmt.Fprintf(&b, "  %s\n", sentence)
	}
	b.WriteString("\n")
	waterfall(&b, s.Stages, op.Due, op.Return)
	if len(s.Copies) > 0 {
		fmt.Fprintf(&b, "\n  Copies of entry %d%s (%d of %d make it safe)\n", s.Index, n.ofShard(s), s.Quorum, len(s.Copies)+1)
		end := op.Return
		for _, c := range s.Copies {
			if k := len(c.Stages); k > 0 {
				end = max(end, c.Stages[k-1].End)
			}
		}
		rows := []Stage{}
		if k := len(s.Log); k > 0 {
			rows = append(rows, Stage{"own log", s.Node, s.Log[0].Start, s.Log[k-1].End})
		}
		for _, c := range s.Copies {
			k := len(c.Stages)
			switch {
			case k == 0:
				rows = append(rows, Stage{"no answer seen", c.Node, op.Return, op.Return})
			case c.Quorum:
				rows = append(rows, Stage{"there and back", c.Node, c.Stages[0].Start, c.Stages[k-1].End})
			default:
				rows = append(rows, Stage{"not waited for", c.Node, c.Stages[0].Start, c.Stages[k-1].End})
			}
		}
		waterfall(&b, rows, op.Due, end)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// command writes an operation as a client would.
func command(op *history.Op) string {
	text := op.Key
	if op.Expect != nil {
		text += " " + short(*op.Expect) + " →"
	}
	if op.Value != nil {
		text += " " + short(*op.Value)
	}
	return text
}

func short(s string) string {
	if len(s) <= 24 {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%.20q… (%d B)", s, len(s))
}

// during names the faults in force at a time.
func (n *Notes) during(t int64) string {
	var out []string
	for _, p := range n.periods() {
		if p.Start <= t && t < p.End {
			out = append(out, strings.TrimPrefix(p.Name, "fault "))
		}
	}
	if out == nil {
		return ""
	}
	return ", in " + strings.Join(slices.Compact(out), " with ")
}

// words tells the story as a person would.
func (n *Notes) words(s *Story) (out []string) {
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	took := func(name string) int64 {
		for _, st := range s.Stages {
			if st.Name == name {
				return st.Length()
			}
		}
		return 0
	}
	d := report.Duration
	first := ""
	if late := took("waits in the client"); late > 0 {
		first = fmt.Sprintf("Its client sent it %s after it was due. ", d(late))
	}
	say("%sIt was at %s after %s.", first, s.Node, d(took("network to "+s.Node)))
	if s.Index == 0 {
		say("A read: %s made sure that it still leads, which took %s, and read after %s of waiting for the lock.",
			s.Node, d(took("confirm leadership")), d(took("lock wait")))
	} else {
		n.wordsOfEntry(s, say, took)
	}
	if down := took("downstream"); down > 0 {
		say("Then it was written through downstream: that waited %s for its turn and took %s.", d(took("downstream queue")), d(down))
	}
	say("The answer left after %s and was with the client %s later.", d(took("answer queue")+took("encode and send")), d(took("network to the client")))
	most := slices.MaxFunc(s.Stages, func(a, b Stage) int { return int(a.Length() - b.Length()) })
	say("Most of it, %s or %.0f %%, was: %s (%s).", d(most.Length()), 100*float64(most.Length())/float64(max(s.response(), 1)), most.Name, most.Node)
	if u := s.Unexplained(); u > 0 {
		say("%s of it nobody noted.", d(u))
	}
	return out
}

// ofShard says whose entry it is, where there are several shards.
func (n *Notes) ofShard(s *Story) string {
	if !n.sharded {
		return ""
	}
	return fmt.Sprintf(" of shard %d", s.Shard)
}

func (n *Notes) wordsOfEntry(s *Story, say func(string, ...any), took func(string) int64) {
	d := report.Duration
	beside := ""
	if s.Beside > 0 {
		beside = fmt.Sprintf(" with %d others", s.Beside)
	}
	encoding := ""
	if t := took("encode commands"); t > 0 {
		encoding = "encoded it in " + d(t) + " and "
	}
	say("It waited %s for the entry before it; then %s %smade it entry %d%s%s.", d(took("proposal queue")), s.Node, encoding, s.Index, n.ofShard(s), beside)
	if k := len(s.Log); k > 0 {
		fsync := ""
		for _, st := range s.Log {
			if st.Name == "fsync" {
				fsync = fmt.Sprintf(", of which %s were fsync", d(st.Length()))
			}
		}
		say("%s wrote it to its own log in %s%s.", s.Node, d(s.Log[k-1].End-s.Log[0].Start), fsync)
	}
	voters := []string{s.Node}
	for _, c := range s.Copies {
		k := len(c.Stages)
		if k == 0 {
			say("%s was not seen to answer.", c.Node)
			continue
		}
		whole := c.Stages[k-1].End - c.Stages[0].Start
		most := slices.MaxFunc(c.Stages, func(a, b Stage) int { return int(a.Length() - b.Length()) })
		words := fmt.Sprintf("%s had it on its disk, and %s knew, %s after it was sent (%s of them: %s)", c.Node, s.Node, d(whole), d(most.Length()), most.Name)
		if c.Quorum {
			voters = append(voters, c.Node)
			say("%s.", words)
		} else {
			say("%s; nobody waited for it.", words)
		}
	}
	if len(s.Copies) > 0 {
		if len(voters) >= s.Quorum {
			say("With %s that was a quorum, %d of %d: committed.", strings.Join(voters, " and "), len(voters), len(s.Copies)+1)
		} else {
			say("Who else made the quorum of %d was not seen.", s.Quorum)
		}
	}
	decode, wait := took("decode commands"), took("lock wait")
	say("It was applied %s later, after %s of decoding and %s of waiting for the lock.", d(took("apply queue")+decode+wait+took("apply")), d(decode), d(wait))
}

// waterfall draws stages one below the other between two times.
func waterfall(b *bytes.Buffer, stages []Stage, from, to int64) {
	name := 0
	for _, s := range stages {
		name = max(name, len(s.Name))
	}
	scale := float64(barWidth) / float64(max(to-from, 1))
	for _, s := range stages {
		begin := min(int(float64(s.Start-from)*scale), barWidth-1)
		length := max(int(float64(s.End-from)*scale+0.5)-begin, 1)
		fmt.Fprintf(b, "  %-6s  %-*s  %9s  |%s%s%s|\n", s.Node, name, s.Name, report.Duration(s.Length()),
			strings.Repeat(" ", begin), strings.Repeat("#", min(length, barWidth-begin)), strings.Repeat(" ", max(barWidth-begin-length, 0)))
	}
}

// SummaryText is where the time of typical operations went: a column a phase.
func SummaryText(w io.Writer, all []Summary) error {
	var b bytes.Buffer
	for _, c := range []Class{Writes, Reads} {
		var cols []Summary
		var names []string
		for _, s := range all {
			if s.Class == c {
				cols = append(cols, s)
			}
		}
		if cols == nil {
			continue
		}
		for _, s := range cols {
			for _, m := range s.Stages {
				if !slices.Contains(names, m.Stage) {
					names = append(names, m.Stage)
				}
			}
		}
		slices.SortStableFunc(names, func(a, b string) int { return place(a) - place(b) })
		fmt.Fprintf(&b, "%-26s", "typical "+string(c))
		for _, s := range cols {
			fmt.Fprintf(&b, "  %20s", strings.TrimPrefix(s.Phase, "fault "))
		}
		b.WriteString("\n")
		for _, name := range names {
			fmt.Fprintf(&b, "%-26s", name)
			for _, s := range cols {
				text := "-"
				if i := slices.IndexFunc(s.Stages, func(m Mean) bool { return m.Stage == name }); i >= 0 {
					text = report.Duration(int64(s.Stages[i].NS))
				}
				fmt.Fprintf(&b, "  %20s", text)
			}
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%-26s", "response (median)")
		for _, s := range cols {
			fmt.Fprintf(&b, "  %20s", report.Duration(int64(s.Response)))
		}
		fmt.Fprintf(&b, "\n%-26s", "explained")
		for _, s := range cols {
			fmt.Fprintf(&b, "  %20s", fmt.Sprintf("%.1f %%", 100*s.Explained))
		}
		fmt.Fprintf(&b, "\n%-26s", "n noted of answered")
		for _, s := range cols {
			fmt.Fprintf(&b, "  %20s", fmt.Sprintf("%d of %d", s.N, s.Of))
		}
		b.WriteString("\n")
		for _, s := range cols {
			if s.Increase != nil {
				fmt.Fprintf(&b, "%s\n", s.words())
			}
		}
		b.WriteString("\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// words tells where an increase comes from: the stages that make up most of it.
func (s Summary) words() string {
	const most, enough = 3, 0.9
	inc := s.Increase
	var parts []string
	sum := 0.0
	for _, m := range inc.Stages {
		if len(parts) == most || sum >= enough*inc.NS || m.NS <= 0 {
			break
		}
		sum += m.NS
		parts = append(parts, fmt.Sprintf("%s +%s", m.Stage, report.Duration(int64(m.NS))))
	}
	return fmt.Sprintf("%s: +%s over the baseline, %.1f %% of it explained: %s", strings.TrimPrefix(s.Phase, "fault "),
		report.Duration(int64(inc.NS)), 100*inc.Explained, strings.Join(parts, ", "))
}
