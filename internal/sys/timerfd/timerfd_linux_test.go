package timerfd

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestSleepNeverEndsEarlyAndCanBeUsedAgain(t *testing.T) {
	timer, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer timer.Close()
	for _, d := range []time.Duration{-time.Second, 0, time.Microsecond, time.Millisecond, 60 * time.Millisecond, time.Millisecond} {
		until := time.Now().Add(d)
		if err := timer.Sleep(t.Context(), until); err != nil || time.Now().Before(until) {
			t.Errorf("sleep of %v: %v, %v early", d, err, time.Until(until))
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	timer, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer timer.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := timer.Sleep(ctx, time.Now().Add(time.Minute)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sleep = %v, want the deadline", err)
	}
	until := time.Now().Add(2 * time.Millisecond)
	if err := timer.Sleep(t.Context(), until); err != nil || time.Now().Before(until) {
		t.Errorf("sleep after a cut one: %v, %v early", err, time.Until(until))
	}
}

func BenchmarkLateness(b *testing.B) {
	timer, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer timer.Close()
	for _, bb := range []struct {
		name  string
		sleep func(time.Time)
	}{
		{"timerfd", func(t time.Time) { _ = timer.Sleep(context.Background(), t) }},
		{"runtime", func(t time.Time) { time.Sleep(time.Until(t)) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var late []time.Duration
			for b.Loop() {
				until := time.Now().Add(700 * time.Microsecond)
				bb.sleep(until)
				late = append(late, time.Since(until))
			}
			slices.Sort(late)
			b.ReportMetric(float64(late[len(late)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(late[len(late)*99/100].Microseconds()), "p99-µs")
		})
	}
}
