package kvserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// A boltLog keeps entries and votes in one bbolt file: a copy-on-write B+tree
// where the wal is an append-only file. Every StoreLogs is one transaction
// with two fdatasyncs. (raft-boltdb would do, but its release 2.3.1 does not
// build beside raft 1.8.0, which needs a go-metrics without /compat.)
type boltLog struct{ db *bbolt.DB }

var (
	logBucket    = []byte("log")
	stableBucket = []byte("stable")
	errNotFound  = errors.New("not found") // Raft compares this very text
)

func openBolt(path string) (*boltLog, error) {
	db, err := bbolt.Open(path, 0o644, &bbolt.Options{
		Timeout:        time.Second, // another process holds the file
		NoFreelistSync: true,        // rebuilt at start; saves pages in every transaction
		FreelistType:   bbolt.FreelistMapType,
	})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{logBucket, stableBucket} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &boltLog{db}, nil
}

// Close implements [io.Closer].
func (b *boltLog) Close() error { return b.db.Close() }

// FirstIndex implements [raft.LogStore].
func (b *boltLog) FirstIndex() (uint64, error) { return b.edge((*bbolt.Cursor).First) }

// LastIndex implements [raft.LogStore].
func (b *boltLog) LastIndex() (uint64, error) { return b.edge((*bbolt.Cursor).Last) }

func (b *boltLog) edge(go_ func(*bbolt.Cursor) (k, v []byte)) (index uint64, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		if k, _ := go_(tx.Bucket(logBucket).Cursor()); k != nil {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog implements [raft.LogStore].
func (b *boltLog) GetLog(index uint64, l *raft.Log) error {
	return b.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(logBucket).Get(indexKey(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		got, err := decodeLog(v)
		if err != nil {
			return fmt.Errorf("decode entry %d: %w", index, err)
		}
		got.Index = index
		*l = got
		return nil
	})
}

// StoreLog implements [raft.LogStore].
func (b *boltLog) StoreLog(l *raft.Log) error { return b.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (b *boltLog) StoreLogs(logs []*raft.Log) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(logBucket)
		bucket.FillPercent = 0.9 // entries come in order
		for _, l := range logs {
			if err := bucket.Put(indexKey(l.Index), encodeLog(l)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange implements [raft.LogStore]. Both ends are included.
func (b *boltLog) DeleteRange(first, last uint64) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(logBucket)
		c := bucket.Cursor()
		// Deleting through the cursor may skip keys, so collect first.
		var keys [][]byte
		for k, _ := c.Seek(indexKey(first)); k != nil && binary.BigEndian.Uint64(k) <= last; k, _ = c.Next() {
			keys = append(keys, k)
		}
		for _, k := range keys {
			if err := bucket.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set implements [raft.StableStore].
func (b *boltLog) Set(key, value []byte) error {
	return b.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(stableBucket).Put(key, value) })
}

// Get implements [raft.StableStore].
func (b *boltLog) Get(key []byte) (value []byte, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(stableBucket).Get(key)
		if v == nil {
			return errNotFound
		}
		value = append([]byte{}, v...)
		return nil
	})
	return value, err
}

// SetUint64 implements [raft.StableStore].
func (b *boltLog) SetUint64(key []byte, value uint64) error { return b.Set(key, indexKey(value)) }

// GetUint64 implements [raft.StableStore].
func (b *boltLog) GetUint64(key []byte) (uint64, error) {
	v, err := b.Get(key)
	switch {
	case err != nil:
		return 0, err
	case len(v) != 8:
		return 0, fmt.Errorf("%q holds %d bytes, not a number", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

func indexKey(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

// A stored entry is type, term, time of appending (Unix ns, 0 for none),
// extensions with their length, and the rest is data. The key is its index.
func encodeLog(l *raft.Log) []byte {
	b := make([]byte, 0, 1+3*binary.MaxVarintLen64+len(l.Extensions)+len(l.Data))
	b = append(b, byte(l.Type))
	b = binary.AppendUvarint(b, l.Term)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.AppendUvarint(b, uint64(at))
	b = appendBytes(b, l.Extensions)
	return append(b, l.Data...)
}

func decodeLog(b []byte) (raft.Log, error) {
	r := reader{b: b}
	l := raft.Log{Type: raft.LogType(r.byte()), Term: r.uvarint()}
	if at := int64(r.uvarint()); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	if ext := r.bytes(); len(ext) > 0 {
		l.Extensions = append([]byte{}, ext...)
	}
	if r.short {
		return raft.Log{}, errShort
	}
	l.Data = append([]byte{}, r.b...) // b is only valid inside the transaction
	return l, nil
}
