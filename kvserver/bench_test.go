package kvserver

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
			floor := fsyncP50(b, b.TempDir())
			p50 := load(b, k, tt.n, tt.on, func(i int) []byte { return appendCommand(nil, "SET", benchKey(i), value) }, "+OK")
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
			for i := range benchKeys {
				fill = append(fill, []string{"SET", benchKey(i), value})
			}
			c.pipeline(fill...)
			load(b, k, tt.n, tt.on, func(i int) []byte { return appendCommand(nil, "GET", benchKey(i)) }, "$256")
		})
	}
}

func benchKey(i int) string { return "key:" + strconv.Itoa(i*7919%benchKeys) }

// load runs b.N commands by n clients on at most conns connections, and returns the median latency.
func load(b *testing.B, k *testCluster, n, conns int, command func(i int) []byte, want string) time.Duration {
	lead := k.procLeader()
	var lines []*muxConn
	for range min(n, conns) {
		lines = append(lines, dialMux(b, k.conf[lead].Client))
	}
	commands := make([][]byte, benchKeys)
	for i := range commands {
		commands[i] = command(i)
	}
	took := make([][]time.Duration, n)
	before := k.cpuTimes()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range n {
		wg.Go(func() {
			m, done := lines[w%len(lines)], make(chan string, 1)
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				start := time.Now()
				if got := m.do(commands[i%benchKeys], done); got != want {
					b.Errorf("reply %q, want %q", got, want)
					return
				}
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	p := func(permille int) time.Duration { return all[(len(all)-1)*permille/1000] }
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "ops/s")
	leader, others := 0.0, 0.0
	for i, after := range k.cpuTimes() {
		if d := (after - before[i]).Seconds() * 1e6 / float64(len(all)); i == lead {
			leader = d
		} else {
			others += d
		}
	}
	b.ReportMetric(leader, "leader-cpu-µs/op")
	b.ReportMetric(others, "followers-cpu-µs/op")
	b.ReportMetric(float64(p(500).Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(p(990).Nanoseconds())/1e3, "p99-µs")
	var m Metrics
	k.admin(lead, "GET", "/metrics", "", &m)
	if m.Entries > 0 {
		b.ReportMetric(float64(m.Store.P50NS)/1e3, "leader-store-p50-µs")
		b.ReportMetric(float64(m.EntryCommands)/float64(m.Entries), "commands/entry")
	}
	return p(500)
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

// A muxConn carries the commands of several clients. Replies come in order.
type muxConn struct {
	mu      sync.Mutex
	conn    net.Conn
	out     []byte
	writing bool
	waiting chan chan string
}

func dialMux(tb testing.TB, addr string) *muxConn {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	m := &muxConn{conn: conn, waiting: make(chan chan string, 1024)}
	read := make(chan struct{})
	go func() { defer close(read); m.read() }()
	tb.Cleanup(func() { conn.Close(); <-read })
	return m
}

// do sends a command, together with those that others send meanwhile.
func (m *muxConn) do(command []byte, done chan string) string {
	m.mu.Lock()
	m.out = append(m.out, command...)
	m.waiting <- done
	if !m.writing {
		m.writing = true
		for len(m.out) > 0 {
			b := bytes.Clone(m.out)
			m.out = m.out[:0]
			m.mu.Unlock()
			m.conn.Write(b)
			m.mu.Lock()
		}
		m.writing = false
	}
	m.mu.Unlock()
	return <-done
}

func (m *muxConn) read() {
	r := bufio.NewReaderSize(m.conn, 64<<10)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		head := string(bytes.TrimRight(line, "\r\n"))
		if head[0] == '$' && head != "$-1" {
			n, _ := strconv.Atoi(head[1:])
			if _, err := r.Discard(n + 2); err != nil {
				return
			}
		}
		(<-m.waiting) <- head
	}
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
