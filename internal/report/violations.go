package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"brownout/checker"
	hist "brownout/internal/history"
	"brownout/internal/run"
)

// maxPictures is how many conflicts are drawn.
const maxPictures = 10

// Violations writes, for each of the first conflicts of a history, into dir:
// N.json (the operations that contradict each other), N.svg (when they were, on
// which nodes, and under which faults) and N.html (porcupine's picture of the
// same). Without conflicts it writes nothing.
func Violations(dir string, c run.Consistency, faults []run.Fault) error {
	if len(c.Violations) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i, v := range c.Violations[:min(len(c.Violations), maxPictures)] {
		core, err := coreOf(&v)
		if err != nil {
			return err
		}
		var doc bytes.Buffer
		enc := json.NewEncoder(&doc)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false) // a link is "n1>n2"
		if err := enc.Encode(v); err != nil {
			return err
		}
		var page bytes.Buffer
		if err := checker.Visualize(core, marksOf(core, v.At, faults), &page); err != nil {
			return err
		}
		for ext, b := range map[string][]byte{".json": doc.Bytes(), ".svg": Timeline(&v, core, faults), ".html": page.Bytes()} {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i+1)+ext), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func coreOf(v *run.Conflict) ([]hist.Op, error) {
	core := make([]hist.Op, 0, len(v.Core))
	for _, raw := range v.Core {
		o, err := hist.Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("core of a conflict on %s: %w", v.Key, err)
		}
		core = append(core, o)
	}
	return core, nil
}

// marksOf are the faults that were in force while the operations were open.
func marksOf(core []hist.Op, at int64, faults []run.Fault) (marks []checker.Mark) {
	if len(core) == 0 {
		return nil
	}
	for _, f := range faults {
		if f.End > 0 && f.Start <= at && f.End >= core[0].Call {
			marks = append(marks, checker.Mark{Row: f.ID, Start: max(f.Start, core[0].Call), End: f.End, Text: f.Kind + " on " + fmt.Sprint(f.Nodes)})
		}
	}
	return marks
}

// Sizes of a timeline, in pixels.
const (
	leftMargin = 20
	barsWidth  = 900
	rowHeight  = 26
	lineHeight = 15
	lineWidth  = 122 // characters
)

// Timeline draws the operations of a conflict as bars over time, faults behind
// them, and says below what it is about. Operations whose end is unknown are open
// to the right.
func Timeline(v *run.Conflict, core []hist.Op, faults []run.Fault) []byte {
	from, to := v.At, v.At
	for i := range core {
		from = min(from, core[i].Call)
		if core[i].Outcome == hist.OK {
			to = max(to, core[i].Return)
		}
	}
	pad := max((to-from)/20, 1)
	from, to = from-pad, to+pad
	x := func(t int64) float64 {
		return leftMargin + barsWidth*float64(min(max(t, from), to)-from)/float64(to-from)
	}
	story := told(v)
	height := rowHeight*(len(core)+3) + 20 + lineHeight*len(story)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="12">`+"\n", barsWidth+2*leftMargin, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="%d" y="16" font-weight="bold">%s</text>`+"\n", leftMargin, html.EscapeString(strings.TrimSuffix(v.Label+" on "+v.Key, " on ")))
	y := rowHeight
	for _, f := range faults {
		if f.End == 0 || f.Start > to || f.End < from {
			continue
		}
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#fbe3e0"><title>%s</title></rect>`+"\n",
			x(f.Start), y, max(x(f.End)-x(f.Start), 1), height-y-24-lineHeight*len(story), html.EscapeString(f.ID+" "+f.Kind))
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="#a33">%s</text>`+"\n", x(f.Start)+3, y+14, html.EscapeString(f.ID+" "+f.Kind+" on "+fmt.Sprint(f.Nodes)))
		y += 14
	}
	y += 6
	for i := range core {
		o := &core[i]
		end, style := x(o.Return), ""
		if o.Outcome != hist.OK {
			end, style = x(to), ` stroke-dasharray="4 3"`
		}
		fill := "#cfe0f3"
		if slices.Contains(v.Ops, o.ID) {
			fill = "#f6c65b"
		}
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" rx="2" fill="%s" stroke="#333"%s><title>%s</title></rect>`+"\n",
			x(o.Call), y, max(end-x(o.Call), 2), rowHeight-8, fill, style, html.EscapeString(span(v, o)))
		at, anchor := x(o.Call)+4, "start"
		if at > leftMargin+barsWidth/2 {
			at, anchor = max(end, x(o.Call)+2)-4, "end"
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="%s">%s</text>`+"\n", at, y+13, anchor, html.EscapeString(what(o)))
		y += rowHeight
	}
	below := height - 8 - lineHeight*len(story)
	fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%s</text>`+"\n",
		leftMargin, below, when(v, from), leftMargin+barsWidth, below, when(v, to))
	for i, line := range story {
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#333">%s</text>`+"\n", leftMargin, below+lineHeight*(i+1), html.EscapeString(line))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// told is what a conflict is about, in lines that fit below its timeline.
func told(v *run.Conflict) (lines []string) {
	for _, text := range slices.Concat([]string{v.Text}, v.Arrows, v.Context, []string{v.Again}) {
		line, sep := "", ""
		for word := range strings.FieldsSeq(text) {
			if line != "" && len(line)+1+len(word) > lineWidth {
				lines = append(lines, line)
				line, sep = "    ", ""
			}
			line, sep = line+sep+word, " "
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func span(v *run.Conflict, o *hist.Op) string {
	return fmt.Sprintf("operation %d of client %d, %s to %s, %s", o.ID, o.Client, when(v, o.Call), when(v, o.Return), o.Outcome)
}

// when prints a time of a conflict's history.
func when(v *run.Conflict, t int64) string {
	if v.Untimed {
		return fmt.Sprintf("line %d", t)
	}
	return fmt.Sprintf("%.9g s", float64(t)/1e9)
}

func what(o *hist.Op) string {
	value := func(s *string) string {
		switch {
		case s == nil:
			return "absent"
		case len(*s) > 24:
			return fmt.Sprintf("%.10q…%.10q", *s, (*s)[len(*s)-10:])
		}
		return fmt.Sprintf("%q", *s)
	}
	out := fmt.Sprintf("%d %s", o.ID, o.Kind)
	if o.Node != "" {
		out = fmt.Sprintf("%d %s@%s", o.ID, o.Kind, o.Node)
	}
	if o.Kind == hist.CAS {
		out += " " + value(o.Expect) + "→" + value(o.Value)
	} else if o.Value != nil {
		out += " " + value(o.Value)
	}
	switch {
	case o.Outcome != hist.OK:
		out += " " + string(o.Outcome)
	case o.Kind == hist.Get || o.Kind == hist.CAS:
		out += " found " + value(o.Result)
	}
	return out
}
