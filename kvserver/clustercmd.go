package kvserver

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"brownout/kvserver/slots"
)

// clusterCommand answers what clients of Redis Cluster ask to find their way:
// where the slots are, as this node knows it. A node is a master of the shards
// that it leads, and if it leads none, a replica of the first shard's leader.
func clusterCommand(f *front, w *respWriter, _ *client, args [][]byte) {
	switch sub := args[1]; {
	case is(sub, "slots") && len(args) == 2:
		f.clusterSlots(w)
	case is(sub, "shards") && len(args) == 2:
		f.clusterShards(w)
	case is(sub, "nodes") && len(args) == 2:
		w.bulk(f.clusterNodes())
	case is(sub, "info") && len(args) == 2:
		w.bulk(f.clusterInfo())
	case is(sub, "myid") && len(args) == 2:
		w.bulk(nodeID(f.c.ID))
	case is(sub, "keyslot") && len(args) == 3:
		w.number(int64(slots.Of(args[2])))
	default:
		w.fail("ERR unknown subcommand or wrong number of arguments for 'cluster' command")
	}
}

// nodeID is a node's name in Redis' form, 40 hexadecimal digits.
func nodeID(id string) string {
	sum := sha1.Sum([]byte(id))
	return hex.EncodeToString(sum[:])
}

// address splits a peer's address for clients.
func (p Peer) address() (host string, port int) {
	host, text, err := net.SplitHostPort(p.Client)
	if err != nil {
		return p.Client, 0
	}
	port, _ = strconv.Atoi(text) // a name of a port is of no use to these clients
	return host, port
}

// clusterSlots lists ranges of slots: first, last, the leader, the others.
// Shards without a leader are left out.
func (f *front) clusterSlots(w *respWriter) {
	leaders, known := f.leaders()
	w.array(known)
	for i, lead := range leaders {
		if lead < 0 {
			continue
		}
		first, last := slots.Range(i, len(leaders))
		w.array(2 + len(f.c.Peers))
		w.number(int64(first))
		w.number(int64(last))
		others := slices.Delete(slices.Clone(f.c.Peers), lead, lead+1)
		for _, p := range append([]Peer{f.c.Peers[lead]}, others...) {
			host, port := p.address()
			w.array(3)
			w.bulk(host)
			w.number(int64(port))
			w.bulk(nodeID(p.ID))
		}
	}
}

// clusterShards lists the shards in the words of Redis 7.
func (f *front) clusterShards(w *respWriter) {
	leaders, _ := f.leaders()
	w.array(len(leaders))
	for i, lead := range leaders {
		first, last := slots.Range(i, len(leaders))
		w.array(4)
		w.bulk("slots")
		w.array(2)
		w.number(int64(first))
		w.number(int64(last))
		w.bulk("nodes")
		w.array(len(f.c.Peers))
		for j, p := range f.c.Peers {
			host, port := p.address()
			role := "replica"
			if j == lead {
				role = "master"
			}
			w.array(14)
			for _, s := range []string{"id", nodeID(p.ID), "port"} {
				w.bulk(s)
			}
			w.number(int64(port))
			for _, s := range []string{"ip", host, "endpoint", host, "role", role, "replication-offset"} {
				w.bulk(s)
			}
			w.number(int64(f.groups[i].raft.AppliedIndex()))
			w.bulk("health")
			w.bulk("online")
		}
	}
}

// leaders returns each shard's leader's place among the peers, -1 where none is known, and how many are.
func (f *front) leaders() (leaders []int, known int) {
	for _, g := range f.groups {
		lead := g.leader()
		if leaders = append(leaders, lead); lead >= 0 {
			known++
		}
	}
	return leaders, known
}

// clusterNodes has a line for each node:
//
//	id host:port@port flags master-id ping pong epoch link-state slots...
func (f *front) clusterNodes() string {
	leaders, _ := f.leaders()
	var b strings.Builder
	for i, p := range f.c.Peers {
		flags, master, ranges := "slave", "-", ""
		for shard, lead := range leaders {
			switch {
			case lead == i:
				first, last := slots.Range(shard, len(leaders))
				ranges += fmt.Sprintf(" %d-%d", first, last)
			case lead >= 0 && master == "-":
				master = nodeID(f.c.Peers[lead].ID)
			}
		}
		if ranges != "" || master == "-" {
			flags, master = "master", "-"
		}
		if p.ID == f.c.ID {
			flags = "myself," + flags
		}
		host, port := p.address()
		_, peerPort, _ := net.SplitHostPort(p.Raft)
		fmt.Fprintf(&b, "%s %s:%d@%s %s %s 0 0 %d connected%s\n", nodeID(p.ID), host, port, peerPort, flags, master, i+1, ranges)
	}
	return b.String()
}

func (f *front) clusterInfo() string {
	leaders, known := f.leaders()
	state, led, sizes, term := "ok", 0, map[int]bool{}, uint64(0)
	if known < len(leaders) {
		state = "fail"
	}
	for i, lead := range leaders {
		term = max(term, f.groups[i].raft.CurrentTerm())
		if lead >= 0 {
			first, last := slots.Range(i, len(leaders))
			led += last - first + 1
			sizes[lead] = true
		}
	}
	return fmt.Sprintf("cluster_enabled:1\r\ncluster_state:%s\r\ncluster_slots_assigned:%d\r\ncluster_slots_ok:%d\r\n"+
		"cluster_slots_pfail:0\r\ncluster_slots_fail:%d\r\ncluster_known_nodes:%d\r\ncluster_size:%d\r\n"+
		"cluster_current_epoch:%d\r\ncluster_my_epoch:%d\r\n",
		state, slots.Count, led, slots.Count-led, len(f.c.Peers), len(sizes), term, term)
}
