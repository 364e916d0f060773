package kvserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// The protocol between nodes. A connection begins with peerMagic and the number
// of groups (1), which both must have alike; then whoever dialed sends requests and
// the other answers, not necessarily in order:
//
//	frame    = size(4) id(4) kind(1) group(1) body     size counts from id on; little endian
//	answer   = its request's id and group, kind | answerBit, body = error-text message
//	snapshot = after the request's frame come as many raw bytes as it says
//
// A message is its fields in order (see fields); numbers are unsigned varints.
const (
	peerMagic   = "brk2"
	frameHeader = 10
	maxFrame    = 1 << 30

	kindAppend    = 1
	kindVote      = 2
	kindPreVote   = 3
	kindTimeout   = 4
	kindSnapshot  = 5
	answerBit     = 0x80
	firstReadSize = 64 << 10 // a frame gets its memory as it arrives
)

var errFrame = errors.New("malformed message")

// newRequest and newAnswer make what a message of a kind is read into.
func newRequest(kind byte) any {
	switch kind {
	case kindAppend:
		return new(raft.AppendEntriesRequest)
	case kindVote:
		return new(raft.RequestVoteRequest)
	case kindPreVote:
		return new(raft.RequestPreVoteRequest)
	case kindTimeout:
		return new(raft.TimeoutNowRequest)
	case kindSnapshot:
		return new(raft.InstallSnapshotRequest)
	}
	return nil
}

func newAnswer(kind byte) any {
	switch kind {
	case kindAppend:
		return new(raft.AppendEntriesResponse)
	case kindVote:
		return new(raft.RequestVoteResponse)
	case kindPreVote:
		return new(raft.RequestPreVoteResponse)
	case kindTimeout:
		return new(raft.TimeoutNowResponse)
	case kindSnapshot:
		return new(raft.InstallSnapshotResponse)
	}
	return nil
}

// A coder goes through the fields of a message, to write or to read them: one
// list of fields serves both. A message that is written may be shared, so it is
// not touched. What is read points into the frame.
type coder struct {
	w       []byte
	r       reader
	writing bool
}

func num[T ~uint8 | ~int | ~int64 | ~uint64](c *coder, v *T) {
	if c.writing {
		c.w = binary.AppendUvarint(c.w, uint64(*v))
	} else {
		*v = T(c.r.uvarint())
	}
}

func (c *coder) blob(v *[]byte) {
	if c.writing {
		c.w = appendBytes(c.w, *v)
	} else if *v = c.r.bytes(); len(*v) == 0 {
		*v = nil
	}
}

func (c *coder) flag(v *bool) {
	switch {
	case !c.writing:
		*v = c.r.byte() == 1
	case *v:
		c.w = append(c.w, 1)
	default:
		c.w = append(c.w, 0)
	}
}

func (c *coder) header(h *raft.RPCHeader) {
	num(c, &h.ProtocolVersion)
	c.blob(&h.ID)
	c.blob(&h.Addr)
}

// fields goes through m. Fields that the library keeps for older versions of
// itself are not sent: Leader, Candidate and Peers.
func (c *coder) fields(m any) {
	switch m := m.(type) {
	case *raft.AppendEntriesRequest:
		c.header(&m.RPCHeader)
		num(c, &m.Term)
		num(c, &m.PrevLogEntry)
		num(c, &m.PrevLogTerm)
		num(c, &m.LeaderCommitIndex)
		c.entries(&m.Entries)
	case *raft.AppendEntriesResponse:
		c.header(&m.RPCHeader)
		num(c, &m.Term)
		num(c, &m.LastLog)
		c.flag(&m.Success)
		c.flag(&m.NoRetryBackoff)
	case *raft.RequestVoteRequest:
		c.header(&m.RPCHeader)
		num(c, &m.Term)
		num(c, &m.LastLogIndex)
		num(c, &m.LastLogTerm)
		c.flag(&m.LeadershipTransfer)
	case *raft.RequestVoteResponse:
		c.header(&m.RPCHeader)
		num(c, &m.Term)
		c.flag(&m.Granted)
	case *raft.RequestPreVoteRequest:
		c.header(&m.RPCHeader)
		num(c, &m.Term)
		num(c, &m.LastLogIndex)
		num(c, &m.LastLogTerm)
	case *raft.RequestPreVoteResponse:
		c.header(&m.RPCHeader)
		num(c, &m.Term)
		c.flag(&m.Granted)
	case *raft.TimeoutNowRequest:
		c.header(&m.RPCHeader)
	case *raft.TimeoutNowResponse:
		c.header(&m.RPCHeader)
	case *raft.InstallSnapshotRequest:
		c.header(&m.RPCHeader)
		num(c, &m.SnapshotVersion)
		num(c, &m.Term)
		num(c, &m.LastLogIndex)
		num(c, &m.LastLogTerm)
		c.blob(&m.Configuration)
		num(c, &m.ConfigurationIndex)
		num(c, &m.Size)
	case *raft.InstallSnapshotResponse:
		c.header(&m.RPCHeader)
		num(c, &m.Term)
		c.flag(&m.Success)
	default:
		panic(fmt.Sprintf("kvserver: no message between nodes: %T", m))
	}
}

func (c *coder) entries(all *[]*raft.Log) {
	n := uint64(len(*all))
	num(c, &n)
	if !c.writing {
		if n > uint64(len(c.r.b)) { // an entry takes several bytes
			c.r.short = true
			return
		}
		logs := make([]raft.Log, n)
		*all = make([]*raft.Log, n)
		for i := range logs {
			(*all)[i] = &logs[i]
		}
	}
	for _, l := range *all {
		num(c, &l.Index)
		num(c, &l.Term)
		num(c, &l.Type)
		c.instant(&l.AppendedAt)
		c.blob(&l.Data)
		c.blob(&l.Extensions)
	}
}

// instant is a time in Unix nanoseconds, 0 for none.
func (c *coder) instant(t *time.Time) {
	var ns int64
	if c.writing && !t.IsZero() {
		ns = t.UnixNano()
	}
	if num(c, &ns); !c.writing && ns != 0 {
		*t = time.Unix(0, ns)
	}
}

// appendFrame appends a frame with f's header; m may be nil, text is for answers.
func appendFrame(b []byte, f frame, text string, m any) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, f.id)
	b = append(b, f.kind, f.group)
	if f.kind&answerBit != 0 {
		b = appendBytes(b, text)
	}
	if m != nil {
		c := coder{w: b, writing: true}
		c.fields(m)
		b = c.w
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// A frame is one message as it came.
type frame struct {
	id    uint32
	kind  byte
	group uint8
	body  []byte
}

// readFrame reads the next frame. The body is the caller's to keep.
func readFrame(r io.Reader) (f frame, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size < frameHeader-4 || size > maxFrame {
		return f, errFrame
	}
	f.id, f.kind, f.group = binary.LittleEndian.Uint32(head[4:]), head[8], head[9]
	for left := int(size) - (frameHeader - 4); left > 0; {
		more := min(left, max(firstReadSize, len(f.body)))
		at := len(f.body)
		f.body = append(f.body, make([]byte, more)...)
		if _, err := io.ReadFull(r, f.body[at:]); err != nil {
			return f, err
		}
		left -= more
	}
	return f, nil
}

// request reads the frame as a request.
func (f frame) request() (any, error) {
	m := newRequest(f.kind)
	if m == nil {
		return nil, fmt.Errorf("%w: kind %d", errFrame, f.kind)
	}
	return m, decodeMessage(f.body, m)
}

// answer reads the frame as the answer to a request, into m.
func (f frame) answer(m any) (text string, err error) {
	r := reader{b: f.body}
	text = string(r.bytes())
	if r.short {
		return "", errFrame
	}
	if len(r.b) == 0 && text != "" {
		return text, nil // an error alone
	}
	return text, decodeMessage(r.b, m)
}

func decodeMessage(b []byte, m any) error {
	c := coder{r: reader{b: b}}
	c.fields(m)
	if c.r.short || len(c.r.b) > 0 {
		return fmt.Errorf("%w: %T of %d bytes", errFrame, m, len(b))
	}
	return nil
}

// isHeartbeat reports whether a request is one that needs neither the log nor Raft's main loop.
func isHeartbeat(m any) bool {
	a, ok := m.(*raft.AppendEntriesRequest)
	return ok && a.Term != 0 && len(a.Addr) > 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}
