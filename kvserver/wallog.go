package kvserver

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	segmentfile "github.com/hashicorp/raft-wal/segment"
)

// A walLog is a WAL that goes on after an append that failed.
//
// The library's WAL does not: its writer keeps the entries of a failed append in
// memory and takes none with their indexes ever again. What reached the disk of
// them nobody knows, and after a failed fsync the kernel may hold pages that it
// calls clean and that are not on the disk (fsync(2); Rebello et al., "Can
// Applications Recover from fsync Failures?", ATC '20). So before the next append
// the log is opened again from its files, and everything from the first doubtful
// entry on is cut off, which begins a new file. What was appended before was
// synced without an error, and stays.
type walLog struct {
	meta *metadb.BoltMetaDB // which [wal.WAL.Close] leaves open
	open func() (*wal.WAL, error)
	log  hclog.Logger

	doubt atomic.Uint64 // the first entry that may be there, though its append failed; 0: none

	mu   sync.RWMutex
	wal  *wal.WAL  // nil: could not be opened again
	why  error     // of the last attempt
	next time.Time // no other before
}

// repairPause is between attempts: each reads the newest file.
const repairPause = 50 * time.Millisecond

func openWAL(dir string, c Config, log hclog.Logger, files walFS) (durable, error) {
	w := &walLog{meta: &metadb.BoltMetaDB{}, log: log}
	files.FS = fs.New()
	w.open = func() (*wal.WAL, error) {
		return wal.Open(dir, wal.WithLogger(log), wal.WithSegmentSize(c.SegmentBytes), wal.WithMetaStore(w.meta),
			wal.WithSegmentFiler(segmentfile.NewFiler(dir, files)))
	}
	var err error
	if w.wal, err = w.open(); err != nil {
		return nil, errors.Join(err, w.meta.Close())
	}
	return w, nil
}

// use calls f with the log, unless there is none just now.
func (w *walLog) use(f func(*wal.WAL) error) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.wal == nil {
		return fmt.Errorf("log could not be opened again: %w", w.why)
	}
	return f(w.wal)
}

// StoreLogs implements [raft.LogStore].
func (w *walLog) StoreLogs(logs []*raft.Log) error {
	if err := w.repair(); err != nil || len(logs) == 0 {
		return err
	}
	return w.use(func(l *wal.WAL) error {
		err := l.StoreLogs(logs)
		if err != nil && !errors.Is(err, wal.ErrClosed) {
			// What was appended without an error is in no doubt, whatever was asked for now.
			last, lerr := l.LastIndex()
			if lerr != nil {
				return errors.Join(err, lerr)
			}
			w.doubt.CompareAndSwap(0, last+1)
		}
		return err
	})
}

// StoreLog implements [raft.LogStore].
func (w *walLog) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

// DeleteRange implements [raft.LogStore].
func (w *walLog) DeleteRange(first, last uint64) error {
	if err := w.repair(); err != nil {
		return err
	}
	return w.use(func(l *wal.WAL) error { return l.DeleteRange(first, last) })
}

// repair makes the log fit for writing, if it is not.
func (w *walLog) repair() error {
	if w.doubt.Load() == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	from := w.doubt.Load()
	if from == 0 {
		return nil
	}
	if time.Now().Before(w.next) {
		return fmt.Errorf("log not repaired since an append failed: %w", w.why)
	}
	if w.why = w.reopen(from); w.why != nil {
		w.next = time.Now().Add(repairPause)
		return fmt.Errorf("repair log after an append that failed: %w", w.why)
	}
	w.doubt.Store(0)
	w.log.Info("log repaired after an append that failed", "from", from)
	return nil
}

// reopen opens the log again, without what there is from an index on. The caller holds mu.
func (w *walLog) reopen(from uint64) error {
	if w.wal != nil {
		_ = w.wal.Close() // whatever it says, nothing is in it that is not in its files
		w.wal = nil
	}
	l, err := w.open()
	if err != nil {
		return err
	}
	w.wal = l
	last, err := l.LastIndex()
	if err != nil || last < from {
		return err
	}
	return l.DeleteRange(from, last)
}

// FirstIndex implements [raft.LogStore].
func (w *walLog) FirstIndex() (i uint64, err error) {
	err = w.use(func(l *wal.WAL) (err error) { i, err = l.FirstIndex(); return err })
	return i, err
}

// LastIndex implements [raft.LogStore].
func (w *walLog) LastIndex() (i uint64, err error) {
	err = w.use(func(l *wal.WAL) (err error) { i, err = l.LastIndex(); return err })
	return i, err
}

// GetLog implements [raft.LogStore].
func (w *walLog) GetLog(i uint64, log *raft.Log) error {
	return w.use(func(l *wal.WAL) error { return l.GetLog(i, log) })
}

// IsMonotonic implements [raft.MonotonicLogStore].
func (w *walLog) IsMonotonic() bool { return true }

// Set implements [raft.StableStore].
func (w *walLog) Set(key, val []byte) error {
	return w.use(func(l *wal.WAL) error { return l.Set(key, val) })
}

// Get implements [raft.StableStore].
func (w *walLog) Get(key []byte) (val []byte, err error) {
	err = w.use(func(l *wal.WAL) (err error) { val, err = l.Get(key); return err })
	return val, err
}

// SetUint64 implements [raft.StableStore].
func (w *walLog) SetUint64(key []byte, val uint64) error {
	return w.use(func(l *wal.WAL) error { return l.SetUint64(key, val) })
}

// GetUint64 implements [raft.StableStore].
func (w *walLog) GetUint64(key []byte) (val uint64, err error) {
	err = w.use(func(l *wal.WAL) (err error) { val, err = l.GetUint64(key); return err })
	return val, err
}

// Close implements [io.Closer].
func (w *walLog) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	if w.wal != nil {
		err = w.wal.Close()
	}
	return errors.Join(err, w.meta.Close())
}
