package kvserver

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
)

// Keys belong to slots as in Redis Cluster, and slots to shards: each shard, a
// Raft group of its own, has one range of them. So a client of Redis Cluster
// finds its way with CLUSTER SLOTS and -MOVED, and keys with the same {tag} are
// together.
const (
	slotCount = 16384
	maxShards = 64
)

// slotOf is Redis' key hash slot (cluster.c keyHashSlot): of what is between
// the first brace and the next closing one, if that is anything.
func slotOf(key []byte) int {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		if n := bytes.IndexByte(key[open+1:], '}'); n > 0 {
			key = key[open+1 : open+1+n]
		}
	}
	table := crcTable()
	var crc uint16
	for _, b := range key {
		crc = crc<<8 ^ table[byte(crc>>8)^b]
	}
	return int(crc) % slotCount
}

// crcTable is that of CRC-16/XMODEM: polynomial 0x1021, most significant bit first.
var crcTable = sync.OnceValue(func() *[256]uint16 {
	var t [256]uint16
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			if crc <<= 1; carry {
				crc ^= 0x1021
			}
		}
		t[i] = crc
	}
	return &t
})

// shardOf returns the shard of a slot, of so many shards.
func shardOf(slot, shards int) int { return slot * shards / slotCount }

// slotsOf returns the first and the last slot of a shard.
func slotsOf(shard, shards int) (first, last int) {
	ceil := func(n int) int { return (n*slotCount + shards - 1) / shards }
	return ceil(shard), ceil(shard+1) - 1
}

// ShardOf returns the shard of a key in a cluster of so many.
func ShardOf(key string, shards int) int { return shardOf(slotOf([]byte(key)), shards) }

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
		switch to := shardOf(slotOf(key), shards); at {
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
			slot = slotOf(key)
		}
	})
	return movedWord + strconv.Itoa(max(slot, 0)) + " " + to
}
