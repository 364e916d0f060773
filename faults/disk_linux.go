package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/faultfs"
)

var diskRows = []row{
	{"disk.delay", meterDisk, []source{{"fuse", newSlowDisk}}},
}

// A diskDelay makes one class of file operations of a node slower.
type diskDelay struct {
	op  faultfs.Op
	add time.Duration
}

func diskDelayOf(d Dose) (diskDelay, error) {
	dd := diskDelay{faultfs.Op(d.String("op")), d.Duration("add")}
	if dd.op == "" {
		dd.op = faultfs.Fsync
	}
	if dd.add <= 0 {
		return dd, fmt.Errorf("disk.delay of %v: nothing to add", dd.add)
	}
	return dd, diskRules([]diskDelay{dd}).Validate()
}

// diskRules are several delays together: they add up. When nothing is left to
// delay, what still waits is let go.
func diskRules(ds []diskDelay) faultfs.Rules {
	r := faultfs.Rules{Delay: map[faultfs.Op]faultfs.Delay{}, Release: len(ds) == 0}
	for _, d := range ds {
		for _, op := range faultfs.Ops {
			if d.op == op || d.op == faultfs.All {
				r.Delay[op] = faultfs.Delay{Add: min(r.Delay[op].Add+d.add, faultfs.MaxDelay)}
			}
		}
	}
	return r
}

// A slowDisk is our own file system over the node's data directory.
type slowDisk struct{ b *bench }

func newSlowDisk(b *bench) Provider { return &slowDisk{b} }

func (f *slowDisk) Probe(ctx context.Context) error {
	if err := faultfs.Probe(); err != nil || f.b == nil {
		return err
	}
	for _, n := range f.b.Cluster.Nodes() {
		// Nothing to delay: only whether there is somebody who could.
		if err := f.b.setDisk(ctx, n.Name(), nil); err != nil {
			return err
		}
	}
	return nil
}

func (f *slowDisk) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.disks.inject(ctx, site.Nodes, d, diskDelayOf)
}

func (b *bench) setDisk(ctx context.Context, node string, asked []diskDelay) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	return n.SetDisk(ctx, diskRules(asked))
}

// Tolerance of file operations: see [diskMeter.tolerance].
const (
	diskShare    = 0.05
	diskLeast    = 500 * time.Microsecond
	diskBase     = 350 * time.Millisecond
	diskBaseMost = 4 * time.Second       // for one operation of each node to end
	diskFast     = 10 * time.Millisecond // between two probes of the baseline,
	diskPace     = 50 * time.Millisecond // and later
	maxDisk      = 1 << 14               // probes kept
	diskFloor    = 0.1                   // quantile that is judged
)

// A diskMeter uses files on the node's own disk, through its own file system,
// and takes the time. It judges by the fastest tenth of the operations: a delay
// shifts them all, while what a busy host does to some of them only ever adds.
// It disturbs that disk with up to 20 small writes and as
// many fsyncs a second, and with five times as many for the third of a second
// before the fault.
type diskMeter struct {
	op      faultfs.Op
	add     time.Duration
	probers []*diskProber
	base    []time.Duration // median, by prober
	floor   []time.Duration // first decile
	scatter []time.Duration // from there to the median
	looks   spans
}

func meterDisk(b *bench, site Site, d Dose) (Meter, error) {
	dd, err := diskDelayOf(d)
	if err != nil {
		return nil, err
	}
	nodes, err := b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	m := &diskMeter{op: dd.op, add: dd.add}
	for _, n := range nodes {
		m.probers = append(m.probers, newDiskProber(n, dd.op))
	}
	return m, nil
}

// A diskProber does one operation again and again on a thread of its own: the
// thread waits in the kernel for as long as the operation takes.
type diskProber struct {
	node string
	path string // of the probe's file; never looked at by the node
	op   faultfs.Op

	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	pace  time.Duration
	seen  []diskProbe
	began time.Time // of the operation that is on; zero if none is
	err   error
}

type diskProbe struct{ from, to time.Time }

func newDiskProber(n *cluster.Node, op faultfs.Op) *diskProber {
	name := fmt.Sprintf(".bo-probe-%d-%d", os.Getpid(), probes.Add(1))
	return &diskProber{node: n.Name(), path: filepath.Join(n.Data(), name), op: op, pace: diskFast}
}

func (p *diskProber) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan struct{})
	go func() {
		defer close(p.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.run(ctx); err != nil {
			p.mu.Lock()
			p.err = err
			p.mu.Unlock()
		}
	}()
}

// closeWithin bounds the wait for an operation that is on.
const closeWithin = 2 * time.Second

// close ends the prober. One that waits in an operation removes its file and
// ends when that is over, at the latest with the node's file system.
func (p *diskProber) close() {
	if p.cancel == nil {
		return
	}
	p.cancel()
	select {
	case <-p.done:
	case <-time.After(closeWithin):
	}
}

func (p *diskProber) run(ctx context.Context) error {
	fd, err := unix.Open(p.path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open probe on %s's disk: %w", p.node, err)
	}
	defer unix.Close(fd)
	other := p.path + "-renamed"
	defer func() { _ = os.Remove(other); _ = os.Remove(p.path) }()
	var block [64]byte
	write := func() error { _, err := unix.Pwrite(fd, block[:], 0); return err }
	none := func() error { return nil }
	before, op := none, none
	switch p.op {
	case faultfs.Write:
		op = write
	case faultfs.Read:
		if err := write(); err != nil {
			return err
		}
		// What the kernel has in its cache it does not ask the file system for.
		before = func() error { return errors.Join(unix.Fdatasync(fd), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)) }
		op = func() error { _, err := unix.Pread(fd, block[:], 0); return err }
	case faultfs.Open:
		op = func() error {
			again, err := unix.Open(p.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(again)
			}
			return err
		}
	case faultfs.Rename:
		from, to := p.path, other
		op = func() error { err := unix.Rename(from, to); from, to = to, from; return err }
	default: // fsync, and of all classes the one that matters most
		before = write
		op = func() error { return unix.Fdatasync(fd) }
	}
	for ctx.Err() == nil {
		if err := before(); err != nil {
			return fmt.Errorf("probe %s's disk: %w", p.node, err)
		}
		p.mu.Lock()
		p.began = time.Now()
		p.mu.Unlock()
		err := op()
		now := time.Now()
		p.mu.Lock()
		if err == nil {
			if len(p.seen) == maxDisk {
				p.seen = append(p.seen[:0], p.seen[maxDisk/2:]...)
			}
			p.seen = append(p.seen, diskProbe{p.began, now})
		}
		p.began = time.Time{}
		p.mu.Unlock()
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("probe %s's disk: %s: %w", p.node, p.op, err)
		}
		p.mu.Lock()
		pace := p.pace
		p.mu.Unlock()
		sleep(ctx, pace)
	}
	return nil
}

// calm makes it probe less often.
func (p *diskProber) calm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pace = diskPace
}

// look returns how long the operations took that began and ended within w, and
// for how long one is on.
func (p *diskProber) look(w spans) (took []time.Duration, on time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.seen {
		if w.hold(x.from, x.to) {
			took = append(took, x.to.Sub(x.from))
		}
	}
	if !p.began.IsZero() {
		on = time.Since(p.began)
	}
	return took, on, p.err
}

func (m *diskMeter) Baseline(ctx context.Context) (Reading, error) {
	var w spans
	from := time.Now()
	for _, p := range m.probers {
		p.start()
	}
	// A host's disk may stall for longer than the usual look: then look on.
	for sleep(ctx, diskBase); ctx.Err() == nil && time.Since(from) < diskBaseMost && m.waiting(spans{{from, time.Now()}}); {
		sleep(ctx, diskBase)
	}
	w.add(from, time.Now())
	var all []time.Duration
	for _, p := range m.probers {
		took, on, err := p.look(w)
		if err != nil {
			return Reading{}, err
		}
		if len(took) == 0 {
			return Reading{}, fmt.Errorf("no %s of a probe on %s's disk ended in %s (one is on for %s)", p.op, p.node, short(diskBase), short(on))
		}
		p.calm()
		m.base = append(m.base, quantile(took, 0.5))
		m.floor = append(m.floor, quantile(took, diskFloor))
		m.scatter = append(m.scatter, quantile(took, 0.5)-quantile(took, diskFloor))
		all = append(all, took...)
	}
	return Reading{map[string]any{"p50_ns": int64(quantile(all, 0.5)), "n": len(all)}}, ctx.Err()
}

// waiting reports whether some prober has seen no operation end within w.
func (m *diskMeter) waiting(w spans) bool {
	for _, p := range m.probers {
		if took, _, err := p.look(w); err == nil && len(took) == 0 {
			return true
		}
	}
	return false
}

func (m *diskMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	from := time.Now()
	<-ctx.Done()
	m.looks.add(from, time.Now())
	var all, floors []time.Duration
	var bad []string
	var errs []error
	for i, p := range m.probers {
		took, on, err := p.look(m.looks)
		errs = append(errs, err)
		for _, t := range took {
			all = append(all, t-m.base[i])
		}
		got, tol := quantile(took, diskFloor)-m.floor[i], m.tolerance(i)
		floors = append(floors, got)
		switch {
		case len(took) == 0 && on > 0:
			bad = append(bad, fmt.Sprintf("%s: a probe's %s is on for %s, none has ended", p.node, p.op, short(on)))
		case len(took) < 3:
			bad = append(bad, fmt.Sprintf("%s: only %d probes in %s", p.node, len(took), short(m.looks.length())))
		case (got - m.add).Abs() > tol:
			bad = append(bad, fmt.Sprintf("%s: the fastest tenth is slower by %s, tolerance %s (n=%d)", p.node, short(got), short(tol), len(took)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Reading{}, Answer{}, err
	}
	values := Reading{map[string]any{
		"p50_ns": int64(quantile(all, 0.5)), "p99_ns": int64(quantile(all, 0.99)), "p10_ns": int64(slices.Min(floors)), "n": len(all),
	}}
	why := fmt.Sprintf("%s added to %s asked, %s measured by a probe on the node's disk (p50, fastest tenth %s, p99 %s, n=%d, beyond a baseline of %s)",
		short(m.add), m.op, short(quantile(all, 0.5)), short(slices.Min(floors)), short(quantile(all, 0.99)), len(all), short(slices.Max(m.base)))
	if bad != nil {
		return values, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, why}, nil
}

// tolerance is a share of the delay; or what the disk below varies by on its
// own, which differs when the node writes less: half of what its fastest take,
// or how much slower the median is. It is never more than half of the delay.
func (m *diskMeter) tolerance(i int) time.Duration {
	own := max(diskLeast, m.floor[i]/2, m.scatter[i])
	return max(tolerance(m.add, diskShare, 0), min(own, m.add/2))
}

func (m *diskMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	from := time.Now()
	sleep(ctx, diskBase)
	var w spans
	w.add(from, time.Now())
	for i, p := range m.probers {
		took, on, err := p.look(w)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		got := quantile(took, diskFloor)
		// What the node has to catch up makes its disk slower than before.
		most := max(m.floor[i]*2, m.floor[i]+max(m.add/4, diskLeast))
		values := Reading{map[string]any{"p10_ns": int64(got - m.floor[i]), "n": len(took)}}
		if len(took) == 0 {
			return values, Answer{false, fmt.Sprintf("%s: no %s of a probe ended (one is on for %s)", p.node, p.op, short(on))}, nil
		}
		if got > most {
			return values, Answer{false, fmt.Sprintf("%s: %s takes %s (fastest tenth, n=%d), more than %s", p.node, p.op, short(got), len(took), short(most))}, nil
		}
		if i == len(m.probers)-1 {
			return values, Answer{true, fmt.Sprintf("%s takes %s (fastest tenth, n=%d), %s before the fault", p.op, short(got), len(took), short(m.floor[i]))}, nil
		}
	}
	return Reading{}, Answer{}, errors.New("no probes")
}

func (m *diskMeter) Close() error {
	for _, p := range m.probers {
		p.close()
	}
	return nil
}
