package kvserver

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Raft entry holds many commands, in the order in which they were proposed:
//
//	entry   = codec(1) what the codec makes of it
//
// This file has the codec that is meant to be used, binary. Others (codec.go) are
// there to see what they cost. Binary makes of an entry:
//
//	count command*
//	command = kind [session seq] [extras] nargs arg*      session and seq only if kind has bit 0x80,
//	session = arg                                         extras only if it has bit 0x40
//	extras  = nfields (name value)* padding               each an arg; read and forgotten
//	arg     = length bytes
//
// All numbers but codec and kind are unsigned varints. A node that meets a
// codec or kind it does not know stops: to guess would be to diverge.
const entryVersion = 1

// Limits that every node must share, for replicas decide by them.
const (
	maxKey     = 64 << 10
	maxValue   = 8 << 20
	maxSession = 256
)

type opKind uint8

const (
	opSet     opKind = 1 + iota // key value
	opSetNX                     // key value: only if absent
	opSetXX                     // key value: only if present
	opDel                       // key...
	opAppend                    // key value
	opCAS                       // key old new
	opMSet                      // (key value)...
	opSession                   // id
	opGet                       // key; reads are in the log only between the writes of one pipeline
	opMGet                      // key...
	opExists                    // key...
	opStrlen                    // key
	opDBSize                    //
	opEnd
)

// Bits of a command's kind.
const (
	onceBit   = 0x80
	extrasBit = 0x40
)

// arity gives the least number of arguments and the size of the groups that may repeat beyond.
var arity = [opEnd]struct{ min, step int }{
	opSet: {2, 0}, opSetNX: {2, 0}, opSetXX: {2, 0}, opDel: {1, 1}, opAppend: {2, 0}, opCAS: {3, 0}, opMSet: {2, 2},
	opSession: {1, 0}, opGet: {1, 0}, opMGet: {1, 1}, opExists: {1, 1}, opStrlen: {1, 0}, opDBSize: {0, 0},
}

func (k opKind) isRead() bool { return k >= opGet }

// takes reports whether a command of this kind can have n arguments.
func (k opKind) takes(n int) bool {
	if k == 0 || k >= opEnd {
		return false
	}
	a := arity[k]
	return n == a.min || a.step > 0 && n > a.min && (n-a.min)%a.step == 0
}

// An op is one command as it is replicated.
type op struct {
	kind    opKind
	args    [][]byte
	session []byte // nil: no deduplication
	seq     uint64
}

// size bounds the op's encoded length from above.
func (o *op) size() int {
	n := 1 + 2*binary.MaxVarintLen64 + binary.MaxVarintLen32 + len(o.session)
	for _, a := range o.args {
		n += binary.MaxVarintLen32 + len(a)
	}
	return n
}

func appendCommands(b []byte, ops []op, x *extras) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(ops)))
	for i := range ops {
		o := &ops[i]
		kind := byte(o.kind)
		if o.session != nil {
			kind |= onceBit
		}
		if !x.empty() {
			kind |= extrasBit
		}
		b = append(b, kind)
		if o.session != nil {
			b = appendBytes(b, o.session)
			b = binary.AppendUvarint(b, o.seq)
		}
		if !x.empty() {
			b = x.append(b)
		}
		b = binary.AppendUvarint(b, uint64(len(o.args)))
		for _, a := range o.args {
			b = appendBytes(b, a)
		}
	}
	return b, nil
}

func (x *extras) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(x.fields)))
	for _, f := range x.fields {
		b = appendBytes(appendBytes(b, f.Name), f.Value)
	}
	return appendBytes(b, x.padding)
}

// skipExtras passes over what append has written.
func (r *reader) skipExtras() {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.short = true
		return
	}
	for range 2*n + 1 {
		r.bytes()
	}
}

func appendBytes[T []byte | string](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errShort = errors.New("entry is cut short")

func decodeCommands(b []byte, ops []op) ([]op, error) {
	r := reader{b: b}
	count := r.uvarint()
	if count > uint64(len(r.b)) { // a command takes at least two bytes
		return nil, errShort
	}
	flat := make([][]byte, 0, 2*count)
	for range count {
		k := r.byte()
		o := op{kind: opKind(k &^ (onceBit | extrasBit))}
		if k&onceBit != 0 {
			o.session = r.bytes()
			o.seq = r.uvarint()
		}
		if k&extrasBit != 0 {
			r.skipExtras()
		}
		nargs := r.uvarint()
		if nargs > uint64(len(r.b)) {
			return nil, errShort
		}
		if !r.short && !o.kind.takes(int(nargs)) {
			return nil, fmt.Errorf("command kind %d with %d arguments is unknown", o.kind, nargs)
		}
		first := len(flat)
		for range nargs {
			flat = append(flat, r.bytes())
		}
		o.args = flat[first:len(flat):len(flat)]
		ops = append(ops, o)
	}
	switch {
	case r.short:
		return nil, errShort
	case len(r.b) > 0:
		return nil, fmt.Errorf("entry has %d bytes too many", len(r.b))
	}
	return ops, nil
}

// A reader takes values from the front of b. After the first value that is
// not there, short is set and all others are empty.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.short = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.short, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.short, r.b = true, nil
		return []byte{}
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
