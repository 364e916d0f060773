package workload

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"brownout/internal/history"
)

// lostReason explains an operation that only the plan knows of.
const lostReason = "lost: the load generator ended before it recorded this operation"

// Recover writes the history of a load whose generator ended without [finish]:
// killed, or out of disk. The spool holds all but the operations that were in
// flight and the last instants; but those may have reached the target, and what
// they wrote may have been read. The stream is a pure function of the load and
// the seed, so they are known: every planned operation that was due by then and
// is not in the spool goes into the history as unknown. That is sound, since an
// unknown operation may as well never have happened. A lost cas is recorded as
// a put of its value, because what it expected is lost.
func Recover(s Spec) error {
	return convert(s, s.lost)
}

// lost yields the planned operations that may have been sent and are not known,
// in order of their due times.
func (s Spec) lost(known func(int64) bool, last int64, until time.Duration) iter.Seq[history.Op] {
	return func(yield func(history.Op) bool) {
		stream := NewStream(s.Load, s.Seed)
		client := 1 << 30 // above all real ones
		for {
			row := stream.Next()
			var due time.Duration
			if s.Load.Closed {
				// Operations begin in their order: what the last flush missed follows the last known ones.
				missed := int64(float64(last) * 2 * float64(flushEvery) / float64(max(until-s.Start, flushEvery)))
				if row.Op > last+missed+int64(s.Load.Clients) {
					return
				}
				due = s.Start
			} else if due = s.due(row); due > until || due >= s.End {
				return
			}
			kind := history.Kind(row.Kind)
			if known(row.Op) || kind == history.Get {
				continue
			}
			op := history.Op{
				ID: row.Op, Client: client, Key: row.Key, Kind: kind, Value: &row.Value, Outcome: history.Unknown,
				Due: int64(due), Call: int64(due), Return: max(int64(due), int64(until)), Error: lostReason,
			}
			if kind == history.CAS {
				op.Kind, op.Error = history.Put, lostReason+"; it was a cas"
			}
			client++
			if !yield(op) {
				return
			}
		}
	}
}

// finish turns the spool into history.jsonl, sorted by call, and makes it durable.
func finish(s Spec) error { return convert(s, nil) }

// convert writes s.History from s.Spool through a file beside it, so that a
// history is whole or not there.
func convert(s Spec, missing func(known func(int64) bool, last int64, until time.Duration) iter.Seq[history.Op]) (err error) {
	in, err := os.Open(s.Spool)
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	next := func() (history.Op, bool) { return history.Op{}, false }
	if missing != nil {
		known, last, until, err := survey(in, st.Size())
		if err != nil {
			return err
		}
		var stop func()
		next, stop = iter.Pull(missing(known, last, until))
		defer stop()
	}
	tmp := s.History + ".part"
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(), os.Remove(tmp))
		}
	}()
	w := history.NewWriter(out)
	extra, more := next()
	for op, err := range history.ReadSpool(in, st.Size()) {
		if errors.Is(err, history.ErrTorn) && missing != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("read spool: %w", err)
		}
		for ; more && cmp.Compare(extra.Call, op.Call) <= 0; extra, more = next() {
			if err := w.Write(&extra); err != nil {
				return fmt.Errorf("write history: %w", err)
			}
		}
		if err := w.Write(&op); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
	}
	for ; more; extra, more = next() {
		if err := w.Write(&extra); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("sync history: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if err := os.Rename(tmp, s.History); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

// survey says which operations a spool knows, the highest, and when the last
// answer in it came: no later operation can have been seen by anybody in it.
func survey(r io.ReaderAt, size int64) (known func(int64) bool, last int64, until time.Duration, err error) {
	var bits []uint64
	for op, err := range history.ReadSpool(r, size) {
		if errors.Is(err, history.ErrTorn) {
			break
		}
		if err != nil {
			return nil, 0, 0, fmt.Errorf("read spool: %w", err)
		}
		until = max(until, time.Duration(op.Return))
		if op.Phase != "" || op.ID < 0 {
			continue
		}
		last = max(last, op.ID)
		if need := int(op.ID/64) + 1; need > len(bits) {
			bits = append(slices.Grow(bits, need), make([]uint64, need-len(bits))...)
		}
		bits[op.ID/64] |= 1 << (op.ID % 64)
	}
	return func(op int64) bool {
		return op/64 < int64(len(bits)) && bits[op/64]&(1<<(op%64)) != 0
	}, last, until, nil
}
