package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/sys/proc"
)

// A pinMeter looks where threads run: as many spinning ones in the node's cgroup
// as there are CPUs, and the node's own.
type pinMeter struct {
	b     *bench
	nodes []*cluster.Node

	insiders insiders // of Undone
}

func meterPin(b *bench, site Site, d Dose) (Meter, error) {
	if _, err := cpuList(d.String("cpus")); err != nil {
		return nil, err
	}
	nodes, err := b.nodes(site.Nodes)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no nodes")
	}
	return &pinMeter{b: b, nodes: nodes}, err
}

// A pinLook is where threads of a node were seen.
type pinLook struct {
	spinner, node map[int]int // CPU to how often
	percent       float64     // got by all in the group
}

const (
	pinSpin  = 300 * time.Millisecond
	pinLooks = 2 * time.Millisecond
)

// look has as many threads spin as there are CPUs and looks where they are.
func (m *pinMeter) look(ctx context.Context, n *cluster.Node, length time.Duration) (pinLook, error) {
	l := pinLook{spinner: map[int]int{}, node: map[int]int{}}
	g := n.Group()
	own, err := n.Pids()
	if err != nil {
		return l, err
	}
	t, err := m.b.startTenant(g, appetite{burn: usable()}, nil)
	if err != nil {
		return l, err
	}
	defer t.end()
	if err := joinCPUs(t.pid(), n); err != nil {
		return l, err
	}
	if err := t.begin(); err != nil {
		return l, err
	}
	sleep(ctx, 10*time.Millisecond) // until it is where it has to be
	begun, from := time.Now(), time.Duration(0)
	if from, err = g.CPUUsage(); err != nil {
		return l, err
	}
	for time.Since(begun) < length && sleep(ctx, pinLooks) {
		if err := whereabouts([]int{t.pid()}, l.spinner); err != nil {
			return l, err
		}
		if err := whereabouts(own, l.node); err != nil {
			return l, err
		}
	}
	to, err := g.CPUUsage()
	l.percent = 100 * float64(to-from) / float64(time.Since(begun))
	return l, err
}

// whereabouts counts on which CPUs the running threads of processes are.
func whereabouts(pids []int, on map[int]int) error {
	for _, pid := range pids {
		tids, err := proc.Threads(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, tid := range tids {
			st, err := proc.ReadStat(tid)
			if err == nil && st.State == 'R' && st.CPU >= 0 {
				on[st.CPU]++
			}
		}
	}
	return nil
}

// allowedCPUs is where the first thread of a node may run, as the kernel says of the thread.
func allowedCPUs(n *cluster.Node) (string, error) {
	pids, err := n.Pids()
	if err != nil || len(pids) == 0 {
		return "", errors.Join(err, fmt.Errorf("%s has no process", n.Name()))
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(pids[0], &set); err != nil {
		return "", err
	}
	var cpus []int
	for _, c := range usableCPUs() {
		if set.IsSet(c) {
			cpus = append(cpus, c)
		}
	}
	return formatCPUs(cpus), nil
}

// joinCPUs binds a probe in a node's cgroup to where the node's threads may run:
// what binds them may not be the group.
func joinCPUs(pid int, n *cluster.Node) error {
	list, err := allowedCPUs(n)
	if err != nil {
		return err
	}
	cpus, err := parseCPUs(list)
	if err != nil {
		return err
	}
	return pinProcess(pid, cpus)
}

func seenOn(on map[int]int) (cpus []int) {
	for c := range on {
		cpus = append(cpus, c)
	}
	slices.Sort(cpus)
	return cpus
}

func (m *pinMeter) Baseline(ctx context.Context) (Reading, error) {
	l, err := m.look(ctx, m.nodes[0], pinSpin/3)
	return Reading{map[string]any{"cpus": formatCPUs(seenOn(l.spinner)), "percent": round1(l.percent)}}, err
}

func (m *pinMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	want, err := cpuList(d.String("cpus"))
	if err != nil {
		return Reading{}, Answer{}, err
	}
	length := pinSpin
	if at, ok := ctx.Deadline(); ok {
		length = min(length, time.Until(at)*2/3/time.Duration(len(m.nodes)))
	}
	values := map[string]any{}
	var bad []string
	var seen []int
	n := 0
	for _, node := range m.nodes {
		l, err := m.look(ctx, node, length)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		for _, on := range []map[int]int{l.spinner, l.node} {
			for c, times := range on {
				seen = append(seen, c)
				n += times
				if !slices.Contains(want, c) {
					bad = append(bad, fmt.Sprintf("%s: a thread was seen on CPU %d %d times", node.Name(), c, times))
				}
			}
		}
		if most := 100*float64(len(want)) + 5; l.percent > most {
			bad = append(bad, fmt.Sprintf("%s: its group got %.1f %% of a CPU, more than %d CPUs have", node.Name(), l.percent, len(want)))
		}
		if len(l.spinner) == 0 {
			bad = append(bad, node.Name()+": no spinning thread was seen running")
		}
		values["percent"] = round1(l.percent)
	}
	slices.Sort(seen)
	values["cpus"], values["n"] = formatCPUs(slices.Compact(seen)), n
	why := fmt.Sprintf("CPUs %s asked; running threads were seen on %s (n=%d), and got %v %% of a CPU", formatCPUs(want), values["cpus"], n, values["percent"])
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

// Healed looks whether threads are seen on every CPU again.
func (m *pinMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	all := usableCPUs()
	values := map[string]any{}
	for _, node := range m.nodes {
		l, err := m.look(ctx, node, pinSpin/3)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		values["cpus"] = formatCPUs(seenOn(l.spinner))
		if values["cpus"] != formatCPUs(all) {
			return Reading{values}, Answer{false, fmt.Sprintf("%s: spinning threads were seen on CPUs %s only", node.Name(), values["cpus"])}, nil
		}
		if cpus, err := allowedCPUs(node); err != nil || cpus != formatCPUs(all) {
			return Reading{values}, Answer{false, fmt.Sprintf("%s may run on CPUs %s only (%v)", node.Name(), cpus, err)}, nil
		}
	}
	return Reading{values}, Answer{true, fmt.Sprintf("spinning threads were seen on CPUs %s", values["cpus"])}, nil
}

func (m *pinMeter) Close() error { return nil }
