package kvserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	segmentfile "github.com/hashicorp/raft-wal/segment"
)

// A storage is everything a node keeps: entries, votes and snapshots.
type storage struct {
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	meter  *meteredLog
	close  func() error
}

// openStorage opens what c.Log names, below c.Dir.
func openStorage(c Config, log hclog.Logger) (*storage, error) {
	if c.Log == "memory" {
		mem := raft.NewInmemStore()
		m := &meteredLog{LogStore: mem}
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
	switch c.Log {
	case "wal":
		store, err = openWAL(dir, c.SegmentBytes, log)
	case "bolt":
		store, err = openBolt(filepath.Join(dir, "log.db"))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s log: %w", c.Log, err)
	}
	m := &meteredLog{LogStore: store}
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

// A walLog is a WAL together with its meta store, which [wal.WAL.Close] leaves open.
type walLog struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

func openWAL(dir string, segment int, log hclog.Logger) (durable, error) {
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithLogger(log), wal.WithSegmentSize(segment), wal.WithMetaStore(meta),
		wal.WithSegmentFiler(segmentfile.NewFiler(dir, walFS{fs.New()})))
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return &walLog{w, meta}, nil
}

// Close implements [io.Closer].
func (w *walLog) Close() error { return errors.Join(w.WAL.Close(), w.meta.Close()) }

// A meteredLog measures what storing entries costs: encoding, writing and,
// where the store is durable, waiting for the disk.
type meteredLog struct {
	raft.LogStore
	store          histogram
	entries, bytes atomic.Uint64
}

// StoreLog implements [raft.LogStore].
func (m *meteredLog) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (m *meteredLog) StoreLogs(logs []*raft.Log) error {
	start := time.Now()
	err := m.LogStore.StoreLogs(logs)
	m.store.record(time.Since(start))
	m.entries.Add(uint64(len(logs)))
	var n int
	for _, l := range logs {
		n += len(l.Data)
	}
	m.bytes.Add(uint64(n))
	return err
}

// IsMonotonic implements [raft.MonotonicLogStore].
func (m *meteredLog) IsMonotonic() bool {
	s, ok := m.LogStore.(raft.MonotonicLogStore)
	return ok && s.IsMonotonic()
}
