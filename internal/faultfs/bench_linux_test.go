package faultfs

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkIdle compares native ext4 (or whatever backs the temporary
// directory) with slowfs without rules, interleaved: what a node pays for
// being hurtable.
func BenchmarkIdle(b *testing.B) {
	plain, pass := mountFor(b, ""), mountFor(b, "passthrough")
	native := b.TempDir()
	for _, w := range []struct {
		name string
		n    int
		do   func(dir string, n int) []time.Duration
	}{
		{"append+fdatasync", 300, func(dir string, n int) []time.Duration {
			f := create(b, filepath.Join(dir, fmt.Sprint("f", time.Now().UnixNano())))
			return timed(b, n, func(i int) error {
				if _, err := f.WriteAt(make([]byte, 4096), int64(i)*4096); err != nil {
					return err
				}
				return unix.Fdatasync(int(f.Fd()))
			})
		}},
		{"bbolt put", 200, func(dir string, n int) []time.Duration { return boltPuts(b, sub(b, dir), n) }},
		{"raft-wal append", 300, func(dir string, n int) []time.Duration { return walLogs(b, sub(b, dir), n) }},
	} {
		b.Run(w.name, func(b *testing.B) {
			var all [3][]time.Duration
			for range b.N {
				for i, dir := range []string{native, plain.point, pass.point} {
					all[i] = append(all[i], w.do(dir, w.n)...)
				}
			}
			sortAll(all[:])
			b.ReportMetric(0, "ns/op")
			for i, what := range []string{"native", "slowfs", "passthrough"} {
				b.ReportMetric(float64(median(all[i]).Microseconds()), what+"-p50-us")
			}
			b.ReportMetric(float64(median(all[1]))/float64(median(all[0])), "slowfs-ratio")
			b.ReportMetric(float64(median(all[2]))/float64(median(all[0])), "passthrough-ratio")
		})
	}
}

// BenchmarkAccuracy is the error of a delay as a caller sees it: the time of an
// fsync of an unchanged file with the delay, less the median without. The ones
// without come at the same pace: after a few idle milliseconds a call takes
// some 0.2 ms longer, on any file system, than right after another.
func BenchmarkAccuracy(b *testing.B) {
	m := mountFor(b, "")
	f := create(b, m.path("f"))
	sync := func(int) error { return unix.Fdatasync(int(f.Fd())) }
	for _, want := range []time.Duration{200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		b.Run(want.String(), func(b *testing.B) {
			n := max(10, min(300, int(time.Second/want)))
			var all, base []time.Duration
			for range b.N {
				m.heal()
				for range min(n, 50) {
					time.Sleep(want)
					base = append(base, timed(b, 1, sync)...)
				}
				m.rules(Fsync, want)
				all = append(all, timed(b, n, sync)...)
			}
			sortAll([][]time.Duration{all, base})
			us := func(q float64) float64 {
				return float64((all[min(int(q*float64(len(all))), len(all)-1)] - median(base) - want).Nanoseconds()) / 1e3
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(us(0.5), "error-p50-us")
			b.ReportMetric(us(0.99), "error-p99-us")
			b.ReportMetric(float64(len(all)), "n")
		})
	}
}

func sub(b *testing.B, dir string) string {
	b.Helper()
	d := filepath.Join(dir, fmt.Sprint(time.Now().UnixNano()))
	if err := unix.Mkdir(d, 0o755); err != nil {
		b.Fatal(err)
	}
	return d
}

func sortAll(dss [][]time.Duration) {
	for _, ds := range dss {
		slices.Sort(ds)
	}
}
