package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"brownout/internal/needs"
	"brownout/internal/run"
	"brownout/kvserver/slots"
)

const shardedScenario = `version: 1
name: sharded
target: {kind: kvserver, nodes: 3, config: {shards: 3}}
workload:
  keys: {count: 60}
  value: 64B
  mix: {get: 50%, put: 40%, cas: 5%, append: 5%}
  load: {rate: 300/s, clients: 16}
  timeout: 1s
timeline:
  warmup: 500ms
  baseline: 2s
  faults:
    - {at: 0s, for: 2s, disk.delay: {on: leader of shard 1, op: fsync, add: 40ms}}
    - {at: 3s, process.kill: {on: leader of key k7, restart: 500ms}}
  recovery: 4s
expect:
  - linearizable
  - no acknowledged write is lost
  - p50(put) of shard 1 during disk.delay > 30ms
  - throughput of shard 1 in recovery > 30% of baseline
seed: 3
`

// TestShardsFromEndToEnd hurts the leaders of two shards of three. Faults find
// them, their leaders are seen to change and no others', and every shard is
// linearizable and alike on all nodes.
func TestShardsFromEndToEnd(t *testing.T) {
	needs.Host(t, needs.Root)
	dir, file := writeScenario(t, shardedScenario)
	stdout, stderr, code := brownoutIn(t, dir, "run", file, "--out", "r", "-o", "json")
	var res run.Result
	if err := json.Unmarshal([]byte(stdout), &res); err != nil {
		t.Fatalf("stdout is not a result: %v\n%s\n%s", err, stdout, stderr)
	}
	if code != res.Verdict.ExitCode() || res.Verdict != run.Pass && res.Host.Noise != "noisy" && res.Load.Verdict != "starved" {
		t.Errorf("exit %d, verdict %s: %s\n%s", code, res.Verdict, res.Why, stderr)
	}
	if res.Consistency.Verdict != "ok" || res.Consistency.Ops < 500 || res.Durability.Verdict != "ok" {
		t.Errorf("consistency %s over %d operations, durability %s", res.Consistency.Verdict, res.Consistency.Ops, res.Durability.Verdict)
	}
	if res.Progress.Verdict != "ok" || res.Replicas.Verdict != "ok" || len(res.Replicas.States) != 9 {
		t.Errorf("progress %+v, replicas %s (%s) of %d states, want 9", res.Progress, res.Replicas.Verdict, res.Replicas.Why, len(res.Replicas.States))
	}

	events, err := run.ReadEvents(os.DirFS(filepath.Join(dir, "r")))
	if err != nil {
		t.Fatal(err)
	}
	first, now := map[int]string{}, map[int]string{}
	var changed []int
	aimed := map[string]string{} // fault to node
	leads := map[string]string{} // fault to who led its shard when it fired
	shardOf := map[string]int{"f1": 1, "f2": slots.ShardOf("k7", 3)}
	for _, e := range events {
		switch e.Type {
		case run.LeaderChanged:
			shard := int(e.Data["shard"].(float64))
			if _, told := now[shard]; !told {
				first[shard] = e.Node
			} else if !slices.Contains(changed, shard) {
				changed = append(changed, shard)
			}
			now[shard] = e.Node
		case run.FaultFired:
			aimed[e.Fault], leads[e.Fault] = e.Nodes[0], now[shardOf[e.Fault]]
		}
	}
	if first[0] != "n1" || first[1] != "n2" || first[2] != "n3" {
		t.Errorf("first leaders are %v, want one on each node", first)
	}
	for fault, node := range aimed {
		if node == "" || node != leads[fault] {
			t.Errorf("%s was aimed at %s, but %s led shard %d", fault, node, leads[fault], shardOf[fault])
		}
	}
	for _, shard := range changed {
		if first[shard] != aimed["f2"] {
			t.Errorf("shard %d changed its leader, which %s was not that was killed", shard, aimed["f2"])
		}
	}
	if len(aimed) != 2 || len(changed) == 0 {
		t.Errorf("faults hit %v, and shards %v changed leaders; want two faults and at least one change", aimed, changed)
	}
}
