package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/needs"
	"brownout/internal/sys/link"
	"brownout/internal/sys/netns"
	"brownout/internal/sys/unsupported"
	"brownout/internal/wire"
)

// init lets the test binary be started again as the wire of a switch.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "_wire" {
		os.Exit(wire.Main(os.Args[2:]))
	}
}

// A rig is a switch with ports whose tenants are bare namespaces.
type rig struct {
	*Switch
	ns []*os.File
}

func newRig(tb testing.TB, ports int) *rig {
	tb.Helper()
	needs.Host(tb, needs.Root)
	if err := ProbeWire(tb.Context()); err != nil {
		needs.Host(tb, needs.Need{Name: "net", Check: func() string { return err.Error() }})
	}
	s, err := NewSwitch(tb.Context(), SwitchConfig{Seed: 7})
	if err != nil {
		tb.Fatal(err)
	}
	r := &rig{Switch: s}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Errorf("close switch: %v", err)
		}
		for _, ns := range r.ns {
			ns.Close()
		}
	})
	for i := range ports {
		r.add(tb, i)
	}
	return r
}

func (r *rig) add(tb testing.TB, i int) Port {
	tb.Helper()
	ns, err := netns.New()
	if err != nil {
		tb.Fatal(err)
	}
	r.ns = append(r.ns, ns)
	p, err := r.Plug(tb.Context(), i, NodeName(i), ns)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func (r *rig) impair(tb testing.TB, src, dst int, imp wire.Impairment) {
	tb.Helper()
	if err := r.Impair(tb.Context(), src, dst, imp); err != nil {
		tb.Fatal(err)
	}
}

const echoPort = 7007

// udp opens a socket at a port of the rig that stamps what it receives.
func (r *rig) udp(tb testing.TB, i int, ip netip.Addr, port int) *net.UDPConn {
	tb.Helper()
	p, err := netns.ListenPacket(tb.Context(), r.ns[i], "udp", netip.AddrPortFrom(ip, uint16(port)).String(),
		func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
			})
		})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p.(*net.UDPConn)
}

// echo answers every datagram at a port of the rig, over both IPs.
func (r *rig) echo(tb testing.TB, i int) {
	for _, ip := range []netip.Addr{IP4(i), IP6(i)} {
		c := r.udp(tb, i, ip, echoPort)
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := c.ReadFromUDPAddrPort(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					c.WriteToUDPAddrPort(b[:n], from)
				}
			}
		}()
	}
}

// rtts sends n datagrams one after the other and returns the sorted times of
// those that were answered within wait.
func rtts(tb testing.TB, c *net.UDPConn, to netip.Addr, n int, wait time.Duration) []time.Duration {
	tb.Helper()
	var all []time.Duration
	b := make([]byte, 64)
	for i := range n {
		binary.LittleEndian.PutUint64(b, uint64(i))
		t0 := time.Now()
		c.SetReadDeadline(t0.Add(wait))
		if _, err := c.WriteToUDPAddrPort(b, netip.AddrPortFrom(to, echoPort)); err != nil {
			tb.Fatal(err)
		}
		for {
			_, _, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				tb.Fatal(err)
			}
			if binary.LittleEndian.Uint64(b) == uint64(i) {
				all = append(all, time.Since(t0))
				break
			}
		}
	}
	slices.Sort(all)
	return all
}

func TestPortsReachEachOtherAtOnceOverBothIPs(t *testing.T) {
	r := newRig(t, 9)
	for i := range r.ns {
		r.echo(t, i)
	}
	for i := range r.ns {
		for _, ip := range []func(int) netip.Addr{IP4, IP6} {
			c := r.udp(t, i, ip(i), 0)
			for j := range r.ns {
				if i == j {
					continue
				}
				if got := rtts(t, c, ip(j), 1, 5*time.Second); len(got) != 1 {
					t.Errorf("%s does not reach %s", ip(i), ip(j))
				}
			}
		}
	}
	if c, err := r.Counters(0, 1); err != nil || c.Seen != 4 || c.Dropped+c.Wired != 0 {
		t.Errorf("counters = %+v, %v; want 4 seen: an answer and a question over both IPs", c, err)
	}
}

func TestDelayIsAddedOneWayAndHealed(t *testing.T) {
	r := newRig(t, 3)
	for i := range r.ns {
		r.echo(t, i)
	}
	c := r.udp(t, 0, IP4(0), 0)
	c6 := r.udp(t, 0, IP6(0), 0)
	const delay = 20 * time.Millisecond
	r.impair(t, 0, 1, wire.Impairment{Delay: delay})
	for _, tt := range []struct {
		name string
		conn *net.UDPConn
		to   netip.Addr
		min  time.Duration
	}{
		{"the impaired pair over IPv4", c, IP4(1), delay},
		{"the impaired pair over IPv6", c6, IP6(1), delay},
		{"another pair", c, IP4(2), 0},
	} {
		got := rtts(t, tt.conn, tt.to, 20, 5*time.Second)
		if len(got) != 20 {
			t.Fatalf("%s: %d of 20 answered", tt.name, len(got))
		}
		if got[0] < tt.min || got[0] > tt.min+15*time.Millisecond {
			t.Errorf("%s: least RTT = %v, want %v and little more", tt.name, got[0], tt.min)
		}
	}
	r.impair(t, 0, 1, wire.Impairment{})
	if got := rtts(t, c, IP4(1), 20, 5*time.Second); len(got) != 20 || got[0] > delay/2 {
		t.Errorf("after the heal: %d answers, least RTT %v", len(got), got[0])
	}
	before, _ := r.Counters(0, 1)
	rtts(t, c, IP4(1), 5, 5*time.Second)
	if after, _ := r.Counters(0, 1); after.Wired != before.Wired || after.Seen != before.Seen+5 {
		t.Errorf("after the heal: counters went from %+v to %+v, want 5 more seen and none through the wire", before, after)
	}
}

func TestPartitionCutsOneDirectionExactly(t *testing.T) {
	r := newRig(t, 2)
	a, b := r.udp(t, 0, IP4(0), echoPort), r.udp(t, 1, IP4(1), echoPort)
	const n = 50
	send := func(from *net.UDPConn, to int) {
		for range n {
			if _, err := from.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(IP4(to), echoPort)); err != nil {
				t.Fatal(err)
			}
		}
	}
	received := func(c *net.UDPConn) (n int) {
		buf := make([]byte, 16)
		for {
			c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, _, err := c.ReadFromUDPAddrPort(buf); err != nil {
				return n
			}
			n++
		}
	}
	r.impair(t, 0, 1, wire.Impairment{Partition: true})
	send(a, 1)
	send(b, 0)
	if got := received(b); got != 0 {
		t.Errorf("%d of %d passed the partition", got, n)
	}
	if got := received(a); got != n {
		t.Errorf("%d of %d came through the other direction", got, n)
	}
	if c, err := r.Counters(0, 1); err != nil || c.Seen != n || c.Dropped != n {
		t.Errorf("counters = %+v, %v; want %d seen and dropped", c, err, n)
	}
	if _, ok, err := r.WireStats(t.Context(), false); ok || err != nil {
		t.Errorf("a partition started the wire (%v)", err)
	}
	r.impair(t, 0, 1, wire.Impairment{})
	send(a, 1)
	if got := received(b); got != n {
		t.Errorf("%d of %d came through after the heal", got, n)
	}
}

func TestPartitionStopsWhatTheWireHoldsAndItNeverComesBack(t *testing.T) {
	r := newRig(t, 2)
	a, b := r.udp(t, 0, IP4(0), echoPort), r.udp(t, 1, IP4(1), echoPort)
	r.impair(t, 0, 1, wire.Impairment{Delay: 300 * time.Millisecond})
	if _, err := a.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(IP4(1), echoPort)); err != nil {
		t.Fatal(err)
	}
	r.impair(t, 0, 1, wire.Impairment{Delay: 300 * time.Millisecond, Partition: true})
	r.impair(t, 0, 1, wire.Impairment{})
	b.SetReadDeadline(time.Now().Add(600 * time.Millisecond))
	if n, _, err := b.ReadFromUDPAddrPort(make([]byte, 16)); err == nil {
		t.Errorf("received %d bytes from before the partition", n)
	}
}

func TestRemovingADelayLetsHeldFramesOutInOrder(t *testing.T) {
	r := newRig(t, 2)
	a, b := r.udp(t, 0, IP4(0), echoPort), r.udp(t, 1, IP4(1), echoPort)
	r.impair(t, 0, 1, wire.Impairment{Delay: time.Minute})
	const n = 100
	for i := range n {
		if _, err := a.WriteToUDPAddrPort([]byte{byte(i)}, netip.AddrPortFrom(IP4(1), echoPort)); err != nil {
			t.Fatal(err)
		}
	}
	r.impair(t, 0, 1, wire.Impairment{})
	buf := make([]byte, 16)
	b.SetReadDeadline(time.Now().Add(5 * time.Second))
	for i := range n {
		if _, _, err := b.ReadFromUDPAddrPort(buf); err != nil || buf[0] != byte(i) {
			t.Fatalf("frame %d: got %d, %v", i, buf[0], err)
		}
	}
}

// bulk sends over TCP for a while and returns the goodput in bit/s that the
// receiver saw after the first quarter.
func (r *rig) bulk(tb testing.TB, from, to int, ip func(int) netip.Addr, length time.Duration) float64 {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), length+20*time.Second)
	defer cancel()
	l, err := netns.Listen(ctx, r.ns[to], "tcp", netip.AddrPortFrom(ip(to), 7008).String())
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	c, err := netns.Dial(ctx, r.ns[from], "tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	in, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	defer in.Close()
	go func() {
		b := make([]byte, 256<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 256<<10)
	start := time.Now()
	var counted int64
	var from0 time.Time
	for time.Since(start) < length {
		in.SetReadDeadline(start.Add(length + 10*time.Second))
		n, err := in.Read(b)
		if err != nil {
			tb.Fatal(err)
		}
		if from0.IsZero() {
			if time.Since(start) > length/4 {
				from0 = time.Now()
			}
			continue
		}
		counted += int64(n)
	}
	return float64(counted*8) / time.Since(from0).Seconds()
}

func TestRateLimitsUDPAndTCP(t *testing.T) {
	r := newRig(t, 2)
	const rate = 10_000_000
	r.impair(t, 0, 1, wire.Impairment{RateBitsPerSec: rate})
	// A train that fits the queue comes out at the rate, to within a frame.
	a, b := r.udp(t, 0, IP4(0), 0), r.udp(t, 1, IP4(1), echoPort)
	const n, payload = 80, 1400
	first, last, got := r.train(t, a, b, 1, n, payload)
	if got != n {
		t.Fatalf("%d of %d received", got, n)
	}
	frames := float64(n-1) * (payload + 42) * 8
	if measured := frames / last.Sub(first).Seconds(); measured < 0.9*rate || measured > 1.1*rate {
		t.Errorf("UDP = %.3f Mbit/s, want 10", measured/1e6)
	}

	for _, ip := range []func(int) netip.Addr{IP4, IP6} {
		// Of 1514 bytes in a frame 1448 are payload over IPv4, 1428 over IPv6. What
		// waited for a retransmission before we began to count makes it more.
		if got := r.bulk(t, 0, 1, ip, 1500*time.Millisecond); got < 0.80*rate || got > 1.05*rate {
			t.Errorf("TCP to %s = %.2f Mbit/s, want about 9.5", ip(1), got/1e6)
		}
	}
}

// train sends n datagrams back to back and returns when the first and the last
// of those received came in, by the kernel's stamps.
func (r *rig) train(tb testing.TB, a, b *net.UDPConn, to, n, payload int) (first, last time.Time, got int) {
	tb.Helper()
	buf := make([]byte, payload)
	for range n {
		if _, err := a.WriteToUDPAddrPort(buf, netip.AddrPortFrom(IP4(to), echoPort)); err != nil {
			tb.Fatal(err)
		}
	}
	for got < n {
		b.SetReadDeadline(time.Now().Add(time.Second))
		at, err := readStamped(b, buf)
		if err != nil {
			return first, last, got
		}
		if got++; got == 1 {
			first = at
		}
		last = at
	}
	return first, last, got
}

// readStamped reads a datagram and returns when the kernel received it.
func readStamped(c *net.UDPConn, b []byte) (time.Time, error) {
	oob := make([]byte, 128)
	_, n, _, _, err := c.ReadMsgUDPAddrPort(b, oob)
	if err != nil {
		return time.Time{}, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return time.Time{}, err
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))), nil
		}
	}
	return time.Time{}, errors.New("datagram has no time stamp")
}

func TestDeadWireFailsClosedAndIsReported(t *testing.T) {
	r := newRig(t, 4)
	for i := range r.ns {
		r.echo(t, i)
	}
	c := r.udp(t, 0, IP4(0), 0)
	r.impair(t, 0, 1, wire.Impairment{Delay: time.Millisecond})
	r.impair(t, 0, 3, wire.Impairment{Delay: time.Millisecond}) // which goes on when the partition heals
	r.impair(t, 0, 3, wire.Impairment{Delay: time.Millisecond, Partition: true})
	if got := rtts(t, c, IP4(1), 3, 5*time.Second); len(got) != 3 {
		t.Fatal("the impaired pair does not work")
	}
	r.wire.Kill()
	select {
	case <-r.WireDone():
	case <-time.After(5 * time.Second):
		t.Fatal("the death of the wire goes unnoticed")
	}
	if err := r.WireErr(); !errors.Is(err, wire.ErrDead) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("reason = %v", err)
	}
	if got := rtts(t, c, IP4(1), 3, 100*time.Millisecond); len(got) != 0 {
		t.Errorf("%d of 3 passed a dead wire", len(got))
	}
	if got := rtts(t, c, IP4(3), 3, 100*time.Millisecond); len(got) != 0 {
		t.Errorf("%d of 3 passed a partition when the wire was dead", len(got))
	}
	if got := rtts(t, c, IP4(2), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("only %d of 3 passed on a healthy pair", len(got))
	}
	if err := r.Impair(t.Context(), 0, 2, wire.Impairment{Delay: 1}); !errors.Is(err, wire.ErrDead) {
		t.Errorf("a new delay after death: %v", err)
	}
	r.impair(t, 0, 1, wire.Impairment{})
	if got := rtts(t, c, IP4(1), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("only %d of 3 passed after the heal", len(got))
	}
}

func TestImpossibleImpairmentsAreRefused(t *testing.T) {
	r := newRig(t, 2)
	for _, tt := range []struct {
		name     string
		src, dst int
		imp      wire.Impairment
		want     string
	}{
		{"a port to itself", 1, 1, wire.Impairment{Delay: 1}, "not two ports"},
		{"a port that cannot be", 1, 63, wire.Impairment{Delay: 1}, "not two ports"},
		{"more than all packets", 0, 1, wire.Impairment{Loss: 1.5}, "loss: 1.5 is not in 0..1"},
		{"reordering without a delay", 0, 1, wire.Impairment{Reorder: 0.5}, "needs a delay"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := r.Impair(t.Context(), tt.src, tt.dst, tt.imp); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestKilledOwnerLeavesNothing kills a process that has a switch with a wire,
// and looks for the wire.
func TestKilledOwnerLeavesNothing(t *testing.T) {
	if os.Getenv("BROWNOUT_TEST_CHILD") == t.Name() {
		r := newRig(t, 2)
		r.impair(t, 0, 1, wire.Impairment{Delay: time.Second})
		fmt.Println("wire", r.wire.Pid())
		io.Copy(io.Discard, os.Stdin) // until killed
		return
	}
	needs.Host(t, needs.Root)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "BROWNOUT_TEST_CHILD="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // of the death signal
	defer runtime.UnlockOSThread()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "wire %d\n", &pid); err != nil {
		t.Skip("the child made no wire: ", err)
	}
	links := hostLinks(t)
	cmd.Process.Kill()
	cmd.Wait()
	deadline := time.Now().Add(5 * time.Second)
	for unix.Kill(pid, 0) == nil {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(b), ") Z ") {
			break // dead, and whoever adopted it does not reap
		}
		if time.Now().After(deadline) {
			t.Fatalf("wire %d outlives its owner", pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if after := hostLinks(t); !slices.Equal(links, after) {
		t.Errorf("links of the host went from %v to %v", links, after)
	}
}

func hostLinks(t *testing.T) (names []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		names = append(names, l.Name)
		if strings.HasPrefix(l.Name, "bo-") {
			t.Errorf("%s shows on the host", l.Name)
		}
	}
	return names
}

// TestLiveWireDoesWhatTheEngineSays sends numbered datagrams through a lossy
// pair and compares who arrived with what the engine decides for the same seed.
func TestLiveWireDoesWhatTheEngineSays(t *testing.T) {
	r := newRig(t, 2)
	imp := wire.Impairment{Delay: time.Millisecond, Loss: 0.1, Duplicate: 0.05}
	r.impair(t, 0, 1, imp)
	a, b := r.udp(t, 0, IP4(0), 0), r.udp(t, 1, IP4(1), echoPort)
	const n = 3000
	go func() {
		buf := make([]byte, 64)
		for i := range n {
			binary.LittleEndian.PutUint32(buf, uint32(i))
			a.WriteToUDPAddrPort(buf, netip.AddrPortFrom(IP4(1), echoPort))
		}
	}()
	var want, got []uint32
	e := wire.New(7, 1<<30) // the rig's seed
	e.Set(0, 1, imp, 0)
	for i := range n {
		f := e.Alloc(64)
		clear(f)
		binary.LittleEndian.PutUint32(f[32:], uint32(i))
		e.Push(0, 1, f, time.Duration(i))
	}
	for {
		f, ok := e.Pop(time.Hour)
		if !ok {
			break
		}
		want = append(want, binary.LittleEndian.Uint32(f.Data[32:]))
	}
	buf := make([]byte, 64)
	for len(got) < len(want)+1 {
		b.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := b.ReadFromUDPAddrPort(buf); err != nil {
			break
		}
		got = append(got, binary.LittleEndian.Uint32(buf))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d datagrams arrived that are not the %d that the engine lets through", len(got), len(want))
	}
	st, ok, err := r.WireStats(t.Context(), false)
	if err != nil || !ok || len(st.Pairs) != 1 {
		t.Fatalf("stats = %+v, %v, %v", st, ok, err)
	}
	if got, want := st.Pairs[0].Counters, e.Counters(0, 1); got.Seen != n || got.Dropped != want.Dropped || got.Duplicated != want.Duplicated {
		t.Errorf("counters = %+v, want %+v", got, want)
	}
	if st.Overruns+st.Strays+st.WriteErrors != 0 || st.Lateness.N != int64(len(want)) {
		t.Errorf("stats = %+v", st)
	}
}

// TestTCPSurvivesEverything sends a known stream through all impairments at
// once, over both IPs: what arrives is what was sent.
func TestTCPSurvivesEverything(t *testing.T) {
	r := newRig(t, 2)
	imp := wire.Impairment{
		Delay: time.Millisecond, Jitter: 300 * time.Microsecond, Dist: wire.Pareto, Loss: 0.01,
		GE: wire.GE{ToBad: 0.002, ToGood: 0.5, LossBad: 1}, Duplicate: 0.01, Reorder: 0.02, Corrupt: 0.01, RateBitsPerSec: 1e9,
	}
	r.impair(t, 0, 1, imp)
	r.impair(t, 1, 0, imp)
	for _, ip := range []func(int) netip.Addr{IP4, IP6} {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		l, err := netns.Listen(ctx, r.ns[1], "tcp", netip.AddrPortFrom(ip(1), 7009).String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := netns.Dial(ctx, r.ns[0], "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		sent := make([]byte, 1<<20)
		for i := range sent {
			sent[i] = byte(i * i >> 7)
		}
		go func() {
			c.Write(sent)
			c.(*net.TCPConn).CloseWrite()
		}()
		in.SetReadDeadline(time.Now().Add(50 * time.Second))
		if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("over %s: received %d bytes, %v; want the %d that were sent", ip(1), len(got), err, len(sent))
		}
	}
	st, _, err := r.WireStats(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Pairs {
		if c := p.Counters; c.Unsplit != 0 || p.Src == 0 && (c.Corrupted == 0 || c.Dropped == 0 || c.Duplicated == 0) {
			t.Errorf("%d to %d: %+v", p.Src, p.Dst, c)
		}
	}
}

func TestBroadcastGoesNowhere(t *testing.T) {
	r := newRig(t, 2)
	a, b := r.udp(t, 0, IP4(0), 0), r.udp(t, 1, netip.IPv4Unspecified(), echoPort)
	if _, err := a.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort("10.77.0.255:7007")); err != nil {
		t.Skip("cannot broadcast: ", err)
	}
	b.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, _, err := b.ReadFromUDPAddrPort(make([]byte, 8)); err == nil {
		t.Error("a broadcast reached another port")
	}
	if c, err := r.steer.Groups(0); err != nil || c.Seen == 0 || c.Dropped != c.Seen {
		t.Errorf("counters of groups = %+v, %v", c, err)
	}
}

func TestWireIsScheduledInRealTimeUnderAWatchdog(t *testing.T) {
	r := newRig(t, 2)
	if err := r.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, _, err := r.WireStats(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if st.Sched != wire.SchedFIFO {
		t.Skipf("this host gives the wire scheduling %q", st.Sched)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.wire.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max realtime timeout") && (f[3] != "1000000" || f[4] != "1000000") {
			t.Errorf("limit = %s", line)
		}
	}
}

// stop hangs the wire and returns when it does.
func (r *rig) stop(tb testing.TB) {
	tb.Helper()
	unix.Kill(r.wire.Pid(), unix.SIGSTOP)
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.wire.Pid()))
		if err != nil || time.Since(start) > 5*time.Second {
			tb.Fatalf("wire does not stop: %s, %v", stat, err)
		}
		if strings.Contains(string(stat), ") T ") {
			return
		}
	}
}

func TestWireThatHangsIsEndedAndSaysSo(t *testing.T) {
	r := newRig(t, 2)
	r.patience = 300 * time.Millisecond
	r.impair(t, 0, 1, wire.Impairment{Delay: time.Millisecond})
	r.stop(t)
	select { // nobody asks it anything
	case <-r.WireDone():
	case <-time.After(10 * time.Second):
		t.Fatal("a wire that hangs goes on")
	}
	if err := r.WireErr(); !errors.Is(err, wire.ErrHung) || !errors.Is(err, wire.ErrDead) {
		t.Errorf("reason = %v", err)
	}
}

func TestWireSurvivesRequestsThatAreGivenUp(t *testing.T) {
	r := newRig(t, 2)
	r.echo(t, 1)
	r.impair(t, 0, 1, wire.Impairment{Delay: time.Millisecond})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Impair(gone, 0, 1, wire.Impairment{Loss: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that was given up before it was sent: %v", err)
	}
	r.stop(t)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := r.WireStats(short, false); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, wire.ErrDead) {
		t.Errorf("a request whose time is up: %v", err)
	}
	unix.Kill(r.wire.Pid(), unix.SIGCONT)
	// The answer that came too late is not taken for that of the next request.
	st, ok, err := r.WireStats(t.Context(), false)
	if err != nil || !ok || len(st.Pairs) == 0 || st.Pairs[0].Impairment != (wire.Impairment{Delay: time.Millisecond}) {
		t.Errorf("stats after that: %+v, %v", st.Pairs, err)
	}
	c := r.udp(t, 0, IP4(0), 0)
	if got := rtts(t, c, IP4(1), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("%d of 3 answered", len(got))
	}
}

// TestPartitionHealsToExactlyTheRest puts a partition over a loss that counts
// packets and takes it away again: the count goes on.
func TestPartitionHealsToExactlyTheRest(t *testing.T) {
	r := newRig(t, 2)
	r.echo(t, 1)
	c := r.udp(t, 0, IP4(0), 0)
	first := wire.Impairment{Delay: time.Millisecond, LossFirst: 2}
	r.impair(t, 0, 1, first)
	if got := rtts(t, c, IP4(1), 1, 50*time.Millisecond); len(got) != 0 {
		t.Fatalf("the first packet passed")
	}
	cut := first
	cut.Partition = true
	r.impair(t, 0, 1, cut)
	if got := rtts(t, c, IP4(1), 3, 50*time.Millisecond); len(got) != 0 {
		t.Fatalf("%d of 3 passed the partition", len(got))
	}
	r.impair(t, 0, 1, first)
	if got := rtts(t, c, IP4(1), 1, 50*time.Millisecond); len(got) != 0 {
		t.Errorf("the second packet passed")
	}
	if got := rtts(t, c, IP4(1), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("%d of 3 passed afterwards", len(got))
	}
	r.impair(t, 0, 1, wire.Impairment{})
	if got := rtts(t, c, IP4(1), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("%d of 3 passed after all was healed", len(got))
	}
}

// TestNineNodesAreImpairedAtOnce delays every pair of nine ports by a time of its
// own and looks that each has its own, and that all are healthy afterwards.
func TestNineNodesAreImpairedAtOnce(t *testing.T) {
	const n = 9
	r := newRig(t, n)
	own := func(src, dst int) time.Duration { return time.Duration(5*((dst-src+n)%n)) * time.Millisecond }
	for src := range n {
		r.echo(t, src)
		for dst := range n {
			if src != dst {
				r.impair(t, src, dst, wire.Impairment{Delay: own(src, dst)})
			}
		}
	}
	for _, healthy := range []bool{false, true} {
		for src := range n {
			c := r.udp(t, src, IP4(src), 0)
			for dst := range n {
				if src == dst {
					continue
				}
				want := own(src, dst) + own(dst, src)
				if healthy {
					r.impair(t, src, dst, wire.Impairment{})
					r.impair(t, dst, src, wire.Impairment{})
					want = 0
				}
				got := rtts(t, c, IP4(dst), 3, 5*time.Second)
				if len(got) != 3 {
					t.Fatalf("%d to %d: %d of 3 answered", src, dst, len(got))
				}
				// A busy host makes round trips longer, never shorter; all of three hardly by as much.
				if least := slices.Min(got); least < want || least > want+20*time.Millisecond {
					t.Errorf("%d to %d: round trips of %v, want %v", src, dst, got, want)
				}
			}
		}
	}
}

func TestWireThatCannotStartIsAnError(t *testing.T) {
	r := newRig(t, 0)
	r.cfg.Exe = "/bin/false"
	r.add(t, 0)
	r.add(t, 1)
	for range 2 {
		if err := r.Impair(t.Context(), 0, 1, wire.Impairment{Delay: 1}); err == nil || !strings.Contains(err.Error(), "start wire") {
			t.Errorf("err = %v", err)
		}
	}
	r.impair(t, 0, 1, wire.Impairment{Partition: true})
	r.impair(t, 0, 1, wire.Impairment{})
}

func TestSwitchWithoutBPFIsAPlainBridge(t *testing.T) {
	r := newRig(t, 0)
	r.steer.Close()
	r.steer, r.steerErr = nil, &unsupported.Error{What: "eBPF steering", Why: "a test took it away", Cure: "none"}
	r.add(t, 0)
	r.add(t, 1)
	r.echo(t, 1)
	if got := rtts(t, r.udp(t, 0, IP4(0), 0), IP4(1), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("%d of 3 answered", len(got))
	}
	if err := r.Impair(t.Context(), 0, 1, wire.Impairment{Partition: true}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a partition without BPF: %v", err)
	}
}

func TestPlugRefusesWhatCannotBe(t *testing.T) {
	r := newRig(t, 2)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if _, err := r.Plug(t.Context(), 1, "n9", ns); err == nil {
		t.Error("a port was given to two")
	}
	if _, err := r.Plug(t.Context(), MaxPorts, "n9", ns); err == nil {
		t.Error("a port beyond the last was given")
	}
	r.echo(t, 1)
	if got := rtts(t, r.udp(t, 0, IP4(0), 0), IP4(1), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("after that, %d of 3 answered", len(got))
	}
	last := r.add(t, MaxPorts-1)
	c := r.udp(t, 2, last.IP4, 0)
	if got := rtts(t, c, IP4(1), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("the last port reaches another %d of 3 times", len(got))
	}
}

func TestTenantOfAHostWithoutIPv6HasItAnyway(t *testing.T) {
	r := newRig(t, 1)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	r.ns = append(r.ns, ns)
	if err := link.Sysctl(ns, link.Setting{Path: "ipv6/conf/default/disable_ipv6", Value: "1"}); err != nil {
		t.Skip(err)
	}
	if _, err := r.Plug(t.Context(), 1, "n2", ns); err != nil {
		t.Fatal(err)
	}
	r.echo(t, 1)
	if got := rtts(t, r.udp(t, 0, IP6(0), 0), IP6(1), 3, 5*time.Second); len(got) != 3 {
		t.Errorf("%d of 3 answered", len(got))
	}
}

// TestFaultsOverlapAndChangeUnderTraffic changes impairments of all pairs from
// many goroutines while all ports talk. In the end all is healthy.
func TestFaultsOverlapAndChangeUnderTraffic(t *testing.T) {
	const n = 4
	r := newRig(t, n)
	for i := range n {
		r.echo(t, i)
	}
	imps := []wire.Impairment{
		{Delay: time.Millisecond},
		{Partition: true},
		{},
		{RateBitsPerSec: 1e6},
		wire.Compose(wire.Impairment{Delay: time.Millisecond}, wire.Impairment{RateBitsPerSec: 1e8}, wire.Impairment{Loss: 0.1}),
	}
	var wg sync.WaitGroup
	end := time.Now().Add(time.Second)
	for src := range n {
		for dst := range n {
			if src == dst {
				continue
			}
			c := r.udp(t, src, IP4(src), 0)
			wg.Go(func() {
				for time.Now().Before(end) {
					c.WriteToUDPAddrPort(make([]byte, 500), netip.AddrPortFrom(IP4(dst), echoPort))
					time.Sleep(time.Millisecond)
				}
			})
			wg.Go(func() {
				for i := src + dst; time.Now().Before(end); i++ {
					if err := r.Impair(t.Context(), src, dst, imps[i%len(imps)]); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(3 * time.Millisecond)
				}
				if err := r.Impair(t.Context(), src, dst, wire.Impairment{}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for src := range n {
		c := r.udp(t, src, IP4(src), 0)
		for dst := range n {
			if src == dst {
				continue
			}
			if got := rtts(t, c, IP4(dst), 3, 5*time.Second); len(got) != 3 {
				t.Errorf("%d to %d: %d of 3 answered after all was healed", src, dst, len(got))
			}
			if imp := r.Impairment(src, dst); imp != (wire.Impairment{}) {
				t.Errorf("%d to %d: still %+v", src, dst, imp)
			}
		}
	}
	if st, _, err := r.WireStats(t.Context(), false); err != nil || st.Held != 0 {
		t.Errorf("the wire holds %d frames, %v", st.Held, err)
	}
}
