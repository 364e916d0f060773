package kvserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// A lockWatch writes down what all goroutines are doing while somebody waits for
// a lock of the state for longer than limit: who holds it is among them.
type lockWatch struct {
	limit   time.Duration
	dir     string
	waiting [64]atomic.Int64 // since when, of those that wait; 0: nobody
}

// Bounds of what is written down.
const (
	dumpEvery = 10 * time.Second
	maxDumps  = 8 // in one directory
)

// enter notes that somebody begins to wait, where there is room to. Only who
// found a lock taken comes here.
func (w *lockWatch) enter(now int64) (at int) {
	for i := range w.waiting {
		at := (int(now) + i) & (len(w.waiting) - 1)
		if w.waiting[at].Load() == 0 && w.waiting[at].CompareAndSwap(0, now) {
			return at
		}
	}
	return -1
}

func (w *lockWatch) leave(at int) {
	if at >= 0 {
		w.waiting[at].Store(0)
	}
}

// longest is how long somebody has been waiting at a time.
func (w *lockWatch) longest(now int64) (d time.Duration) {
	for i := range w.waiting {
		if since := w.waiting[i].Load(); since != 0 {
			d = max(d, time.Duration(now-since))
		}
	}
	return d
}

// run watches until ctx ends.
func (w *lockWatch) run(ctx context.Context, node string, log hclog.Logger) error {
	tick := time.NewTicker(min(max(w.limit/5, 5*time.Millisecond), time.Second))
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d := w.longest(monotonic())
		if d < w.limit || !last.IsZero() && time.Since(last) < dumpEvery {
			continue
		}
		last = time.Now()
		if err := w.dump(node, d); err != nil {
			log.Warn("write goroutines down", "error", err)
		}
	}
}

// dump writes a file that is not there yet, unless there are enough.
func (w *lockWatch) dump(node string, waited time.Duration) error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	for n := range maxDumps {
		f, err := os.OpenFile(filepath.Join(w.dir, fmt.Sprintf("lock-wait-%d.txt", n+1)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(f, "%s, %s: somebody has waited for a lock of the state for %v. All goroutines:\n\n",
			time.Now().Format(time.RFC3339Nano), node, waited.Round(time.Millisecond))
		return errors.Join(err, pprof.Lookup("goroutine").WriteTo(f, 2), f.Close())
	}
	return nil
}

// ProfileRequest sets how much of contention the runtime writes down, for
// /debug/pprof/mutex and /debug/pprof/block.
type ProfileRequest struct {
	MutexFraction int   `json:"mutex_fraction"` // one in so many events of contention; 0: none
	BlockNS       int64 `json:"block_ns"`       // one event for so much time spent blocked; 0: none
}

func (r ProfileRequest) set() {
	runtime.SetMutexProfileFraction(r.MutexFraction)
	runtime.SetBlockProfileRate(int(r.BlockNS))
}

func (s *server) profile(_ context.Context, in json.RawMessage) (any, error) {
	var r ProfileRequest
	if err := json.Unmarshal(in, &r); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	if r.MutexFraction < 0 || r.BlockNS < 0 {
		return nil, fmt.Errorf("%w: mutex_fraction and block_ns must not be negative", errBadRequest)
	}
	r.set()
	return done, nil
}
