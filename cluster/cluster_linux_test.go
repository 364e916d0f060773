package cluster

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/run"
)

var ids atomic.Int64

func supervisorMain([]string) int { return 0 }

func TestUpGivesEachNodeAWorldOfItsOwn(t *testing.T) {
	needs.Host(t, needs.Root)
	cfg, ev := testConfig(t, 3, testTarget{})
	cfg.Disk = DiskPlain
	c := up(t, cfg)
	t.Log(c.stages)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, n := range c.Nodes() {
		a, err := ask(ctx, n, "inspect /etc/shadow /.brownout/disk "+c.nodes[1].dir+"/data/secret")
		if err != nil {
			t.Fatal(err)
		}
		var in insight
		if err := json.Unmarshal([]byte(a), &in); err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", in)
	}
	t.Log(len(ev.of(run.NodeReady)), len(ev.of(run.LeaderChanged)))
	if err := c.nodes[1].Kill(ctx, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	t.Log(ev.of(run.NodeExited))
	start := time.Now()
	down(t, c)
	t.Log("down", time.Since(start))
	b, _ := os.ReadFile(cfg.Dir + "/cleanup.json")
	t.Log(strings.TrimSpace(string(b)))
}
