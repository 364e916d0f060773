package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"brownout/cluster"
	"brownout/internal/faultfs"
)

// A fileEvent is what a helper writes down of its operations: when one began,
// or how it ended; or what its cgroup has had of the device. Times are CLOCK_MONOTONIC's.
type fileEvent struct{ What, At, Value int64 }

// What a fileEvent is, and its value.
const (
	fileBegan   = iota
	fileEnded   // errno
	fileCounted // operations or bytes

	fileEventBytes = 24
)

// FileProbeMain is "brownout _fileprobe": a prober of a disk as a process of
// its own, for faults that meet processes and not disks. It ends with its box.
func FileProbeMain(args []string) int {
	fs := flag.NewFlagSet("_fileprobe", flag.ContinueOnError)
	op := fs.String("op", "fsync", "class of operation")
	file := fs.String("file", "", "to work on")
	out := fs.String("out", "", "to write down what happened")
	pace := fs.Duration("pace", diskFast, "between two operations")
	bare := fs.Bool("bare", false, "nothing between the operations")
	size := fs.Int("size", 64, "bytes of each operation")
	busy := fs.Duration("busy", 0, "work so long without a pause, past the kernel's cache, and then rest")
	counts := fs.String("account", "", "file of the cgroup's account, to be written down meanwhile")
	dev := fs.Uint64("device", 0, "whose line in it")
	bytes := fs.Bool("bytes", false, "count bytes, not operations")
	asked := fs.Bool("asked", false, "the account counts what is asked for, not what is had")
	told := fs.Bool("told", false, "begin when a line comes in")
	rest := fs.Duration("rest", 0, "so long")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if *told { // its parent puts it into a cgroup first
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return 1
		}
	}
	log, err := os.OpenFile(*out, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "_fileprobe:", err)
		return 1
	}
	tell := func(e fileEvent) {
		b, _ := binary.Append(nil, binary.NativeEndian, e) // of fixed size
		_, _ = log.Write(b)                                // what is missing is missed by the meter
	}
	if *busy > 0 {
		return workInTurns(faultfs.Op(*op), *file, account{*counts, *dev, faultfs.Op(*op), *bytes, *asked}, *size, *busy, *rest, tell)
	}
	p := &diskProber{node: "this", path: *file, op: faultfs.Op(*op), size: 64, train: 1, pace: *pace, bare: *bare}
	p.begin = func() { tell(fileEvent{At: monotonic()}) }
	p.judge = func(_ []byte, err error) any {
		errno, _ := errors.AsType[syscall.Errno](err)
		tell(fileEvent{fileEnded, monotonic(), int64(errno)})
		return nil
	}
	if err := p.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "_fileprobe:", err)
		return 1
	}
	return 0
}

// A remote has a prober's work done by a helper inside the node's box, which
// has the target's trap; or by one in the node's cgroup.
type remote struct {
	n      *cluster.Node
	name   string
	pid    int
	read   int64   // bytes of what it wrote down
	inside *bench  // of one in the cgroup, which works in turns past the cache
	counts account // then
	busy   time.Duration
	helper *tenant
}

func (r *remote) log() string {
	if r.inside != nil {
		return filepath.Join(r.n.Dir(), r.name)
	}
	return filepath.Join(r.n.Root(), "run", r.name)
}

func (r *remote) start(p *diskProber) (err error) {
	if r.inside != nil {
		r.helper, err = r.inside.startHelper(r.n.Group(), []string{
			"_fileprobe", "-op", string(p.op), "-file", p.path, "-out", r.log(), "-pace", "0s", "-bare",
			"-size", strconv.Itoa(p.size), "-busy", r.busy.String(), "-rest", (throttleRest * r.busy).String(), "-told",
			"-account", r.counts.file, "-device", strconv.FormatUint(r.counts.dev, 10), fmt.Sprintf("-bytes=%v", r.counts.bytes), fmt.Sprintf("-asked=%v", r.counts.asked),
		}, nil)
		if err == nil {
			err = r.helper.begin()
		}
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), baseWithin)
	defer cancel()
	r.pid, err = r.n.StartBeside(ctx, cluster.Command{Argv: []string{
		"/bin/brownout", "_fileprobe", "-op", string(p.op), "-file", "/data/" + r.name, "-out", "/run/" + r.name,
		"-pace", p.pace.String(), fmt.Sprintf("-bare=%v", p.bare),
	}})
	return err
}

// follow takes in what the helper wrote down since.
func (r *remote) follow(p *diskProber) error {
	f, err := os.Open(r.log())
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has not begun
	}
	if err != nil {
		return err
	}
	defer f.Close()
	epoch := time.Now().Add(-time.Duration(monotonic()))
	buf := make([]byte, 1<<16)
	for {
		n, _ := f.ReadAt(buf, r.read)
		n -= n % fileEventBytes
		if n == 0 {
			return nil
		}
		r.read += int64(n)
		for b := buf[:n]; len(b) > 0; b = b[fileEventBytes:] {
			var e fileEvent
			if _, err := binary.Decode(b, binary.NativeEndian, &e); err != nil {
				return err
			}
			at := epoch.Add(time.Duration(e.At))
			switch e.What {
			case fileBegan:
				p.began = at
				continue
			case fileCounted:
				p.counts = append(p.counts, groupCount{at, e.Value})
				continue
			}
			x := diskProbe{from: p.began, to: at}
			if x.from.IsZero() { // one of several at a time
				x.from = at
			}
			p.began = time.Time{}
			err := error(nil)
			if e.Value != 0 {
				err = syscall.Errno(e.Value)
			}
			if p.judge != nil {
				x.note = p.judge(nil, err)
			} else if err != nil {
				return fmt.Errorf("probe %s's disk: %s: %w", p.node, p.op, err)
			}
			if len(p.seen) == maxDisk {
				p.seen = append(p.seen[:0], p.seen[maxDisk/2:]...)
			}
			p.seen = append(p.seen, x)
		}
	}
}

func (r *remote) end() {
	switch {
	case r.helper != nil:
		r.helper.end()
	case r.pid == 0:
		return
	default:
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		_ = r.n.KillBeside(ctx, r.pid) // it may be gone; it ends with its box in any case
	}
	files, _ := filepath.Glob(filepath.Join(r.n.Data(), r.name) + "*")
	for _, name := range append(files, r.log()) {
		_ = os.Remove(name)
	}
}
