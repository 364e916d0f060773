package cluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/run"
)

// BenchmarkUpDown reports the median of each stage of coming up, in ms. The
// target is this test binary, which elects nobody: what is left is ours.
func BenchmarkUpDown(b *testing.B) {
	needs.Host(b, needs.Root)
	for _, nodes := range []int{3, 5} {
		b.Run(fmt.Sprintf("%d nodes", nodes), func(b *testing.B) {
			took := map[string][]time.Duration{}
			dir := b.TempDir() // removed at the end only: ext4 is slow to make files where some were just removed
			for b.Loop() {
				cfg, _ := testConfigIn(b, filepath.Join(dir, fmt.Sprint(ids.Add(1))), nodes, testTarget{})
				cfg.Emit = func(run.Event) {}
				began := time.Now()
				c, err := Up(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				upped := time.Now()
				down(b, c)
				took["up"] = append(took["up"], upped.Sub(began))
				took["down"] = append(took["down"], time.Since(upped))
				for _, s := range c.stages {
					took[s.name] = append(took[s.name], s.took)
				}
			}
			for name, ts := range took {
				slices.Sort(ts)
				b.ReportMetric(float64(ts[len(ts)/2].Microseconds())/1000, name+"-ms")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
