package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"brownout/faults"
)

func calibrate(ctx context.Context, families []string, format string) error {
	markdown := format == "md"
	if markdown {
		format = "text"
	}
	o, err := newOutput(format)
	if err != nil {
		return err
	}
	if err := needRoot("calibrate"); err != nil {
		return err
	}
	if slices.Contains(families, "all") {
		families = nil
	}
	began, before := time.Now(), loadAverage()
	rows, err := faults.Calibrate(ctx, self, families)
	switch {
	case o.json:
		return errors.Join(err, o.print(rows))
	case markdown && err != nil: // half a table is none
		return err
	case markdown:
		return calibrationPage(o.out, rows, began, before)
	}
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FAULT\tPROVIDER\tREQUESTED\tMEASURED (P50)\tP99\tSIGMA\tN\tERROR\tINJECT\tHEAL\tVERDICT")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", r.Kind, r.Provider, r.Requested, r.MeasuredP50, r.MeasuredP99, r.Sigma, r.N,
			errorOf(r), change(r.InjectNS, r.InjectUpNS), change(r.HealNS, r.HealUpNS), strings.TrimSpace(r.Verdict+" "+r.Why+" "+r.Cure))
	}
	return errors.Join(err, w.Flush())
}

func millis(ns int64) string { return fmt.Sprintf("%.2f ms", float64(ns)/1e6) }

// errorOf is the error of a dose, with that of the measurement where it is a share's.
func errorOf(r faults.Row) string {
	s := fmt.Sprintf("%+.2f %%", r.ErrorPct)
	if r.SigmaPct > 0 {
		s += fmt.Sprintf(" (%.1f %%)", r.SigmaPct)
	}
	return s
}

// change is how long an injection or a heal took, and apart from it the target
// that it started.
func change(ns, up int64) string {
	if up == 0 {
		return millis(ns)
	}
	return millis(ns-up) + " + " + millis(up)
}

// loadAverage is the first of the three, "?" where the kernel does not tell.
func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	return cmp.Or(string(bytes.SplitN(b, []byte(" "), 2)[0]), "?")
}

// calibrationPage prints rows as a page of docs: where and when, the table, and
// the rows that miss the goals.
func calibrationPage(w io.Writer, rows []faults.Row, began time.Time, before string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("name the kernel: %w", err)
	}
	fmt.Fprintf(w, `# Doses, asked for and measured

Made by `+"`brownout calibrate all -o md`"+`, which `+"`make bench`"+` calls; not by hand. Each row is one
dose on a cluster of three that has no load, seen by the probe that runs use, too.
The goals: a median within %.0f %%, or %v of a time; pauses within %.0f %% or %v; in force and gone
within %v. A share is counted: after its error stands, in brackets, the standard error that
chance gives a sample of this size. After an injection or a heal that starts the target stands
what the target itself then took until it was ready.

- kernel %s, %s, %d CPUs
- %s, taking %v
- load average %s before, %s after (1 min)
- brownout %s

| fault | provider | asked | measured, p50 | p99 | sigma | n | error | inject | heal |
|---|---|---|---|---|---|---|---|---|---|
`, faults.GoalPct, faults.GoalTime, faults.GoalPausePct, faults.GoalPauseTime, faults.GoalChange, unix.ByteSliceToString(u.Release[:]), runtime.GOARCH, runtime.NumCPU(),
		began.UTC().Format(time.RFC3339), time.Since(began).Round(time.Second), before, loadAverage(), version)
	var errs []float64
	var missed, unshown, absent []string
	for _, r := range rows {
		if r.Verdict == faults.RowUnavailable {
			absent = append(absent, fmt.Sprintf("- %s: %s", r.Kind, cell(r.Why)))
			continue
		}
		errs = append(errs, math.Abs(r.ErrorPct))
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %d | %s | %s | %s |\n", r.Kind, r.Provider, cell(r.Requested), cell(r.MeasuredP50), cell(r.MeasuredP99),
			cell(r.Sigma), r.N, errorOf(r), change(r.InjectNS, r.InjectUpNS), change(r.HealNS, r.HealUpNS))
		if why := r.Missed(); why != "" {
			missed = append(missed, strings.TrimSuffix(fmt.Sprintf("- %s %s: %s. %s", r.Kind, cell(r.Requested), why, cell(r.Why)), " "))
		}
		if why := r.Unshown(); why != "" {
			unshown = append(unshown, fmt.Sprintf("- %s %s: %s.", r.Kind, cell(r.Requested), why))
		}
	}
	slices.Sort(errs)
	if len(errs) > 0 {
		fmt.Fprintf(w, "\n%d rows; half of them are off by at most %.2f %%, nine tenths by %.2f %%.\n", len(errs), errs[len(errs)/2], errs[len(errs)*9/10])
	}
	list(w, "Rows that miss a goal", missed)
	list(w, "Rows that show neither", unshown)
	list(w, "Not given by this machine", absent)
	return nil
}

func list(w io.Writer, title string, items []string) {
	if len(items) > 0 {
		fmt.Fprintf(w, "\n## %s\n\n%s\n", title, strings.Join(items, "\n"))
	}
}

// cell is a text that fits in a table's cell.
func cell(s string) string { return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "/") }
