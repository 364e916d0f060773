package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/faults"
	"brownout/faults/faultstest"
	"brownout/internal/needs"
	"brownout/internal/sys/netns"
	"brownout/internal/wire"
)

var hasNetem = needs.Need{Name: "netem", Check: func() string {
	if _, err := cluster.ProbeNetem(context.Background()); err != nil {
		return err.Error()
	}
	return ""
}}

func TestNetemProvidersConform(t *testing.T) {
	needs.Host(t, needs.Root, hasNetem)
	c := upWith(t, 2, nil, func(cfg *cluster.Config) { cfg.Ready = slowReady })
	bench := faults.NewBench(faults.Bed{Cluster: c})
	link := faults.Link{From: "n1", To: "n2"}
	// Doses are large: where this can run, it is mostly an emulated machine.
	for _, s := range []struct {
		kind          string
		dose, changed faults.Dose
		hold          time.Duration
	}{
		{"net.delay", faults.Dose{"add_ns": 200 * ms}, faults.Dose{"add_ns": 400 * ms}, 2 * time.Second},
		{"net.delay", faults.Dose{"add_ns": 200 * ms, "jitter_ns": 60 * ms, "dist": "normal"}, nil, 2 * time.Second},
		{"net.delay", faults.Dose{"add_ns": 200 * ms, "jitter_ns": 80 * ms, "dist": "uniform"}, nil, 2 * time.Second},
		{"net.delay", faults.Dose{"add_ns": 200 * ms, "jitter_ns": 80 * ms, "dist": "pareto"}, nil, 2 * time.Second},
		{"net.rate", faults.Dose{"limit_bits_per_s": int64(500e3), "queue_bytes": int64(64 << 10)}, nil, 3 * time.Second},
		{"net.loss", faults.Dose{"percent": 10.0}, faults.Dose{"percent": 30.0}, 2 * time.Second},
		{"net.loss", faults.Dose{"percent": 20.0, "burst": 4.0}, nil, 2 * time.Second},
		{"net.duplicate", faults.Dose{"percent": 20.0}, nil, 2 * time.Second},
		{"net.reorder", faults.Dose{"percent": 25.0, "add_ns": 20 * ms}, nil, 2 * time.Second},
		{"net.corrupt", faults.Dose{"percent": 20.0}, nil, 2 * time.Second},
	} {
		t.Run(fmt.Sprint(s.kind, " ", s.dose["dist"], s.dose["burst"]), func(t *testing.T) {
			faultstest.Conform(t, faultstest.Subject{
				Provider: bench.Source(s.kind, "netem"), Site: faults.Site{Links: []faults.Link{link}},
				Nowhere: faults.Site{Links: []faults.Link{{From: "n1", To: "n9"}}},
				Dose:    s.dose, Changed: s.changed, Hold: s.hold,
				Meter: func(site faults.Site, d faults.Dose) (faults.Meter, error) { return bench.Meter(s.kind, site, d) },
				Residue: func() string {
					if imp := bench.Emulated(link); imp != (wire.Impairment{}) {
						return fmt.Sprintf("%+v", imp)
					}
					return ""
				},
			})
		})
	}
}

// A partition goes before netem, netem and the wire exclude each other, and
// healing one leaves the other.
func TestNetemBesideOthersOnOnePair(t *testing.T) {
	needs.Host(t, needs.Root, hasNetem)
	c := upWith(t, 2, nil, func(cfg *cluster.Config) { cfg.Ready = slowReady })
	s := c.Switch()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	delay := wire.Impairment{Delay: 10 * time.Millisecond}
	must(s.Emulate(ctx, 0, 1, delay))
	if err := s.Impair(ctx, 0, 1, wire.Impairment{Loss: 0.5}); err == nil {
		t.Error("the wire took a pair that netem has")
	}
	must(s.Impair(ctx, 1, 0, delay)) // another pair
	if err := s.Emulate(ctx, 1, 0, delay); err == nil {
		t.Error("netem took a pair that the wire has")
	}
	must(s.Impair(ctx, 0, 1, wire.Impairment{Partition: true}))
	must(s.Emulate(ctx, 0, 1, wire.Impairment{Delay: 30 * time.Millisecond}))
	must(s.Impair(ctx, 0, 1, wire.Impairment{}))
	before, err := s.Counters(0, 1)
	must(err)
	if got := s.Emulated(0, 1); got.Delay != 30*time.Millisecond {
		t.Errorf("after a partition, %+v is in force", got)
	}
	n1, _ := c.Node("n1")
	n2, _ := c.Node("n2")
	conn, err := netns.Dial(ctx, n1.NetNS(), "tcp", net.JoinHostPort(n2.IP4().String(), "6379"))
	must(err)
	conn.Close()
	after, err := s.Counters(0, 1)
	must(err)
	if after.Wired == before.Wired {
		t.Error("after a partition, frames go past netem")
	}
	must(s.Emulate(ctx, 0, 1, wire.Impairment{}))
	for _, bad := range []wire.Impairment{
		{Partition: true},
		{Delay: 5 * time.Millisecond, Jitter: time.Millisecond, Ordered: true},
		{Delay: 5 * time.Millisecond, Jitter: time.Millisecond, Corr: 0.5},
		{Loss: 0.1, Duplicate: 0.1},
		{LossEvery: 3},
		{LossFirst: 3},
		{Trace: wire.MakeTrace([]time.Duration{time.Millisecond})},
		{Delay: time.Millisecond, Reorder: 0.1, RateBitsPerSec: 1e6},
	} {
		if err := s.Emulate(ctx, 0, 1, bad); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Emulate(%+v) = %v, want unsupported", bad, err)
		}
	}
}
