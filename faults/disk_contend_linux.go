package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/faultfs"
	"brownout/internal/sys/cgroup"
)

// A diskContendFault is a tenant that writes to and fsyncs the device below a node's disk.
type diskContendFault struct{ b *bench }

func newDiskContend(b *bench) Provider { return &diskContendFault{b} }

func (f *diskContendFault) Probe(context.Context) error {
	if f.b == nil {
		return nil
	}
	for _, n := range f.b.Cluster.Nodes() {
		file, err := f.b.scratchFile(n, 0)
		if err != nil {
			return err
		}
		file.Close()
	}
	return nil
}

func (f *diskContendFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	c := &hammering{b: f.b, nodes: site.Nodes}
	if err := c.Set(ctx, d); err != nil {
		return nil, err
	}
	return c, nil
}

// A hammering is the tenants of one fault.
type hammering struct {
	b     *bench
	nodes []string

	mu      sync.Mutex
	group   *cgroup.Group
	tenants []*tenant
}

// Set starts others in place of those that are there.
func (c *hammering) Set(ctx context.Context, d Dose) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	nodes, err := c.b.nodes(c.nodes)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.group == nil {
		if c.group, err = c.b.besides.newGroup(c.b); err != nil {
			return err
		}
	}
	var started []*tenant
	defer func() {
		if err != nil {
			endAll(started)
			if c.tenants == nil {
				err = errors.Join(err, c.drop(ctx))
			}
		}
	}()
	for _, n := range nodes {
		a := appetite{fsyncs: max(int64(d.Float("rate")), 1), block: int64(d.Float("size_bytes")), many: int(d.Float("workers"))}
		if a.block == 0 {
			a.block = 64 << 10
		}
		a.many = max(a.many, 1)
		file, err := c.b.scratchFile(n, 0)
		if err != nil {
			return err
		}
		t, err := c.b.startTenant(c.group, a, nil, file)
		file.Close()
		if err != nil {
			return err
		}
		started = append(started, t)
		c.b.hammers.add(n.Name(), t.pid())
		if err := t.begin(); err != nil {
			return err
		}
	}
	c.end()
	c.tenants = started
	return nil
}

func (c *hammering) end() {
	for i, t := range c.tenants {
		c.b.hammers.remove(c.nodes[i], t.pid())
	}
	endAll(c.tenants)
	c.tenants = nil
}

func (c *hammering) drop(ctx context.Context) error {
	if c.group == nil {
		return nil
	}
	err := c.b.besides.delete(ctx, c.group)
	if err == nil {
		c.group = nil
	}
	return err
}

func (c *hammering) Heal(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
	return c.drop(ctx)
}

// Hammers are the processes that hammer, by the node whose disk is meant: the
// meter asks the kernel what they did.
type hammers struct {
	mu   sync.Mutex
	pids map[string][]int
}

func (h *hammers) add(node string, pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pids == nil {
		h.pids = map[string][]int{}
	}
	h.pids[node] = append(h.pids[node], pid)
}

func (h *hammers) remove(node string, pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var left []int
	for _, p := range h.pids[node] {
		if p != pid {
			left = append(left, p)
		}
	}
	h.pids[node] = left
}

func (h *hammers) of(node string) []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]int(nil), h.pids[node]...)
}

// A hammered file is written in turns at so many places.
const hammerSpan = 16 << 20

// hammerFile writes and fsyncs at a rate, as far as the device can. What it
// could not is not made up for.
func hammerFile(f *os.File, a appetite) error {
	var turn atomic.Int64
	began := time.Now()
	failed := make(chan error, a.many)
	places := max(hammerSpan/a.block, 1)
	for range a.many {
		go func() {
			buf := filling(int(a.block))
			for {
				i := turn.Add(1)
				due := began.Add(time.Duration(float64(i) / float64(a.fsyncs) * 1e9))
				<-time.After(time.Until(due))
				if late := int64(time.Since(due).Seconds() * float64(a.fsyncs)); late > a.fsyncs {
					turn.CompareAndSwap(i, i+late)
				}
				_, err := f.WriteAt(buf, i%places*a.block)
				if err == nil {
					err = unix.Fdatasync(int(f.Fd()))
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// A diskContendMeter asks the kernel how much the hammers wrote, and takes the time
// of fsyncs of its own on the same device.
type diskContendMeter struct {
	b       *bench
	nodes   []*cluster.Node
	rate    float64
	block   float64
	probers diskProbers
	base    []time.Duration
	looks   spans
	wrote   float64 // bytes, in the times looked at
	looked  time.Duration
}

func meterDiskContend(b *bench, site Site, d Dose) (Meter, error) {
	nodes, err := b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	m := &diskContendMeter{b: b, nodes: nodes, rate: d.Float("rate"), block: d.Float("size_bytes")}
	if m.block == 0 {
		m.block = 64 << 10
	}
	for _, n := range nodes {
		m.probers = append(m.probers, newProberAt(n, n.Dir(), faultfs.Fsync))
	}
	return m, nil
}

func (m *diskContendMeter) Baseline(ctx context.Context) (Reading, error) {
	w, err := m.probers.baseline(ctx)
	if err != nil {
		return Reading{}, err
	}
	var all []time.Duration
	for _, p := range m.probers {
		took, _, _ := p.look(w)
		m.base = append(m.base, quantile(took, 0.5))
		all = append(all, took...)
	}
	return Reading{map[string]any{"fsync_p50_ns": int64(quantile(all, 0.5)), "fsync_p99_ns": int64(quantile(all, 0.99)), "n": len(all)}}, nil
}

const contendTolerance = 0.1

// written is what a process wrote to block devices, by the kernel's account.
func written(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("no write_bytes in /proc/%d/io", pid)
}

func (m *diskContendMeter) account() (sum float64, pids int, err error) {
	for _, n := range m.nodes {
		for _, pid := range m.b.hammers.of(n.Name()) {
			v, err := written(pid)
			if err != nil {
				return 0, 0, err
			}
			sum, pids = sum+v, pids+1
		}
	}
	return sum, pids, nil
}

func (m *diskContendMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	before, pids, err := m.account()
	if err != nil {
		return Reading{}, Answer{}, err
	}
	from := time.Now()
	<-ctx.Done()
	now := time.Now()
	after, _, err := m.account()
	if err != nil {
		return Reading{}, Answer{}, err
	}
	m.looks.add(from, now)
	m.wrote, m.looked = m.wrote+after-before, m.looked+now.Sub(from)
	rate := m.wrote / m.block / m.looked.Seconds() / float64(len(m.nodes))
	var all []time.Duration
	for _, p := range m.probers {
		took, _, err := p.look(m.looks)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		all = append(all, took...)
	}
	base := quantile(m.base, 1)
	values := Reading{map[string]any{
		"per_s": rate, "bytes_per_s": rate * m.block, "fsync_p50_ns": int64(quantile(all, 0.5)), "fsync_p99_ns": int64(quantile(all, 0.99)),
		"before_fsync_p50_ns": int64(base), "n": len(all),
	}}
	why := fmt.Sprintf("%.4g writes of %.0f KiB a second asked, %.4g by the kernel's account; an fsync on that device takes %s (p50, p99 %s, n=%d), before it %s",
		m.rate, m.block/1024, rate, short(quantile(all, 0.5)), short(quantile(all, 0.99)), len(all), short(base))
	switch {
	case pids == 0:
		return values, Answer{false, why + ": nobody writes"}, nil
	case math.Abs(rate-m.rate) > contendTolerance*m.rate+2/m.looked.Seconds(): // and what the ends of the look cut off
		return values, Answer{false, why + fmt.Sprintf(": tolerance %.0f %%", 100*contendTolerance)}, nil
	case len(all) < 3:
		return values, Answer{false, why + ": too few"}, nil
	}
	return values, Answer{true, why}, nil
}

func (m *diskContendMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	if _, pids, err := m.account(); err != nil || pids > 0 {
		return Reading{}, Answer{false, fmt.Sprintf("%d processes write on (%v)", pids, err)}, nil
	}
	r, answer, err := m.probers.healthy(ctx)
	base := quantile(m.base, 1)
	if p50 := time.Duration(asInt(r.Values["p50_ns"])); err == nil && answer.Yes && p50 > max(3*base, base+2*time.Millisecond) {
		answer = Answer{false, fmt.Sprintf("an fsync on that device takes %s, before the fault %s", short(p50), short(base))}
	}
	return r, answer, err
}

func (m *diskContendMeter) Close() error { m.probers.close(); return nil }
