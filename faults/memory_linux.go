package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/proc"
)

var memoryRows = []row{
	{"memory.limit", meterLimit, []source{{"cgroup2", newLimit(2)}, {"cgroup1", newLimit(1)}}},
	{"memory.pressure", meterPressure, []source{{"cgroup2", newPressure(2)}, {"cgroup1", newPressure(1)}}},
	{"memory.oom", meterOOM, []source{{"cgroup2", newOOM(2)}, {"cgroup1", newOOM(1)}}},
	{"memory.stall", meterStall, []source{{"cgroup1", newStall(1)}, {"cgroup2", newStall(2)}}},
}

// A memoryAsk is what one fault wants of a node's memory.
type memoryAsk struct {
	limit int64 // bytes; 0 for none
	room  int64 // bytes beyond what the node holds besides page cache; 0 for no such limit
	stall bool  // nothing more for anybody until it is over
	kill  bool  // as little as the kernel can be brought to, whoever dies of it
}

// probeMemoryOf tries something in a group of the memory controller of a version.
func (b *bench) probeMemoryOf(kind string, version int, try func(*cgroup.Group) error) error {
	h, err := cgroup.Discover()
	if err != nil {
		return err
	}
	c, err := h.Controller("memory")
	if err != nil {
		return err
	}
	if c.Version != version {
		return &Unsupported{
			What: fmt.Sprintf("%s by cgroup v%d", kind, version), Why: fmt.Sprintf("the memory controller of this host is v%d's", c.Version),
			Cure: fmt.Sprintf("provider: cgroup%d", c.Version),
		}
	}
	return b.withProbeGroup(h, func(g *cgroup.Group) error {
		if err := try(g); err != nil {
			return &Unsupported{What: kind, Why: err.Error(), Cure: "a kernel with CONFIG_MEMCG, booted without cgroup_disable=memory"}
		}
		return nil
	})
}

// held is what a group could not give back: all but page cache.
func held(m cgroup.Memory) int64 { return max(m.Usage-m.File, m.Anon) }

// limitSlack is what a group needs beyond what it holds to go on at all: its
// CPUs have some pages in stock each.
const limitSlack = 2 << 20

// setMemory makes the lowest of the limits that are asked for a node's own. A
// stall beats them all.
func (b *bench) setMemory(ctx context.Context, node string, asked []memoryAsk) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	g := n.Group()
	low, stall, kill := cgroup.NoLimit, false, false
	for _, a := range asked {
		stall, kill = stall || a.stall, kill || a.kill
		limit := a.limit
		if a.room > 0 {
			m, err := g.Memory()
			if err != nil {
				return err
			}
			limit = held(m) + a.room
		}
		if limit > 0 && (low == cgroup.NoLimit || limit < low) {
			low = limit
		}
	}
	_, version, err := g.Dir("memory")
	if err != nil {
		return err
	}
	if (kill || stall) && version == 1 {
		writeBack(n.Dir())
	}
	if kill {
		return leastMemory(ctx, g)
	}
	if stall {
		return stallMemory(ctx, g, version)
	}
	if version == 2 {
		if err := g.SetMemoryHigh(cgroup.NoLimit); err != nil {
			return err
		}
	}
	if low != cgroup.NoLimit {
		m, err := g.Memory()
		if err != nil {
			return err
		}
		if least := held(m) + limitSlack; low < least {
			return fmt.Errorf("limit of %d MiB: %s holds %.1f MiB besides page cache, so %d MiB or more; less would kill it, which is memory.oom",
				low>>20, node, float64(held(m))/(1<<20), least>>20+1)
		}
	}
	if err := g.SetMemoryLimit(low); err != nil {
		return err
	}
	if version == 1 {
		return g.SetOOMPause(false) // after the limit: who waited has it already
	}
	return nil
}

// writeWithin is shorter than what it saves.
const writeWithin = 30 * time.Millisecond

// writeBack has the kernel write what the files in a directory have of dirty
// pages: cgroup v1 lets who runs out of memory while its group has some sleep for a
// tenth of a second, before anybody is killed or told to wait. It is done as far as
// it goes in some time, and fails silently: without it, all takes longer and no more.
func writeBack(dir string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil
			}
			if f, err := os.Open(path); err == nil {
				_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
				f.Close()
			}
			return nil
		})
	}()
	select {
	case <-done:
	case <-time.After(writeWithin): // the disk is slow, perhaps by a fault
	}
}

// stallMemory lets nobody in a group have any more memory.
func stallMemory(ctx context.Context, g *cgroup.Group, version int) error {
	if version == 2 {
		return g.SetMemoryHigh(0)
	}
	if err := g.SetOOMPause(true); err != nil {
		return err
	}
	return leastMemory(ctx, g)
}

// leastMemory limits a group to what it holds and cannot give back. While that
// is read the group grows; what is too low v1 refuses.
func leastMemory(ctx context.Context, g *cgroup.Group) error {
	for slack := int64(128 << 10); ; slack *= 2 {
		m, err := g.Memory()
		if err == nil {
			err = g.SetMemoryLimit(held(m) + slack)
		}
		if err == nil || !errors.Is(err, syscall.EBUSY) || slack > 64<<20 || ctx.Err() != nil {
			return err
		}
	}
}

// A limitFault limits what nodes may hold.
type limitFault struct {
	b       *bench
	version int
}

func newLimit(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &limitFault{b, version} }
}

func (f *limitFault) Probe(context.Context) error {
	return f.b.probeMemoryOf("memory.limit", f.version, func(g *cgroup.Group) error { return g.SetMemoryLimit(64 << 20) })
}

func limitOf(d Dose) (memoryAsk, error) {
	limit := int64(d.Float("limit_bytes"))
	m, err := proc.ReadMemInfo()
	if err != nil {
		return memoryAsk{}, err
	}
	if limit <= 0 || limit > int64(m.Total) {
		return memoryAsk{}, fmt.Errorf("limit of %d MiB: this host has %d MiB; a higher limit binds nobody", limit>>20, m.Total>>20)
	}
	return memoryAsk{limit: limit}, nil
}

func (f *limitFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.memory.inject(ctx, site.Nodes, d, limitOf)
}

// A pressureFault has a neighbour in a node's cgroup take every page that gets free.
type pressureFault struct {
	b       *bench
	version int
}

func newPressure(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &pressureFault{b, version} }
}

func (f *pressureFault) Probe(context.Context) error {
	return f.b.probeMemoryOf("memory.pressure", f.version, func(g *cgroup.Group) error { return g.SetMemoryLimit(64 << 20) })
}

func roomOf(d Dose) (memoryAsk, error) {
	room := int64(d.Float("limit_bytes"))
	if room < 1<<20 {
		return memoryAsk{}, fmt.Errorf("room of %d bytes: 1 MiB or more", room)
	}
	return memoryAsk{room: max(room, limitSlack)}, nil
}

// roomEvery is how often the limit follows what the node holds: its heap grows
// and shrinks, and it must not be killed for that.
const roomEvery = 50 * time.Millisecond

func (f *pressureFault) Inject(ctx context.Context, site Site, d Dose) (_ Injection, err error) {
	nodes, err := f.b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	p := &pressure{b: f.b, nodes: nodes}
	if p.limit, err = f.b.memory.inject(ctx, site.Nodes, d, roomOf); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Heal(context.WithoutCancel(ctx)))
		}
	}()
	if err := p.feed(d); err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel, p.dose = cancel, d
	p.wg.Go(func() { p.follow(own) })
	return p, nil
}

// A pressure is neighbours in nodes' cgroups that dirty pages.
type pressure struct {
	b      *bench
	nodes  []*cluster.Node
	limit  Injection
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	dose    Dose
	tenants []*tenant // one a node
	files   []*os.File
}

// feed starts a neighbour in each node's group.
func (p *pressure) feed(d Dose) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := 2 * int64(d.Float("limit_bytes"))
	for _, n := range p.nodes {
		file, err := p.b.scratchFile(n, size)
		if err != nil {
			return err
		}
		p.files = append(p.files, file)
		t, err := p.b.startTenant(n.Group(), appetite{churn: size, dirty: true, pace: int64(d.Float("rate_bytes_per_s"))}, nil, file)
		if err != nil {
			return err
		}
		p.tenants = append(p.tenants, t)
		if err := t.begin(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pressure) starve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	endAll(p.tenants)
	for _, f := range p.files {
		f.Close()
	}
	p.tenants, p.files = nil, nil
}

// follow keeps the limit at what the nodes hold and the room. A neighbour that
// had to die for it is replaced.
func (p *pressure) follow(ctx context.Context) {
	for sleep(ctx, roomEvery) {
		p.mu.Lock()
		d, ended := p.dose, false
		for _, t := range p.tenants {
			ended = ended || !t.alive()
		}
		p.mu.Unlock()
		_ = p.limit.Set(ctx, d) // one that is refused leaves the one before in force
		if ended && ctx.Err() == nil {
			p.starve()
			_ = p.feed(d) // else the meter sees that there is no pressure
		}
	}
}

func (p *pressure) Set(ctx context.Context, d Dose) error {
	if err := p.limit.Set(ctx, d); err != nil {
		return err
	}
	p.starve()
	p.mu.Lock()
	p.dose = d
	p.mu.Unlock()
	return p.feed(d)
}

func (p *pressure) Heal(ctx context.Context) error {
	if p.cancel != nil {
		p.cancel()
	}
	p.wg.Wait()
	p.starve()
	return p.limit.Heal(ctx)
}

// An oomFault has the kernel kill nodes for want of memory.
type oomFault struct {
	b       *bench
	version int
}

func newOOM(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &oomFault{b, version} }
}

func (f *oomFault) Probe(context.Context) error {
	return f.b.probeMemoryOf("memory.oom", f.version, func(g *cgroup.Group) error { return g.SetMemoryLimit(64 << 20) })
}

const (
	oomGrab   = 64 << 20 // more than there can be room for below the limit
	oomWithin = 5 * time.Second
)

func (f *oomFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	nodes, err := f.b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var died time.Time // the last of them
	for _, n := range nodes {
		if died, err = f.b.starve(context.WithoutCancel(ctx), n); err != nil {
			err = fmt.Errorf("let %s run out of memory: %w", n.Name(), err)
			heal, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
			defer cancel()
			for _, n := range nodes { // those that died already
				if !n.Running() {
					err = errors.Join(err, n.Start(heal), n.WaitReady(heal))
				}
			}
			return nil, err
		}
	}
	// Dead they are; from here on it is a kill like any other.
	dead, err := f.b.downs.inject(context.WithoutCancel(ctx), site.Nodes, Dose{}, func(Dose) (syscall.Signal, error) { return syscall.SIGKILL, nil })
	if err != nil {
		return nil, err
	}
	return f.b.comeBack(ctx, site.Nodes, dead, died, d.Duration("restart")), nil
}

// starve limits a node to what it holds and has a process in its cgroup ask for
// more, until the kernel has killed the node, and says when. The limit is gone
// afterwards.
func (b *bench) starve(ctx context.Context, n *cluster.Node) (died time.Time, err error) {
	g := n.Group()
	pids, err := n.Pids()
	if err != nil {
		return died, err
	}
	for _, pid := range pids { // to die first may be asked of anybody; to die last, not
		if err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("1000"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return died, err
		}
	}
	t, err := b.startTenant(g, appetite{grab: oomGrab, remain: true}, nil)
	if err != nil {
		return died, err
	}
	defer t.end()
	ended, err := n.ExpectEnd()
	if err != nil {
		return died, err
	}
	hold, err := b.memory.inject(ctx, []string{n.Name()}, nil, func(Dose) (memoryAsk, error) { return memoryAsk{kill: true}, nil })
	if err != nil {
		return died, err
	}
	defer func() { err = errors.Join(err, hold.Heal(ctx)) }()
	if err := t.begin(); err != nil {
		return died, err
	}
	late := time.NewTimer(oomWithin)
	defer late.Stop()
	select {
	case <-ended:
		return time.Now(), nil
	case <-late.C:
		return died, fmt.Errorf("it lives %v after there was no memory left", oomWithin)
	}
}

// A stallFault lets nodes wait whenever they need new memory.
type stallFault struct {
	b       *bench
	version int
}

func newStall(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &stallFault{b, version} }
}

func (f *stallFault) Probe(context.Context) error {
	return f.b.probeMemoryOf("memory.stall", f.version, func(g *cgroup.Group) error {
		if f.version == 1 {
			return errors.Join(g.SetOOMPause(true), g.SetOOMPause(false))
		}
		return errors.Join(g.SetMemoryHigh(1<<20), g.SetMemoryHigh(cgroup.NoLimit))
	})
}

// highSleep is how long memory.high lets who needs memory far beyond it sleep at a
// time (MEMCG_MAX_HIGH_DELAY_JIFFIES in the kernel's mm/memcontrol.c). Only death
// ends it sooner.
const highSleep = 2 * time.Second

// highEarly is how much sooner memory.high is lifted: a sleep may be some ticks
// short, and who wakes up before the end would sleep once more.
const highEarly = 50 * time.Millisecond

// canStall says what is wrong with a length of stalls.
func canStall(version int, length time.Duration) error {
	over := (highSleep - length%highSleep) % highSleep // what the last sleep is longer
	if version == 1 || over <= tolerance(length, pauseLateShare, pauseLateLeast) {
		return nil
	}
	return fmt.Errorf("length: %s cannot be given by memory.high of cgroup v2, where who needs memory sleeps for %s at a time: %[2]s or a multiple of it; any length by cgroup v1", short(length), short(highSleep))
}

func (f *stallFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	may := func(d Dose) error { return canStall(f.version, d.Duration("length")) }
	l := &f.b.memory
	hold := &post[string, memoryAsk]{l: l, id: l.id(), places: site.Nodes, value: func(Dose) (memoryAsk, error) { return memoryAsk{stall: true}, nil }}
	lengths := f.b.pauseLengths(site.Nodes)
	if f.version == 2 {
		whole := lengths
		lengths = func(d Dose) time.Duration { return whole(d) - highEarly }
	}
	return startPulses(ctx, d, may, lengths, hold.Heal, hold.pulse)
}
