package cluster

import "context"

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
	Err     error // could not be asked
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
