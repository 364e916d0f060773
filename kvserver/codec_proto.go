package kvserver

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"brownout/kvserver/entrypb"
)

func encodeProto(b []byte, ops []op, x *extras) ([]byte, error) {
	e := entrypb.Entry{Commands: make([]*entrypb.Command, len(ops))}
	all := make([]entrypb.Command, len(ops))
	fields := make([]*entrypb.Field, len(x.fields)) // of all commands: they are only read
	for i, f := range x.fields {
		fields[i] = &entrypb.Field{Name: f.Name, Value: f.Value}
	}
	for i := range ops {
		c := &all[i]
		c.Kind, c.Args, c.Session, c.Seq, c.Fields, c.Padding = uint32(ops[i].kind), ops[i].args, ops[i].session, ops[i].seq, fields, x.padding
		e.Commands[i] = c
	}
	return proto.MarshalOptions{}.MarshalAppend(b, &e)
}

func decodeProto(b []byte, ops []op) ([]op, error) {
	var e entrypb.Entry
	if err := proto.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	for _, c := range e.Commands {
		o := op{kind: opKind(c.Kind), args: c.Args, session: c.Session, seq: c.Seq}
		if c.Kind >= uint32(opEnd) || !o.kind.takes(len(o.args)) {
			return nil, fmt.Errorf("command kind %d with %d arguments is unknown", c.Kind, len(o.args))
		}
		ops = append(ops, o)
	}
	return ops, nil
}
