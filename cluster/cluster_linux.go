package cluster

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// A Cluster is a set of nodes that are up, from [Up] to [Cluster.Down].
type Cluster struct{ nodes []*Node }

// Up brings a cluster up and returns when all nodes are ready and agree on a leader.
func Up(ctx context.Context, c Config) (*Cluster, error) {
	_, err := c.withDefaults()
	return nil, errors.Join(err, errors.ErrUnsupported)
}

// Nodes returns all nodes in order.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Node returns the node called name.
func (c *Cluster) Node(name string) (*Node, bool) {
	for _, n := range c.nodes {
		if n.name == name {
			return n, true
		}
	}
	return nil, false
}

// ClientNetNS is the network namespace of the load generator, on the switch as [ClientName].
func (c *Cluster) ClientNetNS() *os.File { return nil }

// Index returns the port on the switch of a node or of [ClientName].
func (c *Cluster) Index(name string) (int, bool) { return 0, false }

// Statuses asks all nodes at once what they are. It returns within a second, in the nodes' order.
func (c *Cluster) Statuses(ctx context.Context) []Status { return nil }

// WaitReady waits until all nodes are ready and agree on a leader.
func (c *Cluster) WaitReady(ctx context.Context) error { return nil }

// Watch asks for roles until ctx ends and emits an event for every change of leader.
func (c *Cluster) Watch(ctx context.Context) error { return nil }

// Leader is the leader last seen by Watch, "" for none.
func (c *Cluster) Leader() string { return "" }

// Down takes the cluster down.
func (c *Cluster) Down(ctx context.Context) error { return nil }

type box struct{}

// NetNS is the node's network namespace, open for the cluster's life.
func (n *Node) NetNS() *os.File { return nil }

// InitPid is the host's pid of the box's process 1.
func (n *Node) InitPid() int { return 0 }

// Root is the box's root directory as the host sees it.
func (n *Node) Root() string { return "" }

// Data is the node's disk, through its filesystem, as the host sees it.
func (n *Node) Data() string { return n.Root() + "/data" }

// Admin is the target's admin socket as the host sees it.
func (n *Node) Admin() string { return n.Root() + "/run/admin.sock" }

// Pids returns the host's pids of the target's processes; none if it does not run.
func (n *Node) Pids() ([]int, error) { return nil, nil }

// Start starts the target.
func (n *Node) Start(ctx context.Context) error { return nil }

// Kill sends a signal that ends the target and waits for its end, which counts as expected.
func (n *Node) Kill(ctx context.Context, sig syscall.Signal) error { return nil }

// Stop ends the target with SIGTERM, then, when ctx is about to end, with SIGKILL.
func (n *Node) Stop(ctx context.Context) error { return nil }

// Running says whether the target runs.
func (n *Node) Running() bool { return false }

// WaitReady waits until the target says that it is ready.
func (n *Node) WaitReady(ctx context.Context) error { return nil }

// LogTail returns the last lines of what the target wrote to its standard error and output.
func (n *Node) LogTail(lines int) string { return "" }

// InitMain is process 1 of a box.
func InitMain(args []string) int { return 1 }

// ExecMain is the stub between init and target.
func ExecMain(args []string) int { return 1 }

// ReaperMain outlives a killed supervisor and removes its cgroups.
func ReaperMain(args []string) int { return 1 }
