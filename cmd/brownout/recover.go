package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/internal/workload"
)

// recordOf returns the files of a run to judge. Those of a run that was killed
// before it wrote its history have it made of what the load generator had
// spooled, in a temporary place: what done removes. The run stays as it is.
func recordOf(dir string) (fsys fs.FS, done func(), err error) {
	fsys, done = os.DirFS(dir), func() {}
	spool := filepath.Join(dir, run.SpoolFile)
	if _, err := os.Stat(spool); err != nil || !idle(dir) {
		return fsys, done, nil
	}
	var p plan.Plan
	events, err := run.ReadEvents(fsys)
	if err = errors.Join(err, run.ReadJSON(fsys, run.PlanFile, &p)); err != nil || len(p.Phases) == 0 {
		return fsys, done, nil // judging says what is wrong with them
	}
	of := func(t run.EventType) int {
		return slices.IndexFunc(events, func(e run.Event) bool { return e.Type == t })
	}
	began := of(run.LoadStarted)
	if of(run.RunEnded) >= 0 || began < 0 {
		return fsys, done, nil
	}
	tmp, err := os.MkdirTemp("", "brownout-check-")
	if err != nil {
		return nil, done, err
	}
	done = func() { _ = os.RemoveAll(tmp) }
	rate, _ := events[began].Data["rate_per_s"].(float64)
	s := workload.Spec{
		Load: p.Load, Seed: p.Seed, Rate: rate, Start: p.Phases[0].Start, End: p.Phases[len(p.Phases)-1].End,
		Spool: spool, History: filepath.Join(tmp, run.HistoryFile),
	}
	if err := workload.Recover(s); err != nil {
		done()
		return nil, func() {}, fmt.Errorf("recover %s: %w", run.SpoolFile, err)
	}
	return overlay{fsys, s.History}, done, nil
}

// An overlay is a run whose history lies elsewhere.
type overlay struct {
	fs.FS
	history string
}

func (o overlay) Open(name string) (fs.File, error) {
	if name == run.HistoryFile {
		return os.Open(o.history)
	}
	return o.FS.Open(name)
}
