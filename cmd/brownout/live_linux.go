package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"brownout/faults"
	"brownout/internal/run"
	"brownout/internal/telemetry"
	"brownout/internal/undo"
	"brownout/internal/workload"
	"brownout/scenarios"
)

// self is this binary; the helpers are started from it even if the file on
// disk is replaced meanwhile.
const self = "/proc/self/exe"

// needRoot says so before anything is touched.
func needRoot(what string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &faults.Unsupported{What: what, Why: "not running as root; namespaces, cgroups and links need it", Cure: "sudo brownout ..."}
}

func liveRun(ctx context.Context, l loaded, k *keeper) error {
	if err := needRoot("run"); err != nil {
		return err
	}
	o := scenarios.Options{
		Plan: l.plan, Source: l.source, Dir: k.dir, ID: k.id, Short: shortID(k.id), Exe: self, Argv: os.Args,
		Event: k.live.event, Watch: l.watch,
		Status: func(p workload.Progress) {
			k.live.status(fmt.Sprintf("%6.0f op/s  p50 %v  p99 %v  in flight %d", p.OKPerS,
				p.P50.Round(10*time.Microsecond), p.P99.Round(10*time.Microsecond), p.InFlight))
		},
	}
	if k.keep {
		o.Keep = func(i scenarios.Info) bool { return k.hold(ctx, i) }
	}
	return scenarios.Run(ctx, o)
}

// shortID is the suffix of a run's id.
func shortID(id string) string { return id[strings.LastIndex(id, "_")+1:] }

func up(ctx context.Context, file string, opt upOptions) error {
	o, err := newOutput(opt.output)
	if err != nil {
		return err
	}
	if err := needRoot("up"); err != nil {
		return err
	}
	if file == "" {
		file = "quickstart"
	}
	l, err := load(file, runOptions{set: opt.set, nodes: opt.nodes, nodesSet: opt.nodesSet})
	if err != nil {
		return err
	}
	now := time.Now()
	id := run.NewID(now, "up", suffix(now))
	dir := opt.out
	if dir == "" {
		dir = filepath.Join(run.StoreDir, id)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	so := scenarios.StartOptions{Plan: l.plan, Dir: dir, Short: shortID(id), Exe: self, Wait: opt.wait}
	if opt.foreground {
		return notUp(scenarios.ServeForeground(ctx, so, func() { _ = describeUp(ctx, o, so.Short) }), dir)
	}
	if err := scenarios.StartServer(ctx, so); err != nil {
		return notUp(err, dir)
	}
	return describeUp(ctx, o, so.Short)
}

// notUp says why a cluster is not up. Neither the command line nor the host is
// to blame where a node did not start: nothing is known.
func notUp(err error, dir string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errors.ErrUnsupported) {
		_ = os.RemoveAll(dir) // the error says all that it holds
		return err
	}
	_, refused := errors.AsType[*scenarios.DirError](err)
	_, stopped := errors.AsType[*interrupted](err)
	if refused || stopped {
		return err
	}
	fmt.Fprintln(os.Stderr, "brownout:", err)
	return &silent{run.Inconclusive.ExitCode()}
}

// describeUp prints the nodes of a standing cluster and what to do with them.
func describeUp(ctx context.Context, o *output, id string) error {
	r, err := scenarios.Connect(id)
	if err != nil {
		return err
	}
	info, err := r.Info(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return o.print(info)
	}
	leader := "n1"
	for _, n := range info.Nodes {
		if n.Leads != nil {
			n.Role = "leader"
		}
		fmt.Fprintf(o.out, "%-4s %-9s %s%s\n", n.Name, n.Role, n.Client, leads(n))
		if n.Role == "leader" {
			leader = n.Name
		}
	}
	fmt.Fprintf(o.talk, `
Cluster %s is up; logs and data in %s
  brownout enter client -- redis-cli -h %s INFO      as its clients see it
  brownout enter n1                                  inside a node
  brownout fault add net.delay from=leader to=followers add=5ms
  brownout down
`, info.ID, info.Dir, leader)
	return nil
}

// leads says which of several shards a leader leads.
func leads(n scenarios.NodeInfo) string {
	if n.Leads == nil {
		return ""
	}
	return fmt.Sprintf("  of shard %s", strings.Trim(fmt.Sprint(n.Leads), "[]"))
}

func down(ctx context.Context, name string) error {
	r, err := scenarios.Connect(name)
	if err != nil {
		return &usageError{err}
	}
	return r.Down(ctx)
}

func enter(ctx context.Context, name, node string, argv []string) error {
	if err := needRoot("enter"); err != nil {
		return err
	}
	r, err := scenarios.Connect(name)
	if err != nil {
		return &usageError{err}
	}
	info, err := r.Info(ctx)
	if err != nil {
		return err
	}
	code, err := scenarios.Enter(context.WithoutCancel(ctx), info, node, argv)
	if err != nil && code != 0 { // as shells do for a command that is not there
		fmt.Fprintln(os.Stderr, "brownout:", err)
	}
	if code != 0 {
		return &silent{code}
	}
	return err
}

func faultAdd(ctx context.Context, name, kind string, words []string) error {
	r, err := scenarios.Connect(name)
	if err != nil {
		return &usageError{err}
	}
	info, err := r.Info(ctx)
	if err != nil {
		return err
	}
	f, err := scenarios.ParseFault(kind, words, len(info.Nodes), max(1, info.Shards), info.Cache != nil)
	if err != nil {
		return &usageError{err}
	}
	id, err := r.Add(ctx, f)
	if err != nil {
		return err
	}
	fmt.Println(id)
	return nil
}

func faultList(ctx context.Context, name, format string) error {
	o, err := newOutput(format)
	if err != nil {
		return err
	}
	r, err := scenarios.Connect(name)
	if err != nil {
		return &usageError{err}
	}
	list, err := r.Faults(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return o.print(list)
	}
	for _, f := range list {
		fmt.Fprintf(o.out, "%-4s %-14s %-24s by %-9s %s  bit: %s %s\n", f.ID, f.Kind, strings.Join(f.Nodes, " "), f.Provider,
			values(f.Requested), f.Bit, f.Why)
	}
	return nil
}

func faultRemove(ctx context.Context, name, id string) error {
	r, err := scenarios.Connect(name)
	if err != nil {
		return &usageError{err}
	}
	return r.Remove(ctx, id)
}

func clean(ctx context.Context, format string, dry, all bool) error {
	o, err := newOutput(format)
	if err != nil {
		return err
	}
	if err := needRoot("clean"); err != nil {
		return err
	}
	found, err := undo.Find(ctx, all)
	if err == nil && !dry {
		found, err = undo.Sweep(ctx, all)
	}
	if o.json {
		return errors.Join(err, o.print(found))
	}
	for _, r := range found {
		fmt.Fprintf(o.out, "%s %s\n", r.Kind, r.Name)
	}
	if err != nil {
		return err
	}
	if len(found) == 0 {
		fmt.Fprintln(o.talk, "nothing left behind on this host")
	}
	return nil
}

func doctor(ctx context.Context, format string, measure bool) error {
	o, err := newOutput(format)
	if err != nil {
		return err
	}
	rows := faults.Survey(ctx)
	available := 0
	for _, r := range rows {
		if r.Verdict == faults.RowOK {
			available++
		}
	}
	// Before we measure, which would be most of what there is to see.
	now, err := telemetry.Look(ctx, os.TempDir(), 500*time.Millisecond)
	if err != nil {
		fmt.Fprintf(o.talk, "the host's noise is not known: %v\n", err)
	}
	known := err == nil
	if measure && available > 0 {
		if o.tty {
			fmt.Fprintln(o.talk, "measuring some of them on this host, 10 s ...")
		}
		measured, err := faults.Quick(ctx, self)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, m := range measured {
			for i := range rows {
				if rows[i].Kind == m.Kind {
					m.Others, m.Why = rows[i].Others, join(m.Why, rows[i].Why)
					rows[i] = m
				}
			}
		}
		if err != nil { // what a host can do is one thing, whether it does now another
			fmt.Fprintf(o.talk, "not measured: %v\n", err)
		}
	}
	if o.json {
		full := make([]doctorRow, len(rows))
		for i, r := range rows {
			full[i].Row = r
			if known {
				full[i].Host = &now
			}
		}
		err := o.print(full)
		if err == nil && available == 0 {
			err = &silent{exitUnsupported}
		}
		return err
	}
	fmt.Fprintf(o.out, "  %-17s  %-9s  %-34s  %s\n", "FAULT", "BY", "ASKED: MEASURED NOW", "OTHER PROVIDERS, WHAT IS MISSING  → ITS CURE")
	said := rows
	if all := sameReason(rows); all != nil { // once is enough
		said = []faults.Row{*all}
	}
	for _, r := range said {
		mark := map[string]string{faults.RowOK: "✓", faults.RowOff: "~"}[r.Verdict]
		fmt.Fprintf(o.out, "%s %-17s  %-9s  %-34s  %s\n", cmp.Or(mark, "✗"), r.Kind, r.Provider, doctorDose(r), doctorNote(r))
	}
	if known {
		fmt.Fprintf(o.out, "\nHost now: %s (in %s)\n", now, os.TempDir())
	}
	fmt.Fprintf(o.out, "%d of %d faults available (✓ or ~).\n", available, len(rows))
	if available == 0 {
		return &silent{exitUnsupported}
	}
	return nil
}

// A doctorRow says of one kind of fault what this host can do, and what the host
// did shortly before it was measured: nil if that is not known.
type doctorRow struct {
	faults.Row
	Host *telemetry.Now `json:"host"`
}

// sameReason returns one row in place of all, if nothing is available for one reason.
func sameReason(rows []faults.Row) *faults.Row {
	for _, r := range rows {
		if r.Verdict != faults.RowUnavailable || r.Why != rows[0].Why {
			return nil
		}
	}
	return &faults.Row{Kind: "every fault", Verdict: faults.RowUnavailable, Why: rows[0].Why, Cure: rows[0].Cure}
}

// doctorDose is how exactly a fault was given just now.
func doctorDose(r faults.Row) string {
	if r.Requested == "" {
		return ""
	}
	return fmt.Sprintf("%s: %s (%+.1f %%, n=%d)", r.Requested, r.MeasuredP50, r.ErrorPct, r.N)
}

func doctorNote(r faults.Row) string {
	note := r.Why
	if r.Others != nil {
		note = join("or "+strings.Join(r.Others, ", "), note)
	}
	if r.Cure != "" {
		note += "  → " + r.Cure
	}
	return note
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
