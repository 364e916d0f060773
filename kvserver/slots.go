package kvserver

import (
	"strconv"
	"strings"

	"brownout/kvserver/slots"
)

// keys calls each with the names by which a command is placed: its keys, and
// its session, which lives where it is registered.
func (o *op) keys(each func([]byte)) {
	if o.session != nil {
		each(o.session)
	}
	switch o.kind {
	case opDBSize:
	case opMSet:
		for i := 0; i < len(o.args); i += 2 {
			each(o.args[i])
		}
	case opDel, opMGet, opExists:
		for _, k := range o.args {
			each(k)
		}
	default:
		each(o.args[0])
	}
}

// crossed is the reply to a command whose keys are on several shards.
const crossed = "CROSSSLOT keys in request are not on the same shard"

// route finds the shard of a command.
func (s *step) route(shards int) {
	switch {
	case s.bad != "" || s.op.kind == 0:
		return
	case s.op.kind == opDBSize:
		s.spec, s.op = &spec{local: countKeys}, op{}
		return
	}
	at := -1
	s.op.keys(func(key []byte) {
		switch to := slots.ShardOf(key, shards); at {
		case -1, to:
			at = to
		default:
			s.bad = crossed
		}
	})
	s.shard = max(at, 0)
}

// countKeys answers DBSIZE where there are several shards, as a node of Redis
// Cluster does: with the keys of those that this node leads, as it knows them.
func countKeys(f *front, w *respWriter, _ *client, _ [][]byte) {
	n := 0
	for _, g := range f.groups {
		if _, leads := g.reads.leads(); leads {
			n += g.fsm.keys.reader().size()
		}
	}
	w.number(int64(n))
}

// movedWord begins the refusal of a node that knows who leads. The slot is not
// in it: it is the key's, and comes in when the reply is written.
const movedWord = "MOVED "

// withSlot completes a refusal.
func withSlot(refusal string, o *op) string {
	to, ok := strings.CutPrefix(refusal, movedWord)
	if !ok {
		return refusal
	}
	slot := -1
	o.keys(func(key []byte) {
		if slot < 0 {
			slot = slots.Of(key)
		}
	})
	return movedWord + strconv.Itoa(max(slot, 0)) + " " + to
}
