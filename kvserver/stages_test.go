package kvserver

import (
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"brownout/kvserver/kvload"
	"brownout/kvserver/stages"
)

// TestARequestsStagesAreNoted follows one write and one read by the notes of
// all nodes: every stage is there, in its order.
func TestARequestsStagesAreNoted(t *testing.T) {
	dir := t.TempDir()
	file := func(id string) string { return filepath.Join(dir, id, "stages.bin") }
	k := startCluster(t, 3, func(c *Config) { c.Stages = file(c.ID) }, nil)
	lead := k.leader()
	c := k.dial(lead)
	for i := range 20 {
		c.must("OK", "SET", fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	c.must(`"v19"`, "GET", "k19")
	notes := map[string][]stages.Record{}
	read := func(id string) {
		f, err := os.Open(file(id))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		notes[id] = nil
		err = stages.Read(f, func(h *stages.Header, r *stages.Record) {
			if h.Node != id || len(h.Members) != 3 {
				t.Errorf("header %+v", h)
			}
			notes[id] = append(notes[id], *r)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last write's answers in the leader's notes", func() bool {
		read(k.conf[lead].ID)
		own := notes[k.conf[lead].ID]
		last := slices.IndexFunc(own, func(r stages.Record) bool { return r.Kind == stages.Request && r.A == stages.Hash("k19", "v19") })
		if last < 0 {
			return false
		}
		acked := 0
		for _, r := range own {
			if r.Kind == stages.Send && r.A <= own[last].B && own[last].B <= r.B && r.T[stages.SendAcked] != 0 {
				acked++
			}
		}
		return acked >= 2
	})
	for i := range k.nodes {
		k.stop(i)
	}
	for _, conf := range k.conf {
		read(conf.ID)
	}
	leader := k.conf[lead].ID
	one := func(node, what string, is func(*stages.Record) bool) stages.Record {
		t.Helper()
		for i := range notes[node] {
			if r := &notes[node][i]; is(r) {
				return *r
			}
		}
		t.Fatalf("%s noted no %s", node, what)
		return stages.Record{}
	}
	rising := func(what string, times ...int64) {
		t.Helper()
		for i, at := range times {
			if at == 0 || i > 0 && at < times[i-1] {
				t.Errorf("%s: stages at %v", what, times)
				return
			}
		}
	}
	put := one(leader, "write", func(r *stages.Record) bool { return r.Kind == stages.Request && r.A == stages.Hash("k19", "v19") })
	index := put.B
	holds := func(kind stages.Kind) func(*stages.Record) bool {
		return func(r *stages.Record) bool { return r.Kind == kind && r.A <= index && index <= r.B }
	}
	rising("write", put.T[stages.Received], put.T[stages.Parsed], put.T[stages.Queued], put.T[stages.Proposed], put.T[stages.Answered], put.T[stages.Encoding], put.T[stages.Sent])
	coded := one(leader, "encode", holds(stages.Encode))
	if coded.T[stages.EncodeBegun] != put.T[stages.Proposed] || coded.N == 0 {
		t.Errorf("encoded at %v, %d bytes; proposed at %d", coded.T, coded.N, put.T[stages.Proposed])
	}
	own := one(leader, "store", holds(stages.Store))
	rising("leader's log", append([]int64{put.T[stages.Proposed], coded.T[stages.EncodeDone]}, own.T[:stages.StoreDone+1]...)...)
	applied := one(leader, "apply", holds(stages.Apply))
	rising("apply", own.T[stages.StoreDone], applied.T[stages.ApplyBegun], applied.T[stages.ApplyDecoded], applied.T[stages.ApplyLocked], applied.T[stages.ApplyDone], put.T[stages.Answered])
	acked := 0
	for i, conf := range k.conf {
		if conf.ID == leader {
			continue
		}
		got := one(conf.ID, "receive", holds(stages.Receive))
		kept := one(conf.ID, "store", holds(stages.Store))
		rising(conf.ID+"'s part", got.T[stages.ReceiveBegun], got.T[stages.ReceiveDecoded], kept.T[stages.StoreBegun], kept.T[stages.StoreCoded], kept.T[stages.StoreWritten], kept.T[stages.StoreSynced], kept.T[stages.StoreDone], got.T[stages.ReceiveAnswered])
		if int(got.Peer) != lead {
			t.Errorf("%s had it from member %d, want %d", conf.ID, got.Peer, lead)
		}
		sent := one(leader, "send to "+conf.ID, func(r *stages.Record) bool {
			return holds(stages.Send)(r) && int(r.Peer) == i && r.T[stages.SendAcked] != 0
		})
		rising("there and back", sent.T[stages.SendBegun], got.T[stages.ReceiveBegun], kept.T[stages.StoreDone], sent.T[stages.SendAcked])
		if sent.T[stages.SendAcked] <= applied.T[stages.ApplyBegun] {
			acked++
		}
	}
	if acked == 0 {
		t.Error("applied before any follower had answered")
	}
	get := one(leader, "read", func(r *stages.Record) bool { return r.Kind == stages.Request && r.A == stages.Hash("k19", "") })
	rising("read", get.T[:stages.Sent+1]...)
	if get.B != 0 {
		t.Errorf("a read has entry %d", get.B)
	}
}

// BenchmarkNotes compares writes of nodes that note stages with those of nodes that
// do not, turn by turn in one run, and reports what notes cost: the median over pairs
// of fresh clusters, for one cluster is a few percent faster than the next for no reason,
// and between which values that median lies with 95 % confidence. It takes some 20
// pairs (-benchtime 24x) to tell 2 %.
func BenchmarkNotes(b *testing.B) {
	const noteTurn = 10_000 // commands of a turn
	value := strings.Repeat("v", benchValue)
	put := func(b []byte, i int64) []byte { return kvload.Append(b, "SET", benchKey(i), value) }
	turn := func(k *testCluster, lines []net.Conn, count int64) (cpu, elapsed time.Duration) {
		before := k.cpuTimes()
		start := time.Now()
		if _, err := kvload.Run(kvload.Spec{Conns: lines, Clients: 100, Count: count, Command: put, Want: "+OK"}); err != nil {
			b.Fatal(err)
		}
		elapsed = time.Since(start)
		for i, after := range k.cpuTimes() {
			cpu += after - before[i]
		}
		return cpu, elapsed
	}
	var cpus, times []float64
	for pair := 0; b.Loop(); pair++ {
		var used, took [2]time.Duration // without notes, with notes
		var k [2]*testCluster
		var conns [2][]net.Conn
		for i := range 2 {
			noted := (pair + i) % 2 // neither is always the older one
			dir := b.TempDir()
			k[noted] = startProcesses(b, 3, func(c *Config) {
				if noted == 1 {
					c.Stages = filepath.Join(dir, c.ID)
				}
			})
			conns[noted] = k[noted].lines(b, benchConns)
			turn(k[noted], conns[noted], noteTurn)
		}
		for _, noted := range []int{0, 1, 1, 0, 0, 1, 1, 0} { // a drift of the host hits both alike
			cpu, elapsed := turn(k[noted], conns[noted], noteTurn)
			used[noted] += cpu
			took[noted] += elapsed
		}
		cpus = append(cpus, 100*(float64(used[1])/float64(used[0])-1))
		times = append(times, 100*(float64(took[1])/float64(took[0])-1))
		for i := range k {
			kvload.Close(conns[i])
			for n := range k[i].procs {
				k[i].kill(n)
			}
		}
	}
	for _, m := range []struct {
		unit string
		x    []float64
	}{{"cpu-%", cpus}, {"time-%", times}} {
		low, mid, high := medianWithin(m.x)
		b.ReportMetric(mid, m.unit)
		b.ReportMetric(low, m.unit+"-from")
		b.ReportMetric(high, m.unit+"-to")
	}
	b.ReportMetric(0, "ns/op")
}

// medianWithin sorts x, and returns its median between the bounds of its 95 %
// confidence interval: the order statistics that the sign test gives, the extremes
// where there are too few.
func medianWithin(x []float64) (low, mid, high float64) {
	slices.Sort(x)
	n := len(x)
	below, tail := 0, math.Pow(0.5, float64(n)) // the chance that no more than below values are less than the median
	for p := tail; ; below++ {
		p *= float64(n-below) / float64(below+1)
		if tail+p > 0.025 {
			break
		}
		tail += p
	}
	return x[below], x[n/2], x[n-1-below]
}

// lines opens connections to the leader.
func (k *testCluster) lines(b *testing.B, n int) []net.Conn {
	addr := k.conf[k.procLeader()].Client
	lines, err := kvload.Dial(n, func() (net.Conn, error) { return net.Dial("tcp", addr) })
	if err != nil {
		b.Fatal(err)
	}
	return lines
}
