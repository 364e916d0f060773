package judge

import (
	"strings"
	"testing"

	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/kvserver/slots"
)

func state(node string, applied float64, sum string) run.Event {
	return run.Event{T: 13 * s, Type: run.ReplicaState, Node: node, Data: map[string]any{"applied": applied, "sha256": sum}}
}

// silence makes all writes that were called in [from, to) unknown.
func (st *story) silence(from, to int64) {
	for i := range st.ops {
		if o := &st.ops[i]; o.Call >= from && o.Call < to && o.Kind != history.Get {
			o.Outcome, o.Error, o.Return = history.Unknown, "timeout", o.Call+s
			o.Client = 5000 + i
		}
	}
}

func sharded(st *story) { st.plan.Target.Config = map[string]string{"shards": "3"} }

// silenceShard is silence for the writes to one of three shards.
func (st *story) silenceShard(shard int, from, to int64) {
	rest := st.ops
	st.ops = nil
	for i := range rest {
		if slots.ShardOf(rest[i].Key, 3) == shard {
			st.ops = append(st.ops, rest[i])
		}
	}
	st.silence(from, to)
	silent := map[int64]history.Op{}
	for _, o := range st.ops {
		silent[o.ID] = o
	}
	for i := range rest {
		if o, ok := silent[rest[i].ID]; ok {
			rest[i] = o
		}
	}
	st.ops = rest
}

func shardState(node string, shard, applied float64, sum string) run.Event {
	e := state(node, applied, sum)
	e.Data["shard"] = shard
	return e
}

func TestProgressAndReplicas(t *testing.T) {
	for _, tt := range []struct {
		name     string
		spoil    func(*story)
		progress string
		replicas string
		want     run.Verdict
		why      string
	}{
		{"nothing wrong", func(*story) {}, progressOK, unknown, run.Pass, ""},
		{"equal states", func(st *story) { st.add(state("n1", 9, "aa")); st.add(state("n2", 9, "aa")) }, progressOK, progressOK, run.Pass, ""},
		{"states that differ", func(st *story) { st.add(state("n1", 9, "aa")); st.add(state("n2", 9, "ab")) }, progressOK, diverged, run.Violation, "replicas differ: n1 and n2"},
		{"states of different times", func(st *story) { st.add(state("n1", 9, "aa")); st.add(state("n2", 8, "ab")) }, progressOK, unknown, run.Pass, ""},
		{"a node without a state", func(st *story) {
			st.add(state("n1", 9, "aa"))
			st.add(run.Event{Type: run.ReplicaState, Node: "n2", Text: "no answer"})
		}, progressOK, unknown, run.Pass, ""},
		{"a hang after the fault", func(st *story) { st.plan.Phases[3].End *= 2; st.longer(); st.silence(8500*ms, 15*s) }, hang, unknown, run.Fail, "hang: no write was acknowledged for"},
		{"a standstill as long as the fault", func(st *story) { st.longFault(); st.silence(5*s, 11*s) }, stalled, unknown, "", ""},
		{"a hang of a testbed that stood still", func(st *story) {
			st.plan.Phases[3].End *= 2
			st.longer()
			st.silence(8500*ms, 15*s)
			st.event(run.LoadEnded).Data["lateness_max_ns"] = float64(4 * s)
		}, unknown, unknown, "", ""},
		{"a hang of one shard while the others go on", func(st *story) {
			sharded(st)
			st.plan.Phases[3].End *= 2
			st.longer()
			st.silenceShard(1, 8500*ms, 15*s)
		}, hang, unknown, run.Fail, "hang: no write to shard 1 was acknowledged for"},
		{"equal states of each shard", func(st *story) {
			sharded(st)
			for _, shard := range []float64{0, 1, 2} {
				st.add(shardState("n1", shard, 9+shard, "aa"))
				st.add(shardState("n2", shard, 9+shard, "aa"))
			}
		}, progressOK, progressOK, run.Pass, ""},
		{"states of one shard differ", func(st *story) {
			sharded(st)
			for shard, sum := range []string{"aa", "ab"} {
				st.add(shardState("n1", float64(shard), 9, "aa"))
				st.add(shardState("n2", float64(shard), 9, sum))
			}
		}, progressOK, diverged, run.Violation, "replicas differ: n1 and n2 have both applied the log of shard 1 up to 9"},
		{"states of different shards are not compared", func(st *story) {
			sharded(st)
			st.add(shardState("n1", 0, 9, "aa"))
			st.add(shardState("n2", 0, 9, "aa"))
			st.add(shardState("n1", 1, 9, "bb"))
			st.add(shardState("n2", 1, 9, "bb"))
		}, progressOK, progressOK, run.Pass, ""},
		{"a shard at different times", func(st *story) {
			sharded(st)
			st.add(shardState("n1", 0, 9, "aa"))
			st.add(shardState("n2", 0, 9, "aa"))
			st.add(shardState("n1", 1, 9, "bb"))
			st.add(shardState("n2", 1, 8, "aa"))
		}, progressOK, unknown, run.Pass, ""},
		{"a hang beside an older standstill of the testbed", func(st *story) {
			st.plan.Phases[3].End *= 2
			st.longer()
			st.silence(8500*ms, 15*s)
			st.stills(1*s, 4*s)
		}, hang, unknown, run.Fail, "hang: no write was acknowledged for"},
		{"a hang of a testbed that stood still for a part of it", func(st *story) {
			st.plan.Phases[3].End *= 2
			st.longer()
			st.silence(8500*ms, 15*s)
			st.stills(9*s, 10*s, 12*s, 13*s)
		}, unknown, unknown, run.Inconclusive, "no write was acknowledged for"},
		{"a hang of a testbed that stood still for less than can explain it", func(st *story) {
			st.plan.Phases[3].End *= 2
			st.longer()
			st.silence(8500*ms, 15*s)
			st.stills(9*s, 10*s)
		}, hang, unknown, run.Fail, "hang: no write was acknowledged for"},
		{"nothing open during the fault", func(st *story) {
			st.ops = st.ops[:200]
			st.without(run.LoadEnded)
		}, progressOK, unknown, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := healthy()
			tt.spoil(st)
			res, err := Judge(t.Context(), st.files(t), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if res.Progress.Verdict != tt.progress || res.Replicas.Verdict != tt.replicas {
				t.Errorf("progress %+v, replicas %+v; want %s, %s", res.Progress, res.Replicas, tt.progress, tt.replicas)
			}
			if tt.want != "" && (res.Verdict != tt.want || !strings.HasPrefix(res.Why, tt.why)) {
				t.Errorf("verdict %s: %s; want %s: %s", res.Verdict, res.Why, tt.want, tt.why)
			}
		})
	}
}

// stills lets the load generator stand still from each first time to each second.
func (st *story) stills(times ...int64) {
	var all []any
	for i := 0; i < len(times); i += 2 {
		all = append(all, map[string]any{"start_ns": times[i], "end_ns": times[i+1]})
	}
	st.event(run.LoadEnded).Data["still"] = all
}

// longer lets the workload go on until 16 s.
func (st *story) longer() {
	st.event(run.LoadEnded).T = 16 * s
	n := len(st.ops)
	for i := range int64(180) {
		o := st.ops[n-6]
		v := "w" + string(rune('0'+i/100)) + string(rune('0'+i/10%10)) + string(rune('0'+i%10))
		o.ID, o.Kind, o.Value, o.Result = 1000+i, history.Put, &v, nil
		o.Client, o.Key = int(2000+i), "other"
		o.Due = 12100*ms + i*20*ms
		o.Call, o.Return = o.Due, o.Due+2*ms
		st.ops = append(st.ops, o)
	}
}

// longFault lets the fault last until 11 s.
func (st *story) longFault() {
	st.event(run.FaultHealed).T = 11 * s
	st.event(run.FaultVerified).T = 11*s + 200*ms
}
