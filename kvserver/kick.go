package kvserver

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

// kickOff makes the first election of the groups that are this node's to lead
// immediate: as soon as the peers listen, it stands for election in each, until
// there is some leader. Later nobody cares who leads what.
func (s *server) kickOff(ctx context.Context) error {
	var own []*group
	for _, g := range s.groups {
		if g.fresh && g.stand || len(s.c.Peers) == 1 {
			own = append(own, g)
		}
	}
	if len(own) == 0 {
		return nil
	}
	s.awaitPeers(ctx)
	all := errgroup.Group{}
	for _, g := range own {
		all.Go(func() error { return g.kickOff(ctx) })
	}
	return all.Wait()
}

func (g *group) kickOff(ctx context.Context) error {
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		if addr, _ := g.raft.LeaderWithID(); addr != "" {
			return nil
		}
		if g.raft.State() == raft.Follower {
			if err := g.kick(); err != nil {
				g.log.Warn("kick", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-retry.C:
		}
	}
}

// awaitPeers waits until all peers listen, or a quorum does and a second has gone by.
func (s *server) awaitPeers(ctx context.Context) {
	start := time.Now()
	missing := slices.DeleteFunc(slices.Clone(s.c.Peers), func(p Peer) bool { return p.ID == s.c.ID })
	retry := time.NewTicker(500 * time.Microsecond)
	defer retry.Stop()
	for {
		missing = slices.DeleteFunc(missing, func(p Peer) bool {
			conn, err := net.DialTimeout("tcp", p.Raft, 100*time.Millisecond)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		if len(missing) == 0 || len(missing) <= (len(s.c.Peers)-1)/2 && time.Since(start) > time.Second {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		}
	}
}

// kick makes this node stand for election now, whoever leads: it sends itself
// the message by which a leader hands over.
func (g *group) kick() error {
	req := &raft.TimeoutNowRequest{RPCHeader: g.reads.header}
	err := g.trans.TimeoutNow(raft.ServerID(g.c.ID), raft.ServerAddress(g.c.Raft), req, &raft.TimeoutNowResponse{})
	if err != nil {
		return fmt.Errorf("kick: %w", err)
	}
	return nil
}
