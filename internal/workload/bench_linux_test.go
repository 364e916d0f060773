package workload

import (
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"brownout/internal/clock"
	"brownout/internal/history"
	"brownout/internal/sys/timerfd"
)

// BenchmarkPacer offers a load to a target in memory and reports how late the
// testbed was, and what it cost.
func BenchmarkPacer(b *testing.B) {
	for _, rate := range []float64{1000, 5000, 20_000} {
		b.Run(fmt.Sprintf("%.0f-per-s", rate), func(b *testing.B) {
			timer, err := timerfd.New()
			if err != nil {
				b.Fatal(err)
			}
			defer timer.Close()
			var last Report
			var cpu time.Duration
			for b.Loop() {
				l := someLoad
				l.Rate, l.Clients = rate, 64
				spec := Spec{Zero: clock.Raw(), Load: l, Seed: 1, End: 2 * time.Second, Endpoints: []Endpoint{{}}}
				p, err := newPool(b.Context(), spec, &store{}, history.NewRecorder(io.Discard))
				if err != nil {
					b.Fatal(err)
				}
				before := used()
				if last, err = p.run(b.Context(), timer.Sleep, nil); err != nil {
					b.Fatal(err)
				}
				cpu = used() - before
			}
			b.ReportMetric(float64(last.Lateness.P50)/1e3, "late-p50-µs")
			b.ReportMetric(float64(last.Lateness.P99)/1e3, "late-p99-µs")
			b.ReportMetric(float64(last.Lateness.Max)/1e3, "late-max-µs")
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(last.Sent), "cpu-ns/op")
			b.ReportMetric(float64(last.Dropped), "dropped")
		})
	}
}

// used is the CPU time of this process.
func used() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
