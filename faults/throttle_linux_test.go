package faults_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/faults"
	"brownout/faults/faultstest"
	"brownout/internal/needs"
	"brownout/internal/sys/cgroup"
)

var hasLoop = needs.Need{Name: "loop", Check: func() string {
	if err := cluster.ProbeLoop(); err != nil {
		return err.Error()
	}
	return ""
}}

// throttles are the providers that limit devices; a host has one of them.
var throttles = map[int]string{1: "blkio.throttle", 2: "io.max"}

func TestBlockThrottleConforms(t *testing.T) {
	needs.Host(t, needs.Root, hasLoop)
	h, err := cgroup.Discover()
	if err != nil {
		t.Fatal(err)
	}
	ctl, err := h.Controller("io")
	if err != nil {
		t.Skip(err)
	}
	provider, other := throttles[ctl.Version], throttles[3-ctl.Version]
	const node = "n1"
	c := upWith(t, 1, nil, func(cfg *cluster.Config) { cfg.Disk, cfg.Loop, cfg.Ready = cluster.DiskPlain, true, slowReady })
	bench := faults.NewBench(faults.Bed{Cluster: c})
	n, _ := c.Node(node)
	for _, s := range []struct {
		kind          string
		dose, changed faults.Dose
	}{
		{"disk.iops", faults.Dose{"op": "write", "limit": int64(200)}, faults.Dose{"op": "write", "limit": int64(100)}},
		{"disk.rate", faults.Dose{"op": "read", "limit_bytes_per_s": int64(1 << 20)}, faults.Dose{"op": "read", "limit_bytes_per_s": int64(2 << 20)}},
		{"disk.rate", faults.Dose{"op": "write", "limit_bytes_per_s": int64(512 << 10)}, faults.Dose{"op": "write", "limit_bytes_per_s": int64(2 << 20)}},
	} {
		t.Run(fmt.Sprint(s.kind, " ", s.dose["op"]), func(t *testing.T) {
			if s.kind == "disk.rate" && s.dose["op"] == "write" {
				writes(t, c, node) // more than the limit, and in large pieces
			}
			faultstest.Conform(t, faultstest.Subject{
				Provider: bench.Source(s.kind, provider), Site: faults.Site{Nodes: []string{node}},
				Nowhere: faults.Site{Nodes: []string{"n9"}}, Dose: s.dose, Changed: s.changed, Hold: 3500 * time.Millisecond,
				Meter: func(site faults.Site, d faults.Dose) (faults.Meter, error) { return bench.Meter(s.kind, site, d) },
				Residue: func() string {
					dev, err := faults.DeviceOf(n)
					if err != nil {
						return err.Error()
					}
					if l, err := n.Group().IOLimit(dev); err != nil || l != (cgroup.IOLimit{}) {
						return fmt.Sprintf("%+v, %v", l, err)
					}
					return ""
				},
			})
		})
	}
	if err := bench.Source("disk.iops", other).Probe(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Probe of %s where the controller is v%d's = %v, want unsupported", other, ctl.Version, err)
	}
	for kind, doses := range map[string][]faults.Dose{
		"disk.rate": {{"op": "all", "limit_bytes_per_s": int64(1 << 20)}, {"op": "write", "limit_bytes_per_s": int64(0)}},
		"disk.iops": {{"op": "fsync", "limit": int64(10)}, {"op": "write", "limit": int64(0)}},
	} {
		for _, d := range doses {
			if _, err := bench.Source(kind, provider).Inject(t.Context(), faults.Site{Nodes: []string{node}}, d); err == nil {
				t.Errorf("%s by %s with %v was taken", kind, provider, d)
			}
		}
	}
}

// writes has clients write large values at a node, as fast as it takes them.
func writes(t *testing.T, c *cluster.Cluster, node string) {
	value := strings.Repeat("x", 32<<10)
	askOften(t, c, node, 4, fmt.Sprintf("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n", len(value), value))
}

// Nodes whose data are on no device of their own, as in memory, cannot have one limited.
func TestBlockThrottleNeedsDevices(t *testing.T) {
	needs.Host(t, needs.Root)
	bench := faults.NewBench(faults.Bed{Cluster: upWith(t, 1, nil, func(cfg *cluster.Config) { cfg.Ready = slowReady })})
	for _, provider := range throttles {
		for _, kind := range []string{"disk.rate", "disk.iops"} {
			if err := bench.Source(kind, provider).Probe(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("Probe of %s by %s = %v, want unsupported", kind, provider, err)
			}
		}
	}
}
