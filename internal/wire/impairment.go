package wire

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// MaxPorts is the number of ports that a wire knows: 0..62.
const MaxPorts = 63

// An Impairment is all that is wrong with one directed link. The zero value is
// a healthy link. A frame meets, in this order: partition, loss, duplication,
// the rate's queue, delay with jitter, reordering, corruption.
type Impairment struct {
	Delay  time.Duration `json:"delay_ns,omitzero"`
	Jitter time.Duration `json:"jitter_ns,omitzero"` // spread of the delay, see Dist
	Dist   Dist          `json:"dist,omitzero"`
	// Corr is the correlation of one frame's jitter with the next one's, 0..1:
	// a first-order autoregressive normal process, mapped onto Dist.
	Corr    float64 `json:"corr,omitzero"`
	Ordered bool    `json:"ordered,omitzero"` // jitter never reorders: a frame waits for those before it

	// Trace is recorded delays in place of drawn ones, in ns with commas between:
	// the packets take one after the other, over and over. Delay comes on top.
	Trace string `json:"trace,omitzero"`

	Loss      float64 `json:"loss,omitzero"`       // probability of losing a packet, 0..1
	LossEvery int64   `json:"loss_every,omitzero"` // every so many-th packet is lost, from the next on
	LossFirst int64   `json:"loss_first,omitzero"` // the next so many packets are lost
	GE        GE      `json:"ge,omitzero"`         // loss in bursts, besides Loss
	Duplicate float64 `json:"duplicate,omitzero"`
	Reorder   float64 `json:"reorder,omitzero"` // probability that a packet skips Ahead of the delay; needs one
	Corrupt   float64 `json:"corrupt,omitzero"` // probability that one bit of a packet flips; checksums catch it

	Ahead time.Duration `json:"ahead_ns,omitzero"` // how far a reordered packet gets; default the whole delay

	// RateBitsPerSec limits Ethernet frames, counted from the MAC header to the
	// end of the payload: no preamble, checksum or gap, as tc(8) counts.
	RateBitsPerSec int64 `json:"rate_bits_per_s,omitzero"`
	// QueueBytes is the room before the rate limit; what finds no room is
	// dropped. Default: 100 ms at the rate, at least 24 KiB.
	QueueBytes int64 `json:"queue_bytes,omitzero"`

	Partition bool `json:"partition,omitzero"` // nothing passes
}

// A Dist is the distribution of jitter.
type Dist string

// Distributions. A delay that would be negative is none at all, so a jitter
// that is large against the delay raises the mean.
const (
	Uniform Dist = "uniform" // Delay ± Jitter; the default
	Normal  Dist = "normal"  // mean Delay, standard deviation Jitter
	Pareto  Dist = "pareto"  // shape 3, mean Delay, standard deviation Jitter: a heavy tail to the right
)

// GE is the Gilbert-Elliott model: a link that is in a good or a bad state and
// changes it, perhaps, before each packet. The zero value is no model. The mean
// loss is [GE.Mean]. (E. O. Elliott, Bell System Technical Journal 42, 1963.)
type GE struct {
	ToBad    float64 `json:"to_bad,omitzero"`    // p: probability of good to bad
	ToGood   float64 `json:"to_good,omitzero"`   // r: probability of bad to good
	LossBad  float64 `json:"loss_bad,omitzero"`  // 1-h: probability of losing a packet while bad
	LossGood float64 `json:"loss_good,omitzero"` // 1-k: probability of losing a packet while good
}

// Mean is the share of packets lost in the long run.
func (g GE) Mean() float64 {
	if g.ToBad+g.ToGood == 0 {
		return g.LossGood
	}
	bad := g.ToBad / (g.ToBad + g.ToGood)
	return bad*g.LossBad + (1-bad)*g.LossGood
}

// perPacket says that each packet has a fate of its own, so that a super-packet
// must be split before.
func (i Impairment) perPacket() bool {
	return i.Loss > 0 || i.LossEvery > 0 || i.LossFirst > 0 || i.Trace != "" || i.GE != GE{} || i.Duplicate > 0 || i.Reorder > 0 || i.Corrupt > 0 || i.Jitter > 0
}

// minHold returns the shortest time for which a frame that survives is held.
func (i Impairment) minHold() time.Duration {
	switch {
	case i.Reorder > 0:
		return max(0, Impairment{Delay: i.Delay, Jitter: i.Jitter, Dist: i.Dist, Trace: i.Trace}.minHold()-i.ahead())
	case i.Trace != "", i.Jitter > 0 && i.Dist == Normal:
		return 0
	case i.Jitter > 0:
		return max(0, i.Delay-2*i.Jitter) // no further down than √3 of it
	default:
		return i.Delay
	}
}

// ahead is how much of its delay a reordered packet skips.
func (i Impairment) ahead() time.Duration {
	if i.Ahead > 0 {
		return i.Ahead
	}
	return math.MaxInt64 / 2
}

// mostTrace bounds a trace: the whole impairment is one control message.
const mostTrace = 10_000

// MakeTrace is the Trace of recorded delays.
func MakeTrace(delays []time.Duration) string {
	var b []byte
	for i, d := range delays {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(d), 10)
	}
	return string(b)
}

// trace reads Trace.
func (i Impairment) trace() (out []time.Duration, err error) {
	if i.Trace == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(i.Trace, ",") {
		v, err := strconv.ParseInt(word, 10, 64)
		if err != nil || v < 0 || v > int64(time.Hour) {
			return nil, fmt.Errorf("%.20q is not a number of ns in 0..%v", word, time.Hour)
		}
		out = append(out, time.Duration(v))
	}
	return out, nil
}

// queue returns the room of the rate's queue in bytes.
func (i Impairment) queue() int64 {
	if i.QueueBytes > 0 {
		return i.QueueBytes
	}
	return max(24<<10, i.RateBitsPerSec/80)
}

// Validate returns everything that is wrong with i at once.
func (i Impairment) Validate() error {
	var errs []error
	for _, p := range []struct {
		name  string
		value float64
	}{
		{"corr", i.Corr},
		{"loss", i.Loss},
		{"ge.to_bad", i.GE.ToBad},
		{"ge.to_good", i.GE.ToGood},
		{"ge.loss_bad", i.GE.LossBad},
		{"ge.loss_good", i.GE.LossGood},
		{"duplicate", i.Duplicate},
		{"reorder", i.Reorder},
		{"corrupt", i.Corrupt},
	} {
		if !(p.value >= 0 && p.value <= 1) { // NaN too
			errs = append(errs, fmt.Errorf("%s: %v is not in 0..1", p.name, p.value))
		}
	}
	const longest = time.Hour
	if i.Delay < 0 || i.Delay > longest {
		errs = append(errs, fmt.Errorf("delay: %v is not in 0..%v", i.Delay, longest))
	}
	if i.Jitter < 0 || i.Jitter > longest {
		errs = append(errs, fmt.Errorf("jitter: %v is not in 0..%v", i.Jitter, longest))
	}
	switch i.Dist {
	case "", Uniform, Normal, Pareto:
	default:
		errs = append(errs, fmt.Errorf("dist: %q is none of %s, %s, %s", i.Dist, Uniform, Normal, Pareto))
	}
	if i.LossEvery < 0 || i.LossFirst < 0 {
		errs = append(errs, fmt.Errorf("loss: every %d and first %d packets", i.LossEvery, i.LossFirst))
	}
	if trace, err := i.trace(); err != nil {
		errs = append(errs, fmt.Errorf("trace: %w", err))
	} else if len(trace) > mostTrace {
		errs = append(errs, fmt.Errorf("trace: %d delays are more than %d", len(trace), mostTrace))
	}
	if i.Reorder > 0 && i.Delay == 0 {
		errs = append(errs, errors.New("reorder: needs a delay that a packet can skip"))
	}
	if i.Ahead < 0 || i.Ahead > 0 && i.Ahead > i.Delay {
		errs = append(errs, fmt.Errorf("ahead: %v is not in 0..%v, the delay", i.Ahead, i.Delay))
	}
	if i.RateBitsPerSec < 0 {
		errs = append(errs, fmt.Errorf("rate: %d bit/s is negative", i.RateBitsPerSec))
	}
	if i.QueueBytes < 0 {
		errs = append(errs, fmt.Errorf("queue: %d bytes is negative", i.QueueBytes))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("impairment: %w", err)
	}
	return nil
}

// Compose returns what several faults on one link amount to:
//
//   - partition dominates everything;
//   - delays add; jitters add as independent deviations do (root of the sum of
//     squares), with the distribution and correlation of the largest;
//   - losses, duplications, reorderings and corruptions are independent: 1-(1-a)(1-b);
//   - what overtakes skips the delay of its own fault, the longest of several, and no other;
//   - of several Gilbert-Elliott models the one with the highest mean is kept
//     and the others enter as plain loss of their mean;
//   - of several traces the first is kept, and other delays come on top;
//   - of losses of every nth packet the most frequent wins, of the first n the most;
//   - the lowest rate wins, with its queue;
//   - packets keep their order if each of the jitters and traces keeps it: of
//     links in a row, one that lets packets overtake is enough.
//
// The order of the arguments does not matter, except that the first of equals wins.
func Compose(faults ...Impairment) Impairment {
	var all Impairment
	either := func(a, b float64) float64 { return a + b - a*b }
	var jitter float64
	var largest time.Duration
	free := false // some jitter or trace lets packets overtake
	for _, f := range faults {
		all.Partition = all.Partition || f.Partition
		all.Ordered = all.Ordered || f.Ordered
		free = free || !f.Ordered && (f.Jitter > 0 || f.Trace != "")
		all.Delay += f.Delay
		jitter = math.Hypot(jitter, float64(f.Jitter))
		if f.Jitter > largest {
			largest, all.Dist, all.Corr = f.Jitter, f.Dist, f.Corr
		}
		if all.Trace == "" {
			all.Trace = f.Trace
		}
		if f.LossEvery > 0 && (all.LossEvery == 0 || f.LossEvery < all.LossEvery) {
			all.LossEvery = f.LossEvery
		}
		all.LossFirst = max(all.LossFirst, f.LossFirst)
		all.Loss = either(all.Loss, f.Loss)
		all.Duplicate = either(all.Duplicate, f.Duplicate)
		if f.Reorder > 0 { // of its own delay, not of others'
			all.Ahead = max(all.Ahead, cmp.Or(f.Ahead, f.Delay))
		}
		all.Reorder = either(all.Reorder, f.Reorder)
		all.Corrupt = either(all.Corrupt, f.Corrupt)
		switch {
		case f.GE == GE{}:
		case f.GE.Mean() > all.GE.Mean() || all.GE == GE{}:
			all.Loss = either(all.Loss, all.GE.Mean())
			all.GE = f.GE
		default:
			all.Loss = either(all.Loss, f.GE.Mean())
		}
		if f.RateBitsPerSec > 0 && (all.RateBitsPerSec == 0 || f.RateBitsPerSec < all.RateBitsPerSec) {
			all.RateBitsPerSec, all.QueueBytes = f.RateBitsPerSec, f.QueueBytes
		}
	}
	if all.Ahead == all.Delay {
		all.Ahead = 0
	}
	all.Ordered = all.Ordered && !free
	all.Jitter = time.Duration(math.Round(jitter))
	return all
}
