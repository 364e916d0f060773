package kvserver

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"
)

// A gcStorm keeps the collector at work: ballast that has to be followed pointer
// by pointer, a low GOGC, a memory limit, garbage at a rate.
type gcStorm struct {
	mu      sync.Mutex
	end     context.CancelFunc // of the one that is on; nil if none is
	over    chan struct{}
	percent int // GOGC before
	limit   int64
}

// StormRequest asks for one; a heap of 0 ends it.
type StormRequest struct {
	HeapBytes  int64 `json:"heap_bytes"`
	GOGC       int64 `json:"gogc"`
	AllocPerS  int64 `json:"alloc_bytes_per_s"`
	LimitBytes int64 `json:"limit_bytes"` // GOMEMLIMIT; 0 leaves it
}

const maxBallast = 64 << 30

func (g *gcStorm) serve(_ context.Context, in json.RawMessage) (any, error) {
	var req StormRequest
	if err := json.Unmarshal(in, &req); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	if req.HeapBytes < 0 || req.HeapBytes > maxBallast || req.AllocPerS < 0 || req.LimitBytes < 0 ||
		req.HeapBytes > 0 && (req.GOGC < 1 || req.GOGC > 10_000) {
		return nil, fmt.Errorf("%w: heap_bytes must be in 0..%d, gogc in 1..10000, the others not negative", errBadRequest, int64(maxBallast))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop()
	if req.HeapBytes > 0 {
		g.start(req)
	}
	return done, nil
}

// start returns at once; the ballast grows meanwhile. The caller holds mu.
func (g *gcStorm) start(req StormRequest) {
	ctx, cancel := context.WithCancel(context.Background())
	g.end, g.over = cancel, make(chan struct{})
	g.percent, g.limit = debug.SetGCPercent(int(req.GOGC)), debug.SetMemoryLimit(-1)
	if req.LimitBytes > 0 {
		debug.SetMemoryLimit(req.LimitBytes)
	}
	go func() {
		defer close(g.over)
		ballast := growBallast(ctx, req.HeapBytes)
		makeGarbage(ctx, req.AllocPerS)
		ballast.touch()
	}()
}

// stop ends the one that is on, and gives its memory back. The caller holds mu.
func (g *gcStorm) stop() {
	if g.end == nil {
		return
	}
	g.end()
	<-g.over
	g.end = nil
	debug.SetGCPercent(g.percent)
	debug.SetMemoryLimit(g.limit)
	go debug.FreeOSMemory() // a collection, for which nobody needs to wait
}

// A pebble of ballast holds nothing but pointers to others: 64 bytes, all of
// which the collector has to look at.
type pebble struct{ to [8]*pebble }

const pebbleBytes = 64

type ballast []*pebble

// growBallast makes pebbles in chains of chains until there are enough.
func growBallast(ctx context.Context, size int64) ballast {
	const chain = 4096
	var b ballast
	var last *pebble
	for n := size / pebbleBytes; n > 0 && ctx.Err() == nil; n -= chain {
		var head *pebble
		for range min(n, chain) {
			head = &pebble{[8]*pebble{head, last}}
			if head.to[0] == nil {
				head.to[0] = head
			}
		}
		b, last = append(b, head), head
	}
	return b
}

// touch keeps the ballast alive to here.
func (b ballast) touch() {
	for _, p := range b {
		p.to[7] = p
	}
}

// garbageTick is how often garbage is made.
const garbageTick = time.Millisecond

// A grain of garbage is as large as a pebble and holds no pointers, so that what
// the collector follows for them is the ballast, however much is made meanwhile.
type grain [pebbleBytes]byte

// makeGarbage allocates at a rate until ctx ends. What it does not get to in
// time, because it has to help the collector, it does not make up for.
func makeGarbage(ctx context.Context, perS int64) {
	tick := time.NewTicker(garbageTick)
	defer tick.Stop()
	var keep [64]*grain
	last, owed := time.Now(), 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			owed += math.Min(now.Sub(last).Seconds(), 0.1) * float64(perS) / pebbleBytes
			last = now
			for ; owed >= 1; owed-- {
				keep[int(owed)%len(keep)] = &grain{}
			}
		}
	}
}
