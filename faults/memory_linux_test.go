package faults_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"brownout/faults"
	"brownout/faults/faultstest"
	"brownout/internal/sys/cgroup"
)

func TestMemoryFaultsConform(t *testing.T) {
	c := up(t, 3)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	n, _ := c.Node("n3")
	site, nowhere := faults.Site{Nodes: []string{"n3"}}, faults.Site{Nodes: []string{"n9"}}
	residue := func() string {
		if l, err := n.Group().MemoryLimit(); err != nil || l != cgroup.NoLimit {
			return fmt.Sprintf("a limit of %d (%v)", l, err)
		}
		if m, err := n.Group().Memory(); err != nil || m.UnderOOM {
			return fmt.Sprintf("somebody waits for memory (%v)", err)
		}
		return ""
	}
	for _, s := range []struct {
		kind, providers string
		dose, changed   faults.Dose
		hold            time.Duration
	}{
		{"memory.pressure", "cgroup2 cgroup1", faults.Dose{"limit_bytes": int64(16 << 20), "rate_bytes_per_s": int64(64 << 20)}, faults.Dose{"limit_bytes": int64(8 << 20), "rate_bytes_per_s": int64(64 << 20)}, time.Second},
		{"memory.stall", "cgroup1 cgroup2", faults.Dose{"length_ns": 200 * ms, "every_ns": 600 * ms}, nil, 2 * time.Second},
		{"memory.oom", "cgroup2 cgroup1", faults.Dose{"restart_ns": 300 * ms}, nil, 700 * time.Millisecond},
	} {
		t.Run(s.kind, func(t *testing.T) {
			if s.kind == "memory.stall" {
				if _, version, err := n.Group().Dir("memory"); err == nil && version == 2 {
					s.dose = faults.Dose{"length_ns": 2000 * ms, "every_ns": 5000 * ms}
					s.hold = 9 * time.Second
				}
				bench.KeepGrowing(t.Context(), t.Cleanup, n)
			}
			faultstest.Conform(t, faultstest.Subject{
				Provider: supported(t, bench, s.kind, s.providers), Site: site, Nowhere: nowhere, Dose: s.dose, Changed: s.changed, Hold: s.hold, Residue: residue,
				Meter: func(site faults.Site, d faults.Dose) (faults.Meter, error) { return bench.Meter(s.kind, site, d) },
			})
		})
	}
	t.Run("memory.limit", func(t *testing.T) {
		p := supported(t, bench, "memory.limit", "cgroup2 cgroup1")
		m, err := n.Group().Memory()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Inject(t.Context(), site, faults.Dose{"limit_bytes": m.Anon / 2}); err == nil || !strings.Contains(err.Error(), "or more") {
			t.Errorf("a limit that would kill: %v", err)
		}
		bench.KeepHungry(t.Context(), t.Cleanup, n)
		least := (m.Usage - m.File) + 12<<20
		faultstest.Conform(t, faultstest.Subject{
			Provider: p, Site: site, Nowhere: nowhere, Hold: time.Second, Residue: residue,
			Dose: faults.Dose{"limit_bytes": least + 32<<20}, Changed: faults.Dose{"limit_bytes": least + 16<<20},
			Meter: func(site faults.Site, d faults.Dose) (faults.Meter, error) {
				return bench.Meter("memory.limit", site, d)
			},
		})
	})
}
