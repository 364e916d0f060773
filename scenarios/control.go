package scenarios

import (
	"errors"

	"brownout/internal/plan"
)

// The words between a running cluster (see ServeMain) and the commands that
// steer it: one JSON request and one JSON reply a connection, over an abstract
// Unix socket, so that nothing lies in a file system.

// A request asks a running cluster for one thing.
type request struct {
	Verb  string      `json:"verb"` // info, add, list, remove, down
	Fault *plan.Fault `json:"fault,omitempty"`
	ID    string      `json:"id,omitempty"`
}

// A reply answers it.
type reply struct {
	Error       string       `json:"error,omitempty"`
	Unsupported bool         `json:"unsupported,omitempty"`
	Info        *Info        `json:"info,omitempty"`
	Faults      []FaultState `json:"faults,omitempty"`
	ID          string       `json:"id,omitempty"`
}

// A cannot is an error of another process that said that this host cannot do
// something; it matches [errors.ErrUnsupported].
type cannot string

func (c cannot) Error() string        { return string(c) }
func (c cannot) Is(target error) bool { return target == errors.ErrUnsupported }

// Info describes a running cluster.
type Info struct {
	ID     string     `json:"id"`
	PID    int        `json:"pid"` // of the process that holds it
	Dir    string     `json:"dir"`
	Client string     `json:"client_netns"` // path of the clients' network namespace
	Hosts  string     `json:"hosts"`        // path of a hosts(5) file with the nodes' names
	Shards int        `json:"shards"`       // of the target
	Nodes  []NodeInfo `json:"nodes"`
	Cache  *NodeInfo  `json:"cache,omitempty"` // beside them, if they write through to one
}

// NodeInfo describes one of its nodes.
type NodeInfo struct {
	Name   string `json:"name"`
	IP4    string `json:"ip4"`
	IP6    string `json:"ip6"`
	Client string `json:"client_addr"`
	Init   int    `json:"init_pid"`        // of the process whose namespaces are the node's
	Role   string `json:"role"`            // of several shards, in shard 0
	Term   uint64 `json:"term"`            // of that
	Leads  []int  `json:"leads,omitempty"` // which shards it leads, where there are several
}

// FaultState is a fault in force on a running cluster.
type FaultState struct {
	ID        string         `json:"id"`
	Kind      string         `json:"kind"`
	Nodes     []string       `json:"nodes"`
	Provider  string         `json:"provider"`
	Requested map[string]any `json:"requested"`
	Measured  map[string]any `json:"measured,omitempty"`
	Bit       string         `json:"bit"`
	Why       string         `json:"why,omitempty"`
}
