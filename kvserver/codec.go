package kvserver

import (
	"cmp"
	"context"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A codec is a form of entries: what stands behind an entry's first byte, which
// is the codec's id. So every node can read what any node has written, whatever
// codec is its own. Numbers of codecs are on disks: they never change.
//
// A leader encodes a batch of commands once; these bytes are in its log, in the
// messages to its followers, and in theirs. Every node decodes them when it
// applies them. Snapshots and the frames around entries are always binary.
type codec struct {
	name   string
	id     byte
	encode func(b []byte, ops []op, x *extras) ([]byte, error) // appends
	decode func(b []byte, ops []op) ([]op, error)              // appends to ops, which may point into b
}

var codecs = [...]codec{
	{codecBinary, entryVersion, appendCommands, decodeCommands},
	{"protobuf", 2, encodeProto, decodeProto},
	{"json", 3, encodeJSON, decodeJSON},
	{"xml", 4, encodeXML, decodeXML},
	{"gob", 5, encodeGob, decodeGob},
	{"msgpack", 6, encodeMsgpack, decodeMsgpack},
	{"avro", 7, encodeAvro, decodeAvro},
}

const codecBinary = "binary"

// Bounds of what is added to each command.
const (
	maxBloat  = 1 << 20 // bytes
	maxFields = 1000
)

func codecNames() (names []string) {
	for i := range codecs {
		names = append(names, codecs[i].name)
	}
	return names
}

func codecCalled(name string) (*codec, error) {
	i := slices.IndexFunc(codecs[:], func(c codec) bool { return c.name == name })
	if i < 0 {
		return nil, fmt.Errorf("%q is none of %s", name, strings.Join(codecNames(), ", "))
	}
	return &codecs[i], nil
}

// codecOf is the codec that an entry was written with.
func codecOf(entry []byte) (*codec, error) {
	if len(entry) == 0 {
		return nil, errShort
	}
	if i := slices.IndexFunc(codecs[:], func(c codec) bool { return c.id == entry[0] }); i >= 0 {
		return &codecs[i], nil
	}
	return nil, fmt.Errorf("codec %d is unknown: this version knows 1 (%s) to %d (%s)",
		entry[0], codecs[0].name, codecs[len(codecs)-1].id, codecs[len(codecs)-1].name)
}

// decodeEntry appends the commands of an entry to ops. They may point into b.
func decodeEntry(b []byte, ops []op) ([]op, error) {
	c, err := codecOf(b)
	if err != nil {
		return nil, err
	}
	if ops, err = c.decode(b[1:], ops); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return ops, nil
}

// Extras are carried by every command and mean nothing, as much does that
// verbose interfaces carry. Whoever decodes a command reads and forgets them.
type extras struct {
	fields  []field
	padding string
	size    int // about what they add to a command
}

type field struct {
	Name  string `json:"name" xml:"name,attr" codec:"name" avro:"name"`
	Value string `json:"value" xml:",chardata" codec:"value" avro:"value"`
}

func newExtras(bloat, fields int) *extras {
	x := &extras{padding: strings.Repeat("x", bloat), size: bloat}
	for i := range fields {
		f := field{fmt.Sprintf("attribute_%d", i+1), fmt.Sprintf("the value of attribute %d", i+1)}
		x.fields = append(x.fields, f)
		x.size += len(f.Name) + len(f.Value) + 2
	}
	return x
}

func (x *extras) empty() bool { return x.size == 0 }

// A coding is how a node encodes now.
type coding struct {
	codec         *codec
	bloat, fields int
	extras        *extras
	labels        context.Context // of CPU profiles
}

// newCoding needs a known codec.
func newCoding(name string, bloat, fields int) (*coding, error) {
	c, err := codecCalled(cmp.Or(name, codecBinary))
	switch {
	case err != nil:
		return nil, fmt.Errorf("codec: %w", err)
	case bloat < 0 || bloat > maxBloat:
		return nil, fmt.Errorf("codec_bloat: %d is not in 0..%d", bloat, maxBloat)
	case fields < 0 || fields > maxFields:
		return nil, fmt.Errorf("codec_fields: %d is not in 0..%d", fields, maxFields)
	}
	return &coding{c, bloat, fields, newExtras(bloat, fields), profiled("encode", c.name)}, nil
}

// weight bounds what a command takes of an entry, before the codec makes it longer.
func (c *coding) weight(o *op) int { return o.size() + c.extras.size }

// encode makes an entry of commands, size bytes long at least.
func (c *coding) encode(ops []op, size int) ([]byte, error) {
	b := append(make([]byte, 0, size), c.codec.id)
	b, err := c.codec.encode(b, ops, c.extras)
	if err != nil {
		return nil, fmt.Errorf("encode entry as %s: %w", c.codec.name, err)
	}
	return b, nil
}

// profiled are the labels that CPU profiles tell coding by.
func profiled(stage, codec string) context.Context {
	return pprof.WithLabels(context.Background(), pprof.Labels("stage", stage, "codec", codec))
}

var decodeLabels = func() (all [len(codecs) + 1]context.Context) {
	for i := range codecs {
		all[codecs[i].id] = profiled("decode", codecs[i].name)
	}
	return all
}()

// A codecState is how a node's groups encode, and what coding cost all of them.
type codecState struct {
	own *coding                // as configured
	now atomic.Pointer[coding] // in force

	encoded, decoded codingMeter
}

func newCodecState(c Config) (*codecState, error) {
	own, err := newCoding(c.Codec, c.CodecBloat, c.CodecFields)
	if err != nil {
		return nil, err
	}
	s := &codecState{own: own}
	s.now.Store(own)
	return s, nil
}

// encode makes an entry of commands as c says, in the caller's goroutine.
func (s *codecState) encode(c *coding, ops []op, size int) (entry []byte, err error) {
	start := time.Now()
	pprof.SetGoroutineLabels(c.labels)
	entry, err = c.encode(ops, size)
	pprof.SetGoroutineLabels(context.Background())
	s.encoded.count(time.Since(start), len(ops), len(entry))
	return entry, err
}

// decode is decodeEntry, measured.
func (s *codecState) decode(entry []byte, ops []op) ([]op, error) {
	start, had := time.Now(), len(ops)
	if len(entry) > 0 && int(entry[0]) < len(decodeLabels) && decodeLabels[entry[0]] != nil {
		pprof.SetGoroutineLabels(decodeLabels[entry[0]])
		defer pprof.SetGoroutineLabels(context.Background())
	}
	ops, err := decodeEntry(entry, ops)
	if err == nil {
		s.decoded.count(time.Since(start), len(ops)-had, len(entry))
	}
	return ops, err
}

// A codingMeter counts what encoding costs, or decoding. An entry is one event.
type codingMeter struct {
	took            histogram
	commands, bytes atomic.Uint64
}

func (m *codingMeter) count(took time.Duration, commands, bytes int) {
	m.took.record(took)
	m.commands.Add(uint64(commands))
	m.bytes.Add(uint64(bytes))
}

func (m *codingMeter) summary() Coding {
	return Coding{m.took.summary(), m.commands.Load(), m.bytes.Load()}
}

func (s *codecState) summary() Codec {
	now := s.now.Load()
	return Codec{now.codec.name, now.bloat, now.fields, s.encoded.summary(), s.decoded.summary()}
}
