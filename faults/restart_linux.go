package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/faultfs"
)

// What a restarted node finds of its data.
const (
	dataSame  = "same"
	dataLost  = "lost"
	dataOlder = "older"
)

// A restartFault kills nodes and starts them again, one after the other.
type restartFault struct{ b *bench }

func newRestart(b *bench) Provider { return &restartFault{b} }

// Probe finds nothing to ask: whoever can start a node can kill it.
func (f *restartFault) Probe(context.Context) error { return nil }

func (f *restartFault) Inject(ctx context.Context, site Site, d Dose) (_ Injection, err error) {
	nodes, err := f.b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &restarts{b: f.b, nodes: nodes, data: d.String("data"), down: d.Duration("down"), done: make(chan struct{})}
	if r.data == dataOlder {
		r.copies = map[string]string{}
		for _, n := range nodes {
			if r.copies[n.Name()], err = f.b.snapshot(ctx, n); err != nil {
				return nil, errors.Join(fmt.Errorf("copy the data of %s: %w", n.Name(), err), r.dropCopies())
			}
		}
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	go func() {
		defer close(r.done)
		if r.data == dataOlder && !sleep(own, d.Duration("age")) {
			return
		}
		for _, n := range nodes {
			if own.Err() != nil {
				return
			}
			if err := r.restart(own, n); err != nil {
				r.err = fmt.Errorf("restart %s: %w", n.Name(), err)
				return
			}
		}
	}()
	return r, nil
}

// Restarts are nodes that are restarted one after the other.
type restarts struct {
	b      *bench
	nodes  []*cluster.Node
	data   string
	down   time.Duration
	copies map[string]string // of data, by node

	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid when done is closed
}

// restart ends with a node that is ready, also when ctx ends meanwhile.
func (r *restarts) restart(ctx context.Context, n *cluster.Node) (err error) {
	whole := context.WithoutCancel(ctx)
	dead, err := r.b.downs.inject(whole, []string{n.Name()}, Dose{}, func(Dose) (syscall.Signal, error) { return syscall.SIGKILL, nil })
	if err != nil {
		return err
	}
	died := time.Now()
	defer func() {
		up, cancel := context.WithTimeout(whole, healWithin)
		defer cancel()
		if err = errors.Join(err, dead.Heal(up)); err == nil {
			err = r.b.waitReady(up, n)
		}
	}()
	if r.data == dataLost || r.data == dataOlder {
		if err := empty(n.Data()); err != nil {
			return fmt.Errorf("remove its data: %w", err)
		}
	}
	if r.data == dataOlder {
		if err := copyTree(r.copies[n.Name()], n.Data()); err != nil {
			return fmt.Errorf("put older data in its place: %w", err)
		}
	}
	sleep(ctx, r.down-time.Since(died)) // its data took some time
	return nil
}

func (r *restarts) Done() <-chan struct{} { return r.done }

// Set is not possible: what is done is done.
func (r *restarts) Set(context.Context, Dose) error { return nil }

// Heal lets the restart that is under way come to its end, and begins no other.
func (r *restarts) Heal(ctx context.Context) error {
	r.cancel()
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for a restart: %w", ctx.Err())
	}
	errs := []error{r.err, r.dropCopies()}
	r.err = nil // told once
	for _, n := range r.nodes {
		errs = append(errs, r.b.waitReady(ctx, n))
	}
	return errors.Join(errs...)
}

func (r *restarts) dropCopies() error {
	var errs []error
	for name, dir := range r.copies {
		errs = append(errs, os.RemoveAll(dir))
		delete(r.copies, name)
	}
	return errors.Join(errs...)
}

// snapshot copies a node's data while the node stands still, as a snapshot of
// its disk would show them, with what the kernel had not written yet. It reads
// what backs the node's disk: what the node wrote is there at once.
func (b *bench) snapshot(ctx context.Context, n *cluster.Node) (dir string, err error) {
	if dir, err = os.MkdirTemp(n.Dir(), "older-"); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, how := range pauseNames {
		if (&pauseFault{b, how}).Probe(ctx) != nil {
			continue
		}
		hold, err := b.frozen[how].inject(ctx, []string{n.Name()}, nil, func(Dose) (bool, error) { return true, nil })
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, hold.Heal(context.WithoutCancel(ctx))) }()
		break
	}
	return dir, copyTree(filepath.Join(n.Dir(), "data"), dir)
}

// empty removes all that is in a directory.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// copyTree copies directories and plain files into a directory that is there,
// with their owners, modes and holes. What belongs to slowfs is left out.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("copy %s: no owner known", path)
		}
		at := filepath.Join(to, rel)
		switch {
		case rel == faultfs.Trash: // what a loss of power needs, below the node's file system
			return fs.SkipDir
		case e.IsDir():
			err = os.Mkdir(at, info.Mode().Perm())
		case info.Mode().IsRegular():
			err = copyFile(path, at, info)
		default:
			return nil // sockets and the like are not data
		}
		if err != nil {
			return err
		}
		return os.Lchown(at, int(st.Uid), int(st.Gid))
	})
}

func copyFile(from, to string, info fs.FileInfo) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		begin, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole up to the end
		}
		end := info.Size()
		if err != nil { // a filesystem that does not know its holes
			begin = at
		} else if e, err := unix.Seek(int(in.Fd()), begin, unix.SEEK_HOLE); err == nil {
			end = e
		}
		if err := copyData(in, out, begin, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// copyStep is what is read at once; of zeroes, it is left a hole.
const copyStep = 64 << 10

var zeroes [copyStep]byte

// copyData copies a part of a file into another one that is a hole so far. A log
// that is made in its full length is zeroes for the most part, but no hole.
func copyData(from io.ReaderAt, to io.WriterAt, at, end int64) error {
	buf := make([]byte, copyStep)
	for at < end {
		n, err := from.ReadAt(buf[:min(copyStep, end-at)], at)
		if n > 0 && !bytes.Equal(buf[:n], zeroes[:n]) {
			if _, err := to.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		if at += int64(n); errors.Is(err, io.EOF) {
			return nil // it has become shorter
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A crashloopFault kills nodes again and again.
type crashloopFault struct{ b *bench }

func newCrashloop(b *bench) Provider { return &crashloopFault{b} }

// Probe finds nothing to ask.
func (f *crashloopFault) Probe(context.Context) error { return nil }

func (f *crashloopFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	nodes, err := f.b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	if d.Duration("every") <= 0 {
		return nil, errors.New("crash loop without a time between crashes")
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &crashloop{b: f.b, nodes: nodes, every: d.Duration("every"), cancel: cancel}
	// The first crash is part of the injection.
	for _, n := range nodes {
		if err := l.crash(ctx, n); err != nil {
			heal, stop := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
			defer stop()
			return nil, errors.Join(err, l.Heal(heal))
		}
	}
	for _, n := range nodes {
		l.wg.Go(func() { l.run(own, n) })
	}
	return l, nil
}

// A crashloop is one in force.
type crashloop struct {
	b      *bench
	nodes  []*cluster.Node
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	every time.Duration
	err   error
}

// crash kills a node and starts it again.
func (l *crashloop) crash(ctx context.Context, n *cluster.Node) error {
	dead, err := l.b.downs.inject(ctx, []string{n.Name()}, Dose{}, func(Dose) (syscall.Signal, error) { return syscall.SIGKILL, nil })
	if err != nil {
		return err
	}
	up, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
	defer cancel()
	return dead.Heal(up)
}

func (l *crashloop) run(ctx context.Context, n *cluster.Node) {
	for last := time.Now(); ; {
		l.mu.Lock()
		every := l.every
		l.mu.Unlock()
		if !sleep(ctx, time.Until(last.Add(every))) {
			return
		}
		// What took longer than a turn is not made up for.
		if last = last.Add(every); time.Since(last) > every {
			last = time.Now()
		}
		if err := l.crash(ctx, n); err != nil && ctx.Err() == nil {
			l.mu.Lock()
			l.err = errors.Join(l.err, fmt.Errorf("crash %s: %w", n.Name(), err))
			l.mu.Unlock()
			return
		}
	}
}

func (l *crashloop) Set(_ context.Context, d Dose) error {
	if d.Duration("every") <= 0 {
		return errors.New("crash loop without a time between crashes")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.every = d.Duration("every")
	return nil
}

// Heal ends the loop with every node up.
func (l *crashloop) Heal(ctx context.Context) error {
	l.cancel()
	l.wg.Wait()
	l.mu.Lock()
	errs := []error{l.err}
	l.err = nil // told once
	l.mu.Unlock()
	for _, n := range l.nodes {
		if !n.Running() {
			if err := n.Start(ctx); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, l.b.waitReady(ctx, n))
	}
	return errors.Join(errs...)
}
