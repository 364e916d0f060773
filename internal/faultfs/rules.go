package faultfs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"brownout/internal/seed"
)

// An Op is a class of operations.
type Op string

// Classes of operations.
const (
	Read   Op = "read"
	Write  Op = "write"
	Fsync  Op = "fsync"  // fsync, fdatasync, and fsync of a directory
	Open   Op = "open"   // open and create
	Rename Op = "rename" //
	Meta   Op = "meta"   // truncate, fallocate, unlink, mkdir, rmdir, link, symlink, chmod, chown
	All    Op = "all"    // in rules: each class that is not named itself
)

// Ops are all classes but [All]. Looking up names and attributes and reading
// directories belong to none: they come from memory on a slow disk, too.
var Ops = []Op{Read, Write, Fsync, Open, Rename, Meta}

// Rules say what happens to operations. The zero value does nothing.
type Rules struct {
	Seed    uint64         `json:"seed,omitempty"`
	Delay   map[Op][]Delay `json:"delay,omitempty"` // several add up
	Hang    []Op           `json:"hang,omitempty"`  // operations that do not go on while this is in force
	Limit   []Limit        `json:"limit,omitempty"`
	Error   []Error        `json:"error,omitempty"`
	Corrupt []Corrupt      `json:"corrupt,omitempty"`
	Full    []Full         `json:"full,omitempty"`
	Lie     bool           `json:"lie,omitempty"`     // fsync returns without having been done: to prove that a test of durability can fail
	Release bool           `json:"release,omitempty"` // waits that have begun end now
}

// A Limit is how much goes on in a second: an operation waits until those
// before it would be over. One of Bytes and Ops is set.
type Limit struct {
	ID    int     `json:"id"` // of the fault: its account outlives changes of others
	Op    Op      `json:"op"`
	Bytes float64 `json:"bytes_per_s,omitempty"`
	Ops   float64 `json:"ops_per_s,omitempty"`
}

// An Error is what operations return in place of being done.
type Error struct {
	ID    int           `json:"id"`
	Op    Op            `json:"op"`
	Errno syscall.Errno `json:"errno"`
	Share float64       `json:"share,omitempty"` // of the operations, 0..1;
	After int64         `json:"after,omitempty"` // or, if Share is 0, all after so many
}

// Corrupt flips bits of what is read.
type Corrupt struct {
	ID    int     `json:"id"`
	Share float64 `json:"share"` // of the reads, 0..1
	Bits  int     `json:"bits"`  // in each such read
}

// Full lets files grow by so many bytes more, together.
type Full struct {
	ID   int   `json:"id"`
	Free int64 `json:"free"`
}

// A Dist is a distribution of delays.
type Dist string

// Distributions. Delays below zero count as zero, those above [MaxDelay] as that.
const (
	Constant Dist = "constant" // add
	Uniform  Dist = "uniform"  // add ± jitter
	Normal   Dist = "normal"   // mean add, standard deviation jitter
	Pareto   Dist = "pareto"   // add + jitter·(u^(-2/3) - 1): at least add, median add + 0.59·jitter, mean add + 2·jitter, no variance
)

// A Delay is a wait before an operation.
type Delay struct {
	Add    time.Duration `json:"add_ns"`
	Jitter time.Duration `json:"jitter_ns,omitempty"`
	Dist   Dist          `json:"dist,omitempty"` // default: constant without jitter, uniform with it

	// Trace is a recorded course in place of them, one operation after the other
	// and over again.
	Trace []time.Duration `json:"trace_ns,omitempty"`
}

// MaxDelay bounds every delay: nothing hangs for ever by a delay.
const MaxDelay = time.Minute

// Validate returns everything that is wrong with r.
func (r Rules) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	class := func(what string, op Op) {
		if op != All && !slices.Contains(Ops, op) {
			bad("%s %q: no such class of operations; there are %v and %s", what, op, Ops, All)
		}
	}
	for _, op := range slices.Sorted(maps.Keys(r.Delay)) {
		class("delay", op)
		for _, d := range r.Delay[op] {
			if err := d.validate(); err != nil {
				bad("delay %s: %w", op, err)
			}
		}
	}
	for _, op := range r.Hang {
		class("hang", op)
	}
	for _, l := range r.Limit {
		class("limit", l.Op)
		if (l.Bytes > 0) == (l.Ops > 0) || !(l.Bytes >= 0 && l.Ops >= 0) {
			bad("limit %s: %v bytes and %v operations per second; one of them is above 0", l.Op, l.Bytes, l.Ops)
		}
	}
	for _, e := range r.Error {
		class("error", e.Op)
		if e.Errno == 0 || !(e.Share >= 0 && e.Share <= 1) || e.After < 0 {
			bad("error %s: errno %d of a share of %v after %d", e.Op, e.Errno, e.Share, e.After)
		}
	}
	for _, c := range r.Corrupt {
		if !(c.Share >= 0 && c.Share <= 1) || c.Bits < 1 {
			bad("corrupt: %d bits of a share of %v", c.Bits, c.Share)
		}
	}
	for _, f := range r.Full {
		if f.Free < 0 {
			bad("full: %d bytes are free", f.Free)
		}
	}
	return errors.Join(errs...)
}

func (d Delay) validate() error {
	var errs []error
	for _, t := range d.Trace {
		if t < 0 || t > MaxDelay {
			return fmt.Errorf("%v of its trace is not in 0s..%v", t, MaxDelay)
		}
	}
	if d.Add < 0 || d.Add > MaxDelay {
		errs = append(errs, fmt.Errorf("add %v is not in 0s..%v", d.Add, MaxDelay))
	}
	if d.Jitter < 0 || d.Jitter > MaxDelay {
		errs = append(errs, fmt.Errorf("jitter %v is not in 0s..%v", d.Jitter, MaxDelay))
	}
	switch d.Dist {
	case "", Constant, Uniform, Normal, Pareto:
	default:
		errs = append(errs, fmt.Errorf("distribution %q is none of %s, %s, %s, %s", d.Dist, Constant, Uniform, Normal, Pareto))
	}
	if d.Dist == Constant && d.Jitter != 0 {
		errs = append(errs, fmt.Errorf("constant with a jitter of %v", d.Jitter))
	}
	return errors.Join(errs...)
}

// A Decision is what happens to one operation.
type Decision struct {
	Hang  bool          // as long as the engine in force says so
	Until time.Duration // it waits for those before it, by the clock of now; 0 if not
	Delay time.Duration // before it
	Errno syscall.Errno // in place of doing it
	Lie   bool          // say it was done
	Flip  []uint64      // bits of what was read, modulo its length
}

// An Engine decides by one set of rules. It is safe for concurrent use; the
// n-th decision for a class depends on rules, what came before, and the clock.
type Engine struct {
	rules   Rules
	classes [6]class // by index
	full    []*full
	mu      sync.Mutex // of all limits, errors and corruptions
	limits  []*limit
	errors  []*failing
	flips   []*flip
	busy    bool // there are any of these
}

type class struct {
	hang   bool
	delays []*delay
}

type delay struct {
	Delay
	mu sync.Mutex
	rd *rand.Rand // nil if nothing is drawn
	n  int        // of the trace
}

type limit struct {
	Limit
	next time.Duration // the earliest time for the next operation
}

type failing struct {
	Error
	n  int64
	rd *rand.Rand
}

type flip struct {
	Corrupt
	rd *rand.Rand
}

type full struct {
	Full
	left atomic.Int64
}

// NewEngine returns the engine of valid rules. Faults that were in force in the
// engine before, which may be nil, go on where they are.
func NewEngine(r Rules, before *Engine) (*Engine, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if before == nil {
		before = &Engine{}
	}
	e := &Engine{rules: r, busy: len(r.Limit)+len(r.Error)+len(r.Corrupt) > 0}
	for i, op := range Ops {
		c := &e.classes[i]
		c.hang = slices.Contains(r.Hang, op) || slices.Contains(r.Hang, All)
		ds, named := r.Delay[op]
		if !named {
			ds = r.Delay[All]
		}
		for j, d := range ds {
			if d.Dist == "" {
				d.Dist = Constant
				if d.Jitter > 0 {
					d.Dist = Uniform
				}
			}
			x := &delay{Delay: d}
			if d.Dist != Constant && d.Jitter > 0 {
				name := "slowfs " + string(op)
				if j > 0 {
					name += fmt.Sprint(" ", j)
				}
				x.rd = seed.Stream(r.Seed, name)
			}
			if d.Add > 0 || d.Jitter > 0 || d.Trace != nil {
				c.delays = append(c.delays, x)
			}
		}
	}
	before.mu.Lock()
	defer before.mu.Unlock()
	for _, l := range r.Limit {
		x := &limit{Limit: l}
		if i := slices.IndexFunc(before.limits, func(o *limit) bool { return o.ID == l.ID }); i >= 0 {
			x.next = before.limits[i].next
		}
		e.limits = append(e.limits, x)
	}
	for _, f := range r.Error {
		x := &failing{Error: f, rd: seed.Stream(r.Seed, fmt.Sprint("slowfs error ", f.ID))}
		if i := slices.IndexFunc(before.errors, func(o *failing) bool { return o.ID == f.ID }); i >= 0 {
			x.n, x.rd = before.errors[i].n, before.errors[i].rd
		}
		e.errors = append(e.errors, x)
	}
	for _, c := range r.Corrupt {
		e.flips = append(e.flips, &flip{c, seed.Stream(r.Seed, fmt.Sprint("slowfs corrupt ", c.ID))})
	}
	for _, f := range r.Full {
		x := &full{Full: f}
		x.left.Store(f.Free)
		if i := slices.IndexFunc(before.full, func(o *full) bool { return o.Full == f }); i >= 0 {
			x = before.full[i]
		}
		e.full = append(e.full, x)
	}
	return e, nil
}

// index is an op's place in [Ops].
func index(op Op) int {
	switch op {
	case Read:
		return 0
	case Write:
		return 1
	case Fsync:
		return 2
	case Open:
		return 3
	case Rename:
		return 4
	default:
		return 5
	}
}

func (o Op) covers(op Op) bool { return o == op || o == All }

// Hangs reports whether operations of a class hang.
func (e *Engine) Hangs(op Op) bool { return e.classes[index(op)].hang }

// Touches reports whether anything is to happen to operations of a class.
func (e *Engine) Touches(op Op) bool {
	c := &e.classes[index(op)]
	return c.hang || c.delays != nil || e.busy
}

// Limited reports whether operations of a class wait for those before them.
func (e *Engine) Limited(op Op) bool {
	return slices.ContainsFunc(e.rules.Limit, func(l Limit) bool { return l.Op.covers(op) })
}

// Decide says what happens to the next operation of class op, of so many bytes.
func (e *Engine) Decide(op Op, bytes int, now time.Duration) Decision {
	c := &e.classes[index(op)]
	d := Decision{Hang: c.hang, Lie: e.rules.Lie && op == Fsync}
	for _, x := range c.delays {
		d.Delay = min(d.Delay+x.next(), MaxDelay)
	}
	if e.busy {
		e.decide(op, bytes, now, &d)
	}
	return d
}

func (x *delay) next() time.Duration {
	if x.Trace == nil && x.rd == nil {
		return x.Add
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.Trace != nil {
		d := x.Trace[x.n%len(x.Trace)]
		x.n++
		return d
	}
	return clamp(float64(x.Add) + draw(x.Dist, x.rd)*float64(x.Jitter))
}

// decide adds what several classes share.
func (e *Engine) decide(op Op, bytes int, now time.Duration, d *Decision) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.limits {
		if !x.Op.covers(op) {
			continue
		}
		if x.Bytes > 0 && op != Read && op != Write {
			continue
		}
		begin := max(x.next, now)
		d.Until = max(d.Until, begin)
		if x.Bytes > 0 {
			x.next = begin + time.Duration(float64(bytes)/x.Bytes*float64(time.Second))
		} else {
			x.next = begin + time.Duration(float64(time.Second)/x.Ops)
		}
	}
	if d.Until <= now {
		d.Until = 0
	}
	for _, x := range e.errors {
		if !x.Op.covers(op) {
			continue
		}
		x.n++
		if x.Share > 0 && uniform(x.rd) < x.Share || x.Share == 0 && x.n > x.After {
			d.Errno = x.Errno
		}
	}
	if op != Read {
		return
	}
	for _, x := range e.flips {
		if uniform(x.rd) >= x.Share {
			continue
		}
		for range x.Bits {
			d.Flip = append(d.Flip, x.rd.Uint64())
		}
	}
}

// Take says whether files may grow by n bytes, and counts them if so.
func (e *Engine) Take(n int64) bool {
	for i, x := range e.full {
		if x.left.Add(-n) < 0 {
			for _, y := range e.full[:i+1] {
				y.left.Add(n)
			}
			return false
		}
	}
	return true
}

// Free is by how much files may grow yet; -1 if nothing bounds that.
func (e *Engine) Free() int64 {
	free := int64(-1)
	for _, x := range e.full {
		if left := max(x.left.Load(), 0); free < 0 || left < free {
			free = left
		}
	}
	return free
}

// uniform draws from (0,1).
func uniform(rd *rand.Rand) float64 { return (float64(rd.Uint64()>>11) + 0.5) / (1 << 53) }

// flipped returns data with bits flipped, in place.
func flipped(data []byte, bits []uint64) []byte {
	if len(data) > 0 {
		for _, b := range bits {
			b %= uint64(len(data)) * 8
			data[b/8] ^= 1 << (b % 8)
		}
	}
	return data
}

// Quantile returns the delay that the share q of all such delays do not exceed.
func (d Delay) Quantile(q float64) time.Duration {
	if d.Trace != nil {
		t := slices.Sorted(slices.Values(d.Trace))
		return t[min(int(q*float64(len(t))), len(t)-1)]
	}
	x := 0.0
	switch dist := d.Dist; {
	case d.Jitter == 0:
	case dist == Normal:
		x = math.Sqrt2 * math.Erfinv(2*min(max(q, 1e-9), 1-1e-9)-1)
	case dist == Pareto:
		x = math.Pow(1-min(q, 1-1e-9), -1/1.5) - 1
	default:
		x = 2*q - 1
	}
	return clamp(float64(d.Add) + x*float64(d.Jitter))
}

func clamp(ns float64) time.Duration {
	return time.Duration(max(0, min(ns, float64(MaxDelay))))
}

// draw returns how many jitters are added. All but Uint64 is our own
// arithmetic, so that a seed means the same in every release of Go.
func draw(d Dist, rd *rand.Rand) float64 {
	u := func() float64 { return uniform(rd) }
	switch d {
	case Uniform:
		return 2*u() - 1
	case Normal: // Box and Muller, 1958
		return math.Sqrt(-2*math.Log(u())) * math.Cos(2*math.Pi*u())
	case Pareto:
		return math.Pow(u(), -1/1.5) - 1
	}
	return 0
}
