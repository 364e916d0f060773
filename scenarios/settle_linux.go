package scenarios

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/internal/run"
	systems "brownout/internal/target"
	server "brownout/kvserver"
)

// settle runs after the last heal: wait until the nodes agree, read every key
// once more, and close the history.
func (s *session) settle(ctx context.Context) error {
	within := readWithin
	err := s.quiesce(ctx)
	if err == nil {
		err = s.checkBoxes(ctx)
	}
	if err != nil && ctx.Err() == nil {
		s.events.emit(run.Event{Type: run.TestbedFailed, Text: "the nodes did not settle after the run: " + err.Error()})
		within = readHasty
	}
	s.compareReplicas(ctx, err == nil)
	missing, err := s.load.FinalReads(ctx, s.spec(), s.keys(), within)
	if len(missing) > 0 {
		s.note("final reads of %d of %d keys got no answer within %v", len(missing), s.Plan.Load.Keys, within)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("final reads: %w", err)
	}
	return context.Cause(ctx)
}

func (s *session) keys() []string {
	keys := make([]string, s.Plan.Load.Keys)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d", i)
	}
	return keys
}

// quiesce waits until every node is ready and has applied as much as the
// others, so that the final reads see what a client would see for good.
func (s *session) quiesce(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, quiesceWithin, fmt.Errorf("not within %v", quiesceWithin))
	defer cancel()
	if err := s.cluster.WaitReady(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last []cluster.Status // before ctx ended, which ends requests that are on
	for {
		st := s.cluster.Statuses(ctx)
		if agreed(st) {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = st
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("applied indexes still differ after %v: %s", quiesceWithin, applied(last))
		case <-tick.C:
		}
	}
}

func agreed(st []cluster.Status) bool {
	for shard := range cluster.Shards(st) {
		all := cluster.Shard(st, shard)
		for _, s := range all {
			if s.Err != nil || s.Applied != all[0].Applied {
				return false
			}
		}
	}
	return true
}

func applied(st []cluster.Status) string {
	var words []string
	shards := cluster.Shards(st)
	for shard := range shards {
		for _, s := range cluster.Shard(st, shard) {
			word := fmt.Sprintf("%s %d", s.Node, s.Applied)
			if s.Err != nil {
				word = s.Node + " does not answer"
			}
			if shards > 1 {
				word += fmt.Sprintf(" of shard %d", shard)
			}
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// led says who leads, shard by shard.
func led(leaders []string) string {
	if len(leaders) == 1 {
		return "leader " + leaders[0]
	}
	return "leaders of its shards " + strings.Join(leaders, ", ")
}

// compareReplicas records the digest of every node's state, at the same log
// index if the nodes get there in time. Nodes that did not settle are asked once.
func (s *session) compareReplicas(ctx context.Context, settled bool) {
	t, ok := s.target.(*systems.KVServer)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, boxWithin)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		states, same := replicaStates(ctx, t, s.cluster.Nodes())
		if !same && settled && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
			continue
		}
		for _, e := range states {
			s.events.emit(e)
		}
		return
	}
}

// replicaStates asks the nodes for the digests of their shards. same says that
// they all are at one index of their log.
func replicaStates(ctx context.Context, t *systems.KVServer, nodes []*cluster.Node) (states []run.Event, same bool) {
	same = true
	var first []server.ShardHash
	for _, n := range nodes {
		shards, err := t.State(ctx, n.Admin())
		if err != nil {
			states, same = append(states, run.Event{Type: run.ReplicaState, Node: n.Name(), Text: err.Error()}), false
			continue
		}
		if first == nil {
			first = shards
		}
		for i, one := range shards {
			e := run.Event{Type: run.ReplicaState, Node: n.Name(), Data: map[string]any{"applied": one.Applied, "sha256": one.SHA256}}
			if len(shards) > 1 {
				e.Data["shard"] = i
			}
			states, same = append(states, e), same && len(shards) == len(first) && one.Applied == first[i].Applied
		}
	}
	return states, same
}

// checkBoxes asks the init of every node for a sign of life. One that hangs
// hangs its node's disk too, which no plan asked for once all faults are healed.
func (s *session) checkBoxes(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, boxWithin, fmt.Errorf("no answer within %v", boxWithin))
	defer cancel()
	for _, n := range s.cluster.Nodes() {
		if _, err := n.DiskStats(ctx); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("the box of %s hangs: %w", n.Name(), err)
		}
	}
	return nil
}
