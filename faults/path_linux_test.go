package faults_test

import (
	"testing"
	"time"

	"brownout/faults"
	"brownout/internal/wire"
)

func TestProbePathSeesOneDirection(t *testing.T) {
	c := up(t, 2)
	if err := c.Switch().Prepare(t.Context()); err != nil {
		t.Skip(err)
	}
	n1, _ := c.Node("n1")
	n2, _ := c.Node("n2")
	at := faults.Places{"n1": {Index: 0, NetNS: n1.NetNS()}, "n2": {Index: 1, NetNS: n2.NetNS()}}
	const delay = 20 * time.Millisecond
	if err := c.Switch().Impair(t.Context(), 0, 1, wire.Impairment{Delay: delay, RateBitsPerSec: 20e6}); err != nil {
		t.Fatal(err)
	}
	paths, err := faults.ProbePath(t.Context(), at, "n1", "n2", faults.PathOptions{Ping: 500 * time.Millisecond, Goodput: 600 * time.Millisecond})
	if err != nil || len(paths) != 2 {
		t.Fatal(paths, err)
	}
	t.Logf("%+v", paths)
	there, back := paths[0], paths[1]
	if there.Sent == 0 || there.Lost > 0 || there.Min < int64(delay) || back.Lost > 0 || back.P50 > int64(delay)/2 {
		t.Errorf("probes: %+v and %+v", there, back)
	}
	if there.Goodput < 10e6 || there.Goodput > 20.5e6 || back.Goodput < there.Goodput {
		t.Errorf("goodput %.0f and %.0f bit/s, want at most 20 Mbit/s there, and more back", there.Goodput, back.Goodput)
	}
	if _, err := faults.ProbePath(t.Context(), at, "n1", "n3", faults.PathOptions{Ping: time.Millisecond}); err == nil {
		t.Error("a place that there is not was probed")
	}
}
