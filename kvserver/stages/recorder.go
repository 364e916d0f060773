package stages

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Bounds of a recorder. Requests beyond perDrain between two drains are not
// noted: thousands a second tell all that there is to tell, and cost little.
const (
	drainEvery = 50 * time.Millisecond
	perDrain   = 200
	room       = 1 << 15 // records
)

// A Recorder keeps notes and writes them to a file. A nil one keeps none: its
// methods may be called all the same. It is safe for concurrent use.
type Recorder struct {
	base time.Time // carries a monotonic reading
	zero int64     // the host's monotonic clock then
	file *os.File
	once sync.Once
	stop chan struct{}
	done chan struct{}
	err  error

	mu     sync.Mutex
	buf    []Record
	spare  []Record
	quota  int // Requests that may be noted until the next drain
	lost   uint64
	failed bool
}

// Open appends to a file, which it makes if need be. h.Node and h.Members are the caller's.
func Open(path string, h Header) (*Recorder, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	r := &Recorder{base: time.Now(), stop: make(chan struct{}), done: make(chan struct{}), quota: perDrain, buf: make([]Record, 0, 1024)}
	offset, err := clockOffset()
	if err != nil {
		return nil, err
	}
	r.zero = monotonic() - offset - int64(time.Since(r.base))
	h.Format, h.Offset = Format, offset
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if r.file, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, err
	}
	if err := r.begin(append(line, '\n')); err != nil {
		r.file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	go r.drain()
	return r, nil
}

// begin writes a header behind the last whole record: a killed node may have left half of one.
func (r *Recorder) begin(header []byte) error {
	end, err := wholeLength(r.file)
	if err != nil {
		return err
	}
	if err := r.file.Truncate(end); err != nil {
		return err
	}
	if _, err := r.file.Seek(end, 0); err != nil {
		return err
	}
	_, err = r.file.Write(header)
	return err
}

// Now is a time for a record.
func (r *Recorder) Now() int64 {
	if r == nil {
		return 0
	}
	return r.zero + int64(time.Since(r.base))
}

// At is the time for a record of a [time.Time] that carries a monotonic reading.
func (r *Recorder) At(t time.Time) int64 {
	if r == nil {
		return 0
	}
	return r.zero + int64(t.Sub(r.base))
}

// Wants reports whether the next Request would be kept, so that nobody makes notes in vain.
func (r *Recorder) Wants() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.quota > 0
}

// Note keeps a record.
func (r *Recorder) Note(rec *Record) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.Kind == Request {
		if r.quota <= 0 {
			return
		}
		r.quota--
	}
	if len(r.buf) >= room || r.failed {
		r.lost++
		return
	}
	r.buf = append(r.buf, *rec)
}

// drain writes what was noted, now and then: never on a request's way.
func (r *Recorder) drain() {
	defer close(r.done)
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	var out []byte
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-r.stop:
			last = true
		}
		r.mu.Lock()
		r.buf, r.spare = r.spare[:0], r.buf
		r.quota = perDrain
		lost := r.lost
		r.lost = 0
		r.mu.Unlock()
		out = out[:0]
		for i := range r.spare {
			out = r.spare[i].Append(out)
		}
		if lost > 0 {
			out = (&Record{Kind: Lost, Peer: NoPeer, A: lost}).Append(out)
		}
		if len(out) == 0 {
			continue
		}
		if _, err := r.file.Write(out); err != nil {
			r.mu.Lock()
			r.err, r.failed = err, true
			r.mu.Unlock()
			return
		}
	}
}

// Close writes what is left and says whether anything could not be written.
func (r *Recorder) Close() error {
	if r == nil {
		return nil
	}
	r.once.Do(func() { close(r.stop) })
	<-r.done
	if err := r.file.Close(); r.err == nil && !errors.Is(err, os.ErrClosed) {
		r.err = err
	}
	return r.err
}
