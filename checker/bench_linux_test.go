package checker

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"brownout/internal/history"
)

// million is the history that the goals are about.
func million(clients int, unknown float64) genConfig {
	return genConfig{ops: 1_000_000, clients: clients, keys: 1, span: 1000, gap: 1000, unknown: unknown}
}

// BenchmarkCheck judges histories that are in memory: right ones, and one with a
// stale read, which is explained too.
func BenchmarkCheck(b *testing.B) {
	huge := million(50, 0.05)
	huge.ops *= 10
	for _, bb := range []struct {
		name string
		c    genConfig
		bug  bug
	}{
		{"100k operations, 1000 keys, 64 clients, 2% unknown", genConfig{ops: 100_000, clients: 64, keys: 1000, span: 1000, gap: 1000, unknown: 0.02, appends: true}, noBug},
		{"1M operations, 1 key, 50 clients, 5% unknown", million(50, 0.05), noBug},
		{"1M operations, 1 key, 50 clients, all known", million(50, 0), noBug},
		{"1M operations, 1 key, 50 clients, 10% unknown", million(50, 0.1), noBug},
		{"1M operations, 1 key, 5 clients, 5% unknown", million(5, 0.05), noBug},
		{"1M operations, 1 key, 500 clients, 5% unknown", million(500, 0.05), noBug},
		{"1M operations, 1 key, 50 clients, 5% unknown, a stale read", million(50, 0.05), staleRead},
		{"1M operations, 1000 keys, 50 clients, 5% unknown", genConfig{ops: 1_000_000, clients: 50, keys: 1000, span: 1000, gap: 1000, unknown: 0.05}, noBug},
		{"100k operations, 1 key, 3 at once, 2% unknown", genConfig{ops: 100_000, clients: 6, keys: 1, span: 1000, gap: 1000, unknown: 0.02}, noBug},
		{"10M operations, 1 key, 50 clients, 5% unknown", huge, noBug},
	} {
		b.Run(bb.name, func(b *testing.B) {
			ops := recorded(b, bb.c, bb.bug)
			want := map[bool]Verdict{true: OK, false: Illegal}[bb.bug == noBug]
			base := heap()
			most := watchHeap(b)
			var cpu time.Duration
			named := 0
			for b.Loop() {
				runtime.GC() // what one check leaves behind is not the next one's work
				before := cpuTime()
				res, err := Check(context.Background(), ops, Options{Workers: 1})
				if err != nil || res.Verdict != want {
					b.Fatal(res.Verdict, res.Why, res.Conflicts, err)
				}
				cpu += cpuTime() - before
				if want == Illegal {
					named = len(res.Conflicts[0].Ops)
				}
			}
			// Of the whole process, so with the garbage collector.
			b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms")
			b.ReportMetric(float64(most()-base)/1e6, "MB-more")
			b.ReportMetric(float64(named), "ops-named")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// recorded generates a history in which the bug shows, in the order of returns, as
// recorders write it.
func recorded(b *testing.B, c genConfig, bg bug) []history.Op {
	if free := memAvailable(); free < int64(c.ops)*800 {
		b.Skipf("%d operations take some %d MB, and %d are free", c.ops, c.ops*800>>20, free>>20)
	}
	for seed := range uint64(20) {
		ops, ok := generate(rand.New(rand.NewPCG(seed, 2)), c, bg)
		if !ok {
			continue
		}
		slices.SortStableFunc(ops, func(a, b history.Op) int { return cmp.Compare(a.Return, b.Return) })
		if bg == noBug {
			return ops
		}
		if res, err := Check(context.Background(), ops, Options{Workers: 1}); err == nil && res.Verdict == Illegal {
			return ops
		}
	}
	b.Fatal("the bug never shows")
	return nil
}

// watchHeap looks at the heap now and then, and returns the most that was seen when asked.
func watchHeap(b *testing.B) (most func() int64) {
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		largest := int64(0)
		for {
			metrics.Read(sample)
			largest = max(largest, int64(sample[0].Value.Uint64()))
			select {
			case <-tick.C:
			case <-stop:
				done <- largest
				return
			}
		}
	}()
	var once sync.Once
	var found int64
	ask := func() int64 {
		once.Do(func() { close(stop); found = <-done })
		return found
	}
	b.Cleanup(func() { ask() })
	return ask
}

func memAvailable() int64 {
	var i syscall.Sysinfo_t
	if syscall.Sysinfo(&i) != nil {
		return 0
	}
	return int64(i.Freeram+i.Bufferram) * int64(i.Unit)
}

// BenchmarkCheckFiles reads a history of a million operations and judges it.
func BenchmarkCheckFiles(b *testing.B) {
	ops := recorded(b, million(50, 0.05), noBug)
	var lines, spool bytes.Buffer
	w, rec := history.NewWriter(&lines), history.NewRecorder(&spool)
	log := rec.Log()
	sorted := slices.Clone(ops)
	slices.SortStableFunc(sorted, func(a, b history.Op) int { return cmp.Compare(a.Call, b.Call) })
	for i := range sorted {
		log.Add(&sorted[i])
		if err := w.Write(&sorted[i]); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(w.Flush(), rec.End()); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string][]byte{"history.jsonl": lines.Bytes(), "history.bin": spool.Bytes()} {
		b.Run(name, func(b *testing.B) {
			before := cpuTime()
			for b.Loop() {
				ops, err := history.ReadAny(bufio.NewReaderSize(bytes.NewReader(text), 1<<18))
				if err != nil {
					b.Fatal(err)
				}
				if res, err := Check(context.Background(), ops, Options{Workers: 1}); err != nil || res.Verdict != OK {
					b.Fatal(res.Verdict, err)
				}
			}
			b.ReportMetric(float64((cpuTime()-before).Milliseconds())/float64(b.N), "cpu-ms")
			b.ReportMetric(float64(len(text))/float64(len(ops)), "B/operation")
			b.ReportMetric(0, "ns/op")
		})
	}
}
