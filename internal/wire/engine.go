package wire

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"brownout/internal/seed"
)

// Counters count packets of one directed pair. A super-packet that is passed
// whole counts once in all of them.
type Counters struct {
	Seen         uint64 `json:"seen"`
	Delayed      uint64 `json:"delayed"`       // held back at all
	Dropped      uint64 `json:"dropped"`       // by partition or loss
	QueueDropped uint64 `json:"queue_dropped"` // no room before the rate limit
	Overflowed   uint64 `json:"overflowed"`    // no room in the wire: the emulation is at its limit
	Duplicated   uint64 `json:"duplicated"`
	Reordered    uint64 `json:"reordered"`
	Corrupted    uint64 `json:"corrupted"`
	Unsplit      uint64 `json:"unsplit"` // super-packets of an unknown kind that met a fault as if they were one packet
	Bytes        uint64 `json:"bytes"`   // of packets that were seen, as on a network without offloads
}

// A Frame is on its way out. Its Data goes back to the engine by [Engine.Free].
type Frame struct {
	Due      time.Duration
	Arrival  time.Duration
	Src, Dst int
	Data     []byte
	Held     bool // was due later than it arrived

	left time.Duration // the rate's queue
	seq  uint64
}

// An Engine decides when, and whether, each frame of each directed pair of ports
// leaves. Times are those of any one clock. It is not safe for concurrent use.
type Engine struct {
	seed  uint64
	pairs [MaxPorts * MaxPorts]*pair
	held  queue
	seq   uint64
	bytes int64 // of the buffers held
	limit int64
	tmp   []byte
	pool  pool

	minHold time.Duration // see MinHold
}

type pair struct {
	imp      Impairment
	rng      *rand.Rand
	trace    []time.Duration
	at       int     // of the trace
	every    int64   // packets since the last that LossEvery took
	first    int64   // packets that LossFirst has taken
	bad      bool    // Gilbert-Elliott's state
	ar       float64 // last normal deviate of the jitter
	nextFree time.Duration
	lastDue  time.Duration
	Counters
}

// New returns an engine without impairments that holds at most limit bytes of
// frames. Each pair draws from a stream of its own: traffic on one never
// changes the fate of packets on another.
func New(seed uint64, limit int64) *Engine {
	return &Engine{seed: seed, limit: limit, tmp: make([]byte, maxFrame)}
}

func (e *Engine) pair(src, dst int) *pair {
	p := &e.pairs[src*MaxPorts+dst]
	if *p == nil {
		*p = &pair{rng: seed.Stream(e.seed, fmt.Sprintf("wire/%d>%d", src, dst))}
	}
	return *p
}

// Set changes the impairment of a pair for frames that arrive from now on.
//
// Frames that are held keep their order, and the fate that was drawn for them:
//
//   - a partition drops them;
//   - those that wait before a rate leave by the new one, or at once if there is none;
//   - without jitter, none is held longer than a frame that arrives now: a
//     delay that becomes shorter lets them out earlier, one that ends at once.
func (e *Engine) Set(src, dst int, imp Impairment, now time.Duration) {
	p := e.pair(src, dst)
	if imp.LossEvery != p.imp.LossEvery {
		p.every = 0
	}
	if imp.LossFirst != p.imp.LossFirst {
		p.first = 0
	}
	if imp.Trace != p.imp.Trace {
		p.trace, _ = imp.trace() // Validate has seen it
		p.at = 0
	}
	was := p.imp.RateBitsPerSec
	p.imp = imp
	e.minHold = 0
	for _, q := range e.pairs {
		if q != nil && q.imp != (Impairment{}) {
			if hold := q.imp.minHold(); e.minHold == 0 || hold < e.minHold {
				if e.minHold = hold; hold == 0 {
					break
				}
			}
		}
	}
	if imp.Partition {
		p.Dropped += uint64(e.remove(src, dst))
		p.nextFree, p.lastDue = 0, 0
		return
	}
	leaves := func(t time.Duration) time.Duration { return t } // the rate's queue, from now on
	if was > 0 && was != imp.RateBitsPerSec {
		leaves = func(t time.Duration) time.Duration {
			if t <= now || imp.RateBitsPerSec == 0 {
				return min(t, now)
			}
			return now + time.Duration(float64(t-now)*float64(was)/float64(imp.RateBitsPerSec))
		}
	}
	steady := imp.Jitter == 0 && imp.Trace == ""
	p.nextFree = leaves(p.nextFree)
	p.lastDue = 0
	e.held.change(src, dst, func(f *Frame) {
		left := leaves(f.left)
		f.Due += left - f.left
		f.left = left
		if steady {
			f.Due = min(f.Due, max(left, now)+imp.Delay)
		}
		p.lastDue = max(p.lastDue, f.Due)
	})
}

func (e *Engine) remove(src, dst int) (n int) {
	kept := e.held[:0]
	for _, f := range e.held {
		if f.Src == src && f.Dst == dst {
			e.bytes -= int64(cap(f.Data))
			e.pool.put(f.Data)
			n++
			continue
		}
		kept = append(kept, f)
	}
	clear(e.held[len(kept):])
	e.held = kept
	e.held.init()
	return n
}

// Counters returns the counters of a pair.
func (e *Engine) Counters(src, dst int) Counters { return e.pair(src, dst).Counters }

// MinHold returns the shortest time for which any frame of an impaired pair is
// held from now on; 0 if there is no such pair.
func (e *Engine) MinHold() time.Duration { return e.minHold }

// Held returns how many frames are on their way.
func (e *Engine) Held() int { return len(e.held) }

// Push takes a frame of a pair that came in at arrival. It owns b, which came from Alloc.
func (e *Engine) Push(src, dst int, b []byte, arrival time.Duration) {
	p := e.pair(src, dst)
	if p.imp.Partition {
		p.Seen++
		p.Bytes += uint64(onWire(b))
		p.Dropped++
		e.pool.put(b)
		return
	}
	if b[1] != gsoNone {
		s, known := superOf(b)
		perPacket := p.imp.perPacket()
		// Below some length a burst at line speed is what a real link's own
		// offloads would show.
		const burst = 100 * time.Microsecond
		if known && (perPacket || p.imp.RateBitsPerSec > 0 && serialise(onWire(b), p.imp.RateBitsPerSec) > burst) {
			split(b, s, e.tmp, func(seg []byte) {
				c := e.Alloc(len(seg))
				copy(c, seg)
				e.packet(p, src, dst, c, arrival)
			})
			e.pool.put(b)
			return
		}
		if !known && perPacket {
			p.Unsplit++
		}
	}
	e.packet(p, src, dst, b, arrival)
}

// packet decides the fate of one packet, or of a super-packet that stays whole.
func (e *Engine) packet(p *pair, src, dst int, b []byte, arrival time.Duration) {
	size := onWire(b)
	p.Seen++
	p.Bytes += uint64(size)
	if p.lost() {
		p.Dropped++
		e.pool.put(b)
		return
	}
	if p.happens(p.imp.Duplicate) {
		p.Duplicated++
		c := e.Alloc(len(b))
		copy(c, b)
		e.forward(p, src, dst, c, size, arrival)
	}
	e.forward(p, src, dst, b, size, arrival)
}

// forward queues, delays and corrupts one copy.
func (e *Engine) forward(p *pair, src, dst int, b []byte, size int64, arrival time.Duration) {
	imp := &p.imp
	due := arrival
	if imp.RateBitsPerSec > 0 {
		start := max(arrival, p.nextFree)
		backlog := int64(float64(start-arrival) * float64(imp.RateBitsPerSec) / 8e9)
		if backlog+size > imp.queue() {
			p.QueueDropped++
			e.pool.put(b)
			return
		}
		p.nextFree = start + serialise(size, imp.RateBitsPerSec)
		due = p.nextFree
	}
	left := due
	due += p.delay()
	if p.happens(imp.Reorder) {
		p.Reordered++
		due = max(left, due-imp.ahead())
	} else if imp.Jitter == 0 && imp.Trace == "" || imp.Ordered {
		due = max(due, p.lastDue)
		p.lastDue = due
	}
	if p.happens(imp.Corrupt) {
		p.Corrupted++
		finishCsum(b)
		bit := p.below((len(b) - vnetLen - etherLen) * 8)
		b[vnetLen+etherLen+bit/8] ^= 1 << (bit % 8)
	}
	if e.bytes+int64(cap(b)) > e.limit {
		p.Overflowed++
		e.pool.put(b)
		return
	}
	held := due > arrival
	if held {
		p.Delayed++
	}
	e.bytes += int64(cap(b))
	e.seq++
	e.held.push(Frame{Due: due, Arrival: arrival, Src: src, Dst: dst, Data: b, Held: held, left: left, seq: e.seq})
}

// serialise returns how long size bytes take at a rate.
func serialise(size, bitsPerSec int64) time.Duration {
	return time.Duration(math.Round(float64(size) * 8e9 / float64(bitsPerSec)))
}

func (p *pair) lost() bool {
	lost := false
	if p.first < p.imp.LossFirst {
		p.first++
		lost = true
	}
	if p.imp.LossEvery > 0 {
		if p.every++; p.every >= p.imp.LossEvery {
			p.every = 0
			lost = true
		}
	}
	if g := p.imp.GE; g != (GE{}) {
		if p.bad {
			p.bad = !p.happens(g.ToGood)
		} else {
			p.bad = p.happens(g.ToBad)
		}
		if p.bad {
			lost = p.happens(g.LossBad) || lost
		} else {
			lost = p.happens(g.LossGood) || lost
		}
	}
	return p.happens(p.imp.Loss) || lost
}

// delay draws the delay of one packet.
func (p *pair) delay() time.Duration {
	imp := &p.imp
	recorded := time.Duration(0)
	if len(p.trace) > 0 {
		recorded = p.trace[p.at%len(p.trace)]
		p.at++
	}
	if imp.Jitter == 0 {
		return imp.Delay + recorded
	}
	z := math.Sqrt2 * math.Erfinv(2*p.uniform()-1)
	if imp.Corr > 0 {
		z = imp.Corr*p.ar + math.Sqrt(1-imp.Corr*imp.Corr)*z
		p.ar = z
	}
	var spread float64
	switch imp.Dist {
	case Normal:
		spread = z
	case Pareto:
		// Shape 3 and scale 1: mean 3/2, standard deviation sqrt(3)/2.
		above := max(0.5*math.Erfc(z/math.Sqrt2), 1e-12)
		spread = (math.Cbrt(1/above) - 1.5) / (math.Sqrt(3) / 2)
	default:
		spread = math.Erf(z / math.Sqrt2)
	}
	return max(0, imp.Delay+recorded+time.Duration(math.Round(spread*float64(imp.Jitter))))
}

// uniform draws from the open interval 0..1. We draw through helpers of our own
// because Go does not promise that those of math/rand/v2 keep their values.
func (p *pair) uniform() float64 { return (float64(p.rng.Uint64()>>11) + 0.5) / (1 << 53) }

// happens draws only for a probability above 0, so that a fault that is off does
// not use up the stream of one that is on.
func (p *pair) happens(probability float64) bool {
	return probability > 0 && p.uniform() < probability
}

func (p *pair) below(n int) int { return min(int(p.uniform()*float64(n)), n-1) }

// Next returns when the next frame is due.
func (e *Engine) Next() (due time.Duration, ok bool) {
	if len(e.held) == 0 {
		return 0, false
	}
	return e.held[0].Due, true
}

// Pop returns the next frame that is due at now, or false.
func (e *Engine) Pop(now time.Duration) (Frame, bool) {
	if len(e.held) == 0 || e.held[0].Due > now {
		return Frame{}, false
	}
	f := e.held.pop()
	e.bytes -= int64(cap(f.Data))
	return f, true
}

// Alloc returns a buffer for a frame of n bytes.
func (e *Engine) Alloc(n int) []byte { return e.pool.get(n) }

// Free takes a buffer back.
func (e *Engine) Free(b []byte) { e.pool.put(b) }

const (
	tinyFrame  = 256  // room for what has no data, or little
	smallFrame = 2048 // and for a frame of an MTU of up to 1978 bytes
)

// A pool keeps buffers of three sizes for ever: the process that uses it runs
// without garbage collection. Frames that are tiny lie close together, since
// thousands of them in room for 2 KiB each would share a few lines of a cache.
type pool struct{ tiny, small, large [][]byte }

func (p *pool) get(n int) []byte {
	free, size := &p.tiny, tinyFrame
	switch {
	case n > smallFrame:
		free, size = &p.large, maxFrame
	case n > tinyFrame:
		free, size = &p.small, smallFrame
	}
	if k := len(*free); k > 0 {
		b := (*free)[k-1]
		*free = (*free)[:k-1]
		return b[:n]
	}
	return make([]byte, n, size)
}

func (p *pool) put(b []byte) {
	switch cap(b) {
	case tinyFrame:
		p.tiny = append(p.tiny, b)
	case smallFrame:
		p.small = append(p.small, b)
	case maxFrame:
		p.large = append(p.large, b)
	}
}

// A queue is a heap of frames by due time, then by arrival order.
type queue []Frame

func (q queue) less(i, j int) bool {
	return q[i].Due < q[j].Due || q[i].Due == q[j].Due && q[i].seq < q[j].seq
}

func (q *queue) push(f Frame) {
	*q = append(*q, f)
	a := *q
	for i := len(a) - 1; i > 0; {
		up := (i - 1) / 2
		if !a.less(i, up) {
			break
		}
		a[i], a[up] = a[up], a[i]
		i = up
	}
}

func (q *queue) pop() Frame {
	a := *q
	top, n := a[0], len(a)-1
	a[0], a[n] = a[n], Frame{}
	*q = a[:n]
	(*q).down(0)
	return top
}

func (q queue) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(q) {
			return
		}
		if r := c + 1; r < len(q) && q.less(r, c) {
			c = r
		}
		if !q.less(c, i) {
			return
		}
		q[i], q[c] = q[c], q[i]
		i = c
	}
}

func (q queue) init() {
	for i := len(q)/2 - 1; i >= 0; i-- {
		q.down(i)
	}
}

// change changes frames of a pair. Those that become due at the same time leave
// by their place in the line.
func (q queue) change(src, dst int, f func(*Frame)) {
	any := false
	for i := range q {
		if q[i].Src == src && q[i].Dst == dst {
			f(&q[i])
			any = true
		}
	}
	if any {
		q.init()
	}
}
