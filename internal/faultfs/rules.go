package faultfs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
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
	Seed    uint64       `json:"seed,omitempty"`
	Delay   map[Op]Delay `json:"delay,omitempty"`
	Release bool         `json:"release,omitempty"` // waits that have begun end now
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
}

// MaxDelay bounds every delay: nothing hangs for ever by a delay.
const MaxDelay = time.Minute

// Validate returns everything that is wrong with r.
func (r Rules) Validate() error {
	var errs []error
	for _, op := range slices.Sorted(maps.Keys(r.Delay)) {
		if op != All && !slices.Contains(Ops, op) {
			errs = append(errs, fmt.Errorf("delay %q: no such class of operations; there are %v and %s", op, Ops, All))
		}
		d := r.Delay[op]
		if d.Add < 0 || d.Add > MaxDelay {
			errs = append(errs, fmt.Errorf("delay %s: add %v is not in 0s..%v", op, d.Add, MaxDelay))
		}
		if d.Jitter < 0 || d.Jitter > MaxDelay {
			errs = append(errs, fmt.Errorf("delay %s: jitter %v is not in 0s..%v", op, d.Jitter, MaxDelay))
		}
		switch d.Dist {
		case "", Constant, Uniform, Normal, Pareto:
		default:
			errs = append(errs, fmt.Errorf("delay %s: distribution %q is none of %s, %s, %s, %s", op, d.Dist, Constant, Uniform, Normal, Pareto))
		}
		if d.Dist == Constant && d.Jitter != 0 {
			errs = append(errs, fmt.Errorf("delay %s: constant with a jitter of %v", op, d.Jitter))
		}
	}
	return errors.Join(errs...)
}

// A Decision is what happens to one operation.
type Decision struct {
	Delay time.Duration // before it
}

// An Engine decides by one set of rules. It is safe for concurrent use; the
// n-th decision for a class depends on rules and n alone.
type Engine struct {
	rules [6]rule // by index
}

type rule struct {
	on bool
	d  Delay
	mu sync.Mutex
	rd *rand.Rand // nil if nothing is drawn
}

// NewEngine returns the engine of valid rules.
func NewEngine(r Rules) (*Engine, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{}
	for i, op := range Ops {
		d, on := r.Delay[op]
		if !on {
			d, on = r.Delay[All]
		}
		if d.Dist == "" {
			d.Dist = Constant
			if d.Jitter > 0 {
				d.Dist = Uniform
			}
		}
		e.rules[i].on, e.rules[i].d = on && (d.Add > 0 || d.Jitter > 0), d
		if d.Dist != Constant && d.Jitter > 0 {
			e.rules[i].rd = seed.Stream(r.Seed, "slowfs "+string(op))
		}
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

// Decide says what happens to the next operation of class op.
func (e *Engine) Decide(op Op) Decision {
	r := &e.rules[index(op)]
	if !r.on {
		return Decision{}
	}
	if r.rd == nil {
		return Decision{Delay: r.d.Add}
	}
	r.mu.Lock()
	x := draw(r.d.Dist, r.rd)
	r.mu.Unlock()
	return Decision{Delay: clamp(float64(r.d.Add) + x*float64(r.d.Jitter))}
}

func clamp(ns float64) time.Duration {
	return time.Duration(max(0, min(ns, float64(MaxDelay))))
}

// draw returns how many jitters are added. All but Uint64 is our own
// arithmetic, so that a seed means the same in every release of Go.
func draw(d Dist, rd *rand.Rand) float64 {
	u := func() float64 { return (float64(rd.Uint64()>>11) + 0.5) / (1 << 53) } // in (0,1)
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
