package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"brownout/internal/history"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/scenarios"
)

// TestTheRecordOfAKilledRunIsItsSpool kills no process: it leaves a directory
// as a kill -9 does.
func TestTheRecordOfAKilledRunIsItsSpool(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src, _ := scenarios.Get("quickstart")
	sc, err := scenarios.Parse(src, "quickstart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := scenarios.Resolve(sc, 1, "test")
	if err != nil {
		t.Fatal(err)
	}
	p.Load.Rate, p.Load.OfMax = 100, 0
	p.Phases = []plan.Phase{{Name: "baseline", End: time.Second}}
	var spool bytes.Buffer
	rec := history.NewRecorder(&spool)
	log := rec.Log()
	log.Add(&history.Op{ID: 1, Key: "k0", Kind: history.Get, Outcome: history.OK, Due: 1, Call: 2, Return: int64(500 * time.Millisecond), Node: "n1"})
	if err := rec.Flush(); err != nil {
		t.Fatal(err)
	}
	write(run.PlanFile, scenarios.Encode(p))
	write(run.EventsFile, []byte(`{"t_ns":-1,"type":"load.started","data":{"rate_per_s":100}}`+"\n"))
	write(run.HistoryFile, nil)
	write(run.SpoolFile, spool.Bytes())
	fsys, done, err := recordOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	f, err := fsys.Open(run.HistoryFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ops, err := history.ReadAll(f)
	if err != nil || len(ops) < 2 || ops[0].ID != 1 || ops[1].Outcome != history.Unknown {
		t.Errorf("recovered %d operations, %v: %+v; want the one that was recorded, and as unknown what was due until then", len(ops), err, ops[:min(len(ops), 3)])
	}
	if st, err := os.Stat(filepath.Join(dir, run.HistoryFile)); err != nil || st.Size() != 0 {
		t.Errorf("the run itself was changed: %v, %v", st, err)
	}
	write(run.EventsFile, []byte(`{"t_ns":-1,"type":"load.started","data":{"rate_per_s":100}}`+"\n"+`{"t_ns":9,"type":"run.ended"}`+"\n"))
	fsys, done, err = recordOf(dir)
	if _, laid := fsys.(overlay); err != nil || laid {
		t.Errorf("a run that ended has the history that it wrote: %v", err)
	}
	done()
}
