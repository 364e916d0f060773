package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/netns"
	"brownout/internal/sys/proc"
)

var neighbourRows = []row{
	{"neighbour.noisy", meterNeighbour, []source{{"cgroup2", newNeighbour(2)}, {"cgroup1", newNeighbour(1)}}},
}

// A neighbourFault is a tenant with an appetite.
type neighbourFault struct {
	b       *bench
	version int
}

func newNeighbour(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &neighbourFault{b, version} }
}

func (f *neighbourFault) Probe(context.Context) error {
	return f.b.probeCPU("neighbour.noisy", f.version, func(g *cgroup.Group) error { return g.SetCPUQuota(50, neighbourPeriod) })
}

const (
	neighbourPeriod = 100 * time.Millisecond
	neighbourFile   = 64 << 20
	discardPort     = 9
)

// A wish is what a dose asks of a neighbour.
type wish struct {
	cpu    float64 // percent of one CPU
	disk   int64   // bytes a second
	bits   int64   // a second, to each node
	memory int64
}

func wishOf(d Dose) (wish, error) {
	w := wish{d.Float("cpu"), int64(d.Float("disk_bytes_per_s")), int64(d.Float("net_bits_per_s")), int64(d.Float("memory_bytes"))}
	if w == (wish{}) {
		return w, errors.New("neighbour.noisy: at least one of cpu, disk, net and memory is to be given")
	}
	if most := 100 * float64(usable()); w.cpu > most {
		return w, fmt.Errorf("cpu of %v%%: this host has %v%%", w.cpu, most)
	}
	m, err := proc.ReadMemInfo()
	if err != nil {
		return w, err
	}
	if most := int64(m.Available / 2); w.memory > most {
		return w, fmt.Errorf("memory of %d MiB: up to %d MiB, half of what this host has available", w.memory>>20, most>>20)
	}
	return w, nil
}

func (f *neighbourFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	nodes, err := f.b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	n := &neighbour{b: f.b, nodes: nodes}
	if err := n.Set(ctx, d); err != nil {
		return nil, err
	}
	return n, nil
}

// A neighbour is a tenant in force.
type neighbour struct {
	b     *bench
	nodes []*cluster.Node

	mu     sync.Mutex
	burner *cgroup.Group // of those that spin; nil if none do
	store  *cgroup.Group // of who holds memory
	eater  *cgroup.Group // of all others
	spins  []*tenant
	disk   *tenant
	others []*tenant
	file   *os.File
	port   int // on the switch; 0 for none: that is a node's
	ns     *os.File
}

// Set lets another tenant take the place of the one there is.
func (n *neighbour) Set(ctx context.Context, d Dose) error {
	w, err := wishOf(d)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
	defer cancel()
	if err := n.Heal(whole); err != nil {
		return err
	}
	if err := n.move(whole, w); err != nil {
		return errors.Join(err, n.Heal(whole))
	}
	n.b.noisy.add(n)
	return nil
}

// move has a tenant move in.
func (n *neighbour) move(ctx context.Context, w wish) (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w.cpu > 0 {
		if n.burner, err = n.b.besides.newGroup(n.b); err != nil {
			return err
		}
		if err := n.burner.SetCPUQuota(w.cpu, neighbourPeriod); err != nil {
			return err
		}
		t, err := n.b.startTenant(n.burner, appetite{burn: min(int(math.Ceil(w.cpu/100)), usable())}, nil)
		if err != nil {
			return err
		}
		n.spins = append(n.spins, t)
	}
	if w.disk+w.bits > 0 {
		if n.eater, err = n.bounded(2 * neighbourFile); err != nil {
			return err
		}
	}
	if w.memory > 0 {
		if n.store, err = n.bounded(w.memory + neighbourFile); err != nil {
			return err
		}
		t, err := n.b.startTenant(n.store, appetite{hold: w.memory}, nil)
		if err != nil {
			return err
		}
		n.others = append(n.others, t)
	}
	if w.disk > 0 {
		if n.file, err = n.b.scratchFile(n.nodes[0], neighbourFile); err != nil {
			return err
		}
		if n.disk, err = n.b.startTenant(n.eater, appetite{churn: neighbourFile, dirty: true, sync: true, pace: w.disk}, nil, n.file); err != nil {
			return err
		}
	}
	if w.bits > 0 {
		if err := n.plug(ctx); err != nil {
			return err
		}
		for _, node := range n.nodes {
			to := net.JoinHostPort(node.IP4().String(), strconv.Itoa(discardPort))
			t, err := n.b.startTenant(n.eater, appetite{udp: to, bits: w.bits}, n.ns)
			if err != nil {
				return err
			}
			n.others = append(n.others, t)
		}
	}
	for _, t := range n.all() {
		if err := t.begin(); err != nil {
			return err
		}
	}
	return nil
}

// bounded makes a group that can take nobody's memory beyond what it may hold.
func (n *neighbour) bounded(bytes int64) (*cgroup.Group, error) {
	g, err := n.b.besides.newGroup(n.b)
	if err != nil {
		return nil, err
	}
	if err := g.SetMemoryLimit(bytes); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return g, err
	}
	return g, nil
}

func (n *neighbour) all() []*tenant {
	all := slices.Concat(n.spins, n.others)
	if n.disk != nil {
		all = append(all, n.disk)
	}
	return all
}

// plug gives the tenant a place on the network.
func (n *neighbour) plug(ctx context.Context) (err error) {
	if n.ns, err = netns.New(); err != nil {
		return err
	}
	sw := n.b.Cluster.Switch()
	taken := map[int]bool{}
	for _, p := range sw.Ports() {
		taken[p.Index] = true
	}
	client, _ := n.b.Cluster.Index(cluster.ClientName)
	for i := client + 1; i < cluster.MaxPorts; i++ {
		if taken[i] {
			continue
		}
		if _, err := sw.Plug(ctx, i, "tenant", n.ns); err != nil {
			return err
		}
		n.port = i
		return nil
	}
	return errors.New("the switch has no port left for a tenant")
}

// Heal has the tenant move out.
func (n *neighbour) Heal(ctx context.Context) error {
	n.b.noisy.remove(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	endAll(n.all())
	n.spins, n.others, n.disk = nil, nil, nil
	if n.file != nil {
		n.file.Close()
		n.file = nil
	}
	var errs []error
	groups := []**cgroup.Group{&n.burner, &n.store, &n.eater}
	failed := make([]error, len(groups))
	var wg sync.WaitGroup
	for i, g := range groups {
		if *g == nil {
			continue
		}
		wg.Go(func() {
			if failed[i] = n.b.besides.delete(ctx, *g); failed[i] == nil {
				*g = nil
			}
		})
	}
	if n.port > 0 {
		errs = append(errs, n.b.Cluster.Switch().Unplug(ctx, n.port))
		n.port = 0
	}
	if n.ns != nil {
		n.ns.Close()
		n.ns = nil
	}
	wg.Wait()
	errs = append(errs, failed...)
	return errors.Join(errs...)
}

// Neighbours are those in force, for the meter to look at.
type neighbours struct {
	mu  sync.Mutex
	all []*neighbour
}

func (ns *neighbours) add(n *neighbour) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	ns.all = append(ns.all, n)
}

func (ns *neighbours) remove(n *neighbour) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	ns.all = slices.DeleteFunc(ns.all, func(o *neighbour) bool { return o == n })
}

// of returns the latest that is beside just these nodes.
func (ns *neighbours) of(nodes []*cluster.Node) *neighbour {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	for _, n := range slices.Backward(ns.all) {
		if slices.Equal(n.nodes, nodes) {
			return n
		}
	}
	return nil
}

// A neighbourMeter reads what the kernel and the switch count of a tenant. What
// the tenant itself believes to have done does not count.
type neighbourMeter struct {
	b     *bench
	names []string

	pingers
	first *ate
	waits []schedWait // before
	from  []schedWait // in force
}

// Ate is what a tenant has had at a time.
type ate struct {
	when    time.Time
	cpu     time.Duration
	disk    int64
	packets int64 // bytes of them, as the switch counts
	memory  int64
}

func meterNeighbour(b *bench, site Site, d Dose) (Meter, error) {
	if len(site.Nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	_, err := wishOf(d)
	return &neighbourMeter{b: b, names: site.Nodes}, err
}

func (m *neighbourMeter) Baseline(ctx context.Context) (Reading, error) {
	var before []schedWait
	nodes, err := m.b.nodes(m.names)
	if err != nil {
		return Reading{}, err
	}
	for _, n := range nodes {
		w, err := waitOf(n)
		if err != nil {
			return Reading{}, err
		}
		before = append(before, w)
	}
	if err := m.start(ctx, m.b, m.names, killPing, 10*killPing); err != nil {
		m.Close()
		return Reading{}, err
	}
	for _, n := range m.nodes {
		w, err := waitOf(n)
		if err != nil {
			m.Close()
			return Reading{}, err
		}
		m.waits = append(m.waits, w)
	}
	return Reading{map[string]any{"node_wait_percent": round1(waited(before, m.waits))}}, nil
}

// waited is how long nodes' threads waited to run, in percent of the time.
func waited(from, to []schedWait) (mean float64) {
	for i := range from {
		mean += 100 * float64(to[i].wait-from[i].wait) / float64(max(to[i].when.Sub(from[i].when), 1)) / float64(len(from))
	}
	return max(mean, 0)
}

// look reads the accounts of the tenant that is there.
func (m *neighbourMeter) look() (*ate, error) {
	n := m.b.noisy.of(m.nodes)
	if n == nil {
		return nil, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	a := &ate{when: time.Now()}
	var err error
	if n.burner != nil {
		if a.cpu, err = n.burner.CPUUsage(); err != nil {
			return nil, err
		}
	}
	if n.store != nil {
		if mem, err := n.store.Memory(); err == nil {
			a.memory = mem.Anon
		}
	}
	if n.disk != nil {
		io, err := proc.ReadIO(n.disk.pid())
		if err != nil {
			return nil, err
		}
		a.disk = int64(io.WriteBytes)
	}
	if n.port > 0 {
		for _, node := range m.nodes {
			c, err := m.b.Cluster.Switch().Counters(n.port, node.Index())
			if err != nil {
				return nil, err
			}
			a.packets += int64(c.Bytes)
		}
	}
	return a, nil
}

// neighbourStart is how long a tenant may take to move in before it is looked at.
const neighbourStart = 100 * time.Millisecond

func (m *neighbourMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	w, err := wishOf(d)
	if err != nil {
		return Reading{}, Answer{}, err
	}
	if m.first == nil {
		sleep(ctx, neighbourStart)
		if m.first, err = m.look(); err != nil {
			return Reading{}, Answer{}, err
		}
		m.from = nil
		for _, n := range m.nodes {
			wait, err := waitOf(n)
			if err != nil {
				return Reading{}, Answer{}, err
			}
			m.from = append(m.from, wait)
		}
	}
	<-ctx.Done()
	last, err := m.look()
	if err != nil {
		return Reading{}, Answer{}, err
	}
	switch {
	case m.first == nil:
		return Reading{map[string]any{}}, Answer{false, "there is no tenant"}, nil
	case last == nil: // this host was so busy that the fault was healed before we looked
		return Reading{}, Answer{}, errors.New("too late to measure: the tenant has moved out")
	}
	var now []schedWait
	for _, n := range m.nodes {
		wait, err := waitOf(n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		now = append(now, wait)
	}
	took := last.when.Sub(m.first.when).Seconds()
	values := map[string]any{"n": 1, "node_wait_percent": round1(waited(m.from, now))}
	var whys, bad []string
	compare := func(what, key string, want, got, share, least float64, unit string, scale float64) {
		if want == 0 {
			return
		}
		values[key] = round1(got)
		whys = append(whys, fmt.Sprintf("%s %.4g%s asked, %.4g%s had", what, want/scale, unit, got/scale, unit))
		if tol := max(share*want, least); math.Abs(got-want) > tol {
			bad = append(bad, fmt.Sprintf("%s: tolerance %.3g%s", what, tol/scale, unit))
		}
	}
	compare("cpu", "percent", w.cpu, 100*(last.cpu-m.first.cpu).Seconds()/took, 0.1, 3, "%", 1)
	compare("memory", "memory_bytes", float64(w.memory), float64(last.memory), 0.1, 4<<20, " MiB", 1<<20)
	compare("disk", "bytes_per_s", float64(w.disk), float64(last.disk-m.first.disk)/took, 0.2, 1<<20, " MiB/s", 1<<20)
	compare("net", "bits_per_s", float64(w.bits), 8*float64(last.packets-m.first.packets)/took/float64(len(m.nodes)), 0.1, 1e5, " Mbit/s", 1e6)
	why := "the tenant: " + strings.Join(whys, ", ") + fmt.Sprintf("; the node's threads waited %.1f %% of the time to run", waited(m.from, now))
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

func (m *neighbourMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	if m.b.noisy.of(m.nodes) != nil {
		return Reading{map[string]any{}}, Answer{false, "the tenant is still there"}, nil
	}
	return m.alive(ctx, 25*killPing)
}

func (m *neighbourMeter) Close() error { m.close(); return nil }

// noisyRow says what was asked of a neighbour and what it had; of several
// appetites, the one that is furthest off.
func noisyRow(d, v Dose) (asked, got string, off float64) {
	for _, x := range []struct {
		name      string
		want, got float64
		print     func(float64) string
	}{
		{"cpu", d.Float("cpu"), v.Float("percent"), func(x float64) string { return fmt.Sprintf("%.4g%%", x) }},
		{"memory", d.Float("memory_bytes"), v.Float("memory_bytes"), func(x float64) string { return fmt.Sprintf("%.4gMiB", x/(1<<20)) }},
		{"net", d.Float("net_bits_per_s"), v.Float("bits_per_s"), rate},
		{"disk", d.Float("disk_bytes_per_s"), v.Float("bytes_per_s"), func(x float64) string { return fmt.Sprintf("%.4gMiB/s", x/(1<<20)) }},
	} {
		if x.want == 0 {
			continue
		}
		asked, got = asked+" "+x.name+" "+x.print(x.want), got+" "+x.name+" "+x.print(x.got)
		if e := 100 * (x.got - x.want) / x.want; math.Abs(e) > math.Abs(off) {
			off = e
		}
	}
	return strings.TrimSpace(asked), strings.TrimSpace(got), off
}
