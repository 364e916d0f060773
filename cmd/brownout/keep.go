package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"brownout/internal/judge"
	"brownout/internal/report"
	"brownout/internal/run"
	"brownout/scenarios"
)

// attended reports whether somebody sits at a terminal who can end what we hold.
func attended() bool { return isTerminal(os.Stdin) && os.Getenv("CI") == "" }

// A keeper judges a run and tells of it: when its nodes have ended, or before,
// so that people can look at them.
type keeper struct {
	o    *output
	dir  string
	id   string
	live *progress
	keep bool // the nodes' data in any case, and the nodes if there is something to look at
	told bool // the result was printed
	held bool // the nodes ran on after it
}

// judge judges the run from its files, writes the results beside them and prints
// them once. It returns the exit code.
func (k *keeper) judge(ctx context.Context, standing bool) (int, error) {
	if k.dir == filepath.Join(run.StoreDir, k.id) {
		if err := run.MarkLatest(run.StoreDir, k.id); err != nil {
			fmt.Fprintln(k.o.talk, "brownout: mark latest:", err)
		}
	}
	// Judging goes on after an interrupt: what was recorded is still worth a result.
	res, err := judge.Judge(context.WithoutCancel(ctx), os.DirFS(k.dir), judge.Options{})
	if err != nil {
		return 0, &unjudged{k.dir, err}
	}
	if standing {
		res.Cleanup.Residue = nil // it is what we are about to hold
	}
	code := res.ExitCode
	if err := report.Write(k.dir, os.DirFS(k.dir), res); err != nil { // a full disk: what is known is still said
		fmt.Fprintln(k.o.talk, "brownout: write the results:", err)
		code = worstCode(code, run.Inconclusive.ExitCode())
	}
	if k.told {
		for _, left := range res.Cleanup.Residue {
			fmt.Fprintln(k.o.talk, "brownout: not known to be undone:", left)
		}
		return code, nil
	}
	k.told = true
	if err := k.o.result(res, k.dir); err != nil && !errors.Is(err, syscall.EPIPE) { // whoever does not listen may still want the exit code
		return 0, err
	}
	return code, nil
}

// hold judges a run whose nodes still run, and says whether they are to go on:
// if somebody is there, and there is something to look at.
func (k *keeper) hold(ctx context.Context, standing scenarios.Info) bool {
	if !attended() {
		return false
	}
	k.live.done()
	code, err := k.judge(ctx, true)
	if err != nil || code == 0 || ctx.Err() != nil {
		return false
	}
	k.held = true
	leader := standing.Nodes[0].Name
	for _, n := range standing.Nodes {
		if n.Role == "leader" {
			leader = n.Name
		}
	}
	keeping.Store(true)
	fmt.Fprintf(k.o.talk, `
Kept       the nodes run on as they are, all faults healed; from another terminal:
           brownout enter %s                                  inside a node
           brownout enter client -- redis-cli -h %s INFO      as its clients see it
           brownout down                                      as Ctrl-C here: ends them
`, leader, leader)
	return true
}
