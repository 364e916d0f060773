package kvserver

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hamba/avro/v2"
	msgcodec "github.com/hashicorp/go-msgpack/v2/codec"
)

// An entryForm is an entry as the codecs see it that work by reflection. Bytes
// are base64 where the form is text.
type entryForm struct {
	Commands []commandForm `json:"commands" codec:"commands" avro:"commands"`
}

type commandForm struct {
	Command string     `json:"command" codec:"command" avro:"command"`
	Args    [][]byte   `json:"args" codec:"args" avro:"args"`
	Once    []onceForm `json:"once,omitempty" codec:"once" avro:"once"` // one at most
	Fields  []field    `json:"fields,omitempty" codec:"fields" avro:"fields"`
	Padding string     `json:"padding,omitempty" codec:"padding" avro:"padding"`
}

type onceForm struct {
	Session []byte `json:"session" codec:"session" avro:"session"`
	Seq     int64  `json:"seq" codec:"seq" avro:"seq"` // the bits of an unsigned number
}

// kindWords are the names of commands on disks: they never change.
var kindWords = [opEnd]string{
	opSet: "set", opSetNX: "setnx", opSetXX: "setxx", opDel: "del", opAppend: "append", opCAS: "cas", opMSet: "mset",
	opSession: "session", opGet: "get", opMGet: "mget", opExists: "exists", opStrlen: "strlen", opDBSize: "dbsize",
}

func formOf(ops []op, x *extras) *entryForm {
	f := &entryForm{Commands: make([]commandForm, len(ops))}
	for i := range ops {
		c := &f.Commands[i]
		*c = commandForm{Command: kindWords[ops[i].kind], Args: ops[i].args, Fields: x.fields, Padding: x.padding}
		if ops[i].session != nil {
			c.Once = []onceForm{{ops[i].session, int64(ops[i].seq)}}
		}
	}
	return f
}

// ops appends the form's commands to ops.
func (f *entryForm) ops(ops []op) ([]op, error) {
	for i := range f.Commands {
		c := &f.Commands[i]
		o := op{args: c.Args}
		if len(c.Once) > 1 {
			return nil, errors.New("a command of two sessions")
		}
		if len(c.Once) == 1 {
			o.session, o.seq = present(c.Once[0].Session), uint64(c.Once[0].Seq)
		}
		if err := o.called(c.Command); err != nil {
			return nil, err
		}
		ops = append(ops, o)
	}
	return ops, nil
}

// called gives o the kind that is called so, if it can have o's arguments.
func (o *op) called(name string) error {
	kind := slices.Index(kindWords[1:], name) + 1
	if o.kind = opKind(kind); !o.kind.takes(len(o.args)) {
		return fmt.Errorf("command %.20q with %d arguments is unknown", name, len(o.args))
	}
	return nil
}

// present makes what is empty something that is there.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func encodeJSON(b []byte, ops []op, x *extras) ([]byte, error) {
	out, err := json.Marshal(formOf(ops, x))
	return append(b, out...), err
}

func decodeJSON(b []byte, ops []op) ([]op, error) {
	var f entryForm
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	return f.ops(ops)
}

func encodeGob(b []byte, ops []op, x *extras) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	err := gob.NewEncoder(buf).Encode(formOf(ops, x)) // types and all: an entry must stand for itself
	return buf.Bytes(), err
}

func decodeGob(b []byte, ops []op) ([]op, error) {
	var f entryForm
	r := bytes.NewReader(b)
	if err := gob.NewDecoder(r).Decode(&f); err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("entry has %d bytes too many", r.Len())
	}
	return f.ops(ops)
}

var msgpack = &msgcodec.MsgpackHandle{WriteExt: true} // tells bytes from text

func encodeMsgpack(b []byte, ops []op, x *extras) ([]byte, error) {
	var out []byte
	err := msgcodec.NewEncoderBytes(&out, msgpack).Encode(formOf(ops, x))
	return append(b, out...), err
}

func decodeMsgpack(b []byte, ops []op) ([]op, error) {
	var f entryForm
	d := msgcodec.NewDecoderBytes(b, msgpack)
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if left := len(b) - d.NumBytesRead(); left > 0 {
		return nil, fmt.Errorf("entry has %d bytes too many", left)
	}
	return f.ops(ops)
}

// avroSchema is on disks, though not in them: a new one needs a new codec.
var avroSchema = avro.MustParse(`{"type": "record", "name": "entry", "fields": [{"name": "commands", "type": {"type": "array", "items":
	{"type": "record", "name": "command", "fields": [
		{"name": "command", "type": "string"},
		{"name": "args", "type": {"type": "array", "items": "bytes"}},
		{"name": "once", "type": {"type": "array", "items": {"type": "record", "name": "once", "fields": [
			{"name": "session", "type": "bytes"}, {"name": "seq", "type": "long"}]}}},
		{"name": "fields", "type": {"type": "array", "items": {"type": "record", "name": "field", "fields": [
			{"name": "name", "type": "string"}, {"name": "value", "type": "string"}]}}},
		{"name": "padding", "type": "string"}]}}}]}`)

// avroAPIs bound what lengths in an entry may claim by the entry's own: neither
// arrays nor bytes have more items than it has bytes. The library has such
// bounds, but keeps what it compiles with them, so there are a few.
var avroAPIs = func() (all []avroAPI) {
	for n := 1 << 10; n <= 1<<26; n <<= 4 {
		all = append(all, avroAPI{n, avro.Config{MaxByteSliceSize: n, MaxSliceAllocSize: n}.Freeze()})
	}
	return all
}()

type avroAPI struct {
	most int // bytes of an entry
	avro.API
}

func encodeAvro(b []byte, ops []op, x *extras) ([]byte, error) {
	out, err := avroAPIs[0].Marshal(avroSchema, formOf(ops, x))
	return append(b, out...), err
}

func decodeAvro(b []byte, ops []op) (_ []op, err error) {
	i := slices.IndexFunc(avroAPIs, func(a avroAPI) bool { return len(b) <= a.most })
	if i < 0 {
		return nil, fmt.Errorf("entry has %d bytes, more than %d", len(b), avroAPIs[len(avroAPIs)-1].most)
	}
	defer func() {
		if p := recover(); p != nil { // a negative length
			err = fmt.Errorf("malformed: %v", p)
		}
	}()
	var f entryForm
	r := avro.NewReader(nil, 0, avro.WithReaderConfig(avroAPIs[i].API)).Reset(b)
	if r.ReadVal(avroSchema, &f); r.Error != nil {
		return nil, r.Error
	}
	if r.Peek(); !errors.Is(r.Error, io.EOF) {
		return nil, errors.New("entry has bytes too many")
	}
	return f.ops(ops)
}

// xmlEntry is an entryForm for XML, which has no bytes.
type xmlEntry struct {
	XMLName  xml.Name     `xml:"entry"`
	Commands []xmlCommand `xml:"command"`
}

type xmlCommand struct {
	Name    string     `xml:"name,attr"`
	Args    []xmlBytes `xml:"arg"`
	Once    *xmlOnce   `xml:"once"`
	Fields  []field    `xml:"field"`
	Padding string     `xml:"padding,omitempty"`
}

type xmlOnce struct {
	Session xmlBytes `xml:"session"`
	Seq     uint64   `xml:"seq"`
}

// xmlBytes is base64 in XML.
type xmlBytes []byte

func (x xmlBytes) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, x), nil
}

func (x *xmlBytes) UnmarshalText(b []byte) (err error) {
	*x, err = base64.StdEncoding.AppendDecode([]byte{}, b)
	return err
}

func encodeXML(b []byte, ops []op, x *extras) ([]byte, error) {
	e := xmlEntry{Commands: make([]xmlCommand, len(ops))}
	for i := range ops {
		c := &e.Commands[i]
		*c = xmlCommand{Name: kindWords[ops[i].kind], Args: make([]xmlBytes, len(ops[i].args)), Fields: x.fields, Padding: x.padding}
		for j, a := range ops[i].args {
			c.Args[j] = a
		}
		if ops[i].session != nil {
			c.Once = &xmlOnce{ops[i].session, ops[i].seq}
		}
	}
	buf := bytes.NewBuffer(b)
	err := xml.NewEncoder(buf).Encode(&e)
	return buf.Bytes(), err
}

func decodeXML(b []byte, ops []op) ([]op, error) {
	var e xmlEntry
	d := xml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&e); err != nil {
		return nil, err
	}
	if left := int64(len(b)) - d.InputOffset(); left > 0 {
		return nil, fmt.Errorf("entry has %d bytes too many", left)
	}
	for i := range e.Commands {
		c := &e.Commands[i]
		o := op{args: make([][]byte, len(c.Args))}
		for j, a := range c.Args {
			o.args[j] = a
		}
		if c.Once != nil {
			o.session, o.seq = present(c.Once.Session), c.Once.Seq
		}
		if err := o.called(c.Name); err != nil {
			return nil, err
		}
		ops = append(ops, o)
	}
	return ops, nil
}
