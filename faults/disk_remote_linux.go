package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"brownout/cluster"
	"brownout/internal/faultfs"
)

// A fileEvent is what a helper writes down of its operations: when one began,
// or how it ended. Times are CLOCK_MONOTONIC's.
type fileEvent struct{ Ended, At, Errno int64 }

const fileEventBytes = 24

// FileProbeMain is "brownout _fileprobe": a prober of a disk as a process of
// its own, for faults that meet processes and not disks. It ends with its box.
func FileProbeMain(args []string) int {
	fs := flag.NewFlagSet("_fileprobe", flag.ContinueOnError)
	op := fs.String("op", "fsync", "class of operation")
	file := fs.String("file", "", "to work on")
	out := fs.String("out", "", "to write down what happened")
	pace := fs.Duration("pace", diskFast, "between two operations")
	bare := fs.Bool("bare", false, "nothing between the operations")
	if err := fs.Parse(args); err != nil {
		return 2
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
	p := &diskProber{node: "this", path: *file, op: faultfs.Op(*op), size: 64, train: 1, pace: *pace, bare: *bare}
	p.begin = func() { tell(fileEvent{At: monotonic()}) }
	p.judge = func(_ []byte, err error) any {
		errno, _ := errors.AsType[syscall.Errno](err)
		tell(fileEvent{1, monotonic(), int64(errno)})
		return nil
	}
	if err := p.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "_fileprobe:", err)
		return 1
	}
	return 0
}

// A remote has a prober's work done by a helper inside the node's box, which
// has the target's trap.
type remote struct {
	n    *cluster.Node
	name string
	pid  int
	read int64 // bytes of what it wrote down
}

func (r *remote) log() string { return filepath.Join(r.n.Root(), "run", r.name) }

func (r *remote) start(p *diskProber) error {
	ctx, cancel := context.WithTimeout(context.Background(), baseWithin)
	defer cancel()
	var err error
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
			if e.Ended == 0 {
				p.began = at
				continue
			}
			x := diskProbe{from: p.began, to: at}
			p.began = time.Time{}
			err := error(nil)
			if e.Errno != 0 {
				err = syscall.Errno(e.Errno)
			}
			if p.judge != nil {
				x.note = p.judge(nil, err)
			} else if err != nil {
				return fmt.Errorf("probe %s's disk: %s: %w", p.node, p.op, err)
			}
			p.seen = append(p.seen, x)
		}
	}
}

func (r *remote) end() {
	if r.pid == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	_ = r.n.KillBeside(ctx, r.pid) // it may be gone; it ends with its box in any case
	for _, name := range []string{r.log(), filepath.Join(r.n.Data(), r.name), filepath.Join(r.n.Data(), r.name+"-renamed")} {
		_ = os.Remove(name)
	}
}
