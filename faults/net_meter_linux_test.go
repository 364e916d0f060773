package faults

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"brownout/internal/wire"
)

const testTick = time.Millisecond

// drawn are delays as the engine of the wire draws them, in virtual time.
func drawn(t *testing.T, imp wire.Impairment, n int) []time.Duration {
	t.Helper()
	e := wire.New(7, 1<<30)
	e.Set(0, 1, imp, 0)
	var out []time.Duration
	now := time.Duration(0)
	for range n {
		now += time.Second // nobody overtakes
		f := e.Alloc(100)
		clear(f)
		e.Push(0, 1, f, now)
		if due, ok := e.Next(); ok {
			out = append(out, due-now)
			if f, ok := e.Pop(due); ok {
				e.Free(f.Data)
			}
		}
	}
	return out
}

// TestLawIsWhatTheWireDraws: the distributions that a meter expects are those
// that are asked for, and no others.
func TestLawIsWhatTheWireDraws(t *testing.T) {
	const add = 20 * testTick
	for _, dist := range []wire.Dist{wire.Uniform, wire.Normal, wire.Pareto} {
		for _, jitter := range []time.Duration{4 * testTick, 15 * testTick} { // the normal one is cut off at zero
			t.Run(fmt.Sprint(dist, " ", jitter), func(t *testing.T) {
				got := drawn(t, wire.Impairment{Delay: add, Jitter: jitter, Dist: dist}, 2000)
				dose := func(add, jitter time.Duration, dist wire.Dist) law {
					return lawOf(Dose{"add_ns": int64(add), "jitter_ns": int64(jitter), "dist": string(dist)}, 0)
				}
				if why, ok := dose(add, jitter, dist).fits(got, 0, false, delayShare, delayLeast); !ok {
					t.Error(why)
				}
				for name, wrong := range map[string]law{
					"no jitter":   dose(add, 0, dist),
					"half of it":  dose(add, jitter/2, dist),
					"twice of it": dose(add, 2*jitter, dist),
					"more delay":  dose(add+5*testTick, jitter, dist),
				} {
					if _, ok := wrong.fits(got, 0, false, delayShare, delayLeast); ok {
						t.Errorf("%s is taken for it", name)
					}
				}
			})
		}
	}
	uniform := drawn(t, wire.Impairment{Delay: add, Jitter: 15 * testTick}, 2000)
	if _, ok := lawOf(Dose{"add_ns": int64(add), "jitter_ns": int64(8700 * time.Microsecond), "dist": "normal"}, 0).fits(uniform, 0, false, delayShare, delayLeast); ok {
		t.Error("a uniform distribution is taken for a normal one of the same deviation")
	}
}

func TestOvertakingIsSeenButByTheFirst(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range []float64{0.05, 0.25, 0.8} {
		var all []datagram
		for b := range 3000 {
			at := time.Duration(b+1) * 20 * testTick
			for i := range burst {
				d := datagram{wall: at, arrived: at + 5*testTick + time.Duration(i)}
				if rng.Float64() < p {
					d.arrived = at + time.Duration(i)
				}
				all = append(all, d)
			}
		}
		s := overtaking(all)
		want := overtakes(p)
		if math.Abs(s.of()-want) > 4*sigma(want, s.n) {
			t.Errorf("of %v: %v overtake, want %v", p, s.of(), want)
		}
	}
}

func TestDispersion(t *testing.T) {
	train := func(lost ...int) (ps []datagram) {
		for i := range 10 {
			ps = append(ps, datagram{arrived: time.Duration(i+1) * testTick})
		}
		for _, i := range lost {
			ps[i].arrived = 0
		}
		return ps
	}
	for _, tt := range []struct {
		name string
		ps   []datagram
		want float64
		ok   bool
	}{
		{"whole", train(), 1e6, true},
		{"the end dropped by the queue", train(7, 8, 9), 1e6, true},
		{"too little came", train(1, 2, 3, 4, 5, 6), 0, false},
		{"nothing came", train(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), 0, false},
		{"all at once", []datagram{{arrived: 1}, {arrived: 1}, {arrived: 1}}, 2e9, true},
	} {
		if got, ok := dispersion(tt.ps, 125); ok != tt.ok || math.Abs(got-tt.want) > 1 {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestTrainsFitTheirLinkAndItsQueue(t *testing.T) {
	for _, limit := range []float64{8e3, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10} {
		for _, queue := range []int{3000, 256 << 10, 64 << 20} {
			s := trainsFor(limit, queue)
			frame := s.size + headers
			if s.count < trainLeast || s.size < 18 || frame > mtu+14 {
				t.Errorf("%s, queue %d: %+v", rate(limit), queue, s)
			}
			if bytes := s.count * frame; bytes > queue && s.count > trainLeast {
				t.Errorf("%s: a train of %d bytes does not fit into a queue of %d", rate(limit), bytes, queue)
			}
			if load := s.perSecond * float64(s.count*frame*8) / limit; load > trainSlowly+1e-9 {
				t.Errorf("%s, queue %d: trains take %.2f of the link", rate(limit), queue, load)
			}
			if limit >= 1e6 && limit <= 1e9 && queue >= 256<<10 && s.perSecond < 2 {
				t.Errorf("%s, queue %d: %.2f trains a second", rate(limit), queue, s.perSecond)
			}
		}
	}
}

func TestSNMPCounters(t *testing.T) {
	const text = "Ip: Forwarding DefaultTTL InHdrErrors\nIp: 2 64 7\nIcmp: InMsgs\nIcmp: 0\nUdp: InDatagrams NoPorts InErrors InCsumErrors\nUdp: 1 2 3 4\nUdpLite: InErrors\nUdpLite: 9\n"
	for name, want := range map[[2]string]int64{{"Ip", "InHdrErrors"}: 7, {"Udp", "InErrors"}: 3, {"Udp", "Nothing"}: 0, {"Tcp", "InErrs"}: 0} {
		if got := snmp(text, name[0], name[1]); got != want {
			t.Errorf("%s %s = %d, want %d", name[0], name[1], got, want)
		}
	}
}

// TestATrainCountsIfItCameInWithinATurn: however long it waited before the
// limit, and not if the turn, and the limit with it, was over before its end.
func TestATrainCountsIfItCameInWithinATurn(t *testing.T) {
	const gap = 500 * time.Microsecond
	m := &rateMeter{
		linkMeter:  linkMeter{links: []Link{{"n1", "n2"}}, probes: &prober{sent: make([][]datagram, 1), first: make([]uint32, 1)}},
		trainShape: trainShape{size: 83, count: 5}, starts: make([][]train, 1),
	}
	begin := time.Now()
	send := func(at, waits time.Duration) {
		sent := begin.Add(at)
		m.starts[0] = append(m.starts[0], train{sent, uint32(len(m.probes.sent[0]))})
		for k := range m.count {
			wall := time.Duration(sent.UnixNano())
			m.probes.sent[0] = append(m.probes.sent[0], datagram{sent: sent, wall: wall, arrived: wall + waits + time.Duration(k)*gap, copies: 1})
		}
	}
	send(10*testTick, 700*testTick)  // most of the turn
	send(200*testTick, 799*testTick) // its last packet comes in after the turn
	send(990*testTick, 900*testTick)
	var turn spans
	turn.add(begin, begin.Add(time.Second))
	const want = (83 + headers) * 8 / 500e-6
	if got := m.ratesOf(0, turn); len(got) != 1 || math.Abs(got[0]-want) > 1 {
		t.Errorf("rates %v, want %v once", got, want)
	}
}

// TestLawOnALinkThatTakesTime: a jitter on a distant link may let packets
// arrive earlier than without it, which none can on a near one.
func TestLawOnALinkThatTakesTime(t *testing.T) {
	const far = 33 * testTick
	dose := Dose{"add_ns": int64(10 * testTick), "jitter_ns": int64(6 * testTick), "dist": "normal"}
	imp, err := delayOf(dose)
	if err != nil {
		t.Fatal(err)
	}
	got := beyond(drawn(t, wire.Compose(imp, wire.Impairment{Delay: far, Jitter: testTick / 2, Ordered: true}), 2000), far)
	if why, ok := lawOf(dose, far).fits(got, 0, false, delayShare, delayLeast); !ok {
		t.Error(why)
	}
	if _, ok := lawOf(dose, 0).fits(got, 0, false, delayShare, delayLeast); ok {
		t.Error("it is taken for that of a near link")
	}
}
