package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"brownout/internal/run"
)

// WaitReady waits until all nodes are ready and agree on a leader. It fails at
// once if a node's target has ended, and names who is not ready otherwise.
func (c *Cluster) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	ready := make([]bool, len(c.nodes))
	for {
		if err := c.brokenBy(); err != nil {
			return err
		}
		st := c.Statuses(ctx)
		for i, n := range c.nodes {
			if st[i].Ready && !ready[i] {
				ready[i] = true
				n.emit(run.Event{Type: run.NodeReady})
			}
		}
		if agreed(st) {
			c.saw(st)
			for _, n := range c.boxes[len(c.nodes):] {
				if err := n.WaitReady(ctx); err != nil {
					return err
				}
			}
			return nil
		}
		for i, n := range c.nodes {
			if errors.Is(st[i].Err, ErrNotRunning) {
				return n.died()
			}
		}
		select {
		case <-ctx.Done():
			return c.disagree(ctx, st)
		case <-tick.C:
		}
	}
}

// disagree says what keeps the cluster from being ready.
func (c *Cluster) disagree(ctx context.Context, st []Status) error {
	var views []string
	for i, s := range st {
		if s.Err != nil || !s.Ready {
			return c.nodes[i].unready(ctx, s)
		}
	}
	shards := Shards(st)
	for shard := range shards {
		for _, s := range Shard(st, shard) {
			who := s.Leader
			if who == "" {
				who = "nobody"
			}
			view := fmt.Sprintf("%s follows %s in term %d", s.Node, who, s.Term)
			if shards > 1 {
				view += fmt.Sprintf(" of shard %d", shard)
			}
			views = append(views, view)
		}
	}
	return fmt.Errorf("the nodes agree on no leader: %w: %s", context.Cause(ctx), strings.Join(views, ", "))
}

// watchPoll is the time between two questions to a node about its role.
const watchPoll = 50 * time.Millisecond

// Watch asks every node for its role about twenty times a second until ctx
// ends, and emits an event for every change of leader or term. Nodes are asked
// independently: one that hangs does not hide what the others say. Watch also
// ends with the cluster.
func (c *Cluster) Watch(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	c.background.Go(func() {
		select {
		case <-ctx.Done():
		case <-c.going:
			stop()
		}
	})
	answers := make(chan Status)
	for _, n := range c.nodes {
		c.background.Go(func() {
			tick := time.NewTicker(watchPoll)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				st := n.status(ctx)
				select {
				case <-ctx.Done():
				case answers <- st:
				}
			}
		})
	}
	last := make([]Status, len(c.nodes))
	for i, n := range c.nodes {
		last[i] = Status{Node: n.name, Err: ErrNotRunning}
	}
	heard := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case st := <-answers:
			i := slices.IndexFunc(c.nodes, func(n *Node) bool { return n.name == st.Node })
			last[i] = st
			if heard++; heard >= len(c.nodes) { // not before everybody had a chance to speak
				c.saw(last)
			}
		}
	}
}

// A lead is who leads a shard, "" for nobody, and since which term.
type lead struct {
	node string
	term uint64
}

// saw records who leads and tells of changes.
func (c *Cluster) saw(st []Status) {
	c.mu.Lock()
	shards := max(Shards(st), len(c.leaders)) // nobody may be there to say it
	c.leaders = append(c.leaders, make([]lead, shards-len(c.leaders))...)
	c.mu.Unlock()
	for shard := range shards {
		node, term := leaderOf(Shard(st, shard))
		c.mu.Lock()
		was := c.leaders[shard]
		c.leaders[shard] = lead{node, term}
		c.mu.Unlock()
		if node == was.node && (node == "" || term == was.term) {
			continue
		}
		e := run.Event{Type: run.LeaderChanged, Node: node, Data: map[string]any{"term": term}}
		if shards > 1 {
			e.Data["shard"] = shard
		}
		c.emit(e)
	}
}

// Leaders are each shard's leader as last seen by [Cluster.WaitReady] or
// [Cluster.Watch], "" for none. A target without shards has one.
func (c *Cluster) Leaders() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, max(1, len(c.leaders)))
	for i, l := range c.leaders {
		names[i] = l.node
	}
	return names
}
