package report

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"brownout/internal/run"
)

// maxSummary bounds summary.md, in bytes: CI systems cut longer ones off.
const maxSummary = 900 << 10

// Summary writes a page of Markdown.
func Summary(w io.Writer, _ fs.FS, r run.Result) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s %s: %s\n\n%s\n\n", marks[string(r.Verdict)], strings.ToUpper(string(r.Verdict)), cell(r.Scenario), cell(r.Why))
	fmt.Fprintf(&b, "%s, run `%s`, exit code %d.\n", target(r), r.Run, r.ExitCode)
	if st := r.Stopped; st != nil {
		fmt.Fprintf(&b, "\nIt was %s.\n", stopped(st))
	}
	if next := Next(r); next != "" {
		fmt.Fprintf(&b, "\nNext: %s.\n", cell(strings.TrimSuffix(next, ".")))
	}
	if len(r.Expectations) > 0 {
		b.WriteString("\n## Expectations\n\n| | expectation | observed | where | why |\n|---|---|---|---|---|\n")
		for _, e := range r.Expectations {
			fmt.Fprintf(&b, "| %s %s | %s | %s | %s | %s |\n", marks[string(e.Verdict)], e.Verdict, cell(e.Text), cell(Observed(e)), cell(Where(e)), cell(e.Why))
		}
	}
	c, d := r.Consistency, r.Durability
	fmt.Fprintf(&b, "\n## History\n\n- %s linearizable: **%s** (%d operations, %d keys, engine %s) %s\n", marks[c.Verdict], c.Verdict, c.Ops, c.Keys, c.Engine, cell(c.Why))
	for _, v := range c.Violations {
		fmt.Fprintf(&b, "  - %s: %s\n", cell(v.Label), cell(v.Text))
	}
	fmt.Fprintf(&b, "- %s acknowledged writes: **%s** (%d) %s\n", marks[d.Verdict], d.Verdict, d.Acknowledged, cell(d.Why))
	for _, l := range d.Lost {
		fmt.Fprintf(&b, "  - lost: %s\n", cell(l.Text))
	}
	if len(r.Faults) > 0 {
		b.WriteString("\n## Faults\n\n| fault | on | by | asked for | measured | bit | healed | recovery |\n|---|---|---|---|---|---|---|---|\n")
		for _, f := range r.Faults {
			fmt.Fprintf(&b, "| %s %s | %s | %s | %s | %s | %s %s | %s %s | %s |\n", f.ID, f.Kind, cell(strings.Join(f.Nodes, ", ")), f.Provider,
				cell(params(f.Requested)), cell(params(f.Measured)), marks[string(f.Bit)], f.Bit, marks[string(f.Healed)], f.Healed, recovery(f))
		}
	}
	b.WriteString("\n## Phases\n\n| phase | op | rate/s | p50 | p90 | p99 | p99.9 | max | n | fail | unknown |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range r.Phases {
		for _, row := range rowsOf(p, kindsOf(r.Phases)) {
			o, q := row.Ops, row.Response
			fmt.Fprintf(&b, "| %s | %s | %.0f | %s | %s | %s | %s | %s | %d | %d | %d |\n", p.Name, row.name, o.Rate,
				Duration(q.P50), Duration(q.P90), Duration(q.P99), Duration(q.P999), Duration(q.Max), q.N, o.Fail, o.Unknown)
		}
	}
	b.WriteString("\nResponse times count from when an operation was due.\n\n## Testbed\n\n")
	fmt.Fprintf(&b, "- %s load: %s, p99 lateness %s, %d never sent %s\n", marks[r.Load.Verdict], r.Load.Verdict, Duration(r.Load.Lateness.P99), r.Load.Dropped, cell(r.Load.Why))
	fmt.Fprintf(&b, "- %s host: %s, others use %.0f %% of the CPU, fsync p50 %s %s\n", marks[r.Host.Noise], r.Host.Noise, r.Host.ForeignCPU*100, Duration(r.Host.FsyncP50), cell(r.Host.Why))
	fmt.Fprintf(&b, "- wire: %s\n- leader changes: %d\n", wireWords(r.Wire), r.LeaderChanges)
	if r.Downstream != nil {
		fmt.Fprintf(&b, "- cache: %s\n", downstreamWords(*r.Downstream))
	}
	_, err := w.Write(cut(b.Bytes(), maxSummary))
	return err
}

// cut shortens a page to n bytes, at a line's end, and says so.
func cut(b []byte, n int) []byte {
	const note = "\n(cut off here: the whole is in result.json)\n"
	if len(b) <= n {
		return b
	}
	b = b[:n-len(note)]
	return append(b[:bytes.LastIndexByte(b, '\n')+1], note...)
}

// cell makes text fit a table's cell: one line, nothing that Markdown or HTML would take for markup.
func cell(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "_", `\_`, "`", "'").Replace(s)
}

// Write writes every form of a result into a run's directory: result.json,
// summary.md and junit.xml.
func Write(dir string, fsys fs.FS, r run.Result) error {
	if err := run.WriteResult(dir, r); err != nil {
		return fmt.Errorf("write %s: %w", run.ResultFile, err)
	}
	for _, f := range []struct {
		name  string
		write func(io.Writer, fs.FS, run.Result) error
	}{{run.SummaryFile, Summary}, {run.JUnitFile, JUnit}} {
		var b bytes.Buffer
		if err := f.write(&b, fsys, r); err != nil {
			return fmt.Errorf("make %s: %w", f.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), b.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	if err := Violations(filepath.Join(dir, run.ViolationsDir), r.Consistency, r.Faults); err != nil {
		return fmt.Errorf("draw violations: %w", err)
	}
	return nil
}
