// Package telemetry samples what the kernel, the nodes' programs and the disks
// say while a run goes on: the measurements an engineer would have looked at.
//
// A [Source] is a function that returns named numbers of one node. One loop
// reads all of them ten times a second; those that can block (a program that
// is frozen does not answer) have goroutines of their own, so that a stalled
// node never costs the samples of the others. Numbers are counters since some
// start, or states; rates are made by whoever reads the file. Units are in the
// names.
//
// It knows no plan and no fault: what it writes must be as blind as an
// operator's dashboard.
package telemetry

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"brownout/internal/clock"
	"brownout/internal/run"
)

// Numbers returns named numbers; it may block until ctx ends.
type Numbers func(ctx context.Context) (map[string]float64, error)

// A Source is one origin of numbers on one node.
type Source struct {
	Node string // or "host", "client"
	Name string // cgroup, io, sched, tcp, runtime, disk, host
	Slow bool   // may block: read in a goroutine of its own
	Skip int    // sample only every (Skip+1)th time: for those that cost more
	Read Numbers
}

// Every is the usual distance of samples.
const Every = 100 * time.Millisecond

// readWithin bounds one reading of a slow source.
const readWithin = time.Second

// A Sampler reads sources. Its zero value but for Clock is ready.
type Sampler struct {
	Clock clock.Clock
	Every time.Duration // default [Every]
}

// Run samples until ctx ends and returns nil, or the error of emit, which is
// told every sample, from several goroutines but never two at once. A reading
// that fails is no error of the run: its sample holds "failed", the number of
// failures so far, so that a node that does not answer can be seen.
func (s *Sampler) Run(ctx context.Context, sources []Source, emit func(run.Sample) error) error {
	every := s.Every
	if every <= 0 {
		every = Every
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	var first error
	tell := func(sm run.Sample) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			if first = emit(sm); first != nil {
				stop()
			}
		}
	}
	var fast []*reader
	var wg sync.WaitGroup
	for _, src := range sources {
		r := &reader{Source: src, clock: s.Clock, tell: tell}
		if !src.Slow {
			fast = append(fast, r)
			continue
		}
		wg.Go(func() { ticks(ctx, every, func() { r.sample(ctx) }) })
	}
	ticks(ctx, every, func() {
		for _, r := range fast {
			r.sample(ctx)
		}
	})
	wg.Wait()
	return first
}

// ticks calls f at once and then every d until ctx ends; late calls are left out.
func ticks(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
}

// A reader is one source while it is sampled.
type reader struct {
	Source
	clock  clock.Clock
	tell   func(run.Sample)
	n      int
	failed float64
}

func (r *reader) sample(ctx context.Context) {
	r.n++
	if r.Skip > 0 && (r.n-1)%(r.Skip+1) != 0 {
		return
	}
	ask := ctx
	if r.Slow {
		var cancel context.CancelFunc
		ask, cancel = context.WithTimeout(ctx, readWithin)
		defer cancel()
	}
	v, err := r.Read(ask)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.failed++
		v = map[string]float64{"failed": r.failed}
	}
	for name, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			delete(v, name) // JSON has no word for it
		}
	}
	// The answer's time, not the question's: of a program that was frozen
	// between the two, the numbers are of after.
	r.tell(run.Sample{T: int64(r.clock.Now()), Node: r.Node, Source: r.Name, Values: v})
}

// A Log writes telemetry.jsonl.
type Log struct {
	mu      sync.Mutex
	f       *os.File
	w       *bufio.Writer
	flushed time.Time
}

// Create makes the file.
func Create(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create telemetry: %w", err)
	}
	return &Log{f: f, w: bufio.NewWriterSize(f, 1<<16), flushed: time.Now()}, nil
}

// Write writes one sample; what is older than a second goes out to the file.
func (l *Log) Write(s run.Sample) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode sample: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(b) // a buffered writer repeats its first error
	err = l.w.WriteByte('\n')
	if now := time.Now(); err == nil && now.Sub(l.flushed) > time.Second {
		l.flushed = now
		err = l.w.Flush()
	}
	if err != nil {
		return fmt.Errorf("write telemetry: %w", err)
	}
	return nil
}

// Close writes the rest.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.w.Flush(), l.f.Close()); err != nil {
		return fmt.Errorf("write telemetry: %w", err)
	}
	return nil
}
