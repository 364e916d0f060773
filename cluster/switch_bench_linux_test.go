package cluster

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
	"brownout/internal/wire"
)

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Nanoseconds()) / 1e3
}

// BenchmarkSwitchBoot makes a switch with five ports: what the network adds to
// the start of a cluster. The namespaces come with the nodes and are not counted.
func BenchmarkSwitchBoot(b *testing.B) {
	newRig(b, 0)
	const nodes = 5
	var boots, closes []time.Duration
	for b.Loop() {
		var ns [nodes]*os.File
		for i := range ns {
			var err error
			if ns[i], err = netns.New(); err != nil {
				b.Fatal(err)
			}
		}
		t0 := time.Now()
		s, err := NewSwitch(b.Context(), SwitchConfig{})
		if err != nil {
			b.Fatal(err)
		}
		for i := range ns {
			if _, err := s.Plug(b.Context(), i, NodeName(i), ns[i]); err != nil {
				b.Fatal(err)
			}
		}
		t1 := time.Now()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		boots, closes = append(boots, t1.Sub(t0)), append(closes, time.Since(t1))
		for i := range ns {
			ns[i].Close()
		}
		time.Sleep(100 * time.Millisecond) // the system takes namespaces down meanwhile, under the lock that boot needs
	}
	slices.Sort(boots)
	slices.Sort(closes)
	b.ReportMetric(quantile(boots, 0.5)/1e3, "boot-p50-ms")
	b.ReportMetric(quantile(boots, 0.5)/1e3/nodes, "boot-p50-ms/node")
	b.ReportMetric(quantile(closes, 0.5)/1e3, "close-p50-ms")
}

// BenchmarkPrepare starts a wire and ends it with its switch.
func BenchmarkPrepare(b *testing.B) {
	newRig(b, 0)
	var ready, closes []time.Duration
	for b.Loop() {
		s, err := NewSwitch(b.Context(), SwitchConfig{})
		if err != nil {
			b.Fatal(err)
		}
		t0 := time.Now()
		if err := s.Prepare(b.Context()); err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		ready, closes = append(ready, t1.Sub(t0)), append(closes, time.Since(t1))
	}
	slices.Sort(ready)
	slices.Sort(closes)
	b.ReportMetric(quantile(ready, 0.5)/1e3, "ready-p50-ms")
	b.ReportMetric(quantile(closes, 0.5)/1e3, "close-p50-ms")
}

// BenchmarkImpair changes a delay, cuts a link and heals it. An exchange of one
// byte with a real-time thread takes turns with it: what the host adds to any
// request that another process answers.
func BenchmarkImpair(b *testing.B) {
	r := newRig(b, 2)
	ask := byteEcho(b)
	r.impair(b, 0, 1, wire.Impairment{Delay: time.Millisecond})
	for _, bb := range []struct {
		name string
		imps []wire.Impairment
	}{
		{"delay", []wire.Impairment{{Delay: 1e6}, {Delay: 2e6}}},
		{"delay-and-heal", []wire.Impairment{{Delay: 1e6}, {}}},
		{"partition-and-heal", []wire.Impairment{{Partition: true}, {}}},
		{"loss", []wire.Impairment{{Loss: 0.01}, {Loss: 0.02}}},
		{"rate", []wire.Impairment{{RateBitsPerSec: 1e6}, {RateBitsPerSec: 2e6}}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var all, host []time.Duration
			for i := 0; b.Loop() || i < 200; i++ {
				t0 := time.Now()
				r.impair(b, 0, 1, bb.imps[i%2])
				t1 := time.Now()
				ask()
				all, host = append(all, t1.Sub(t0)), append(host, time.Since(t1))
			}
			for name, took := range map[string][]time.Duration{"": all, "host-": host} {
				slices.Sort(took)
				b.ReportMetric(quantile(took, 0.5), name+"p50-µs")
				b.ReportMetric(quantile(took, 0.99), name+"p99-µs")
				b.ReportMetric(quantile(took, 1), name+"max-µs")
			}
			b.ReportMetric(float64(len(all)), "n")
		})
	}
}

// byteEcho returns a function that sends a byte to a real-time thread and waits
// for its answer.
func byteEcho(tb testing.TB) func() {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	ours := os.NewFile(uintptr(fds[0]), "echo")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with its scheduling
		unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 20, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
		b := make([]byte, 1)
		for {
			n, err := unix.Read(fds[1], b)
			if err == unix.EINTR {
				continue
			}
			if n == 0 || err != nil {
				return
			}
			unix.Write(fds[1], b)
		}
	}()
	tb.Cleanup(func() {
		conn.Close()
		<-done
		unix.Close(fds[1])
	})
	b := make([]byte, 1)
	return func() {
		if _, err := conn.Write(b); err != nil {
			tb.Fatal(err)
		}
		if _, err := conn.Read(b); err != nil {
			tb.Fatal(err)
		}
	}
}

// paced sends n datagrams of size bytes, gap apart, each with its number and
// the time, and returns the one-way times of those that came in, by the
// kernel's stamp, in the order of arrival.
func (r *rig) paced(tb testing.TB, from, to, n, size int, gap time.Duration) []time.Duration {
	tb.Helper()
	in := r.udp(tb, to, IP4(to), echoPort)
	defer in.Close()
	out := r.udp(tb, from, IP4(from), 0)
	defer out.Close()
	raw, err := out.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		dst := &unix.SockaddrInet4{Port: echoPort, Addr: IP4(to).As4()}
		buf := make([]byte, size)
		raw.Control(func(fd uintptr) {
			var ts unix.Timespec
			unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
			next := ts.Nano()
			for range n {
				if gap > 0 {
					next += int64(gap)
					ts = unix.NsecToTimespec(next)
					for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
					}
				}
				binary.LittleEndian.PutUint64(buf, uint64(time.Now().UnixNano()))
				unix.Sendto(int(fd), buf, 0, dst)
			}
		})
	}()
	var all []time.Duration
	buf := make([]byte, size)
	for len(all) < n {
		in.SetReadDeadline(time.Now().Add(2 * time.Second))
		at, err := readStamped(in, buf)
		if err != nil {
			break
		}
		all = append(all, time.Duration(at.UnixNano()-int64(binary.LittleEndian.Uint64(buf))))
	}
	<-sent
	return all
}

// sleeps measures, until it is called, how late this host lets a real-time
// thread sleep that does nothing else: what no emulation can be better than,
// but for spinning.
func sleeps(priority uint32) (late func() []time.Duration) {
	stop, result := make(chan struct{}), make(chan []time.Duration)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its scheduling
		limit := unix.Rlimit{Cur: 500_000, Max: 500_000}
		unix.Setrlimit(unix.RLIMIT_RTTIME, &limit)
		unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: priority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
		var all []time.Duration
		const nap = time.Millisecond
		for {
			select {
			case <-stop:
				slices.Sort(all)
				result <- all
				return
			default:
			}
			t0 := time.Now()
			ts := unix.NsecToTimespec(int64(nap))
			unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil)
			all = append(all, time.Since(t0)-nap)
		}
	}()
	return func() []time.Duration { close(stop); return <-result }
}

// BenchmarkDelayError measures how much later than asked frames arrive, one way,
// from the send call to the receiving kernel's stamp.
func BenchmarkDelayError(b *testing.B) {
	r := newRig(b, 2)
	for _, delay := range []time.Duration{0, 1e6, 5e6, 10e6, 50e6, 100e6} {
		b.Run(fmt.Sprint(delay), func(b *testing.B) {
			r.impair(b, 0, 1, wire.Impairment{Delay: delay})
			r.WireStats(b.Context(), true)
			var all []time.Duration
			late := sleeps(20)
			for b.Loop() {
				all = append(all, r.paced(b, 0, 1, 1000, 64, 600*time.Microsecond)...)
			}
			for i := range all {
				all[i] -= delay
			}
			slices.Sort(all)
			b.ReportMetric(float64(len(all)), "n")
			b.ReportMetric(quantile(all, 0), "min-µs")
			b.ReportMetric(quantile(all, 0.5), "p50-µs")
			b.ReportMetric(quantile(all, 0.99), "p99-µs")
			b.ReportMetric(quantile(all, 1), "max-µs")
			host := late()
			b.ReportMetric(quantile(host, 0.5), "host-p50-µs")
			b.ReportMetric(quantile(host, 0.99), "host-p99-µs")
			b.ReportMetric(quantile(host, 1), "host-max-µs")
			if st, ok, err := r.WireStats(b.Context(), false); ok && err == nil {
				b.ReportMetric(float64(st.Lateness.P50)/1e3, "self-p50-µs")
				b.ReportMetric(float64(st.Lateness.P99)/1e3, "self-p99-µs")
				b.ReportMetric(float64(st.Lateness.Max)/1e3, "self-max-µs")
			}
		})
	}
}

// BenchmarkTCP measures the goodput of one flow.
func BenchmarkTCP(b *testing.B) {
	for _, bb := range []struct {
		name string
		imp  wire.Impairment
	}{
		{"healthy", wire.Impairment{}},
		{"delay-100µs", wire.Impairment{Delay: 100 * time.Microsecond}},
		{"split-duplicate", wire.Impairment{Delay: 100 * time.Microsecond, Duplicate: 1e-9}},
		{"rate-10Mbit", wire.Impairment{RateBitsPerSec: 10e6}},
		{"rate-100Mbit", wire.Impairment{RateBitsPerSec: 100e6}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			r := newRig(b, 2)
			r.impair(b, 0, 1, bb.imp)
			var sum float64
			n := 0
			for b.Loop() {
				sum += r.bulk(b, 0, 1, IP4, 4*time.Second)
				n++
			}
			b.ReportMetric(sum/float64(n)/1e6, "Mbit/s")
			if bb.imp.RateBitsPerSec > 0 {
				b.ReportMetric(100*sum/float64(n)/float64(bb.imp.RateBitsPerSec), "goodput-%")
			}
		})
	}
}

// BenchmarkUDPRate offers 130 % of a rate and measures what comes out.
func BenchmarkUDPRate(b *testing.B) {
	for _, rate := range []int64{1e6, 10e6, 100e6} {
		b.Run(fmt.Sprintf("%dMbit", rate/1e6), func(b *testing.B) {
			r := newRig(b, 2)
			r.impair(b, 0, 1, wire.Impairment{RateBitsPerSec: rate})
			in := r.udp(b, 1, IP4(1), echoPort)
			const payload = 1400
			frame := float64(payload+42) * 8
			for b.Loop() {
				stop := make(chan struct{})
				go func() {
					defer close(stop)
					r.flood(b, 0, 1, payload, time.Duration(frame*1e9/1.3/float64(rate)), 2*time.Second)
				}()
				first, last, n := stamps(in, payload)
				<-stop
				got := float64(n-1) * frame / last.Sub(first).Seconds()
				b.ReportMetric(100*(got/float64(rate)-1), "error-%")
				b.ReportMetric(float64(n), "n")
			}
		})
	}
}

func stamps(in *net.UDPConn, payload int) (first, last time.Time, n int) {
	buf := make([]byte, payload)
	for {
		in.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		at, err := readStamped(in, buf)
		if err != nil {
			return first, last, n
		}
		if n++; n == 1 {
			first = at
		}
		last = at
	}
}

func (r *rig) flood(tb testing.TB, from, to, size int, gap, length time.Duration) {
	out := r.udp(tb, from, IP4(from), 0)
	buf := make([]byte, size)
	start := time.Now()
	for next := start; next.Sub(start) < length; next = next.Add(gap) {
		if d := time.Until(next); d > 100*time.Microsecond {
			time.Sleep(d)
		}
		out.WriteToUDPAddrPort(buf, netip.AddrPortFrom(IP4(to), echoPort))
	}
}
