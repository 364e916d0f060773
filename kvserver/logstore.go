package kvserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"brownout/kvserver/stages"
)

// A storage is everything a node keeps: entries, votes and snapshots.
type storage struct {
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	meter  *meteredLog
	close  func() error
}

// openStorage opens what c.Log names, below c.Dir, and puts it under between.
func openStorage(c Config, log hclog.Logger, notes *stages.Recorder, between func(raft.LogStore) raft.LogStore) (*storage, error) {
	if between == nil {
		between = func(s raft.LogStore) raft.LogStore { return s }
	}
	if c.Log == "memory" {
		mem := raft.NewInmemStore()
		m := &meteredLog{LogStore: plantInLog(c, between(mem)), notes: notes}
		return &storage{logs: m, stable: mem, snaps: raft.NewInmemSnapshotStore(), meter: m, close: func() error { return nil }}, nil
	}
	dir := filepath.Join(c.Dir, c.Log)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, 2, log)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	var store durable
	m := &meteredLog{notes: notes}
	switch c.Log {
	case "wal":
		store, err = openWAL(dir, c, log, walFS{times: &m.disk, bug: c.Bug})
	case "bolt":
		store, err = openBolt(filepath.Join(dir, "log.db"))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s log: %w", c.Log, err)
	}
	m.LogStore = plantInLog(c, between(store))
	cache, err := raft.NewLogCache(c.LogCache, m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make log cache: %w", err), store.Close())
	}
	return &storage{logs: cache, stable: store, snaps: snaps, meter: m, close: store.Close}, nil
}

// A durable store keeps entries and votes in files.
type durable interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// A meteredLog measures what storing entries costs: encoding, writing and,
// where the store is durable, waiting for the disk.
type meteredLog struct {
	raft.LogStore
	before         func([]*raft.Log) // if not nil, gets what is about to be stored
	notes          *stages.Recorder
	group          uint8 // for notes
	disk           diskTimes
	store          histogram
	entries, bytes atomic.Uint64
}

// StoreLog implements [raft.LogStore].
func (m *meteredLog) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (m *meteredLog) StoreLogs(logs []*raft.Log) error {
	if m.before != nil {
		m.before(logs)
	}
	m.disk.reset()
	start := time.Now()
	err := m.LogStore.StoreLogs(logs)
	took := time.Since(start)
	m.store.record(took)
	m.entries.Add(uint64(len(logs)))
	var n int
	for _, l := range logs {
		n += len(l.Data)
	}
	m.bytes.Add(uint64(n))
	if m.notes != nil && err == nil && len(logs) > 0 {
		rec := stages.Record{
			Kind: stages.Store, Group: m.group, Peer: stages.NoPeer, N: uint32(n), A: logs[0].Index, B: logs[len(logs)-1].Index,
			T: [9]int64{stages.StoreBegun: m.notes.At(start), stages.StoreDone: m.notes.At(start.Add(took))},
		}
		m.disk.note(&rec, m.notes)
		m.notes.Note(&rec)
	}
	return err
}

// diskTimes are when the write and the sync of one StoreLogs happened. The wal
// does both in the goroutine that stores; its rotation of files, in another
// one, may blur one reading in thousands.
type diskTimes struct {
	mu                     sync.Mutex
	written, asked, synced time.Time
}

func (d *diskTimes) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written, d.asked, d.synced = time.Time{}, time.Time{}, time.Time{}
}

// note puts the times into a record of a Store.
func (d *diskTimes) note(rec *stages.Record, r *stages.Recorder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at := range [...]struct {
		stage int
		t     time.Time
	}{{stages.StoreCoded, d.written}, {stages.StoreWritten, d.asked}, {stages.StoreSynced, d.synced}} {
		if !at.t.IsZero() {
			rec.T[at.stage] = r.At(at.t)
		}
	}
}

// write notes when the first write began.
func (d *diskTimes) write(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.written.IsZero() {
		d.written = at
	}
}

// sync notes when the last sync began and ended.
func (d *diskTimes) sync(asked, synced time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked, d.synced = asked, synced
}

// IsMonotonic implements [raft.MonotonicLogStore].
func (m *meteredLog) IsMonotonic() bool {
	s, ok := m.LogStore.(raft.MonotonicLogStore)
	return ok && s.IsMonotonic()
}
