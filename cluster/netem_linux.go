package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"

	"brownout/internal/sys/bpf"
	"brownout/internal/sys/netns"
	"brownout/internal/sys/qdisc"
	"brownout/internal/sys/unsupported"
	"brownout/internal/wire"
)

// An emulator is the kernel's own way to impair pairs, sch_netem, beside the
// wire: each pair that needs it has a couple of devices of its own. The port's
// program sends the pair's frames out of the one, where netem is the only queue,
// and the program on the other takes them on to their destination. So pairs
// know nothing of each other, there are no classes and filters to look through,
// and netem may duplicate, which it refuses beside siblings on one device.
type emulator struct {
	conn  *qdisc.Conn
	pairs map[[2]int]*emulated
	segs  map[int]int // what ports took as one before, of those that are limited
}

type emulated struct {
	index int             // of the device with netem
	imp   wire.Impairment // in force
}

var errTwoWays = errors.New("the pair is impaired by netem and by the wire at once; give both faults the same provider")

// Places of the couples' indices, clear of the ports'.
const firstPairIndex = 10_000

func (e *emulator) active(pair [2]int) bool {
	p := e.pairs[pair]
	return p != nil && p.imp != wire.Impairment{}
}

// rule is that of a pair which is not impaired otherwise.
func (e *emulator) rule(pair [2]int) bpf.Rule {
	if e.active(pair) {
		return bpf.To(e.pairs[pair].index)
	}
	return bpf.Pass
}

func (e *emulator) close() {
	if e.conn != nil {
		e.conn.Close()
	}
}

// ProbeNetem says whether this host can impair links by the kernel's own
// emulator, and whether that draws its chance by a seed.
func ProbeNetem(ctx context.Context) (seeded bool, err error) {
	if err := ProbeSwitch(ctx); err != nil {
		return false, err
	}
	ns, err := netns.New()
	if err != nil {
		return false, err
	}
	defer ns.Close()
	return qdisc.Probe(ns)
}

// Emulate puts imp on what goes from port src to port dst by netem, in place of
// what Emulate put there before. A partition by [Switch.Impair] has
// precedence; anything else by the wire cannot be on the same pair.
//
// What netem cannot do exactly is [errors.ErrUnsupported], see [Emulable].
// While any pair of src has more than a constant delay, src sends no
// super-packets, for netem would give all of one the same fate. What a pair
// holds when it is healed still arrives when it is due.
func (s *Switch) Emulate(ctx context.Context, src, dst int, imp wire.Impairment) error {
	err := Emulable(imp)
	if err == nil {
		err = s.emulate(src, dst, imp)
	}
	if err != nil {
		return fmt.Errorf("emulate %d to %d: %w", src, dst, err)
	}
	return context.Cause(ctx)
}

// Emulable says what of an impairment netem cannot do as the wire does it.
func Emulable(imp wire.Impairment) error {
	if err := imp.Validate(); err != nil {
		return err
	}
	for _, c := range []struct {
		is  bool
		why string
	}{
		{imp.Partition, "partitions are the switch's own"},
		{imp.Trace != "", "it draws delays and cannot play recorded ones"},
		{imp.LossEvery > 0 || imp.LossFirst > 0, "it loses by chance and does not count"},
		{imp.Ordered && imp.Jitter > 0, "it lets packets overtake when their delay varies"},
		{imp.Corr > 0, "its correlated delays vary less than asked (Jurgelionis et al., ICCCN 2011)"},
		{imp.Duplicate > 0 && (imp.Loss > 0 || imp.GE != wire.GE{}), "it decides on loss and duplication of a packet at once: what it loses of the doubled arrives"},
		{imp.Reorder > 0 && imp.RateBitsPerSec > 0, "what overtakes would pass its rate limit by"},
		{imp.Ahead > 0, "what overtakes skips all of its delay"},
		{imp.Reorder > 0 && imp.Jitter > 0, "with jitter packets overtake anyway"},
		{imp.Jitter > 0 && imp.RateBitsPerSec > 0, "behind a rate limit its delay varies less than asked"},
	} {
		if c.is {
			return &unsupported.Error{What: "netem", Why: c.why, Cure: "provider: wire"}
		}
	}
	return nil
}

func (s *Switch) emulate(src, dst int, imp wire.Impairment) (err error) {
	if src < 0 || src >= MaxPorts || dst < 0 || dst >= MaxPorts || src == dst {
		return fmt.Errorf("not two ports of 0..%d", MaxPorts-1)
	}
	if s.steer == nil {
		return s.steerErr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pair := [2]int{src, dst}
	other := s.inOut[pair]
	healthy := wire.Impairment{}
	if imp != healthy && other != healthy && !other.Partition {
		return errTwoWays
	}
	p := s.emu.pairs[pair]
	switch {
	case p == nil && imp == healthy:
		return nil
	case p == nil:
		if p, err = s.couple(pair); err != nil {
			return err
		}
	}
	was := p.imp
	n := netem(imp, s.cfg.MTU)
	n.Seed = s.cfg.Seed + uint64(src)<<32 + uint64(dst) + 1
	if imp != healthy {
		if err := s.emu.conn.Set(p.index, n); err != nil {
			return err
		}
	}
	p.imp = imp
	defer func() {
		if err != nil {
			p.imp = was
		}
	}()
	if err := s.segment(src); err != nil {
		return err
	}
	if other.Partition {
		return nil
	}
	return s.steer.Set(src, dst, s.emu.rule(pair))
}

// Emulated returns what [Switch.Emulate] has in force from port src to port dst.
func (s *Switch) Emulated(src, dst int) wire.Impairment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.emu.pairs[[2]int{src, dst}]; p != nil {
		return p.imp
	}
	return wire.Impairment{}
}

// couple makes a pair's devices. They stay for the switch's life.
func (s *Switch) couple(pair [2]int) (*emulated, error) {
	if s.emu.conn == nil {
		conn, err := qdisc.At(s.ns)
		if err != nil {
			return nil, err
		}
		s.emu = emulator{conn, map[[2]int]*emulated{}, map[int]int{}}
	}
	p := &emulated{index: firstPairIndex + MaxPorts*pair[0] + pair[1]}
	name := fmt.Sprintf("bo-e%d-%d", pair[0], pair[1])
	out, err := s.conn.Couple(name, p.index, s.cfg.MTU, "bo-x"+name[len("bo-e"):])
	if err != nil {
		return nil, err
	}
	if err := s.steer.AttachOut(s.conn, out); err != nil {
		return nil, errors.Join(err, s.conn.Delete(p.index))
	}
	s.emu.pairs[pair] = p
	return p, nil
}

// segment has a tenant send packets one by one if a pair needs that, and as
// before otherwise.
func (s *Switch) segment(src int) error {
	port := s.ports[src]
	if port == nil || port.conn == nil {
		return nil // nobody sends
	}
	single := false
	for pair, p := range s.emu.pairs {
		constant := wire.Impairment{Delay: p.imp.Delay}
		single = single || pair[0] == src && p.imp != constant
	}
	was, limited := s.emu.segs[src]
	switch {
	case single && !limited:
		was, err := port.conn.Segments(port.eth0)
		if err != nil {
			return err
		}
		if err := port.conn.SetSegments(port.eth0, 1); err != nil {
			return err
		}
		s.emu.segs[src] = was
	case !single && limited:
		if err := port.conn.SetSegments(port.eth0, was); err != nil {
			return err
		}
		delete(s.emu.segs, src)
	}
	return nil
}

// held bounds the packets that netem holds where no rate does.
const held = 1 << 20

// netem says an impairment in the kernel's words.
func netem(imp wire.Impairment, mtu int) qdisc.Netem {
	n := qdisc.Netem{
		Delay: imp.Delay, Jitter: imp.Jitter, Loss: imp.Loss, Duplicate: imp.Duplicate,
		Reorder: imp.Reorder, Corrupt: imp.Corrupt, Limit: held,
	}
	if imp.Jitter > 0 {
		n.Table = quantiles(imp.Dist)
	}
	if imp.GE != (wire.GE{}) {
		// netem's model replaces its plain loss; in either state the two are independent.
		either := func(a, b float64) float64 { return a + b - a*b }
		n.GE = &qdisc.GE{
			ToBad: imp.GE.ToBad, ToGood: imp.GE.ToGood,
			LossBad: either(imp.GE.LossBad, imp.Loss), LossGood: either(imp.GE.LossGood, imp.Loss),
		}
		n.Loss = 0
	}
	if imp.RateBitsPerSec > 0 {
		n.BytesPerSec = uint64(imp.RateBitsPerSec+7) / 8
		// The room is counted in packets: as many full ones as fit, and those under way.
		frame := int64(mtu + 14)
		queue := imp.QueueBytes
		if queue == 0 {
			queue = max(24<<10, imp.RateBitsPerSec/80)
		}
		underWay := imp.Delay.Seconds() * float64(n.BytesPerSec)
		n.Limit = uint32(min(max(1, (queue+int64(underWay))/frame), held))
	}
	return n
}

// quantiles are those of a distribution of jitter as the wire draws it.
func quantiles(d wire.Dist) []float64 {
	table := make([]float64, qdisc.MaxTable)
	for i := range table {
		p := (float64(i) + 0.5) / qdisc.MaxTable
		switch d {
		case wire.Normal:
			table[i] = math.Sqrt2 * math.Erfinv(2*p-1)
		case wire.Pareto: // shape 3 and scale 1: mean 3/2, standard deviation sqrt(3)/2
			table[i] = (math.Cbrt(1/(1-p)) - 1.5) / (math.Sqrt(3) / 2)
		default:
			table[i] = 2*p - 1
		}
	}
	return table
}
