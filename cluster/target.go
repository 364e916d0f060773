package cluster

import (
	"context"
	"fmt"
)

// A Command is a program for a node's box.
type Command struct {
	Argv []string // Argv[0] is a path inside the box; "/bin/brownout" is this binary
	Env  []string
	// Files are written, relative to the box's root, before the program starts, owned by the node's user.
	Files map[string][]byte
}

// A Status is what a node says of itself at one instant.
type Status struct {
	Node    string
	Ready   bool   // serves, or knows who does
	Role    string // leader, follower, candidate; "" where the target has no such notion
	Leader  string // node it believes to lead; "" for none
	Term    uint64
	Applied uint64
	// Shards are what it says of each Raft group, where the target has several;
	// what is above is then shard 0's, but Ready, which is all of theirs.
	Shards []ShardStatus
	Err    error // could not be asked
}

// A ShardStatus is what a node says of one Raft group; see [Status].
type ShardStatus struct {
	Role, Leader  string
	Term, Applied uint64
}

// Shard returns the status of one shard, as that of a node which has no other.
func (s Status) Shard(i int) Status {
	if i < len(s.Shards) {
		one := s.Shards[i]
		s.Role, s.Leader, s.Term, s.Applied = one.Role, one.Leader, one.Term, one.Applied
	} else if i > 0 && s.Err == nil {
		s = Status{Node: s.Node, Err: fmt.Errorf("it has no shard %d", i)}
	}
	s.Shards = nil
	return s
}

// Shard returns what all nodes say of one shard.
func Shard(st []Status, i int) []Status {
	out := make([]Status, len(st))
	for n, s := range st {
		out[n] = s.Shard(i)
	}
	return out
}

// Shards is how many shards there are, as far as the nodes say: at least one.
func Shards(st []Status) int {
	n := 1
	for _, s := range st {
		n = max(n, len(s.Shards))
	}
	return n
}

// A Target is what a cluster needs to know of the program on its nodes. The
// client half belongs to package workload, its consumer.
type Target interface {
	// Command returns what to run on n. It is asked again for every start.
	Command(n *Node) Command
	// Status asks n for its state. [errors.ErrUnsupported] means that the
	// target has no such notion; n then counts as ready while it lives.
	Status(ctx context.Context, n *Node) (Status, error)
}
