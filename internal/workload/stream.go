package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"brownout/internal/history"
	"brownout/internal/plan"
	"brownout/internal/seed"
)

// Bounds of what [Describe] keeps of a stream.
const (
	DescribedRows = 2_000
	HashedOps     = 100_000
)

// MaxKeys bounds the table of the zipf distribution (8 bytes a key).
const MaxKeys = 10_000_000

// Check says what is wrong with the part of a load that a [Stream] reads.
func Check(l plan.Load) error {
	var errs []error
	if l.Keys < 1 || l.Keys > MaxKeys {
		errs = append(errs, fmt.Errorf("keys: %d is not in 1..%d", l.Keys, MaxKeys))
	}
	if !slices.Contains([]string{"uniform", "zipf", "sequential"}, l.Dist) {
		errs = append(errs, fmt.Errorf("dist: %q is not uniform, zipf or sequential", l.Dist))
	}
	if l.Dist == "zipf" && !(l.Zipf > 0 && l.Zipf <= 10) {
		errs = append(errs, fmt.Errorf("zipf: exponent %v is not in (0, 10]", l.Zipf))
	}
	if l.ValueSize < 0 {
		errs = append(errs, fmt.Errorf("value: %d bytes is negative", l.ValueSize))
	}
	if l.Rate < 0 || math.IsInf(l.Rate, 0) || math.IsNaN(l.Rate) {
		errs = append(errs, fmt.Errorf("rate: %v is not a rate", l.Rate))
	}
	var sum float64
	for _, s := range l.Mix {
		switch history.Kind(s.Kind) {
		case history.Get, history.Put, history.CAS, history.Append, history.Delete:
		default:
			errs = append(errs, fmt.Errorf("mix: %q is not get, put, cas, append or delete", s.Kind))
		}
		if !(s.P >= 0 && s.P <= 1) {
			errs = append(errs, fmt.Errorf("mix: share %v of %s is not in 0..1", s.P, s.Kind))
		}
		sum += s.P
	}
	if !(math.Abs(sum-1) < 1e-6) {
		errs = append(errs, fmt.Errorf("mix: shares sum to %v, not 1", sum))
	}
	return errors.Join(errs...)
}

// A Stream is the endless stream of operations of a load: a pure function of
// the load and the seed. Arrivals are a Poisson process, so that a stall of the
// target meets as many operations as it would have met from the outside world.
//
// Every draw goes through helpers of our own over [rand/v2.PCG.Uint64], and
// logarithms are computed here without fused operations: the bytes of a plan
// depend neither on the Go release nor on the processor.
type Stream struct {
	load     plan.Load
	op       int64
	gaps     int64     // since the start, in units of 1e-9 mean gaps; enough for 9e9 operations
	kinds    []float64 // cumulative shares of the mix
	zipf     []float64 // cumulative weights, unnormalized
	arrivals *rand.Rand
	keys     *rand.Rand
	mix      *rand.Rand
}

// NewStream returns the stream of l and seed. It panics if [Check] finds l wrong.
func NewStream(l plan.Load, seedOf uint64) *Stream {
	if err := Check(l); err != nil {
		panic(fmt.Sprintf("workload: stream of an unchecked load: %v", err))
	}
	s := &Stream{
		load:     l,
		arrivals: seed.Stream(seedOf, "arrivals"),
		keys:     seed.Stream(seedOf, "keys"),
		mix:      seed.Stream(seedOf, "mix"),
	}
	var sum float64
	for _, share := range l.Mix {
		sum += share.P
		s.kinds = append(s.kinds, sum)
	}
	if l.Dist == "zipf" {
		s.zipf = make([]float64, l.Keys)
		sum = 0
		for i := range s.zipf {
			sum += exp(-l.Zipf * log(float64(i+1)))
			s.zipf[i] = sum
		}
	}
	return s
}

// Next returns the next operation. Operations count from 1. Due is in ns since
// the start of the load if its rate is absolute, in mean gaps if the rate is a
// share of the maximum, and 0 in a closed loop.
func (s *Stream) Next() plan.Row {
	s.op++
	row := plan.Row{Op: s.op, Kind: s.kind(), Key: "k" + strconv.Itoa(s.key())}
	switch history.Kind(row.Kind) {
	case history.Put, history.CAS:
		row.Value = "v" + strconv.FormatInt(s.op, 10)
	case history.Append:
		row.Value = "+a" + strconv.FormatInt(s.op, 10)
	case history.Delete:
		row.Value = "x" + strconv.FormatInt(s.op, 10)
	}
	switch {
	case s.load.Closed:
	case s.load.Rate > 0:
		row.Due = math.Round(float64(s.gap()) / s.load.Rate)
	default:
		row.Due = float64(s.gap()) / 1e9
	}
	return row
}

// gap draws an exponential gap and returns the time of the arrival, in 1e-9 mean gaps.
func (s *Stream) gap() int64 {
	s.gaps += int64(math.Round(float64(-1e9 * log(unit(s.arrivals)))))
	return s.gaps
}

func (s *Stream) kind() string {
	at := s.kinds[len(s.kinds)-1] * (1 - unit(s.mix)) // in [0, sum)
	for i, upTo := range s.kinds {
		if at < upTo {
			return s.load.Mix[i].Kind
		}
	}
	return s.load.Mix[len(s.load.Mix)-1].Kind
}

func (s *Stream) key() int {
	switch s.load.Dist {
	case "sequential":
		return int((s.op - 1) % int64(s.load.Keys))
	case "zipf":
		at := s.zipf[len(s.zipf)-1] * unit(s.keys) // in (0, sum]
		i, _ := slices.BinarySearch(s.zipf, at)
		return min(i, len(s.zipf)-1)
	}
	return min(int((1-unit(s.keys))*float64(s.load.Keys)), s.load.Keys-1)
}

// Describe returns the beginning of the stream of l and seed, and a digest of
// its first [HashedOps] operations.
func Describe(l plan.Load, seedOf uint64) plan.Ops {
	ops := plan.Ops{Unit: "ns", Hashed: HashedOps, Rows: make([]plan.Row, 0, DescribedRows)}
	if !l.Closed && l.Rate <= 0 {
		ops.Unit = "gaps"
	}
	s, h := NewStream(l, seedOf), sha256.New()
	var line []byte
	for range HashedOps {
		row := s.Next()
		if len(ops.Rows) < DescribedRows {
			ops.Rows = append(ops.Rows, row)
		}
		line = append(appendRow(line[:0], row), '\n')
		h.Write(line)
	}
	ops.SHA256 = hex.EncodeToString(h.Sum(nil))
	return ops
}

// appendRow encodes as encoding/json does, several times as fast. None of a
// row's words needs escaping, and Due is below 1e21 and 0 or above 1e-6 by far
// more than the luck of any seed: a gap is a multiple of 1e-9 of its mean.
func appendRow(b []byte, r plan.Row) []byte {
	b = strconv.AppendInt(append(b, `{"op":`...), r.Op, 10)
	b = strconv.AppendFloat(append(b, `,"due":`...), r.Due, 'f', -1, 64)
	b = append(append(b, `,"kind":"`...), r.Kind...)
	b = append(append(b, `","key":"`...), r.Key...)
	if r.Value != "" {
		b = append(append(b, `","value":"`...), r.Value...)
	}
	return append(b, `"}`...)
}

// unit draws from (0, 1], a multiple of 2^-53.
func unit(r *rand.Rand) float64 { return float64(r.Uint64()>>11+1) * 0x1p-53 }

// ln2 in two parts: ln2Hi has trailing zeros, so that k*ln2Hi is exact.
const (
	ln2Hi = 6.93147180369123816490e-01
	ln2Lo = 1.90821492927058770002e-10
)

// log returns the natural logarithm of a positive finite x, to within 1 ulp
// (FreeBSD's e_log.c). Unlike [math.Log] it is the same on every processor: the
// conversions forbid fused multiply-add.
func log(x float64) float64 {
	f, ki := math.Frexp(x)
	if f < math.Sqrt2/2 {
		f *= 2
		ki--
	}
	f--
	k := float64(ki)
	s := f / (2 + f)
	s2 := float64(s * s)
	s4 := float64(s2 * s2)
	poly := func(x float64, cs ...float64) (sum float64) {
		for _, c := range cs {
			sum = float64(sum*x) + c
		}
		return sum
	}
	t1 := float64(s2 * poly(s4, 1.479819860511658591e-01, 1.818357216161805012e-01, 2.857142874366239149e-01, 6.666666666666735130e-01))
	t2 := float64(s4 * poly(s4, 1.531383769920937332e-01, 2.222219843214978396e-01, 3.999999999940941908e-01))
	half := float64(0.5 * float64(f*f))
	return float64(k*ln2Hi) - ((half - (float64(s*(half+t1+t2)) + float64(k*ln2Lo))) - f)
}

// exp returns e^x for -700 < x < 700 to within a few ulp, the same on every
// processor: a Taylor series on |r| <= ln2/2, scaled by a power of two.
func exp(x float64) float64 {
	k := math.Floor(float64(x/math.Ln2) + 0.5)
	r := x - float64(k*ln2Hi)
	r -= float64(k * ln2Lo)
	sum := 1.0
	for n := 20; n >= 1; n-- {
		sum = 1 + float64(sum*r)/float64(n)
	}
	return math.Ldexp(sum, int(k))
}
