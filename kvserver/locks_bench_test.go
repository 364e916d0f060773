package kvserver

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"brownout/kvserver/kvload"
)

// A lockLoad is one row of docs/LOCKS.md's table.
type lockLoad struct {
	reads   int64 // of 20 commands
	clients int
	add     time.Duration // that applying holds the lock longer
}

func (l lockLoad) String() string {
	return fmt.Sprintf("reads=%d%%/clients=%d/hold=%v", 5*l.reads, l.clients, l.add)
}

// BenchmarkLocks compares the lock modes, turn by turn in one run, where a lock's
// part is largest: one node in a process of its own, its log in memory. No mode is
// better everywhere.
func BenchmarkLocks(b *testing.B) {
	for _, reads := range []int64{19, 1} {
		for _, clients := range []int{1, 100} {
			for _, add := range []time.Duration{0, time.Millisecond} {
				load := lockLoad{reads, clients, add}
				b.Run(load.String(), func(b *testing.B) { compareLocks(b, load) })
			}
		}
	}
}

// Bounds of one turn.
const (
	lockTurns = 4 // of each mode
	lockWarm  = 100 * time.Millisecond
	lockTurn  = 400 * time.Millisecond
)

func compareLocks(b *testing.B, load lockLoad) {
	value := strings.Repeat("v", benchValue)
	command := func(b []byte, i int64) []byte {
		if i%20 < load.reads {
			return kvload.Append(b, "GET", benchKey(i))
		}
		return kvload.Append(b, "SET", benchKey(i), value)
	}
	conns := make([][]net.Conn, len(lockModes))
	sums := make([]struct{ rate, p50, p99 float64 }, len(lockModes))
	for i, mode := range lockModes {
		k := startProcesses(b, 1, func(c *Config) { c.Log, c.Lock = "memory", mode })
		if load.add > 0 {
			if status, why := k.lockFault(LockRequest{Holds: []LockHold{{AddNS: int64(load.add), Which: "apply", Share: 100}}}); status != 200 {
				b.Fatal(why)
			}
		}
		conns[i] = k.lines(b, min(load.clients, benchConns))
	}
	for turn := range lockTurns {
		for i := range lockModes {
			if turn%2 == 1 { // a drift of the host hits all alike
				i = len(lockModes) - 1 - i
			}
			got, err := kvload.Run(kvload.Spec{Conns: conns[i], Clients: load.clients, Warm: lockWarm, Time: lockTurn, Command: command})
			if err != nil {
				b.Fatal(err)
			}
			sums[i].rate += got.PerSecond() / lockTurns
			sums[i].p50 += got.Quantile(0.5).Seconds() * 1e6 / lockTurns
			sums[i].p99 += got.Quantile(0.99).Seconds() * 1e6 / lockTurns
		}
	}
	for i, mode := range lockModes {
		b.Run(mode, func(b *testing.B) {
			// It has been measured: the modes have taken turns.
			b.ReportMetric(sums[i].rate, "ops/s")
			b.ReportMetric(sums[i].p50, "p50-µs")
			b.ReportMetric(sums[i].p99, "p99-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkReadTurn is what a read costs in each mode where nobody is in its way,
// its share of timed turns included; bare is the readers-writer lock without what
// counts waits and holds, and asks for faults.
func BenchmarkReadTurn(b *testing.B) {
	ops, res := []op{words(opGet, "a")}, make([]result, 1)
	filled := func(c Config) *fsm {
		f := newFSM(c)
		f.ApplyBatch([]*raft.Log{entryOf(1, words(opSet, "a", "1"))})
		return f
	}
	b.Run("bare", func(b *testing.B) {
		f := filled(Config{})
		for b.Loop() {
			f.locks.rw.RLock()
			res[0] = query(f.keys, &ops[0])
			f.locks.rw.RUnlock()
		}
	})
	for _, mode := range lockModes {
		b.Run(mode, func(b *testing.B) {
			f := filled(Config{Lock: mode, LockShards: 16})
			for i := 0; b.Loop(); i++ {
				f.read(ops, res, i%sampled == 0)
			}
		})
	}
}
