package telemetry

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/clock"
	"brownout/internal/needs"
	"brownout/internal/run"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/tcpdiag"
)

func TestCountersOfConnectionsOnlyGrow(t *testing.T) {
	n2, outside := netip.MustParseAddrPort("10.77.0.2:7000"), netip.MustParseAddrPort("10.77.0.9:555")
	c := &tcp{peers: map[netip.Addr]string{n2.Addr(): "n2"}, last: map[uint64]tcpdiag.Conn{}}
	for _, tt := range []struct {
		name  string
		conns []tcpdiag.Conn
		want  map[string]float64
	}{
		{
			"a peer and a client",
			[]tcpdiag.Conn{
				{Cookie: 1, Remote: n2, RTT: 3 * time.Millisecond, Retrans: 2, BytesSent: 100, Unacked: 4, Lost: 1},
				{Cookie: 2, Remote: outside, RTT: 5 * time.Millisecond, BytesReceived: 7, NotSent: 9, RecvQueue: 8},
			},
			map[string]float64{
				"peer_conns": 1, "peer_rtt_max_ns": 3e6, "rtt_n2_ns": 3e6, "peer_retrans": 2, "peer_sent_bytes": 100, "peer_unacked": 4, "peer_lost": 1,
				"client_conns": 1, "client_rtt_max_ns": 5e6, "client_received_bytes": 7, "client_notsent_bytes": 9, "client_recv_queue_bytes": 8,
			},
		},
		{
			"the peer's was replaced by two",
			[]tcpdiag.Conn{
				{Cookie: 3, Remote: n2, RTT: time.Millisecond, Retrans: 1, BytesSent: 10},
				{Cookie: 4, Remote: n2, RTT: 2 * time.Millisecond},
			},
			map[string]float64{
				"peer_conns": 2, "peer_rtt_max_ns": 2e6, "rtt_n2_ns": 2e6, "peer_retrans": 3, "peer_sent_bytes": 110, "client_received_bytes": 7,
			},
		},
		{"all are gone", nil, map[string]float64{"peer_retrans": 3, "peer_sent_bytes": 110, "client_received_bytes": 7}},
	} {
		got := c.numbers(tt.conns)
		for name, v := range got {
			if v == 0 {
				delete(got, name)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestWhatTheHostDoesNotCountIsLeftOut(t *testing.T) {
	got := groupNumbers(cgroup.Stat{Usage: 5, Has: cgroup.Has{CPU: true}})
	if diff := cmp.Diff(map[string]float64{"cpu_ns": 5, "cpu_user_ns": 0, "cpu_system_ns": 0}, got); diff != "" {
		t.Error(diff)
	}
}

type fakeGroup struct{}

func (fakeGroup) Stat() (cgroup.Stat, error) {
	return cgroup.Stat{Usage: time.Second, Has: cgroup.Has{CPU: true, Throttling: true, Memory: true, IO: true, Pressure: true}}, nil
}

func thisProcess() ([]int, error) { return []int{os.Getpid()}, nil }

// thisNode is this very process as a node, with a connection to itself.
func thisNode(t testing.TB, name string) Node {
	t.Helper()
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	if _, err := io.WriteString(a, "hello"); err != nil {
		t.Fatal(err)
	}
	return Node{
		Name: name, Group: fakeGroup{}, Pids: thisProcess, NetNS: ns,
		Peers: map[netip.Addr]string{netip.MustParseAddr("127.0.0.1"): "n9"}, Admin: constant(1), Disk: constant(2),
	}
}

func TestSourcesOfARealNode(t *testing.T) {
	needs.Host(t, needs.Root)
	sources, closing, err := NodeSources(thisNode(t, "n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer closing()
	h, err := NewHost(func() time.Duration { return CPUTime(0) })
	if err != nil {
		t.Fatal(err)
	}
	got := collect(t, 350*time.Millisecond, append(sources, h.Source())...)
	for source, names := range map[string][]string{
		"n1 cgroup":  {"cpu_ns", "throttled_ns", "cpu_some_ns", "memory_bytes"},
		"n1 io":      {"processes", "rchar_bytes", "write_calls"},
		"n1 sched":   {"run_ns", "wait_ns"},
		"n1 tcp":     {"peer_conns", "peer_rtt_max_ns", "rtt_n9_ns", "peer_retrans", "client_unacked"},
		"n1 runtime": {"x"}, "n1 disk": {"x"},
		"host host": {"busy_ns", "total_ns", "own_ns", "foreign_cpu", "loadavg", "cpus"},
	} {
		if len(got[source]) == 0 {
			t.Errorf("no sample of %s", source)
			continue
		}
		v := got[source][len(got[source])-1].Values
		for _, name := range names {
			if _, ok := v[name]; !ok {
				t.Errorf("%s does not tell %s: %v", source, name, v)
			}
		}
	}
	if v := got["n1 tcp"][0].Values; v["rtt_n9_ns"] <= 0 || v["peer_conns"] < 2 {
		t.Errorf("tcp = %v", v)
	}
}

func TestNoiseCountsOwnTimeAsOwn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	dir := t.TempDir()
	n, err := Noise(ctx, dir, 200*time.Millisecond)
	if err != nil || n.FsyncP50 <= 0 || n.ForeignCPU < 0 || n.ForeignCPU > 1 || n.CPUPressure < 0 || n.CPUPressure > 1 {
		t.Errorf("noise = %+v, %v", n, err)
	}
	all := func() time.Duration { return 1 << 60 }
	first := all
	calls := 0
	if n, err := Noise(ctx, dir, 50*time.Millisecond, func() time.Duration {
		if calls++; calls == 1 {
			return 0
		}
		return first()
	}); err != nil || n.ForeignCPU != 0 {
		t.Errorf("with all time our own: %+v, %v", n, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := Noise(ctx, filepath.Join(dir, "none"), time.Millisecond); err == nil {
		t.Error("noise of a directory that is not there: no error")
	}
}

// BenchmarkSampling is the cost of sampling three nodes as a share of one core:
// the time of one round of all sources, which comes ten times a second.
func BenchmarkSampling(b *testing.B) {
	needs.Host(b, needs.Root)
	var sources []Source
	for _, name := range []string{"n1", "n2", "n3", "client"} {
		s, closing, err := NodeSources(thisNode(b, name))
		if err != nil {
			b.Fatal(err)
		}
		defer closing()
		sources = append(sources, s...)
	}
	h, err := NewHost(nil)
	if err != nil {
		b.Fatal(err)
	}
	sources = append(sources, h.Source())
	log, err := Create(filepath.Join(b.TempDir(), "telemetry.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	var readers []*reader
	for _, s := range sources {
		readers = append(readers, &reader{Source: s, clock: clock.At(0), tell: func(sm run.Sample) { _ = log.Write(sm) }})
	}
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	n := 0
	for b.Loop() {
		for _, r := range readers {
			r.sample(b.Context())
		}
		n++
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(cpu)/float64(n)/float64(Every)*100, "%-of-core")
}
