package stages

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Bounds of a recorder. Of the requests between two drains the first perDrain are
// noted, and as many more that took longer than 99 of 100 did lately: thousands
// a second tell all that there is to tell, and cost little.
const (
	drainEvery = 50 * time.Millisecond
	perDrain   = 200
	room       = 1 << 15   // records
	maxFile    = 512 << 20 // bytes: then the file becomes the old one, and the old one is gone
)

// A Recorder keeps notes and writes them to a file. A nil one keeps none: its
// methods may be called all the same. It is safe for concurrent use.
type Recorder struct {
	base time.Time // carries a monotonic reading
	zero int64     // the host's monotonic clock then
	path string
	head []byte // the header's line
	file *os.File
	size int64 // of the file
	most int64 // that it may have
	old  int64 // records in the old file
	once sync.Once
	stop chan struct{}
	done chan struct{}
	err  error

	mu     sync.Mutex
	buf    []Record
	spare  []Record
	quota  int // Requests that may be noted until the next drain
	slow   int // the same, of slow ones
	from   int64
	took   durations
	lost   uint64
	failed bool
}

// Open appends to a file, which it makes if need be. h.Node and h.Members are the caller's.
func Open(path string, h Header) (*Recorder, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	r := &Recorder{
		base: time.Now(), path: path, most: maxFile, stop: make(chan struct{}), done: make(chan struct{}),
		quota: perDrain, slow: perDrain, from: math.MaxInt64, buf: make([]Record, 0, 1024),
	}
	offset, err := clockOffset()
	if err != nil {
		return nil, err
	}
	r.zero = hostTime(r.base) - offset
	h.Format, h.Offset = Format, offset
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if r.file, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, err
	}
	r.head = append(line, '\n')
	if err := r.begin(); err != nil {
		r.file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	go r.drain()
	return r, nil
}

// hostTime is the process's monotonic clock at a time. Of several readings it
// takes that which was interrupted least: nodes' times are compared to the microsecond.
func hostTime(at time.Time) (ns int64) {
	best := int64(math.MaxInt64)
	for range 8 {
		before := monotonic()
		since := int64(time.Since(at))
		after := monotonic()
		if took := after - before; took < best {
			best, ns = took, before+took/2-since
		}
	}
	return ns
}

// begin writes a header behind the last whole record: a killed node may have left half of one.
func (r *Recorder) begin() error {
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
	r.size = end + int64(len(r.head))
	_, err = r.file.Write(r.head)
	return err
}

// Old is the name of the file with what was noted before a file became too long.
func Old(path string) string { return path + ".old" }

// turn makes room: the file becomes the old one, and that one's records are gone.
func (r *Recorder) turn() error {
	lost := r.old
	r.old = (r.size - int64(len(r.head))) / Size // or a little more: a node that was started again wrote several headers
	if err := r.file.Close(); err != nil {
		return err
	}
	if err := os.Rename(r.path, Old(r.path)); err != nil {
		return err
	}
	var err error
	if r.file, err = os.OpenFile(r.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644); err != nil {
		return err
	}
	if err := r.begin(); err != nil || lost == 0 {
		return err
	}
	return r.write((&Record{Kind: Lost, Peer: NoPeer, A: uint64(lost)}).Append(nil))
}

func (r *Recorder) write(b []byte) error {
	n, err := r.file.Write(b)
	r.size += int64(n)
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

// Wants reports whether n Requests that took so many ns shall be noted, and whether
// only because they were slow: then they are no fair sample of all. Whoever asks notes them.
func (r *Recorder) Wants(took int64, n int) (keep, slow bool) {
	if r == nil {
		return false, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took.add(took)
	switch {
	case r.quota > 0:
		r.quota -= n
		return true, false
	case took >= r.from && r.slow > 0:
		r.slow -= n
		return true, true
	}
	return false, false
}

// Note keeps a record.
func (r *Recorder) Note(rec *Record) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
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
		r.quota, r.slow, r.from = perDrain, perDrain, r.took.slowest()
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
		err := r.write(out)
		if err == nil && r.size > r.most {
			err = r.turn()
		}
		if err != nil {
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
