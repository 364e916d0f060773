package cluster

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/bpf"
	"brownout/internal/sys/link"
	"brownout/internal/wire"
)

// A bareEcho stands in the wire's place: a real-time thread that reads a TAP and
// writes each frame back at once, with nothing between but the addresses. What
// it carries, no wire can exceed that moves frames by system calls on one thread.
type bareEcho struct {
	tap    *os.File
	frames atomic.Uint64
	cpu    atomic.Int64
	stop   atomic.Bool
	done   chan struct{}
}

func (r *rig) bareEcho(tb testing.TB) *bareEcho {
	tb.Helper()
	tap, err := link.Tap(r.Switch.ns, wireName)
	if err != nil {
		tb.Fatal(err)
	}
	index, err := r.conn.Index(wireName)
	for _, step := range []func() error{
		func() error { return err },
		func() error { return r.conn.Configure(index, r.cfg.MTU, tapQueue) },
		func() error { return r.conn.NoLinkLocal(index) },
		func() error { return r.steer.AttachWire(r.conn, index) },
		func() error { return r.conn.Up(index) },
	} {
		if err := step(); err != nil {
			tb.Fatal(err)
		}
	}
	e := &bareEcho{tap: tap, done: make(chan struct{})}
	go e.run(int(tap.Fd()))
	tb.Cleanup(func() {
		e.stop.Store(true)
		<-e.done
		tap.Close()
	})
	return e
}

// run echoes until stop. It rests as often as the wire does, or the kernel
// would take it for stuck.
func (e *bareEcho) run(fd int) {
	defer close(e.done)
	runtime.LockOSThread() // for good: the thread ends with its scheduling
	unix.SetNonblock(fd, true)
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 20, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
	b := make([]byte, 1<<17)
	rested := time.Now()
	for !e.stop.Load() {
		n, err := unix.Read(fd, b)
		if err == unix.EAGAIN {
			e.account()
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20)
			rested = time.Now()
			continue
		}
		if err != nil {
			continue
		}
		const header = 10 // of virtio-net
		dst, src := int(b[header])-1, int(b[header+1])-1
		copy(b[header:], bpf.MAC(dst))
		copy(b[header+6:], bpf.MAC(src))
		unix.Write(fd, b[:n])
		if e.frames.Add(1)%1024 == 0 && time.Since(rested) > 200*time.Millisecond {
			time.Sleep(50 * time.Microsecond)
			rested = time.Now()
		}
	}
	e.account()
}

func (e *bareEcho) account() {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) == nil {
		e.cpu.Store(unix.TimevalToNsec(u.Utime) + unix.TimevalToNsec(u.Stime))
	}
}

// BenchmarkWireFrames floods small datagrams through a delay. They are sent as
// super-packets of 60, or the sender would be the bottleneck: single ones are
// taken apart by the kernel in front of the wire, which reads and writes each,
// the others by the wire. The receiver's IP stack runs inside the wire's write;
// "sunk" frames end at the receiver's device instead. A bare echo takes turns
// with it and says what this host's TAP and receive path carry at most.
func BenchmarkWireFrames(b *testing.B) {
	for _, bb := range []struct {
		name         string
		single, sunk bool
		imp          wire.Impairment
	}{
		{"single", true, false, wire.Impairment{Delay: time.Millisecond}},
		{"sunk", true, true, wire.Impairment{Delay: time.Millisecond}},
		{"split", false, false, wire.Impairment{Delay: time.Millisecond, Duplicate: 1e-12}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			const segment, sends = 64, 150 // 9000 frames: the TAP has room for all
			r := newRig(b, 2)
			r.impair(b, 0, 1, bb.imp)
			bare := newRig(b, 2)
			if bb.sunk {
				r.sink(b, 1)
				bare.sink(b, 1)
			}
			echo := bare.bareEcho(b)
			if err := bare.steer.Set(0, 1, bpf.Wire); err != nil {
				b.Fatal(err)
			}
			taps := []*os.File{echo.tap}
			if bb.single {
				taps = append(taps, r.tap)
			}
			for _, tap := range taps { // nobody takes UDP super-packets: the kernel splits them
				if err := unix.IoctlSetInt(int(tap.Fd()), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
					b.Fatal(err)
				}
			}
			offer := [2]func(){r.burst(b, segment, sends), bare.burst(b, segment, sends)}
			wired := func() (uint64, time.Duration) {
				st, _, err := r.WireStats(b.Context(), false)
				if err != nil {
					b.Fatal(err)
				}
				return st.Writes, st.CPU
			}
			echoed := func() (uint64, time.Duration) { return echo.frames.Load(), time.Duration(echo.cpu.Load()) }
			var n [2]uint64
			var cpu [2]time.Duration
			var rates [2][]float64 // by turns: in some of them somebody else has the sender's core
			for b.Loop() {
				for i, count := range []func() (uint64, time.Duration){wired, echoed} {
					n0, c0 := count()
					t0 := time.Now()
					offer[i]()
					n1, c1, idle := drained(count)
					n[i], cpu[i] = n[i]+n1-n0, cpu[i]+c1-c0
					rates[i] = append(rates[i], float64(n1-n0)/idle.Sub(t0).Seconds())
				}
			}
			st, _, _ := r.WireStats(b.Context(), false)
			for i, name := range []string{"frames/s", "echo-frames/s"} {
				slices.Sort(rates[i])
				b.ReportMetric(rates[i][len(rates[i])/2], name)
			}
			b.ReportMetric(cpu[0].Seconds()*1e6/float64(n[0]), "cpu-µs/frame")
			b.ReportMetric(cpu[1].Seconds()*1e6/float64(n[1]), "echo-cpu-µs/frame")
			b.ReportMetric(100*(cpu[1].Seconds()/float64(n[1]))/(cpu[0].Seconds()/float64(n[0])), "of-echo-%")
			b.ReportMetric(float64(st.Overruns), "overruns")
		})
	}
}

// sink drops all that comes in at a port's device.
func (r *rig) sink(tb testing.TB, i int) {
	tb.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "bo_sink", Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* TC_ACT_SHOT */), asm.Return()}})
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close() // the device holds it
	c, err := link.At(r.ns[i])
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	index, err := c.Index("eth0")
	if err == nil {
		err = errors.Join(c.Ingress(index), c.Program(index, p.FD(), "bo_sink"))
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// burst returns a function that sends so many super-packets from port 0 to port
// 1, where nobody reads: the receiver's work is not the wire's.
func (r *rig) burst(tb testing.TB, segment, sends int) func() {
	in := r.udp(tb, 1, IP4(1), echoPort)
	in.SetReadBuffer(4096)
	out := r.udp(tb, 0, IP4(0), 0)
	raw, err := out.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment)
	})
	if err != nil {
		tb.Skip("no UDP segmentation: ", err)
	}
	buf := make([]byte, 60*segment)
	dst := &unix.SockaddrInet4{Port: echoPort, Addr: IP4(1).As4()}
	return func() {
		raw.Control(func(fd uintptr) {
			for range sends {
				unix.Sendto(int(fd), buf, 0, dst)
			}
		})
	}
}

// drained waits until a count no longer grows and returns it, and when it was
// first seen to be complete.
func drained(count func() (uint64, time.Duration)) (n uint64, cpu time.Duration, at time.Time) {
	const quiet = 5 * time.Millisecond
	n, cpu = count()
	at = time.Now()
	for time.Since(at) < quiet {
		time.Sleep(200 * time.Microsecond)
		if m, c := count(); m != n {
			n, cpu, at = m, c, time.Now()
		} else {
			cpu = c
		}
	}
	return n, cpu, at
}

// BenchmarkWireCPU sends 2000 frames a second through a delay of 10 ms, then
// none, then as many past the wire while no pair is impaired.
func BenchmarkWireCPU(b *testing.B) {
	r := newRig(b, 2)
	stats := func() wire.Stats {
		st, _, err := r.WireStats(b.Context(), false)
		if err != nil {
			b.Fatal(err)
		}
		return st
	}
	const frames, gap = 2000, 500 * time.Microsecond
	var cpu, took [3]time.Duration
	var spun time.Duration
	phase := func(i int, f func()) {
		s0, t0 := stats(), time.Now()
		f()
		s1 := stats()
		cpu[i], took[i] = cpu[i]+s1.CPU-s0.CPU, took[i]+time.Since(t0)
		if i == 0 {
			spun += s1.Spun - s0.Spun
		}
	}
	for b.Loop() {
		r.impair(b, 0, 1, wire.Impairment{Delay: 10 * time.Millisecond})
		phase(0, func() { r.paced(b, 0, 1, frames, 64, gap) })
		phase(1, func() { time.Sleep(500 * time.Millisecond) })
		r.impair(b, 0, 1, wire.Impairment{})
		phase(2, func() { r.paced(b, 0, 1, frames, 64, gap) })
	}
	for i, name := range []string{"cpu-%", "idle-cpu-%", "healthy-cpu-%"} {
		b.ReportMetric(100*float64(cpu[i])/float64(took[i]), name)
	}
	b.ReportMetric(100*float64(spun)/float64(took[0]), "spun-%")
}

// BenchmarkShares sends 20 000 datagrams through each fault that happens to a
// share of them, twice by the same seed, and counts at the receiver.
func BenchmarkShares(b *testing.B) {
	const n = 20_000
	const held = 5 * time.Millisecond
	for _, bb := range []struct {
		name    string
		imp     wire.Impairment
		share   float64
		stretch float64 // of sigma, by correlation from one to the next
		happens func(copies int, way time.Duration) bool
	}{
		{"loss-5%", wire.Impairment{Loss: 0.05}, 0.05, 1, func(c int, _ time.Duration) bool { return c == 0 }},
		{
			"gilbert-elliott-9.1%",
			wire.Impairment{GE: wire.GE{ToBad: 0.05, ToGood: 0.5, LossBad: 1}},
			0.05 / 0.55, math.Sqrt(1.45 / 0.55),
			func(c int, _ time.Duration) bool { return c == 0 },
		},
		{"duplicate-2%", wire.Impairment{Duplicate: 0.02}, 0.02, 1, func(c int, _ time.Duration) bool { return c == 2 }},
		{"reorder-25%", wire.Impairment{Reorder: 0.25, Delay: held}, 0.25, 1, func(_ int, way time.Duration) bool { return way < held }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var fates [2][]bool
			for b.Loop() {
				for i := range fates {
					r := newRig(b, 2)
					r.impair(b, 0, 1, bb.imp)
					fates[i] = make([]bool, n)
					copies, way := r.numbered(b, 0, 1, n)
					for j := range n {
						fates[i][j] = bb.happens(copies[j], way[j])
					}
					r.Close()
				}
			}
			k := 0
			for _, hit := range fates[0] {
				if hit {
					k++
				}
			}
			sigma := bb.stretch * math.Sqrt(bb.share*(1-bb.share)/n)
			b.ReportMetric(100*float64(k)/n, "share-%")
			b.ReportMetric(math.Abs(float64(k)/n-bb.share)/sigma, "off-sigmas")
			differ := 0
			for j := range n {
				if fates[0][j] != fates[1][j] {
					differ++
				}
			}
			b.ReportMetric(float64(differ), "differ-by-seed")
			b.ReportMetric(n, "n")
		})
	}
}

// numbered sends n datagrams in small bursts and returns how many copies of
// each came in, and how long the first of them took, by the kernel's stamp.
func (r *rig) numbered(tb testing.TB, from, to, n int) (copies []int, way []time.Duration) {
	tb.Helper()
	in, out := r.udp(tb, to, IP4(to), echoPort), r.udp(tb, from, IP4(from), 0)
	defer in.Close()
	defer out.Close()
	raw, err := out.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	sent := make([]int64, n)
	copies, way = make([]int, n), make([]time.Duration, n)
	done := make(chan struct{})
	go func() {
		defer close(done)
		dst := &unix.SockaddrInet4{Port: echoPort, Addr: IP4(to).As4()}
		buf := make([]byte, 64)
		raw.Control(func(fd uintptr) {
			for i := range n {
				binary.LittleEndian.PutUint64(buf, uint64(i))
				atomic.StoreInt64(&sent[i], time.Now().UnixNano())
				unix.Sendto(int(fd), buf, 0, dst)
				if i%20 == 19 {
					time.Sleep(500 * time.Microsecond)
				}
			}
		})
	}()
	buf := make([]byte, 64)
	for {
		patience := 500 * time.Millisecond
		in.SetReadDeadline(time.Now().Add(patience))
		at, err := readStamped(in, buf)
		if err != nil {
			break
		}
		i := int(binary.LittleEndian.Uint64(buf))
		if copies[i]++; copies[i] == 1 {
			way[i] = time.Duration(at.UnixNano() - atomic.LoadInt64(&sent[i]))
		}
	}
	<-done
	return copies, way
}
