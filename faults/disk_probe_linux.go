package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/faultfs"
)

// A diskProber does one operation again and again on a thread of its own: the
// thread waits in the kernel for as long as the operation takes.
type diskProber struct {
	node   string
	path   string // of the probe's file; never looked at by the node
	op     faultfs.Op
	bare   bool   // nothing else is done between the operations
	direct bool   // past the kernel's cache; then size is whole pages
	size   int    // bytes of each
	train  int    // operations one right after the other
	block  []byte // what is written

	// judge, if there is one, is told how each operation ended and what was
	// read, and says what to note of it; an error then ends nothing.
	judge func(data []byte, err error) (note any)

	// count, if there is one, is asked at the begin and the end of a train; the
	// difference is noted.
	count func() float64

	begin  func()       // told before each operation, if there is one
	mounts func() int64 // [cluster.Node.Remounts], if it probes the node's disk
	remote *remote      // who does the work, if that is another process

	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	pace   time.Duration
	seen   []diskProbe
	counts []groupCount // of a helper that works in turns
	began  time.Time    // of the operation that is on; zero if none is
	err    error
}

// A diskProbe is one operation, or a train of them from the end of the first to
// that of the last.
type diskProbe struct {
	from, to time.Time
	note     any
}

// newDiskProber probes the node's disk. Where the target's calls are trapped, a
// helper does, whose calls are trapped as well.
func newDiskProber(n *cluster.Node, op faultfs.Op) *diskProber {
	p := newProberAt(n, n.Data(), op)
	p.mounts = n.Remounts
	if len(n.Trapped()) > 0 {
		p.remote = &remote{n: n, name: filepath.Base(p.path)}
	}
	return p
}

// newProberAt probes another directory than the node's disk.
func newProberAt(n *cluster.Node, dir string, op faultfs.Op) *diskProber {
	name := fmt.Sprintf(".bo-probe-%d-%d", os.Getpid(), probes.Add(1))
	return &diskProber{node: n.Name(), path: filepath.Join(dir, name), op: op, size: 64, train: 1, pace: diskFast}
}

func (p *diskProber) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan struct{})
	if p.remote != nil {
		p.err = p.remote.start(p)
		close(p.done)
		return
	}
	go func() {
		defer close(p.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for {
			before := p.settled(ctx)
			err := p.run(ctx)
			if err != nil && ctx.Err() == nil && p.mounts != nil && p.mounts() != before {
				// Its open file went with a power loss, whatever is left of it has to.
				p.settled(ctx)
				p.remove()
				continue
			}
			if err != nil {
				p.mu.Lock()
				p.err = &overError{err}
				p.mu.Unlock()
			}
			return
		}
	}()
}

// renamed is added to the name of a probe's file, and taken away again.
const renamed = "-renamed"

func (p *diskProber) remove() {
	_ = os.Remove(p.path + renamed)
	_ = os.Remove(p.path)
}

// settled waits until the disk is not being mounted again, and says which mount it is.
func (p *diskProber) settled(ctx context.Context) (mount int64) {
	if p.mounts == nil {
		return 0
	}
	for mount = p.mounts(); mount%2 == 1 && sleep(ctx, time.Millisecond); mount = p.mounts() {
	}
	return mount
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
	if p.remote != nil {
		p.remote.end()
	}
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
	defer func() { unix.Close(fd) }()
	defer p.remove()
	p.block = filling(p.size)
	if p.direct {
		if fd, err = p.reopen(fd); err != nil {
			return err
		}
	}
	block, got := p.block, []byte(nil)
	write := func() error { _, err := unix.Pwrite(fd, block, 0); return err }
	sync := func() error { return unix.Fdatasync(fd) }
	none := func() error { return nil }
	before, op := none, none
	switch p.op {
	case faultfs.Write:
		op = write
	case faultfs.Read:
		if err := errors.Join(write(), sync()); err != nil {
			return err
		}
		got = make([]byte, p.size)
		if p.direct {
			got = p.block
			op = func() error { _, err := unix.Pread(fd, got, 0); return err }
			break
		}
		// What the kernel has in its cache it does not ask the file system for.
		cold := func() error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) }
		before = func() error { return errors.Join(sync(), cold()) }
		op = func() error { _, err := unix.Pread(fd, got, 0); return err }
		if p.bare {
			op = func() error {
				if err := cold(); err != nil {
					return err
				}
				_, err := unix.Pread(fd, got, 0)
				return err
			}
		}
	case faultfs.Open:
		op = func() error {
			again, err := unix.Open(p.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(again)
			}
			return err
		}
	case faultfs.Rename:
		from, to := p.path, p.path+renamed
		op = func() error {
			err := unix.Rename(from, to)
			if err == nil {
				from, to = to, from
			}
			return err
		}
	case grow:
		end := int64(0)
		op = func() error {
			_, err := unix.Pwrite(fd, block, end)
			if err == nil {
				end += int64(len(block))
			}
			return err
		}
	default: // fsync, and of all classes the one that matters most
		before, op = write, sync
	}
	if p.bare {
		before = none
		if p.op == faultfs.Fsync { // a device below fails only if there is something to write
			before = func() error { _ = write(); return nil }
		}
	}
	for ctx.Err() == nil {
		if err := before(); err != nil {
			return fmt.Errorf("probe %s's disk: %w", p.node, err)
		}
		if err := p.once(op, got); err != nil {
			return fmt.Errorf("probe %s's disk: %s: %w", p.node, p.op, err)
		}
		p.mu.Lock()
		pace := p.pace
		p.mu.Unlock()
		sleep(ctx, pace)
	}
	return nil
}

// reopen fills the file, so that no later write needs a new place, and opens it
// past the kernel's cache, with memory that a device can be given.
func (p *diskProber) reopen(fd int) (int, error) {
	defer unix.Close(fd)
	_, err := unix.Pwrite(fd, p.block, 0)
	if err = errors.Join(err, unix.Fsync(fd)); err != nil {
		return -1, fmt.Errorf("fill probe on %s's disk: %w", p.node, err)
	}
	aligned, err := unix.Mmap(-1, 0, p.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return -1, err
	}
	copy(aligned, p.block)
	p.block = aligned // for as long as the process
	again, err := unix.Open(p.path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open probe on %s's disk past the cache: %w", p.node, err)
	}
	return again, nil
}

// grow appends.
const grow faultfs.Op = "append"

// once does an operation, or a train of them, and keeps it.
func (p *diskProber) once(op func() error, got []byte) (err error) {
	if p.begin != nil {
		p.begin()
	}
	p.mu.Lock()
	p.began = time.Now()
	x := diskProbe{from: p.began}
	p.mu.Unlock()
	counted := 0.0
	for i := range p.train {
		if err = op(); err != nil && p.judge == nil {
			break
		}
		if i == 0 && p.train > 1 {
			x.from = time.Now()
			if p.count != nil {
				counted = p.count()
			}
		}
	}
	x.to = time.Now()
	if p.count != nil {
		x.note = p.count() - counted
	}
	keep := err == nil
	if p.judge != nil {
		x.note, keep, err = p.judge(got, err), true, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = time.Time{}
	if keep {
		if len(p.seen) == maxDisk {
			p.seen = append(p.seen[:0], p.seen[maxDisk/2:]...)
		}
		p.seen = append(p.seen, x)
	}
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

// filling are bytes that no two files of a probe have in common by chance.
func filling(n int) []byte {
	b := make([]byte, n)
	x := uint64(probes.Add(1)) * 0x9E3779B97F4A7C15
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

// calm makes it probe less often.
func (p *diskProber) calm() { p.setPace(diskPace) }

func (p *diskProber) setPace(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pace = d
}

// look returns how long the operations took that began and ended within w, and
// for how long one is on.
func (p *diskProber) look(w spans) (took []time.Duration, on time.Duration, err error) {
	seen, on, err := p.probes(w)
	for _, x := range seen {
		took = append(took, x.to.Sub(x.from))
	}
	return took, on, err
}

func (p *diskProber) probes(w spans) (seen []diskProbe, on time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.remote != nil && p.err == nil {
		p.err = p.remote.follow(p)
	}
	for _, x := range p.seen {
		if w.hold(x.from, x.to) {
			seen = append(seen, x)
		}
	}
	if !p.began.IsZero() {
		on = time.Since(p.began)
	}
	return seen, on, p.err
}

// diskProbers are the probers of one meter.
type diskProbers []*diskProber

// baseline starts them and returns what they saw, when each saw enough
// operations end, or at least one when that takes too long.
func (ps diskProbers) baseline(ctx context.Context) (spans, error) {
	var w spans
	from := time.Now()
	for _, p := range ps {
		p.start()
	}
	// A host's disk may stall for longer than the usual look: then look on.
	for sleep(ctx, diskBase); ctx.Err() == nil && time.Since(from) < diskBaseMost && ps.waiting(spans{{from, time.Now()}}); {
		sleep(ctx, diskBase)
	}
	w.add(from, time.Now())
	for _, p := range ps {
		took, on, err := p.look(w)
		if err != nil {
			return nil, err
		}
		if len(took) == 0 {
			return nil, fmt.Errorf("no %s of a probe on %s's disk ended in %s (one is on for %s)", p.op, p.node, short(diskBase), short(on))
		}
	}
	return w, ctx.Err()
}

// waiting reports whether some prober has seen too few operations end within w:
// a disk that stalls for a moment is no baseline.
func (ps diskProbers) waiting(w spans) bool {
	for _, p := range ps {
		if took, _, err := p.look(w); err == nil && len(took) < diskBaseLeast {
			return true
		}
	}
	return false
}

func (ps diskProbers) close() {
	var wg sync.WaitGroup
	for _, p := range ps {
		wg.Go(p.close)
	}
	wg.Wait()
}
