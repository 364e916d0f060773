package faults

import (
	"fmt"
	"os"
	"strings"

	"brownout/cluster"
	"brownout/internal/sys/proc"
)

// Insiders are the processes that were seen in nodes' cgroups. A limit that
// nobody touches holds nobody who has left.
type insiders map[int]insider // by pid

type insider struct {
	node  *cluster.Node
	start uint64
	in    map[string]bool // lines of its /proc/PID/cgroup that name the node's
}

// escaped says which of the nodes' processes is no longer in a cgroup of the
// node in which it was.
func (in *insiders) escaped(nodes []*cluster.Node) string {
	if *in == nil {
		*in = insiders{}
	}
	for _, n := range nodes {
		pids, _ := n.Pids()
		for _, pid := range pids {
			if start, err := proc.StartTime(pid); err == nil && (*in)[pid].start != start {
				(*in)[pid] = insider{n, start, map[string]bool{}}
			}
		}
	}
	for pid, was := range *in {
		now := memberships(pid, was.node)
		// Who ends leaves its cgroups, too.
		if st, err := proc.ReadStat(pid); err != nil || st.Start != was.start || st.State == 'Z' || st.State == 'X' {
			delete(*in, pid)
			continue
		}
		for line := range was.in {
			if !now[line] {
				return fmt.Sprintf("process %d has left %s's cgroup %s", pid, was.node.Name(), line)
			}
		}
		for line := range now { // who is just coming joins one after the other
			was.in[line] = true
		}
	}
	return ""
}

// memberships are the hierarchies in which a process is in a node's cgroup.
func memberships(pid int, n *cluster.Node) map[string]bool {
	out := map[string]bool{}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); strings.HasSuffix(line, "/"+n.Group().Name()) {
			out[line] = true
		}
	}
	return out
}
