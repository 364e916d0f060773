package kvserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"
)

// A snapshot is a stream, so that neither side holds it whole:
//
//	snapshot = "BOKV" version(1) applied nsessions session* nkeys (key value)* crc32c(4, big endian)
//	session  = id seq result
//	result   = code n s nlist result*
//
// Numbers are unsigned varints (n is a signed one), strings are length and
// bytes, and the checksum covers all that is before it.
const (
	snapshotMagic   = "BOKV"
	snapshotVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Persist implements [raft.FSMSnapshot].
func (v *view) Persist(sink raft.SnapshotSink) error {
	if err := v.write(sink); err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release implements [raft.FSMSnapshot].
func (v *view) Release() { v.release() }

func (v *view) write(to io.Writer) error {
	sum := crc32.New(castagnoli)
	w := bufio.NewWriterSize(io.MultiWriter(to, sum), 64<<10)
	b := append([]byte(snapshotMagic), snapshotVersion)
	b = binary.AppendUvarint(b, v.applied)
	b = binary.AppendUvarint(b, uint64(len(v.sessions)))
	for _, s := range v.sessions {
		b = appendSession(b, s)
	}
	b = binary.AppendUvarint(b, uint64(v.keys.size()))
	if _, err := w.Write(b); err != nil {
		return err
	}
	for k, val := range v.keys.all() {
		b = appendBytes(appendBytes(b[:0], k), val)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := to.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

func appendSession(b []byte, s session) []byte {
	b = appendBytes(b, s.id)
	b = binary.AppendUvarint(b, s.seq)
	return appendResult(b, s.last)
}

func appendResult(b []byte, r result) []byte {
	b = append(b, byte(r.code))
	b = binary.AppendVarint(b, r.n)
	b = appendBytes(b, r.s)
	b = binary.AppendUvarint(b, uint64(len(r.list)))
	for _, e := range r.list {
		b = appendResult(b, e)
	}
	return b
}

// load fills an empty state from a snapshot.
func (f *fsm) load(from io.Reader) error {
	r := &streamReader{r: bufio.NewReaderSize(from, 64<<10), sum: crc32.New(castagnoli)}
	head := r.take(len(snapshotMagic) + 1)
	if r.err == nil && (string(head[:4]) != snapshotMagic || head[4] != snapshotVersion) {
		return fmt.Errorf("snapshot begins with %q, want %q and version %d", head, snapshotMagic, snapshotVersion)
	}
	f.applied = r.uvarint()
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		s := session{id: string(r.bytes(maxSession)), seq: r.uvarint()}
		s.last = r.result(0)
		f.sessions.put(s)
	}
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		key := r.bytes(maxKey)
		f.keys.set(key, string(r.bytes(maxValue)))
	}
	want := r.sum.Sum32()
	got := r.take(4)
	switch {
	case r.err != nil:
		return r.err
	case binary.BigEndian.Uint32(got) != want:
		return fmt.Errorf("checksum is %x, want %08x", got, want)
	}
	if _, err := r.r.ReadByte(); err != io.EOF {
		return errors.New("something follows the checksum")
	}
	return nil
}

// A streamReader reads and sums. After the first error all values are empty.
type streamReader struct {
	r   *bufio.Reader
	sum hash.Hash32
	err error
}

func (r *streamReader) take(n int) []byte {
	b := make([]byte, n)
	if r.err != nil {
		return b
	}
	if _, err := io.ReadFull(r.r, b); err != nil {
		r.err = fmt.Errorf("snapshot is cut short: %w", err)
	}
	r.sum.Write(b)
	return b
}

// ReadByte implements [io.ByteReader].
func (r *streamReader) ReadByte() (byte, error) {
	b, err := r.r.ReadByte()
	if err == nil {
		r.sum.Write([]byte{b})
	}
	return b, err
}

func (r *streamReader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	v, err := binary.ReadUvarint(r)
	if err != nil {
		r.err = fmt.Errorf("snapshot is cut short: %w", err)
	}
	return v
}

func (r *streamReader) varint() int64 {
	u := r.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (r *streamReader) bytes(most int) []byte {
	n := r.uvarint()
	if n > uint64(most) {
		r.err = errors.Join(r.err, fmt.Errorf("snapshot holds a string of %d bytes, at most %d are possible", n, most))
		return nil
	}
	return r.take(int(n))
}

func (r *streamReader) result(depth int) result {
	if depth > 2 {
		r.err = errors.Join(r.err, errors.New("snapshot holds a result nested too deeply"))
		return result{}
	}
	v := result{code: resultCode(r.take(1)[0]), n: r.varint(), s: string(r.bytes(maxValue))}
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		v.list = append(v.list, r.result(depth+1))
	}
	return v
}
