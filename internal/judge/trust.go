package judge

import (
	"fmt"
	"time"

	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/internal/stats"
)

// Limits beyond which the testbed's own part in the numbers is too large.
const (
	maxLateness     = 10 * time.Millisecond // p99 of the generator's own delay; or, if larger:
	maxLatenessPart = 0.5                   // of the baseline's p99 response time of puts
	maxDropped      = 0.001                 // share of operations that were due and never sent
	maxForeignCPU   = 0.30                  // share of all CPU time that others used in some phase: nothing timed can be trusted
	busyForeignCPU  = 0.15                  // the same, beyond which a missed expectation may be theirs
	maxWireLateness = 5 * time.Millisecond  // p99 of how late the wire delivered
)

// Words of run.Load and run.Noise.
const (
	loadOK      = "ok"
	loadStarved = "starved"
	quiet       = "quiet"
	noisy       = "noisy"
)

// load judges the generator by its own account of how late it was: from due to
// sent if a client was free, else from due to queued. Waiting for a free client
// is the target's slowness. Without that account (a run that was cut short),
// the history has to do: from due to call in the baseline, where clients are
// mostly free.
func (rec *record) load(phases []run.Phase) run.Load {
	out := run.Load{Verdict: loadOK}
	if e, ok := rec.last(run.LoadStarted); ok {
		out.OfferedPerS, out.MaxPerS = number(e.Data, "rate_per_s"), number(e.Data, "max_per_s")
	}
	b, based := phase(phases, "baseline")
	if e, ok := rec.last(run.LoadEnded); ok {
		out.Dropped = int64(number(e.Data, "dropped"))
		out.Lateness = run.Quantiles{
			P50: int64(number(e.Data, "lateness_p50_ns")), P90: int64(number(e.Data, "lateness_p90_ns")),
			P99: int64(number(e.Data, "lateness_p99_ns")), P999: int64(number(e.Data, "lateness_p999_ns")),
			Max: int64(number(e.Data, "lateness_max_ns")), N: int64(number(e.Data, "lateness_n")),
		}
	}
	if out.Lateness.N == 0 {
		var base stats.Hist
		for i := range rec.ops {
			if o := &rec.ops[i]; based && o.Due >= b.Start && o.Due < b.End {
				base.Record(o.Call - o.Due)
			}
		}
		out.Lateness = quantiles(&base)
	}
	puts, ok := b.Ops[string(history.Put)]
	if !ok {
		puts = b.Ops[allKinds]
	}
	limit := max(maxLateness, time.Duration(maxLatenessPart*float64(puts.Response.P99)))
	late := time.Duration(out.Lateness.P99)
	total := int64(len(rec.ops)) + out.Dropped
	switch {
	case late > limit:
		out.Verdict = loadStarved
		out.Why = fmt.Sprintf("the load generator was late by %v at p99 (limit %v)", round(late), round(limit))
	case total > 0 && float64(out.Dropped) > maxDropped*float64(total):
		out.Verdict = loadStarved
		out.Why = fmt.Sprintf("%d of %d due operations were never sent (limit %.1f %%)", out.Dropped, total, maxDropped*100)
	}
	return out
}

// noise takes the worst that was measured of the host.
func (rec *record) noise() run.Noise {
	out, when := run.Noise{Noise: quiet}, ""
	for _, e := range rec.events {
		if e.Type != run.HostNoise {
			continue
		}
		out.CPUPressure = max(out.CPUPressure, number(e.Data, "cpu_pressure"))
		if f := number(e.Data, "foreign_cpu"); counts(e.Phase) && f > out.ForeignCPU {
			out.ForeignCPU, when = f, during(e.Phase)
		}
		if f := int64(number(e.Data, "fsync_p50_ns")); f > 0 && out.FsyncP50 == 0 {
			out.FsyncP50 = f
		}
	}
	if out.ForeignCPU > maxForeignCPU {
		out.Noise = noisy
		out.Why = fmt.Sprintf("others used %.0f %% of the host's CPU time %s (limit %.0f %%)", out.ForeignCPU*100, when, maxForeignCPU*100)
	}
	return out
}

// busy says that others used enough of the host to explain a missed expectation
// about times, though not so much that met ones mean nothing; empty if they did not.
func (rec *record) busy() string {
	for _, e := range rec.events {
		if f := number(e.Data, "foreign_cpu"); e.Type == run.HostNoise && counts(e.Phase) && f > busyForeignCPU {
			return fmt.Sprintf("others used %.0f %% of the host's CPU time %s (more than %.0f %%)", f*100, during(e.Phase), busyForeignCPU*100)
		}
	}
	return ""
}

// counts reports whether anything is judged of what happened in a phase.
func counts(phase string) bool { return phase != "before" && phase != "warmup" }

func during(phase string) string {
	switch phase {
	case "":
		return "during the run"
	}
	return "in " + phase
}

func (rec *record) downstream() *run.Downstream {
	e, ok := rec.last(run.CacheReport)
	if !ok {
		return nil
	}
	n := func(name string) int64 { return int64(number(e.Data, name)) }
	return &run.Downstream{
		Writes: n("writes"), Failed: n("failed"), Dropped: n("dropped"), Retried: n("retried"), Late: n("late"),
		WaitMean: n("wait_mean_ns"), WaitMax: n("wait_max_ns"),
	}
}

func (rec *record) wire() run.Wire {
	e, ok := rec.last(run.WireReport)
	if !ok {
		return run.Wire{}
	}
	w := run.Wire{
		LatenessP50: int64(number(e.Data, "lateness_p50_ns")), LatenessP99: int64(number(e.Data, "lateness_p99_ns")),
		LatenessMax: int64(number(e.Data, "lateness_max_ns")), Frames: int64(number(e.Data, "frames")),
		Lost: int64(number(e.Data, "lost")),
	}
	w.Scheduling, _ = e.Data["scheduling"].(string)
	if fifo, _ := e.Data["fifo"].(bool); fifo && w.Scheduling == "" {
		w.Scheduling = "fifo"
	}
	return w
}

// unfit says why the run's times cannot be trusted; empty if they can.
func unfit(res *run.Result) string {
	switch {
	case res.Load.Verdict == loadStarved:
		return "testbed starved: " + res.Load.Why
	case res.Host.Noise == noisy:
		return "host too noisy: " + res.Host.Why
	case res.Wire.LatenessP99 > int64(maxWireLateness):
		return fmt.Sprintf("testbed starved: the wire delivered %v late at p99 (limit %v)", round(time.Duration(res.Wire.LatenessP99)), maxWireLateness)
	}
	return ""
}

// round drops digits that nobody reads.
func round(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(time.Millisecond)
	case d > time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
