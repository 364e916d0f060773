package cgroup

import (
	"errors"
	"testing"
	"time"
)

func TestWeightsBurstsAndCPUsAreReadBack(t *testing.T) {
	g := testGroup(t, testHost(t))
	if err := g.SetCPUShares(MaxShares); err != nil {
		t.Skip(err)
	}
	if err := g.SetCPUShares(MaxShares + 1); err == nil {
		t.Error("too many shares were taken")
	}
	if err := g.SetCPUQuota(50, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := g.SetCPUBurst(20 * time.Millisecond); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if err := g.SetCPUBurst(60 * time.Millisecond); err == nil {
		t.Error("a burst beyond the quota was taken")
	}
	if err := g.SetCPUBurst(0); err != nil {
		t.Error(err)
	}
	all, err := g.CPUs()
	if err != nil {
		t.Skip(err)
	}
	start(t, g, "spin") // kernels are stricter with groups that have processes
	if err := g.SetCPUs("0"); err != nil {
		t.Fatal(err)
	}
	if got, err := g.CPUs(); got != "0" || err != nil {
		t.Errorf("CPUs = %q, %v; want 0", got, err)
	}
	if err := g.SetCPUs("9999"); err == nil {
		t.Error("a CPU that is not there was taken")
	}
	if err := g.ClearCPUs(); err != nil {
		t.Error(err)
	}
	if got, err := g.CPUs(); got != all || err != nil {
		t.Errorf("CPUs = %q, %v; want %q as before", got, err, all)
	}
}

func TestMemoryLimitsAreReadBack(t *testing.T) {
	g := testGroup(t, testHost(t))
	if got, err := g.MemoryLimit(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if got != NoLimit || err != nil {
		t.Fatalf("limit of a new group = %d, %v", got, err)
	}
	for _, limit := range []int64{64 << 20, 32 << 20, 128 << 20, NoLimit, 16 << 20, NoLimit} {
		if err := g.SetMemoryLimit(limit); err != nil {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
	m, err := g.Memory()
	if err != nil || m.OOMKills != 0 || m.UnderOOM {
		t.Errorf("memory = %+v, %v", m, err)
	}
	pause, high := g.SetOOMPause(true), g.SetMemoryHigh(1<<20)
	if (pause == nil) == (high == nil) {
		t.Errorf("OOM pause: %v; memory.high: %v; want exactly one", pause, high)
	}
}
