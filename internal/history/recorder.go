package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
)

// A Recorder keeps what clients saw, at a cost that does not disturb what they
// measure. Each client appends to its own [Log] without a lock; what is
// complete goes out with the next [Recorder.Flush], so that a killed run keeps
// all but its last instants, and memory holds only what was not yet flushed.
type Recorder struct {
	mu      sync.Mutex // of logs, and one flush at a time
	w       io.Writer
	logs    []*Log
	started bool
	buf     []byte
	bytes   int64
	err     error // of the first write that went wrong
}

// NewRecorder returns a recorder that writes a spool to w.
func NewRecorder(w io.Writer) *Recorder { return &Recorder{w: w} }

const chunkSize = 16 << 10

// A chunk is filled by one goroutine and read by another: bytes below n are
// never written again, and n never goes back.
type chunk struct {
	data []byte
	n    atomic.Int64
	next atomic.Pointer[chunk]
}

// A Log takes the operations of one goroutine, in order of their calls.
type Log struct {
	number  uint64
	delta   delta
	scratch []byte
	tail    *chunk // the owner's

	head *chunk // the flusher's
	done int64  // bytes of head that were flushed
}

// Log returns a new log.
func (r *Recorder) Log() *Log {
	c := &chunk{data: make([]byte, chunkSize)}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &Log{number: uint64(len(r.logs)), tail: c, head: c}
	r.logs = append(r.logs, l)
	return l
}

// Add records op, of which it keeps nothing. Calls of one log must not go back in time.
func (l *Log) Add(op *Op) {
	l.scratch = l.delta.append(l.scratch[:0], op)
	n := l.tail.n.Load()
	if int(n)+len(l.scratch) > len(l.tail.data) {
		c := &chunk{data: make([]byte, max(chunkSize, len(l.scratch)))}
		l.tail.next.Store(c)
		l.tail, n = c, 0
	}
	copy(l.tail.data[n:], l.scratch)
	l.tail.n.Store(n + int64(len(l.scratch)))
}

// Flush writes what the logs hold. After an error, which it repeats for ever,
// the spool is good up to its last whole block.
func (r *Recorder) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	b := r.buf[:0]
	if !r.started {
		b = append(b, spoolMagic...)
		r.started = true
	}
	for _, l := range r.logs {
		b = l.drain(b)
	}
	r.buf = b
	if len(b) == 0 {
		return nil
	}
	n, err := r.w.Write(b)
	r.bytes += int64(n)
	if err != nil {
		r.err = fmt.Errorf("write spool: %w", err)
	}
	return r.err
}

// endMark is an empty block, which a reader skips: nothing comes after it.
var endMark = func() []byte {
	b := []byte{0, 0}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}()

// End writes what the logs hold and that it is all. Without it a spool was cut off,
// even if its last block is whole: somebody may have seen what is not in it.
func (r *Recorder) End() error {
	if err := r.Flush(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.w.Write(endMark)
	r.bytes += int64(n)
	if err != nil {
		r.err = fmt.Errorf("write spool: %w", err)
	}
	return r.err
}

// Bytes returns the size of the spool so far.
func (r *Recorder) Bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// drain appends what l holds as blocks.
func (l *Log) drain(b []byte) []byte {
	for {
		next := l.head.next.Load() // before n: once there is a next chunk, n is final
		n := l.head.n.Load()
		if n > l.done {
			start := len(b)
			b = binary.AppendUvarint(b, l.number)
			b = binary.AppendUvarint(b, uint64(n-l.done))
			b = append(b, l.head.data[l.done:n]...)
			b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
			l.done = n
		}
		if next == nil {
			return b
		}
		l.head, l.done = next, 0
	}
}
