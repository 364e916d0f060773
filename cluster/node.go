package cluster

import (
	"net/netip"
	"path/filepath"
	"strconv"
)

// ClientName is the name of the load generator's own place on the switch.
const ClientName = "client"

// CacheName is the name of the box beside the nodes, where a cluster has one.
const CacheName = "cache"

// A Node is a box with a program in it: namespaces, a cgroup, a disk, an
// address. Its accessors are plain facts that hold for the cluster's life; what
// can wait takes a context.
type Node struct {
	name  string
	index int
	dir   string  // of its logs and data, on the host
	nodes []*Node // the whole cluster, n included; of the cache, itself
	cache *Node   // beside them; nil if there is none
	box   box
}

// NodeName returns the name of node i, counted from 0: n1, n2, ...
func NodeName(i int) string { return "n" + strconv.Itoa(i+1) }

// NewNode returns a node that is not there, for tests of targets: it has a
// name, addresses and paths, but no box. All nodes of one cluster share names.
func NewNode(dir string, index, nodes int) *Node { return newNodes(dir, nodes)[index] }

func newNodes(dir string, count int) []*Node {
	nodes := make([]*Node, count)
	for i := range nodes {
		nodes[i] = &Node{
			name: NodeName(i), index: i, nodes: nodes,
			dir: filepath.Join(dir, "nodes", NodeName(i)),
		}
	}
	return nodes
}

// NewCache returns a cache beside nodes that is not there, as [NewNode] does. Its
// place on the switch is behind theirs and the client's.
func NewCache(dir string, nodes []*Node) *Node {
	c := &Node{name: CacheName, index: len(nodes) + 1, dir: filepath.Join(dir, "nodes", CacheName)}
	c.nodes = []*Node{c}
	for _, n := range nodes {
		n.cache = c
	}
	return c
}

// Cache is the box beside the nodes that they may use, nil if there is none.
func (n *Node) Cache() *Node { return n.cache }

// Name is n1, n2, ... It is also the node's host name, known to all nodes and to the client.
func (n *Node) Name() string { return n.name }

// Index counts from 0; the cache's is behind those of the nodes and of the client. It is also the node's port on the switch; see [Cluster.Index].
func (n *Node) Index() int { return n.index }

// Peers returns all nodes of the cluster in order, n included.
func (n *Node) Peers() []*Node { return n.nodes }

// IP4 is the node's address on the switch.
func (n *Node) IP4() netip.Addr { return IP4(n.index) }

// IP6 is the node's address on the switch.
func (n *Node) IP6() netip.Addr { return IP6(n.index) }

// Dir is the node's directory on the host: its logs and, below data, the
// backing of its disk. Whoever writes to data from the host goes round the
// node's filesystem; see [Node.Data].
func (n *Node) Dir() string { return n.dir }
