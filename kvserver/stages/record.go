// Package stages is what a node notes about requests on their way through it:
// which stage began when, in records of one fixed size, and the file they are in.
//
// All nodes of a host share one monotonic clock, so times of different nodes
// can be subtracted: the way between two of them takes one's arrival less the
// other's departure, exactly.
package stages

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// A Kind says what a record is about, and with it what its fields mean.
type Kind uint8

// Kinds of record.
const (
	// Request is one command of a client, noted by the node that answered it.
	// A is its [Hash], B the index of its entry (0 for reads), N its connection.
	Request Kind = 1 + iota
	// Store is a run of entries on its way into a node's log. A is the first
	// index, B the last, N their bytes.
	Store
	// Send is one message of the leader's with the entries A to B for the member Peer.
	Send
	// Receive is that message at the follower; Peer is the leader.
	Receive
	// Apply is a run of entries A to B applied to the state.
	Apply
	// Lost says that A records are not here: notes came faster than they were
	// written, or made room for later ones.
	Lost
	// Through is a run of entries A to B of which the leader wrote downstream what they changed.
	Through
	// Encode is a batch of commands that became the entry A (and B), of N bytes.
	Encode
	kinds
)

// Stages of a Request, as indices of [Record.T].
const (
	Received = iota // the command's last byte was read from the socket
	Parsed          // and understood
	Queued          // it waits for the proposer; a read, for the confirmation of leadership
	Proposed        // taken to be encoded for Raft, see Encode; a read: leadership is confirmed
	Locking         // a read waits for the state's lock
	Locked          // and has it
	Answered        // its result is there
	Encoding        // its reply is being written
	Sent            // the reply's bytes were given to the socket
)

// Stages of a Store.
const (
	StoreBegun   = iota
	StoreCoded   // encoded: the first byte is about to be written
	StoreWritten // written: the disk is asked to make it durable
	StoreSynced
	StoreDone
)

// Stages of a Send.
const (
	SendBegun = iota
	SendDone  // its bytes were given to the socket
	SendAcked // the answer was read
)

// Stages of a Receive.
const (
	ReceiveBegun    = iota // its first byte was read
	ReceiveDecoded         // whole and understood
	ReceiveAnswered        // the answer was given to the socket
)

// Stages of an Apply.
const (
	ApplyBegun  = iota
	ApplyLocked // the state's lock is held
	ApplyDone
	ApplyDecoded // between begun and locked: the entries are decoded
)

// Stages of an Encode.
const (
	EncodeBegun = iota // its commands were taken from the queue
	EncodeDone
)

// Slow is the bit of a Request's Code that says that it was kept only because it
// was slower than most, when many more came than are kept.
const Slow = 0x80

// Stages of a Through.
const (
	ThroughBegun = iota // its turn came
	ThroughDone         // the answers were read, or it was given up
)

// NoPeer is the Peer of a record that is about no other member.
const NoPeer = 0xff

// A Record is a note. T holds times in ns of the host's monotonic clock, 0
// for stages that were not passed.
type Record struct {
	Kind  Kind
	Code  uint8 // of a Request: the kind of command in kvserver's own numbers, and perhaps [Slow]
	Peer  uint8 // a member, by its place in the header's list
	Group uint8 // the Raft group that indices belong to
	N     uint32
	A, B  uint64
	T     [9]int64
}

// Size is the length of an encoded record.
const Size = 8 + 16 + 9*8

// Append appends the encoded record.
func (r *Record) Append(b []byte) []byte {
	b = append(b, byte(r.Kind), r.Code, r.Peer, r.Group)
	b = binary.LittleEndian.AppendUint32(b, r.N)
	b = binary.LittleEndian.AppendUint64(b, r.A)
	b = binary.LittleEndian.AppendUint64(b, r.B)
	for _, t := range r.T {
		b = binary.LittleEndian.AppendUint64(b, uint64(t))
	}
	return b
}

func (r *Record) decode(b []byte) error {
	r.Kind, r.Code, r.Peer, r.Group = Kind(b[0]), b[1], b[2], b[3]
	if r.Kind == 0 || r.Kind >= kinds {
		return fmt.Errorf("record of kind %d", b[0])
	}
	r.N = binary.LittleEndian.Uint32(b[4:])
	r.A, r.B = binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	for i := range r.T {
		r.T[i] = int64(binary.LittleEndian.Uint64(b[24+8*i:]))
	}
	return nil
}

// Hash names a command by its key and the value that it writes ("" if none).
// Values of a history are unique, so it tells one write from all others.
func Hash[K, V []byte | string](key K, value V) uint64 {
	h := fnv.New64a()
	h.Write([]byte(key))
	h.Write([]byte{0})
	h.Write([]byte(value))
	return h.Sum64()
}

// A Header is the first line of a file of records.
type Header struct {
	Format  string   `json:"format"` // brownout.stages/1
	Node    string   `json:"node"`
	Members []string `json:"members"`
	// Offset is what this process's monotonic clock is ahead of the host's, in
	// ns: not 0 in a time namespace. Times in records are the host's already.
	Offset int64 `json:"offset_ns"`
}

// Format is the version of the file.
const Format = "brownout.stages/1"

// Read reads a file of records. One that a killed node did not finish ends
// early, which is no error; a node that was started again begins a new header.
func Read(r io.Reader, each func(*Header, *Record)) error {
	_, err := read(r, each)
	return err
}

// wholeLength is the length of a file up to the end of its last whole record.
func wholeLength(r io.Reader) (int64, error) { return read(r, func(*Header, *Record) {}) }

func read(r io.Reader, each func(*Header, *Record)) (whole int64, err error) {
	in := bufio.NewReaderSize(r, 1<<16)
	var h *Header
	var rec Record
	buf := make([]byte, Size)
	for n := 0; ; n++ {
		first, err := in.Peek(1)
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return whole, err
		}
		if first[0] == '{' {
			line, err := in.ReadBytes('\n')
			if errors.Is(err, io.EOF) {
				return whole, nil
			}
			if err != nil {
				return whole, err
			}
			h = &Header{}
			if err := json.Unmarshal(line, h); err != nil || h.Format != Format {
				return whole, fmt.Errorf("header %.60q is not of %s", line, Format)
			}
			whole += int64(len(line))
			continue
		}
		if h == nil {
			return whole, fmt.Errorf("no header of %s", Format)
		}
		if _, err := io.ReadFull(in, buf); errors.Is(err, io.ErrUnexpectedEOF) {
			return whole, nil
		} else if err != nil {
			return whole, err
		}
		if err := rec.decode(buf); err != nil {
			return whole, fmt.Errorf("record %d: %w", n, err)
		}
		whole += Size
		each(h, &rec)
	}
}
