package qdisc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// A Netem is all that sch_netem does to what a device sends. The zero value
// does nothing. A packet meets duplication, loss, corruption, then the rate's
// queue and the delay.
type Netem struct {
	Delay, Jitter time.Duration
	// Table is the distribution of the jitter: its quantile function at evenly
	// spaced points, in units of Jitter. Nil is uniform between -1 and 1.
	Table []float64

	Loss      float64 // probabilities, 0..1
	Duplicate float64
	Reorder   float64 // that a packet skips the delay
	Corrupt   float64 // that one bit flips
	GE        *GE     // loss in bursts, in place of Loss

	BytesPerSec uint64 // 0: no limit
	Limit       uint32 // packets that are held at most; what finds no room is dropped
	Seed        uint64 // of all chance, from Linux 6.7; older kernels ignore it
}

// GE is the Gilbert-Elliott model. NB: the kernel takes 1-LossBad ("h").
type GE struct{ ToBad, ToGood, LossBad, LossGood float64 }

// MaxTable is the number of points that the kernel takes.
const MaxTable = 16384

// Attributes, include/uapi/linux/pkt_sched.h.
const (
	attrCorr      = 1
	attrDist      = 2
	attrReorder   = 3
	attrCorrupt   = 4
	attrLoss      = 5
	attrRate      = 6
	attrRate64    = 8
	attrLatency64 = 10
	attrJitter64  = 11
	attrSeed      = 14
	lossGE        = 2

	nested = 1 << 15 // NLA_F_NESTED

	tableScale = 8192 // NETEM_DIST_SCALE: 1 in a table
)

var le = binary.NativeEndian // as netlink has it

// fraction is a probability as the kernel has it.
func fraction(p float64) uint32 { return uint32(math.Round(p * math.MaxUint32)) }

// options are the body of TCA_OPTIONS. All attributes are always there: the
// kernel keeps what a change does not mention.
func (n Netem) options() ([]byte, error) {
	for _, p := range []float64{n.Loss, n.Duplicate, n.Reorder, n.Corrupt} {
		if !(p >= 0 && p <= 1) { // NaN too
			return nil, fmt.Errorf("netem: probability %v is not in 0..1", p)
		}
	}
	if n.Delay < 0 || n.Jitter < 0 {
		return nil, errors.New("netem: negative delay or jitter")
	}
	if n.Reorder > 0 && n.BytesPerSec > 0 {
		return nil, errors.New("netem: what skips the delay would skip the rate limit too")
	}
	sigma, table, err := n.table()
	if err != nil {
		return nil, err
	}
	var b []byte
	u32 := func(vs ...uint32) (out []byte) {
		for _, v := range vs {
			out = le.AppendUint32(out, v)
		}
		return out
	}
	gap := uint32(0)
	if n.Reorder > 0 {
		gap = 1 // every packet may skip, with the probability below
	}
	// struct tc_netem_qopt: latency and jitter are in LATENCY64 and JITTER64.
	b = append(b, u32(0, n.Limit, fraction(n.Loss), gap, fraction(n.Duplicate), 0)...)
	attr := func(kind uint16, body []byte) {
		b = le.AppendUint16(b, uint16(4+len(body)))
		b = le.AppendUint16(b, kind)
		b = append(append(b, body...), make([]byte, -len(body)&3)...)
	}
	attr(attrLatency64, le.AppendUint64(nil, uint64(n.Delay)))
	attr(attrJitter64, le.AppendUint64(nil, uint64(sigma)))
	attr(attrCorr, u32(0, 0, 0))
	attr(attrReorder, u32(fraction(n.Reorder), 0))
	attr(attrCorrupt, u32(fraction(n.Corrupt), 0))
	attr(attrRate64, le.AppendUint64(nil, n.BytesPerSec))
	attr(attrRate, u32(uint32(min(n.BytesPerSec, math.MaxUint32)), 0, 0, 0))
	if table != nil {
		attr(attrDist, table)
	}
	if n.GE != nil {
		g := *n.GE
		ge := u32(fraction(g.ToBad), fraction(g.ToGood), fraction(1-g.LossBad), fraction(g.LossGood))
		inner := append(u32(uint32(lossGE)<<16|uint32(4+len(ge))), ge...) // length, then kind; little endian
		if le.Uint16([]byte{1, 0}) != 1 {
			return nil, errors.New("netem: not written for big endian machines")
		}
		attr(attrLoss|nested, inner)
	}
	attr(attrSeed, le.AppendUint64(nil, n.Seed))
	return b, nil
}

// table is the distribution in the kernel's 16-bit steps, and the jitter that
// it is to be multiplied with: a heavy tail does not fit into ±4 jitters, so
// then the steps are made wider and the jitter as much larger.
func (n Netem) table() (time.Duration, []byte, error) {
	if n.Jitter == 0 {
		return 0, nil, nil
	}
	points := n.Table
	if points == nil { // not left out: a change would keep the table before
		points = make([]float64, 4096)
		for i := range points {
			points[i] = 2*(float64(i)+0.5)/float64(len(points)) - 1
		}
	}
	if len(points) > MaxTable {
		return 0, nil, fmt.Errorf("netem: a table of %d points; the kernel takes %d", len(points), MaxTable)
	}
	most := 0.0
	for _, p := range points {
		most = max(most, math.Abs(p))
	}
	wider := math.Max(1, most*tableScale/math.MaxInt16)
	var out []byte
	for _, p := range points {
		out = le.AppendUint16(out, uint16(int16(math.Round(p/wider*tableScale))))
	}
	sigma := time.Duration(math.Round(float64(n.Jitter) * wider))
	if sigma > math.MaxInt32 {
		// The kernel computes with 32 bits of nanoseconds here.
		return 0, nil, fmt.Errorf("netem: a jitter of %v is more than it can do (%v)", n.Jitter, time.Duration(math.MaxInt32/wider))
	}
	return sigma, out, nil
}

// decode reads options back. The kernel does not tell its table.
func decode(b []byte) (n Netem, seeded bool, err error) {
	const head = 24
	if len(b) < head {
		return n, false, fmt.Errorf("netem: options of %d bytes", len(b))
	}
	p := func(v uint32) float64 { return float64(v) / math.MaxUint32 }
	n.Limit, n.Loss, n.Duplicate = le.Uint32(b[4:]), p(le.Uint32(b[8:])), p(le.Uint32(b[16:]))
	gap := le.Uint32(b[12:])
	return n, seeded, eachAttr(b[head:], func(kind uint16, body []byte) error {
		need := map[uint16]int{attrReorder: 4, attrCorrupt: 4, attrRate: 4, attrRate64: 8, attrLatency64: 8, attrJitter64: 8, attrSeed: 8}[kind]
		if len(body) < need {
			return fmt.Errorf("netem: attribute %d of %d bytes", kind, len(body))
		}
		switch kind {
		case attrReorder:
			if gap > 0 {
				n.Reorder = p(le.Uint32(body))
			}
		case attrCorrupt:
			n.Corrupt = p(le.Uint32(body))
		case attrRate:
			n.BytesPerSec = max(n.BytesPerSec, uint64(le.Uint32(body)))
		case attrRate64:
			n.BytesPerSec = le.Uint64(body)
		case attrLatency64:
			n.Delay = time.Duration(le.Uint64(body))
		case attrJitter64:
			n.Jitter = time.Duration(le.Uint64(body))
		case attrSeed:
			n.Seed, seeded = le.Uint64(body), true
		case attrLoss:
			return eachAttr(body, func(kind uint16, body []byte) error {
				if kind == lossGE && len(body) >= 16 {
					v := func(i int) float64 { return p(le.Uint32(body[4*i:])) }
					n.GE = &GE{v(0), v(1), 1 - v(2), v(3)}
				}
				return nil
			})
		}
		return nil
	})
}

func eachAttr(b []byte, f func(kind uint16, body []byte) error) error {
	for len(b) >= 4 {
		size := int(le.Uint16(b))
		if size < 4 || size > len(b) {
			return fmt.Errorf("netem: attribute of %d bytes in %d", size, len(b))
		}
		if err := f(le.Uint16(b[2:])&^nested, b[4:size]); err != nil {
			return err
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}

// same says what of n the kernel does not have, "" for nothing.
func (n Netem) same(got Netem) string {
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-8 }
	var bad string
	check := func(name string, ok bool, want, has any) {
		if !ok && bad == "" {
			bad = fmt.Sprintf("%s is %v, not %v", name, has, want)
		}
	}
	sigma, _, _ := n.table()
	check("delay", got.Delay == n.Delay, n.Delay, got.Delay)
	check("jitter", got.Jitter == sigma, sigma, got.Jitter)
	check("duplication", near(got.Duplicate, n.Duplicate), n.Duplicate, got.Duplicate)
	check("reordering", near(got.Reorder, n.Reorder), n.Reorder, got.Reorder)
	check("corruption", near(got.Corrupt, n.Corrupt), n.Corrupt, got.Corrupt)
	check("rate", got.BytesPerSec == n.BytesPerSec, n.BytesPerSec, got.BytesPerSec)
	check("limit", got.Limit == n.Limit, n.Limit, got.Limit)
	if n.GE == nil {
		check("loss", near(got.Loss, n.Loss) && got.GE == nil, n.Loss, got.Loss)
	} else {
		check("loss in bursts", got.GE != nil && near(got.GE.ToBad, n.GE.ToBad) && near(got.GE.ToGood, n.GE.ToGood) &&
			near(got.GE.LossBad, n.GE.LossBad) && near(got.GE.LossGood, n.GE.LossGood), n.GE, got.GE)
	}
	return bad
}
