package faultfs

import (
	"math"
	"syscall"
	"testing"
	"time"
)

func engine(t *testing.T, r Rules, before *Engine) *Engine {
	t.Helper()
	e, err := NewEngine(r, before)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestLimitsSpaceOperations(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit Limit
		op    Op
		bytes int
		want  time.Duration // between two
	}{
		{"operations", Limit{Op: All, Ops: 100}, Fsync, 0, 10 * time.Millisecond},
		{"bytes", Limit{Op: All, Bytes: 1 << 20}, Write, 1 << 18, 250 * time.Millisecond},
		{"another class", Limit{Op: Read, Ops: 100}, Write, 10, 0},
		{"what has no bytes", Limit{Op: All, Bytes: 1}, Fsync, 0, 0},
	} {
		e := engine(t, Rules{Limit: []Limit{tt.limit}}, nil)
		for i := range 5 {
			if got, want := e.Decide(tt.op, tt.bytes, 0).Until, time.Duration(i)*tt.want; got != want {
				t.Errorf("%s: operation %d waits until %v, want %v", tt.name, i, got, want)
			}
		}
		// An idle disk saves nothing up for later.
		now := time.Hour
		if first, second := e.Decide(tt.op, tt.bytes, now).Until, e.Decide(tt.op, tt.bytes, now).Until; first != 0 || second != 0 && second != now+tt.want {
			t.Errorf("%s: after a rest %v, then %v", tt.name, first, second)
		}
	}
}

func TestTheLowestLimitWins(t *testing.T) {
	e := engine(t, Rules{Limit: []Limit{{ID: 1, Op: All, Ops: 100}, {ID: 2, Op: All, Ops: 10}}}, nil)
	e.Decide(Write, 1, 0)
	if got := e.Decide(Write, 1, 0).Until; got != 100*time.Millisecond {
		t.Errorf("the second waits until %v", got)
	}
}

func TestErrors(t *testing.T) {
	const n = 20_000
	e := engine(t, Rules{Seed: 1, Error: []Error{{Op: Fsync, Errno: syscall.EIO, Share: 0.2}}}, nil)
	failed := 0
	for range n {
		if e.Decide(Fsync, 0, 0).Errno == syscall.EIO {
			failed++
		}
		if e.Decide(Write, 0, 0).Errno != 0 {
			t.Fatal("a write failed")
		}
	}
	if off := math.Abs(float64(failed)/n - 0.2); off > 4*math.Sqrt(0.2*0.8/n) {
		t.Errorf("%d of %d failed", failed, n)
	}
}

// What one fault has counted is not lost when another comes or goes.
func TestAnAccountOutlivesOtherFaults(t *testing.T) {
	after := Error{ID: 7, Op: Write, Errno: syscall.ENOSPC, After: 3}
	e := engine(t, Rules{Error: []Error{after}, Full: []Full{{ID: 8, Free: 100}}}, nil)
	for range 2 {
		e.Decide(Write, 1, 0)
	}
	if !e.Take(60) {
		t.Fatal("60 of 100 bytes are not free")
	}
	e = engine(t, Rules{Error: []Error{after}, Full: []Full{{ID: 8, Free: 100}}, Hang: []Op{Read}}, e)
	for i, want := range []syscall.Errno{0, syscall.ENOSPC, syscall.ENOSPC} {
		if got := e.Decide(Write, 1, 0).Errno; got != want {
			t.Errorf("write %d: %v, want %v", 3+i, got, want)
		}
	}
	if e.Take(60) || !e.Take(40) || e.Take(1) || e.Free() != 0 {
		t.Errorf("of 100 bytes 60 were taken, and then not just 40; %d are free", e.Free())
	}
	if e := engine(t, Rules{Error: []Error{{ID: 9, Op: Write, Errno: syscall.EIO, After: 3}}}, e); e.Decide(Write, 1, 0).Errno != 0 {
		t.Error("another fault counts what this one had seen")
	}
}

func TestHangs(t *testing.T) {
	e := engine(t, Rules{Hang: []Op{Fsync}}, nil)
	if !e.Decide(Fsync, 0, 0).Hang || e.Decide(Write, 0, 0).Hang || !e.Hangs(Fsync) {
		t.Error("not just fsyncs hang")
	}
	if e := engine(t, Rules{Hang: []Op{All}}, e); !e.Hangs(Meta) {
		t.Error("all is not all")
	}
}

func TestTracesRepeat(t *testing.T) {
	trace := []time.Duration{1, 2, 3}
	e := engine(t, Rules{Delay: map[Op][]Delay{All: {{Trace: trace}, {Add: 10}}}}, nil)
	for i := range 7 {
		if got := e.Decide(Fsync, 0, 0).Delay; got != trace[i%3]+10 {
			t.Errorf("operation %d waits %v", i, got)
		}
	}
	if got := (Delay{Trace: trace}).Quantile(0.5); got != 2 {
		t.Errorf("median of a trace = %v", got)
	}
}

func TestFlipped(t *testing.T) {
	b := flipped([]byte{0, 0}, []uint64{0, 15, 16 + 3})
	if b[0] != 1|8 || b[1] != 128 {
		t.Errorf("%08b", b)
	}
	if got := flipped(nil, []uint64{1}); len(got) != 0 {
		t.Error(got)
	}
}

// Quantiles are those of what is drawn.
func TestQuantilesAreThoseOfTheDraws(t *testing.T) {
	const n = 20_000
	for _, dist := range []Dist{Uniform, Normal, Pareto} {
		d := Delay{Add: 20 * time.Millisecond, Jitter: 3 * time.Millisecond, Dist: dist}
		e := engine(t, Rules{Seed: 3, Delay: map[Op][]Delay{Write: {d}}}, nil)
		below := map[float64]int{}
		for range n {
			x := e.Decide(Write, 0, 0).Delay
			for _, q := range []float64{0.1, 0.5, 0.9} {
				if x <= d.Quantile(q) {
					below[q]++
				}
			}
		}
		for q, got := range below {
			if off := math.Abs(float64(got)/n - q); off > 4*math.Sqrt(q*(1-q)/n) {
				t.Errorf("%s: %d of %d are up to the quantile %v", dist, got, n, q)
			}
		}
	}
}
