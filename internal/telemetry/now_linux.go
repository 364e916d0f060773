package telemetry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"brownout/internal/sys/proc"
)

// Now is what a host does at this moment. What the kernel does not tell is nil.
type Now struct {
	CPUs           int      `json:"cpus"`
	Load1          *float64 `json:"load1"`
	ForeignCPU     float64  `json:"foreign_cpu"`  // shares of all CPU time, 0..1: used by others,
	Steal          float64  `json:"steal"`        // and withheld by the hypervisor
	CPUPressure    *float64 `json:"cpu_pressure"` // shares of the time in which some task waited, 0..1
	IOPressure     *float64 `json:"io_pressure"`
	MemoryPressure *float64 `json:"memory_pressure"`
	FsyncP50       int64    `json:"fsync_p50_ns"`
	Watched        int64    `json:"watched_ns"`
}

// Look watches the host for d, and how long an fsync takes in dir.
func Look(ctx context.Context, dir string, d time.Duration) (Now, error) {
	began, own := time.Now(), CPUTime(0)
	before, err := proc.ReadHost()
	if err != nil {
		return Now{}, err
	}
	stalls := stalled()
	fsync, err := fsyncP50(ctx, dir, d)
	if err != nil {
		return Now{}, err
	}
	after, err := proc.ReadHost()
	if err != nil {
		return Now{}, err
	}
	took := time.Since(began)
	n := Now{CPUs: len(after.PerCPU), FsyncP50: int64(fsync), Watched: int64(took)}
	if load, ok := loadAverage(); ok {
		n.Load1 = &load
	}
	cpu := after.CPU.Sub(before.CPU)
	if total := float64(cpu.Total()); total > 0 {
		n.ForeignCPU = min(1, max(0, float64(cpu.Busy()-(CPUTime(0)-own))/total))
		n.Steal = min(1, float64(cpu.Steal)/total)
	}
	now := stalled()
	for what, to := range map[string]**float64{"cpu": &n.CPUPressure, "io": &n.IOPressure, "memory": &n.MemoryPressure} {
		was, ok1 := stalls[what]
		is, ok2 := now[what]
		if ok1 && ok2 {
			share := min(1, float64(is-was)/float64(took))
			*to = &share
		}
	}
	return n, nil
}

func (n Now) String() string {
	words := []string{fmt.Sprintf("others use %.0f %% of %d CPUs", 100*n.ForeignCPU, n.CPUs), fmt.Sprintf("%.0f %% are stolen", 100*n.Steal)}
	for _, p := range []struct {
		what  string
		share *float64
	}{{"a CPU", n.CPUPressure}, {"I/O", n.IOPressure}, {"memory", n.MemoryPressure}} {
		if p.share != nil {
			words = append(words, fmt.Sprintf("tasks waited for %s %.0f %% of the time", p.what, 100**p.share))
		}
	}
	if n.Load1 != nil {
		words = append(words, fmt.Sprintf("load %.1f", *n.Load1))
	}
	return strings.Join(append(words, fmt.Sprintf("fsync takes %v (p50)", time.Duration(n.FsyncP50).Round(time.Microsecond))), ", ")
}

// stalled is how long some task has waited for each resource so far, as far as
// the kernel counts it.
func stalled() map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, what := range []string{"cpu", "io", "memory"} {
		if p, err := proc.ReadPressure("/proc/pressure/" + what); err == nil {
			out[what] = p.Some.Total
		}
	}
	return out
}
