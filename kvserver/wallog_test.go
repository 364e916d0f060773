package kvserver

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A troubledDisk lets so many operations pass, then fails all until it is well.
type troubledDisk struct{ left atomic.Int64 }

var errTrouble = errors.New("input/output error")

func (d *troubledDisk) next() error {
	if d.left.Add(-1) < 0 {
		return errTrouble
	}
	return nil
}

func (d *troubledDisk) heal() { d.left.Store(1 << 40) }

func openTroubled(t *testing.T, dir string, d *troubledDisk) durable {
	t.Helper()
	store, err := openWAL(dir, Config{SegmentBytes: 1 << 20}, hclog.NewNullLogger(), walFS{times: &diskTimes{}, trouble: d.next})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func logsOf(from, to, term uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Data: fmt.Appendf(nil, "%d in term %d", i, term)})
	}
	return logs
}

// TestALogGoesOnAfterAFailedAppend: whatever fails, and however often, what was
// appended before is kept, what failed is gone, and the log takes what comes in
// its place, in this process and in the next.
func TestALogGoesOnAfterAFailedAppend(t *testing.T) {
	for _, tt := range []struct {
		name string
		kept uint64 // entries before
		ok   int64  // operations of the failed append that pass: a write, then a sync
		long bool   // it takes new files
	}{
		{"its write", 10, 0, false},
		{"its sync", 10, 1, false},
		{"the first write of all", 0, 0, false},
		{"the first sync of all", 0, 1, false},
		{"in a later file", 3000, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			disk := &troubledDisk{}
			disk.heal()
			store := openTroubled(t, dir, disk)
			defer func() { store.Close() }()
			for i := uint64(1); i <= tt.kept; i += 100 {
				logs := logsOf(i, min(i+99, tt.kept), 1)
				if tt.long {
					for _, l := range logs {
						l.Data = make([]byte, 1<<10)
					}
				}
				if err := store.StoreLogs(logs); err != nil {
					t.Fatal(err)
				}
			}
			disk.left.Store(tt.ok)
			for range 3 {
				if err := store.StoreLogs(logsOf(tt.kept+1, tt.kept+3, 1)); err == nil {
					t.Fatal("an append to a broken disk succeeded")
				}
				time.Sleep(repairPause) // nothing tells that the next attempt may begin
			}
			disk.heal()
			// Another leader has other entries in their place.
			want := logsOf(tt.kept+1, tt.kept+2, 2)
			if err := store.StoreLogs(want); err != nil {
				t.Fatalf("after the disk was well again: %v", err)
			}
			for _, again := range []bool{false, true} {
				if again {
					if err := store.Close(); err != nil {
						t.Fatal(err)
					}
					store = openTroubled(t, dir, disk)
				}
				if last, err := store.LastIndex(); err != nil || last != tt.kept+2 {
					t.Errorf("last index %d, %v; want %d", last, err, tt.kept+2)
				}
				for i := uint64(1); i <= tt.kept+2; i++ {
					var l raft.Log
					if err := store.GetLog(i, &l); err != nil || i > tt.kept && string(l.Data) != string(want[i-tt.kept-1].Data) || i <= tt.kept && l.Term != 1 {
						t.Fatalf("entry %d is %d %q, %v", i, l.Term, l.Data, err)
					}
				}
			}
			if err := store.StoreLogs(logsOf(tt.kept+3, tt.kept+40, 2)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestARefusedAppendCostsNothing: entries out of order are refused before
// anything is written, and none that is there may be cut off for it.
func TestARefusedAppendCostsNothing(t *testing.T) {
	disk := &troubledDisk{}
	disk.heal()
	store := openTroubled(t, t.TempDir(), disk)
	defer store.Close()
	if err := store.StoreLogs(logsOf(1, 9, 1)); err != nil {
		t.Fatal(err)
	}
	for _, first := range []uint64{5, 20} {
		if err := store.StoreLogs(logsOf(first, first, 2)); err == nil {
			t.Fatalf("entry %d was taken after 9", first)
		}
	}
	if err := store.StoreLogs(logsOf(10, 10, 2)); err != nil {
		t.Error(err)
	}
	for i := uint64(1); i <= 10; i++ {
		var l raft.Log
		if err := store.GetLog(i, &l); err != nil || (l.Term == 2) != (i == 10) {
			t.Errorf("entry %d: term %d, %v", i, l.Term, err)
		}
	}
}

func TestALogSaysWhyItIsNotRepaired(t *testing.T) {
	disk := &troubledDisk{}
	disk.heal()
	store := openTroubled(t, t.TempDir(), disk)
	defer store.Close()
	if err := store.StoreLogs(logsOf(1, 3, 1)); err != nil {
		t.Fatal(err)
	}
	disk.left.Store(1)
	_ = store.StoreLogs(logsOf(4, 4, 1))
	for range 2 {
		if err := store.StoreLogs(logsOf(4, 4, 1)); !errors.Is(err, errTrouble) || !strings.Contains(err.Error(), "repair") {
			t.Errorf("err = %v, want that the log is not repaired, and why", err)
		}
	}
	var l raft.Log
	if err := store.GetLog(3, &l); err != nil || l.Index != 3 {
		t.Errorf("entry 3: %d, %v; it can still be read", l.Index, err)
	}
}
