package kvserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"runtime"
	"strconv"
	"strings"
	"time"

	"brownout/kvserver/slots"
)

// A Status is the answer to GET /status. Where there are several shards, what
// it says of one is said of shard 0, but Keys, Won and Lost are sums.
type Status struct {
	ID string `json:"id"`
	GroupStatus
	Shards     []ShardStatus `json:"shards,omitempty"` // if there are several
	Log        string        `json:"log"`
	Reads      string        `json:"reads"`
	Lock       string        `json:"lock"`
	LockShards int           `json:"lock_shards,omitempty"` // of mode sharded
	Peers      []Peer        `json:"peers"`
	UptimeNS   int64         `json:"uptime_ns"`
	Go         string        `json:"go"`
}

// A GroupStatus is what a node says of one Raft group.
type GroupStatus struct {
	Role         string `json:"role"` // leader, follower, candidate, shutdown
	Term         uint64 `json:"term"`
	Leader       string `json:"leader"`        // id, "" if none is known
	LeaderClient string `json:"leader_client"` // where clients reach it
	Readable     bool   `json:"readable"`      // leader, and the barrier of its term is applied
	Commit       uint64 `json:"commit"`
	Applied      uint64 `json:"applied"` // of Raft; entries of commands and of Raft itself
	LastIndex    uint64 `json:"last_index"`
	Snapshot     uint64 `json:"snapshot"` // index of the last snapshot
	Keys         int    `json:"keys"`
	Won          int    `json:"won"`  // how often this process became leader
	Lost         int    `json:"lost"` // and ceased to be
}

// A ShardStatus is a GroupStatus with the shard's slots.
type ShardStatus struct {
	Shard     int `json:"shard"`
	FirstSlot int `json:"first_slot"`
	LastSlot  int `json:"last_slot"`
	GroupStatus
}

func (s *server) status() Status {
	st := Status{
		ID: s.c.ID, GroupStatus: s.groups[0].status(), Log: s.c.Log, Reads: s.c.Reads, Lock: s.c.Lock, LockShards: s.c.LockShards, Peers: s.c.Peers,
		UptimeNS: time.Since(s.started).Nanoseconds(), Go: runtime.Version(),
	}
	if len(s.groups) == 1 {
		return st
	}
	st.Keys, st.Won, st.Lost = 0, 0, 0
	for i, g := range s.groups {
		one := ShardStatus{Shard: i, GroupStatus: g.status()}
		one.FirstSlot, one.LastSlot = slots.Range(i, len(s.groups))
		st.Shards = append(st.Shards, one)
		st.Keys, st.Won, st.Lost = st.Keys+one.Keys, st.Won+one.Won, st.Lost+one.Lost
	}
	return st
}

func (g *group) status() GroupStatus {
	st := GroupStatus{
		Role: strings.ToLower(g.raft.State().String()), Term: g.raft.CurrentTerm(),
		Commit: g.raft.CommitIndex(), Applied: g.raft.AppliedIndex(), LastIndex: g.raft.LastIndex(), Keys: g.fsm.keys.reader().size(),
	}
	if i := g.leader(); i >= 0 {
		st.Leader, st.LeaderClient = g.c.Peers[i].ID, g.c.Peers[i].Client
	}
	st.Snapshot, _ = strconv.ParseUint(g.raft.Stats()["last_snapshot_index"], 10, 64)
	if term, ok := g.reads.leads(); ok {
		st.Readable = g.reads.readyFor(term)
	}
	g.changes.Lock()
	defer g.changes.Unlock()
	st.Won, st.Lost = g.changes.won, g.changes.lost
	return st
}

// A StateHash is the answer to GET /statehash: equal on replicas that applied
// the same commands.
type StateHash struct {
	Applied uint64      `json:"applied"` // last entry that holds commands; of several shards, the sum
	SHA256  string      `json:"sha256"`  // of the state; of several shards, of their digests
	Shards  []ShardHash `json:"shards,omitempty"`
}

// A ShardHash is the state of one of several shards.
type ShardHash struct {
	Applied uint64 `json:"applied"`
	SHA256  string `json:"sha256"`
}

func (s *server) stateHash(context.Context, json.RawMessage) (any, error) {
	var out StateHash
	all := sha256.New()
	for _, g := range s.groups {
		v := g.fsm.view()
		sum := v.hash()
		v.release()
		all.Write(sum[:])
		out.Applied += v.applied
		out.SHA256 = hex.EncodeToString(sum[:])
		out.Shards = append(out.Shards, ShardHash{v.applied, out.SHA256})
	}
	if len(s.groups) == 1 {
		out.Shards = nil
	} else {
		out.SHA256 = hex.EncodeToString(all.Sum(nil))
	}
	return out, nil
}
