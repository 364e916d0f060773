package kvserver

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"brownout/kvserver/kvload"
)

// The benchmarks run three nodes as processes on the loopback with the wal and
// its fsyncs, and 256-byte values under 10 000 keys, all against the leader.
// "shared" puts the clients on at most 16 connections, as multiplexing client
// libraries do; "own" gives each its own, as redis-benchmark does.
const (
	benchKeys  = 10_000
	benchValue = 256
	benchConns = 16
)

func BenchmarkPut(b *testing.B) {
	value := strings.Repeat("v", benchValue)
	for _, tt := range []struct {
		name  string
		n, on int
	}{{"clients=1", 1, 1}, {"clients=100/shared", 100, benchConns}, {"clients=100/own", 100, 100}, {"clients=500/shared", 500, benchConns}} {
		b.Run(tt.name, func(b *testing.B) {
			k := startProcesses(b, 3, nil)
			dir := b.TempDir()
			before := fsyncP50(b, dir)
			p50 := load(b, k, tt.n, tt.on, func(b []byte, i int64) []byte { return kvload.Append(b, "SET", benchKey(i), value) }, "+OK")
			floor := (before + fsyncP50(b, dir)) / 2
			b.ReportMetric(float64(floor.Nanoseconds())/1e3, "fsync-p50-µs")
			if tt.n == 1 {
				b.ReportMetric(float64(p50)/float64(2*floor+100*time.Microsecond), "x-floor")
			}
		})
	}
}

func BenchmarkReadLinearizable(b *testing.B) {
	value := strings.Repeat("v", benchValue)
	for _, tt := range []struct {
		name  string
		n, on int
	}{{"clients=1", 1, 1}, {"clients=100/shared", 100, benchConns}, {"clients=100/own", 100, 100}} {
		b.Run(tt.name, func(b *testing.B) {
			k := startProcesses(b, 3, nil)
			c := k.dial(k.procLeader())
			var fill [][]string
			for i := range int64(benchKeys) {
				fill = append(fill, []string{"SET", benchKey(i), value})
			}
			c.pipeline(fill...)
			load(b, k, tt.n, tt.on, func(b []byte, i int64) []byte { return kvload.Append(b, "GET", benchKey(i)) }, "$256")
		})
	}
}

func benchKey(i int64) string { return "key:" + strconv.FormatInt(i*7919%benchKeys, 10) }

// load runs b.N commands by n clients on at most conns connections, and returns the median latency.
func load(b *testing.B, k *testCluster, n, conns int, command func(b []byte, i int64) []byte, want string) time.Duration {
	lead := k.procLeader()
	lines, err := kvload.Dial(min(n, conns), func() (net.Conn, error) { return net.Dial("tcp", k.conf[lead].Client) })
	if err != nil {
		b.Fatal(err)
	}
	defer kvload.Close(lines)
	before := k.cpuTimes()
	b.ResetTimer()
	got, err := kvload.Run(kvload.Spec{Conns: lines, Clients: n, Count: int64(b.N), Command: command, Want: want})
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(got.PerSecond(), "ops/s")
	leader, others := 0.0, 0.0
	for i, after := range k.cpuTimes() {
		if d := (after - before[i]).Seconds() * 1e6 / float64(got.Ops); i == lead {
			leader = d
		} else {
			others += d
		}
	}
	b.ReportMetric(leader, "leader-cpu-µs/op")
	b.ReportMetric(others, "followers-cpu-µs/op")
	b.ReportMetric(float64(got.Quantile(0.5).Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(got.Quantile(0.99).Nanoseconds())/1e3, "p99-µs")
	var m Metrics
	k.admin(lead, "GET", "/metrics", "", &m)
	if m.Entries > 0 {
		b.ReportMetric(float64(m.Store.P50NS)/1e3, "leader-store-p50-µs")
		b.ReportMetric(float64(m.EntryCommands)/float64(m.Entries), "commands/entry")
	}
	return got.Quantile(0.5)
}

// cpuTimes returns the CPU time that each node has used, in /proc's resolution of 10 ms; 0 where there is no /proc.
func (k *testCluster) cpuTimes() []time.Duration {
	used := make([]time.Duration, len(k.procs))
	for i, cmd := range k.procs {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest) // proc_pid_stat(5), from field 3 on
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		used[i] = time.Duration(user+system) * 10 * time.Millisecond
	}
	return used
}

// fsyncP50 measures what one durable append costs here: the floor of a write.
func fsyncP50(tb testing.TB, dir string) time.Duration {
	f, err := os.Create(filepath.Join(dir, "floor"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var took []time.Duration
	block := make([]byte, 512)
	for range 300 {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			tb.Fatal(err)
		}
		if err := datasync(f); err != nil {
			tb.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2]
}
