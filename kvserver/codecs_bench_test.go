package kvserver

import (
	"net"
	"strings"
	"testing"
	"time"

	"brownout/kvserver/kvload"
)

// Bounds of one turn.
const (
	codecTurns = 4 // of each codec
	codecWarm  = 100 * time.Millisecond
	codecTurn  = 400 * time.Millisecond
)

// BenchmarkPutCodecs compares what clients get with each codec, turn by turn in
// one run: 100 clients, three nodes as processes, wal, 256-byte values; plain, and
// with 4 KiB of padding and 20 fields in each command.
func BenchmarkPutCodecs(b *testing.B) {
	b.Run("plain", func(b *testing.B) { comparePuts(b, 0, 0) })
	b.Run("fat", func(b *testing.B) { comparePuts(b, 4<<10, 20) })
}

func comparePuts(b *testing.B, bloat, fields int) {
	value := strings.Repeat("v", benchValue)
	command := func(b []byte, i int64) []byte { return kvload.Append(b, "SET", benchKey(i), value) }
	type sum struct {
		ops       int64
		took, cpu time.Duration
		p50, p99  float64
	}
	sums := make([]sum, len(codecs))
	clusters, conns := make([]*testCluster, len(codecs)), make([][]net.Conn, len(codecs))
	for i := range codecs {
		k := startProcesses(b, 3, func(c *Config) { c.Codec, c.CodecBloat, c.CodecFields = codecs[i].name, bloat, fields })
		clusters[i], conns[i] = k, k.lines(b, benchConns)
	}
	for turn := range codecTurns {
		for i := range codecs {
			if turn%2 == 1 { // a drift of the host hits all alike
				i = len(codecs) - 1 - i
			}
			before := clusters[i].cpuTimes()
			got, err := kvload.Run(kvload.Spec{Conns: conns[i], Clients: 100, Warm: codecWarm, Time: codecTurn, Command: command, Want: "+OK"})
			if err != nil {
				b.Fatal(err)
			}
			s := &sums[i]
			for n, after := range clusters[i].cpuTimes() {
				s.cpu += after - before[n]
			}
			s.ops += got.Ops
			s.took += time.Duration(float64(got.Ops) / got.PerSecond() * 1e9)
			s.p50 += got.Quantile(0.5).Seconds() * 1e3 / codecTurns
			s.p99 += got.Quantile(0.99).Seconds() * 1e3 / codecTurns
		}
	}
	for i, s := range sums {
		var m Metrics
		clusters[i].admin(clusters[i].procLeader(), "GET", "/metrics", "", &m)
		b.Run(codecs[i].name, func(b *testing.B) {
			for b.Loop() { // it has been measured: the codecs have taken turns
			}
			b.ReportMetric(float64(s.ops)/s.took.Seconds(), "ops/s")
			b.ReportMetric(s.p50, "p50-ms")
			b.ReportMetric(s.p99, "p99-ms")
			b.ReportMetric(s.cpu.Seconds()*1e6/float64(s.ops), "cpu-µs/op") // warming included
			b.ReportMetric(float64(m.Codec.Encode.Bytes)/float64(m.Codec.Encode.Commands), "bytes/op")
			b.ReportMetric(0, "ns/op")
		})
	}
}
