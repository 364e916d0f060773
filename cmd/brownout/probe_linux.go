package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"brownout/faults"
	"brownout/scenarios"
)

func probePath(ctx context.Context, a, b string, opt probeOptions) error {
	o, err := newOutput(opt.output)
	if err != nil {
		return err
	}
	info, err := running(ctx, opt.cluster, "probe")
	if err != nil {
		return err
	}
	paths, err := scenarios.Probe(ctx, info, a, b, faults.PathOptions{Ping: opt.length, Pace: opt.pace, Goodput: opt.goodput})
	if err != nil {
		return whereError(err)
	}
	if o.json {
		return o.print(paths)
	}
	short := func(ns int64) string { return time.Duration(ns).Round(100 * time.Nanosecond).String() }
	for _, p := range paths {
		if p.Sent > 0 {
			fmt.Fprintf(o.out, "%s to %s  one way: min %s  p50 %s  p90 %s  p99 %s  max %s  sd %s  (UDP, n=%d)\n",
				p.From, p.To, short(p.Min), short(p.P50), short(p.P90), short(p.P99), short(p.Max), short(p.Deviation), p.Sent-p.Lost)
			fmt.Fprintf(o.out, "%s to %s  lost %d of %d (%.3g %%), %d duplicated, %d overtaken, %d damaged\n",
				p.From, p.To, p.Lost, p.Sent, 100*float64(p.Lost)/float64(p.Sent), p.Duplicated, p.Overtaken, p.Damaged)
		}
		if opt.goodput > 0 {
			fmt.Fprintf(o.out, "%s to %s  goodput %.4g Mbit/s over %s, %d segments sent again, round trip %s meanwhile (one TCP connection)\n",
				p.From, p.To, p.Goodput/1e6, time.Duration(p.Measured).Round(time.Millisecond), p.Retrans, short(p.RTT))
		}
	}
	return nil
}

// running finds a running cluster.
func running(ctx context.Context, name, what string) (scenarios.Info, error) {
	if err := needRoot(what); err != nil {
		return scenarios.Info{}, err
	}
	r, err := scenarios.Connect(name)
	if err != nil {
		return scenarios.Info{}, &usageError{err}
	}
	return r.Info(ctx)
}

// whereError makes a wrong name a mistake of the command line.
func whereError(err error) error {
	if where, ok := errors.AsType[*scenarios.NoPlaceError](err); ok {
		return &usageError{where}
	}
	return err
}

func pcap(ctx context.Context, a, b string, opt pcapOptions) (err error) {
	info, err := running(ctx, opt.cluster, "pcap")
	if err != nil {
		return err
	}
	var out io.Writer = stdout
	if opt.file != "-" {
		f, err := os.Create(opt.file)
		if err != nil {
			return &usageError{err}
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	buffered := bufio.NewWriterSize(out, 1<<20)
	if opt.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opt.length)
		defer cancel()
	}
	got, err := scenarios.Capture(ctx, info, a, b, buffered)
	if err := errors.Join(err, buffered.Flush()); err != nil {
		return whereError(err)
	}
	fmt.Fprintf(os.Stderr, "%d frames, %d bytes; %d were missed\n", got.Frames, got.Bytes, got.Missed)
	return nil
}
