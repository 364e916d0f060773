package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/proc"
	"brownout/internal/sys/tcpdiag"
)

// A Node says where the numbers of a node are. Parts that are nil are left out.
type Node struct {
	Name  string
	Group interface {
		Stat() (cgroup.Stat, error)
	}
	Pids  func() ([]int, error) // of the target's processes
	NetNS *os.File              // its connections are looked at
	Peers map[netip.Addr]string // addresses of all nodes, by name: tells peers from clients
	Admin Numbers               // of the target's program
	Disk  Numbers               // of the filesystem of ours below it
	Extra map[string]Numbers    // more, by the source's name
}

// NodeSources returns the sources of a node. closing lets go of what they hold open.
func NodeSources(n Node) (sources []Source, closing func() error, err error) {
	closing = func() error { return nil }
	add := func(name string, slow bool, skip int, read Numbers) {
		sources = append(sources, Source{Node: n.Name, Name: name, Slow: slow, Skip: skip, Read: read})
	}
	if n.Group != nil {
		add("cgroup", false, 0, func(context.Context) (map[string]float64, error) {
			st, err := n.Group.Stat()
			return groupNumbers(st), err
		})
	}
	if n.Pids != nil {
		add("io", false, 0, func(context.Context) (map[string]float64, error) { return ioNumbers(n.Pids) })
		add("sched", false, 0, func(context.Context) (map[string]float64, error) { return schedNumbers(n.Pids) })
	}
	if n.NetNS != nil {
		s, err := tcpdiag.Open(n.NetNS)
		if err != nil {
			return nil, nil, fmt.Errorf("telemetry of %s: %w", n.Name, err)
		}
		t := &tcp{peers: n.Peers, last: map[uint64]tcpdiag.Conn{}}
		closing = s.Close
		// A dump walks the host's whole table of connections, whatever the namespace holds.
		add("tcp", false, 1, func(context.Context) (map[string]float64, error) {
			conns, err := s.Conns()
			if err != nil {
				return nil, err
			}
			return t.numbers(conns), nil
		})
	}
	if n.Admin != nil {
		add("runtime", true, 0, n.Admin)
	}
	if n.Disk != nil {
		add("disk", true, 0, n.Disk)
	}
	for name, read := range n.Extra {
		add(name, true, 0, read)
	}
	return sources, closing, nil
}

// groupNumbers leaves out what the host does not count, so that absence is not taken for zero.
func groupNumbers(st cgroup.Stat) map[string]float64 {
	v := map[string]float64{}
	if st.Has.CPU {
		v["cpu_ns"], v["cpu_user_ns"], v["cpu_system_ns"] = float64(st.Usage), float64(st.User), float64(st.System)
	}
	if st.Has.Throttling {
		v["periods"], v["throttled"], v["throttled_ns"] = float64(st.Periods), float64(st.Throttled), float64(st.ThrottledTime)
	}
	if st.Has.Memory {
		v["memory_bytes"], v["oom_kills"] = float64(st.MemoryBytes), float64(st.OOMKills)
	}
	if st.Has.IO {
		v["read_bytes"], v["write_bytes"] = float64(st.ReadBytes), float64(st.WriteBytes)
		v["read_ops"], v["write_ops"] = float64(st.ReadOps), float64(st.WriteOps)
	}
	if st.Has.Pressure {
		pressure(v, "cpu", st.CPU)
		pressure(v, "io", st.IO)
		pressure(v, "memory", st.Memory)
	}
	return v
}

func pressure(v map[string]float64, what string, p proc.Pressure) {
	v[what+"_some_ns"], v[what+"_full_ns"] = float64(p.Some.Total), float64(p.Full.Total)
}

// ioNumbers adds up what the processes read and wrote. Those that end take
// their numbers with them.
func ioNumbers(pids func() ([]int, error)) (map[string]float64, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var sum proc.IO
	for _, pid := range all {
		io, err := proc.ReadIO(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sum.RChar += io.RChar
		sum.WChar += io.WChar
		sum.SyscR += io.SyscR
		sum.SyscW += io.SyscW
		sum.ReadBytes += io.ReadBytes
		sum.WriteBytes += io.WriteBytes
	}
	return map[string]float64{
		"processes": float64(len(all)), "rchar_bytes": float64(sum.RChar), "wchar_bytes": float64(sum.WChar),
		"read_calls": float64(sum.SyscR), "write_calls": float64(sum.SyscW),
		"read_bytes": float64(sum.ReadBytes), "write_bytes": float64(sum.WriteBytes),
	}, nil
}

// schedNumbers adds up the time that threads ran and waited for a CPU. Threads
// that end take theirs with them; Go's live long.
func schedNumbers(pids func() ([]int, error)) (map[string]float64, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var run, wait, slices float64
	stopped := 0.0
	for _, pid := range all {
		s, err := proc.ReadSchedStats(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		run += float64(s.Run)
		wait += float64(s.Wait)
		slices += float64(s.Slices)
		if st, err := proc.ReadStat(pid); err == nil && (st.State == 'T' || st.State == 't') {
			stopped++
		}
	}
	return map[string]float64{"run_ns": run, "wait_ns": wait, "slices": slices, "stopped": stopped}, nil
}

// A tcp turns connections that come and go into counters that only grow.
type tcp struct {
	peers map[netip.Addr]string
	last  map[uint64]tcpdiag.Conn
	sums  struct{ peerRetrans, clientRetrans, peerSent, clientSent, peerReceived, clientReceived float64 }
}

func (t *tcp) numbers(conns []tcpdiag.Conn) map[string]float64 {
	v := map[string]float64{}
	for _, plane := range []string{"peer", "client"} {
		for _, name := range []string{"_conns", "_rtt_max_ns", "_unacked", "_lost", "_notsent_bytes", "_recv_queue_bytes"} {
			v[plane+name] = 0
		}
	}
	now := make(map[uint64]tcpdiag.Conn, len(conns))
	for _, c := range conns {
		was := t.last[c.Cookie]
		now[c.Cookie] = c
		peer, isPeer := t.peers[c.Remote.Addr().Unmap()]
		plane := "client"
		retrans, sent, received := &t.sums.clientRetrans, &t.sums.clientSent, &t.sums.clientReceived
		if isPeer {
			plane = "peer"
			retrans, sent, received = &t.sums.peerRetrans, &t.sums.peerSent, &t.sums.peerReceived
			key := "rtt_" + peer + "_ns"
			v[key] = max(v[key], float64(c.RTT))
		}
		*retrans += float64(c.Retrans - was.Retrans)
		*sent += float64(c.BytesSent - was.BytesSent)
		*received += float64(c.BytesReceived - was.BytesReceived)
		v[plane+"_conns"]++
		v[plane+"_rtt_max_ns"] = max(v[plane+"_rtt_max_ns"], float64(c.RTT))
		v[plane+"_unacked"] += float64(c.Unacked)
		v[plane+"_lost"] += float64(c.Lost)
		v[plane+"_notsent_bytes"] += float64(c.NotSent)
		v[plane+"_recv_queue_bytes"] += float64(c.RecvQueue)
	}
	t.last = now
	v["peer_retrans"], v["client_retrans"] = t.sums.peerRetrans, t.sums.clientRetrans
	v["peer_sent_bytes"], v["client_sent_bytes"] = t.sums.peerSent, t.sums.clientSent
	v["peer_received_bytes"], v["client_received_bytes"] = t.sums.peerReceived, t.sums.clientReceived
	return v
}
