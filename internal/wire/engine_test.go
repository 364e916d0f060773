package wire

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// ipv4 makes a plain frame of size bytes after the virtio-net header, numbered.
func ipv4(e *Engine, size, number int) []byte {
	b := e.Alloc(vnetLen + size)
	clear(b)
	b[vnetLen+12] = 0x08
	native.PutUint32(b[vnetLen+16:], uint32(number))
	return b
}

func number(f Frame) int { return int(native.Uint32(f.Data[vnetLen+16:])) }

// offer pushes n frames of size bytes, gap apart from time 0, and returns what
// comes out in its order, each stamped with its due time.
func offer(e *Engine, n, size int, gap time.Duration) (out []Frame) {
	pop := func(now time.Duration) {
		for {
			f, ok := e.Pop(now)
			if !ok {
				return
			}
			out = append(out, f)
		}
	}
	for i := range n {
		at := time.Duration(i) * gap
		pop(at)
		e.Push(0, 1, ipv4(e, size, i), at)
	}
	pop(math.MaxInt64)
	return out
}

func engine(imp Impairment) *Engine {
	e := New(42, 1<<30)
	e.Set(0, 1, imp, 0)
	return e
}

// near checks a binomial count against its own standard error.
func near(t *testing.T, what string, got uint64, n, p float64) {
	t.Helper()
	if sigma := math.Sqrt(n * p * (1 - p)); math.Abs(float64(got)-n*p) > 4*sigma {
		t.Errorf("%s = %d of %.0f, want %.0f ± %.0f", what, got, n, n*p, sigma)
	}
}

func TestConstantDelayIsExactAndKeepsOrder(t *testing.T) {
	out := offer(engine(Impairment{Delay: 7 * ms}), 1000, 100, 10*time.Microsecond)
	if len(out) != 1000 {
		t.Fatalf("%d of 1000 came out", len(out))
	}
	for i, f := range out {
		if number(f) != i || f.Due-f.Arrival != 7*ms || !f.Held {
			t.Fatalf("frame %d: number %d, held for %v", i, number(f), f.Due-f.Arrival)
		}
	}
}

func TestHealthyPairPassesAtOnce(t *testing.T) {
	for i, f := range offer(engine(Impairment{}), 10, 100, 1) {
		if number(f) != i || f.Due != f.Arrival || f.Held {
			t.Errorf("frame %d: %+v", i, f)
		}
	}
}

func TestChanceIsBinomial(t *testing.T) {
	const n = 100_000
	for _, tt := range []struct {
		name  string
		imp   Impairment
		p     float64
		count func(Counters) uint64
	}{
		{"loss", Impairment{Loss: 0.03}, 0.03, func(c Counters) uint64 { return c.Dropped }},
		{"duplication", Impairment{Duplicate: 0.02}, 0.02, func(c Counters) uint64 { return c.Duplicated }},
		{"reordering", Impairment{Delay: ms, Reorder: 0.25}, 0.25, func(c Counters) uint64 { return c.Reordered }},
		{"corruption", Impairment{Corrupt: 0.1}, 0.1, func(c Counters) uint64 { return c.Corrupted }},
		{"certain loss", Impairment{Loss: 1}, 1, func(c Counters) uint64 { return c.Dropped }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(tt.imp)
			out := offer(e, n, 60, time.Microsecond)
			c := e.Counters(0, 1)
			near(t, tt.name, tt.count(c), n, tt.p)
			if want := n - c.Dropped + c.Duplicated; c.Seen != n || uint64(len(out)) != want {
				t.Errorf("%d came out, want %d; counters %+v", len(out), want, c)
			}
		})
	}
}

// TestGilbertElliottLosesInBursts checks the mean loss and the mean length of
// bursts, 1/ToGood, where nothing survives the bad state.
func TestGilbertElliottLosesInBursts(t *testing.T) {
	const n = 200_000
	g := GE{ToBad: 0.02, ToGood: 0.25, LossBad: 1}
	out := offer(engine(Impairment{GE: g}), n, 60, time.Microsecond)
	bursts, next := 0, 0
	for _, f := range out {
		if number(f) != next {
			bursts++
		}
		next = number(f) + 1
	}
	lost := n - len(out)
	// The losses of a chain are correlated: its variance is larger by (1+c)/(1-c), c = 1-p-r.
	mean, c := g.Mean(), 1-g.ToBad-g.ToGood
	if sigma := math.Sqrt(n * mean * (1 - mean) * (1 + c) / (1 - c)); math.Abs(float64(lost)-n*mean) > 4*sigma {
		t.Errorf("lost %d of %d, want %.0f ± %.0f", lost, n, n*mean, sigma)
	}
	if length := float64(lost) / float64(bursts); math.Abs(length-4) > 0.2 {
		t.Errorf("mean burst = %.2f packets, want 4", length)
	}
}

func TestCountedLossesAreExact(t *testing.T) {
	for _, tt := range []struct {
		imp  Impairment
		lost []int // of the first 12
	}{
		{Impairment{LossEvery: 4}, []int{3, 7, 11}},
		{Impairment{LossFirst: 3}, []int{0, 1, 2}},
		{Impairment{LossFirst: 2, LossEvery: 5}, []int{0, 1, 4, 9}},
	} {
		out := offer(engine(tt.imp), 12, 60, time.Microsecond)
		var lost []int
		next := 0
		for _, f := range out {
			for ; next < number(f); next++ {
				lost = append(lost, next)
			}
			next++
		}
		for ; next < 12; next++ {
			lost = append(lost, next)
		}
		if !slices.Equal(lost, tt.lost) {
			t.Errorf("%+v lost %v, want %v", tt.imp, lost, tt.lost)
		}
	}
	// Another fault that comes or goes beside them does not begin the count anew.
	e := engine(Impairment{LossFirst: 5})
	first := len(offer(e, 3, 60, time.Microsecond))
	e.Set(0, 1, Impairment{LossFirst: 5, Duplicate: 1e-9}, 0)
	if then := len(offer(e, 5, 60, time.Microsecond)); first != 0 || then != 3 {
		t.Errorf("%d of 3 and %d of 5 came through, want 0 and 3", first, then)
	}
}

func TestRecordedDelaysAreTakenInTurn(t *testing.T) {
	trace := []time.Duration{5 * ms, 20 * ms, 0, 1 * ms}
	imp := Impairment{Trace: MakeTrace(trace), Delay: 2 * ms}
	if err := imp.Validate(); err != nil {
		t.Fatal(err)
	}
	out := offer(engine(imp), 9, 60, 100*ms)
	for i, f := range out {
		if got, want := f.Due-f.Arrival, trace[i%4]+2*ms; got != want {
			t.Errorf("packet %d held for %v, want %v", i, got, want)
		}
	}
	if len(out) != 9 {
		t.Errorf("%d of 9 came through", len(out))
	}
	for _, bad := range []string{"x", "5,", "-1", "5,1e3", strings.Repeat("1,", mostTrace) + "1"} {
		if (Impairment{Trace: bad}).Validate() == nil {
			t.Errorf("trace %.10q is accepted", bad)
		}
	}
}

func TestJitterHasItsDistribution(t *testing.T) {
	const n = 100_000
	for _, tt := range []struct {
		dist     Dist
		sd       float64 // in units of the jitter
		min, max time.Duration
	}{
		{Uniform, 1 / math.Sqrt(3), 15 * ms, 25 * ms},
		{Normal, 1, 0, 50 * ms},
		{Pareto, 1, 17100 * time.Microsecond, 10 * time.Second}, // infinite kurtosis: sd is only roughly met
	} {
		t.Run(string(tt.dist), func(t *testing.T) {
			out := offer(engine(Impairment{Delay: 20 * ms, Jitter: 5 * ms, Dist: tt.dist}), n, 60, time.Microsecond)
			var sum, squares float64
			for _, f := range out {
				d := f.Due - f.Arrival
				if d < tt.min || d > tt.max {
					t.Fatalf("delay %v is not in %v..%v", d, tt.min, tt.max)
				}
				x := (d - 20*ms).Seconds() * 1e3
				sum, squares = sum+x, squares+x*x
			}
			mean := sum / n
			sd := math.Sqrt(squares/n - mean*mean)
			want := 5 * tt.sd
			if math.Abs(mean) > 4*want/math.Sqrt(n) {
				t.Errorf("mean is %.4f ms off", mean)
			}
			if tolerance := map[bool]float64{true: 0.25, false: 0.02}[tt.dist == Pareto]; math.Abs(sd/want-1) > tolerance {
				t.Errorf("deviation = %.3f ms, want %.3f", sd, want)
			}
		})
	}
}

func TestJitterIsCorrelatedAsAsked(t *testing.T) {
	const n, corr = 100_000, 0.3
	e := engine(Impairment{Delay: 20 * ms, Jitter: ms, Dist: Normal, Corr: corr})
	out := offer(e, n, 60, time.Microsecond)
	x := make([]float64, n)
	for _, f := range out {
		x[number(f)] = float64(f.Due - f.Arrival - 20*ms)
	}
	var now, next float64
	for i := range n - 1 {
		now, next = now+x[i]*x[i], next+x[i]*x[i+1]
	}
	if got := next / now; math.Abs(got-corr) > 4/math.Sqrt(n) {
		t.Errorf("autocorrelation = %.4f, want %v ± %.4f", got, corr, 1/math.Sqrt(n))
	}
}

func TestJitterReordersUnlessOrdered(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		out := offer(engine(Impairment{Delay: 20 * ms, Jitter: 5 * ms, Ordered: ordered}), 1000, 60, 100*time.Microsecond)
		sorted := slices.IsSortedFunc(out, func(a, b Frame) int { return number(a) - number(b) })
		if sorted != ordered {
			t.Errorf("ordered %v: in order: %v", ordered, sorted)
		}
	}
}

func TestRateIsExact(t *testing.T) {
	const n, size = 1000, 1250 // 1 ms at 10 Mbit/s
	e := engine(Impairment{RateBitsPerSec: 10e6, QueueBytes: 10 * size})
	out := offer(e, n, size, ms/2) // twice the rate
	for i := 1; i < len(out); i++ {
		if gap := out[i].Due - out[i-1].Due; gap != ms {
			t.Fatalf("frame %d came %v after the one before, want 1ms", i, gap)
		}
	}
	c := e.Counters(0, 1)
	// 500 ms pass while frames come in; the queue's 10 come out after that.
	if len(out) < 509 || len(out) > 511 || int(c.QueueDropped) != n-len(out) {
		t.Errorf("%d came out and %d found no room, want about 510 of %d and the rest", len(out), c.QueueDropped, n)
	}
	if longest := out[len(out)-1]; longest.Due-longest.Arrival > 10*ms {
		t.Errorf("a frame waited for %v in a queue of 10ms", longest.Due-longest.Arrival)
	}
}

func TestPartitionDropsAllAndWhatIsHeld(t *testing.T) {
	e := engine(Impairment{Delay: time.Second})
	for i := range 10 {
		e.Push(0, 1, ipv4(e, 60, i), 0)
		e.Push(1, 0, ipv4(e, 60, i), 0)
	}
	e.Set(0, 1, Impairment{Partition: true}, ms)
	e.Push(0, 1, ipv4(e, 60, 11), ms)
	n := 0
	for {
		f, ok := e.Pop(time.Minute)
		if !ok {
			break
		}
		if n++; f.Src != 1 {
			t.Errorf("frame %d passed the partition", number(f))
		}
	}
	if c := e.Counters(0, 1); n != 10 || c.Dropped != 11 {
		t.Errorf("%d passed on the other pair, want 10; counters %+v", n, c)
	}
}

func TestChangesOfADelayNeverReorder(t *testing.T) {
	for _, tt := range []struct {
		name string
		to   Impairment
		last time.Duration // when all frames from before are out
	}{
		{"removing the delay lets all out at once", Impairment{}, 50 * ms},
		{"a shorter delay bounds those held", Impairment{Delay: 10 * ms}, 60 * ms},
		{"a longer delay leaves those held alone", Impairment{Delay: time.Second}, 149 * ms},
		{"a rate leaves those held alone", Impairment{Delay: 100 * ms, RateBitsPerSec: 1e9}, 149 * ms},
		{"a rate in place of the delay lets all out at once", Impairment{RateBitsPerSec: 1e9}, 50 * ms},
		{"jitter leaves those held alone", Impairment{Delay: 100 * ms, Jitter: ms, Ordered: true}, 149 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(Impairment{Delay: 100 * ms})
			for i := range 50 {
				e.Push(0, 1, ipv4(e, 60, i), time.Duration(i)*ms)
			}
			e.Set(0, 1, tt.to, 50*ms)
			for i := 50; i < 100; i++ {
				e.Push(0, 1, ipv4(e, 60, i), time.Duration(i)*ms)
			}
			for i := range 100 {
				f, ok := e.Pop(math.MaxInt64)
				if !ok || number(f) != i {
					t.Fatalf("frame %d came out in place %d", number(f), i)
				}
				if i == 49 && f.Due != tt.last {
					t.Errorf("the last frame from before is due at %v, want %v", f.Due, tt.last)
				}
			}
		})
	}
}

// TestChangesOfARateActOnWhatWaits changes the rate while 100 frames wait, of
// which one leaves every 10 ms.
func TestChangesOfARateActOnWhatWaits(t *testing.T) {
	const size, queue = 1250, 1 << 20
	at := func(bits int64) Impairment { return Impairment{RateBitsPerSec: bits, QueueBytes: queue, Delay: 5 * ms} }
	for _, tt := range []struct {
		name string
		to   Impairment
		last time.Duration // when the last of all frames is out
	}{
		{"ten times as fast", at(1e7), 505*ms + 51*ms},
		{"half as fast", at(5e5), 505*ms + 1020*ms},
		{"no limit", Impairment{Delay: 5 * ms}, 505 * ms},
		{"the same", at(1e6), 1015 * ms},
		{"nothing at all", Impairment{}, 500 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(at(1e6))
			for i := range 100 {
				e.Push(0, 1, ipv4(e, size, i), 0)
			}
			for i := range 49 { // until 5 ms before the change
				if f, ok := e.Pop(500 * ms); !ok || number(f) != i || f.Due != time.Duration(i+1)*10*ms+5*ms {
					t.Fatalf("frame %d due at %v in place %d", number(f), f.Due, i)
				}
			}
			e.Set(0, 1, tt.to, 500*ms)
			e.Push(0, 1, ipv4(e, size, 100), 500*ms)
			var due time.Duration
			for i := 49; i <= 100; i++ {
				f, ok := e.Pop(math.MaxInt64)
				if !ok || number(f) != i {
					t.Fatalf("frame %d came out in place %d", number(f), i)
				}
				due = f.Due
			}
			if due != tt.last {
				t.Errorf("the last is due at %v, want %v", due, tt.last)
			}
		})
	}
}

func TestOvertakingSkipsItsOwnDelayOnly(t *testing.T) {
	for _, tt := range []struct {
		name   string
		imp    Impairment
		passed time.Duration // delay of those that overtake
	}{
		{"alone", Impairment{Delay: 5 * ms, Reorder: 0.25}, 0},
		{"on a slow link", Compose(Impairment{Delay: 5 * ms, Reorder: 0.25}, Impairment{Delay: 20 * ms}), 20 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(tt.imp)
			passed := 0
			for _, f := range offer(e, 20_000, 60, time.Millisecond) {
				switch f.Due - f.Arrival {
				case tt.passed:
					passed++
				case tt.imp.Delay:
				default:
					t.Fatalf("frame %d was held for %v", number(f), f.Due-f.Arrival)
				}
			}
			if c := e.Counters(0, 1); uint64(passed) != c.Reordered {
				t.Errorf("%d passed, counters %+v", passed, c)
			}
			near(t, "overtaking", uint64(passed), 20_000, 0.25)
		})
	}
}

func TestSeedDecidesEverything(t *testing.T) {
	run := func(seed uint64, other bool) (fate []string) {
		e := New(seed, 1<<30)
		imp := Impairment{Delay: 5 * ms, Jitter: ms, Loss: 0.1, Duplicate: 0.1, Reorder: 0.1, Corrupt: 0.1}
		e.Set(0, 1, imp, 0)
		e.Set(1, 0, imp, 0)
		for i := range 300 {
			e.Push(0, 1, ipv4(e, 60, i), time.Duration(i))
			if other {
				e.Push(1, 0, ipv4(e, 60, i), time.Duration(i))
			}
		}
		for {
			f, ok := e.Pop(math.MaxInt64)
			if !ok {
				return fate
			}
			if f.Src == 0 {
				fate = append(fate, fmt.Sprint(f.Due, f.Data))
			}
		}
	}
	if !slices.Equal(run(1, false), run(1, true)) {
		t.Error("traffic on another pair changed the fate of packets")
	}
	if slices.Equal(run(1, false), run(2, false)) {
		t.Error("two seeds gave the same fate")
	}
}

func TestHeldBytesAreBounded(t *testing.T) {
	for _, tt := range []struct{ room, packet int }{{tinyFrame, 60}, {smallFrame, 1000}} {
		e := New(1, int64(10*tt.room))
		e.Set(0, 1, Impairment{Delay: time.Hour}, 0)
		for i := range 25 {
			e.Push(0, 1, ipv4(e, tt.packet, i), 0)
		}
		if c := e.Counters(0, 1); e.Held() != 10 || c.Overflowed != 15 {
			t.Errorf("%d held, counters %+v; want 10 held and 15 overflowed", e.Held(), c)
		}
		e.Set(0, 1, Impairment{}, 0)
		if f, ok := e.Pop(0); !ok || number(f) != 0 {
			t.Error("the first frame does not come out")
		}
		e.Push(0, 1, ipv4(e, tt.packet, 99), 0)
		if e.Held() != 10 {
			t.Errorf("%d held; want room for one again", e.Held())
		}
	}
}

func TestSteadyTrafficDoesNotAllocate(t *testing.T) {
	e := engine(Impairment{Delay: ms, Jitter: ms / 2, Loss: 0.1, Duplicate: 0.1, Corrupt: 0.1, RateBitsPerSec: 1e9})
	now := time.Duration(0)
	step := func() {
		now += 10 * time.Microsecond
		e.Push(0, 1, ipv4(e, 1000, 1), now)
		for {
			f, ok := e.Pop(now)
			if !ok {
				return
			}
			e.Free(f.Data)
		}
	}
	for range 10_000 {
		step()
	}
	if n := testing.AllocsPerRun(1000, step); n > 0.01 {
		t.Errorf("%v allocations a frame", n)
	}
}

func TestCompose(t *testing.T) {
	burst, rare := GE{ToBad: 0.1, ToGood: 0.1, LossBad: 1}, GE{ToBad: 0.1, ToGood: 0.9, LossBad: 1}
	for _, tt := range []struct {
		name string
		in   []Impairment
		want Impairment
	}{
		{"nothing is healthy", nil, Impairment{}},
		{"delays add", []Impairment{{Delay: 2 * ms}, {Delay: 3 * ms}}, Impairment{Delay: 5 * ms}},
		{
			"jitters add as deviations do, in the shape of the largest",
			[]Impairment{{Jitter: 3 * ms, Dist: Normal}, {Jitter: 4 * ms, Dist: Pareto, Corr: 0.5}},
			Impairment{Jitter: 5 * ms, Dist: Pareto, Corr: 0.5},
		},
		{
			"what overtakes skips its own delay",
			[]Impairment{{Delay: 20 * ms}, {Delay: 5 * ms, Reorder: 0.5}},
			Impairment{Delay: 25 * ms, Reorder: 0.5, Ahead: 5 * ms},
		},
		{"or all there is", []Impairment{{}, {Delay: 5 * ms, Reorder: 0.5}}, Impairment{Delay: 5 * ms, Reorder: 0.5}},
		{"losses are independent", []Impairment{{Loss: 0.5}, {Loss: 0.5}}, Impairment{Loss: 0.75}},
		{
			"the lowest rate wins with its queue",
			[]Impairment{{RateBitsPerSec: 10, QueueBytes: 1}, {RateBitsPerSec: 5, QueueBytes: 2}, {Delay: ms}},
			Impairment{RateBitsPerSec: 5, QueueBytes: 2, Delay: ms},
		},
		{
			"a jitter that lets packets overtake does so over an ordered link",
			[]Impairment{{Delay: ms, Jitter: 3 * ms, Ordered: true}, {Delay: ms, Jitter: 4 * ms, Dist: Normal}},
			Impairment{Delay: 2 * ms, Jitter: 5 * ms, Dist: Normal},
		},
		{
			"what has no jitter leaves the order alone",
			[]Impairment{{Delay: ms, Jitter: ms, Ordered: true}, {Delay: ms}, {Loss: 0.5}},
			Impairment{Delay: 2 * ms, Jitter: ms, Ordered: true, Loss: 0.5},
		},
		{"a partition stays", []Impairment{{Partition: true}, {Delay: ms}}, Impairment{Partition: true, Delay: ms}},
		{"the worst bursts win", []Impairment{{GE: rare}, {GE: burst}}, Impairment{GE: burst, Loss: rare.Mean()}},
		{"whatever their order", []Impairment{{GE: burst}, {GE: rare}}, Impairment{GE: burst, Loss: rare.Mean()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Compose(tt.in...); got != tt.want {
				t.Errorf("Compose(%+v) =\n%+v, want\n%+v", tt.in, got, tt.want)
			}
		})
	}
}

func TestValidateNamesAllThatIsWrong(t *testing.T) {
	err := Impairment{Delay: -1, Loss: math.NaN(), Dist: "gauss", Reorder: 0.1, Jitter: 2 * time.Hour}.Validate()
	want := "impairment: loss: NaN is not in 0..1\n" +
		"delay: -1ns is not in 0..1h0m0s\n" +
		"jitter: 2h0m0s is not in 0..1h0m0s\n" +
		`dist: "gauss" is none of uniform, normal, pareto`
	if err == nil || err.Error() != want {
		t.Errorf("err = %v\nwant  %s", err, want)
	}
}

func BenchmarkEngineDelay(b *testing.B) {
	e := engine(Impairment{Delay: ms})
	now := time.Duration(0)
	for b.Loop() {
		now += time.Microsecond
		e.Push(0, 1, ipv4(e, 100, 1), now)
		if f, ok := e.Pop(now); ok {
			e.Free(f.Data)
		}
	}
}
