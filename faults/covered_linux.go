package faults

import (
	"context"
	"fmt"
	"os"
	"strings"

	"brownout/cluster"
)

// A mountMeter is the meter of a fault of a disk, which no longer is that of the
// node once something else is mounted there.
type mountMeter struct {
	Meter
	nodes []*cluster.Node
	was   map[string]mounted // of Undone, by node: what was there when it was called first
}

// A mounted is what is on top at a node's data, and by which of its own mounts.
type mounted struct {
	what string
	own  int64 // [cluster.Node.Remounts]
}

// Undone asks the kernel what is mounted where the nodes have their data. It
// must not ask the file system itself, which may hang.
func (m *mountMeter) Undone(ctx context.Context, d Dose) string {
	if m.was == nil {
		m.was = map[string]mounted{}
	}
	for _, n := range m.nodes {
		own := n.Remounts()
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.InitPid()))
		if err != nil || own%2 == 1 || own != n.Remounts() { // a power loss is under way
			continue
		}
		now := mounted{mountedAt("/data", string(b)), own}
		if was, ok := m.was[n.Name()]; !ok || own != was.own {
			m.was[n.Name()] = now
		} else if now != was {
			return fmt.Sprintf("%s's disk is %s now, not %s", n.Name(), now.what, was.what)
		}
	}
	if m, ok := m.Meter.(stander); ok {
		return m.Undone(ctx, d)
	}
	return ""
}

// mountedAt says by type and device what is on top at a place, as
// /proc/PID/mountinfo has it: the last of those that are there.
func mountedAt(place, mountinfo string) string {
	top := "no mount"
	for line := range strings.Lines(mountinfo) {
		f, rest, ok := strings.Cut(line, " - ")
		fields := strings.Fields(f)
		if ok && len(fields) > 4 && fields[4] == place {
			kind, _, _ := strings.Cut(rest, " ")
			top = kind + " " + fields[2]
		}
	}
	return top
}
