package faults_test

import (
	"errors"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/faults"
	"brownout/faults/faultstest"
	"brownout/internal/needs"
)

var hasBlock = needs.Need{Name: "dm", Check: func() string {
	if err := cluster.ProbeBlock("delay", "flakey"); err != nil {
		return err.Error()
	}
	return ""
}}

// slowReady is for emulated machines on busy hosts.
const slowReady = 90 * time.Second

func TestBlockProvidersConform(t *testing.T) {
	needs.Host(t, needs.Root, hasBlock)
	const node = "n1"
	for _, s := range []struct {
		kind, provider, block string
		dose, changed         faults.Dose
	}{
		{"disk.delay", "dm-delay", cluster.BlockExt4, faults.Dose{"op": "fsync", "add_ns": 120 * ms}, faults.Dose{"op": "fsync", "add_ns": 240 * ms}},
		{"disk.error", "dm-flakey", cluster.BlockBare, faults.Dose{"op": "fsync", "errno": "EIO", "percent": 100.0}, nil},
	} {
		t.Run(s.provider, func(t *testing.T) {
			c := upWith(t, 1, nil, func(cfg *cluster.Config) { cfg.Block, cfg.Ready = s.block, slowReady })
			bench := faults.NewBench(faults.Bed{Cluster: c})
			n, _ := c.Node(node)
			faultstest.Conform(t, faultstest.Subject{
				Provider: bench.Source(s.kind, s.provider), Site: faults.Site{Nodes: []string{node}},
				Nowhere: faults.Site{Nodes: []string{"n9"}},
				Dose:    s.dose, Changed: s.changed, Hold: 4 * time.Second,
				Meter: func(site faults.Site, d faults.Dose) (faults.Meter, error) { return bench.Meter(s.kind, site, d) },
				Residue: func() string {
					if got, err := n.BlockTarget(); got != "linear" || err != nil {
						return got
					}
					return ""
				},
			})
		})
	}
	bench := faults.NewBench(faults.Bed{Cluster: upWith(t, 1, nil, func(cfg *cluster.Config) { cfg.Block, cfg.Ready = cluster.BlockExt4, slowReady })})
	if err := bench.Source("disk.error", "dm-flakey").Probe(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Probe of dm-flakey with a journal = %v, want unsupported", err)
	}
	for _, bad := range []struct {
		kind, provider string
		dose           faults.Dose
	}{
		{"disk.delay", "dm-delay", faults.Dose{"op": "fsync", "add_ns": int64(1_500_000)}},
		{"disk.delay", "dm-delay", faults.Dose{"op": "write", "add_ns": 5 * ms}},
		{"disk.delay", "dm-delay", faults.Dose{"op": "fsync", "add_ns": 5 * ms, "jitter_ns": ms}},
		{"disk.error", "dm-flakey", faults.Dose{"op": "fsync", "errno": "EIO", "percent": 50.0}},
		{"disk.error", "dm-flakey", faults.Dose{"op": "fsync", "errno": "ENOSPC", "percent": 100.0}},
		{"disk.error", "dm-flakey", faults.Dose{"op": "read", "errno": "EIO", "percent": 100.0}},
	} {
		if _, err := bench.Source(bad.kind, bad.provider).Inject(t.Context(), faults.Site{Nodes: []string{"n1"}}, bad.dose); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s with %v: %v, want unsupported", bad.provider, bad.dose, err)
		}
	}
}

// Nodes without devices of their own cannot have them hurt, which is said.
func TestBlockProvidersNeedDevices(t *testing.T) {
	needs.Host(t, needs.Root, hasBlock)
	bench := faults.NewBench(faults.Bed{Cluster: upWith(t, 1, nil, func(cfg *cluster.Config) { cfg.Ready = slowReady })})
	for kind, provider := range map[string]string{"disk.delay": "dm-delay", "disk.error": "dm-flakey"} {
		if err := bench.Source(kind, provider).Probe(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Probe of %s = %v, want unsupported", provider, err)
		}
	}
}
