package cluster

import (
	"context"
	"fmt"
	"sync"

	"brownout/internal/sys/bpf"
)

// A Flow is one direction of a TCP connection, or, with both ports 0, the
// beginning of any between two addresses.
type Flow = bpf.Flow

// flowCuts are the flows that a switch drops, whatever their links let pass.
type flowCuts struct {
	mu    sync.Mutex
	prog  *bpf.Flows   // loaded when first needed
	ports map[int]bool // that it is attached to
	cut   map[Flow]int // port at which it is dropped
}

// CutFlow drops what port src sends of a flow. The program that does it is on a
// port only while it has flows to drop.
func (s *Switch) CutFlow(ctx context.Context, src int, f Flow) error {
	if s.steer == nil {
		return s.steerErr
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c := &s.flows
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prog == nil {
		prog, err := bpf.LoadFlows()
		if err != nil {
			return err
		}
		c.prog, c.ports, c.cut = prog, map[int]bool{}, map[Flow]int{}
	}
	if err := c.prog.Cut(f); err != nil {
		return err
	}
	c.cut[f] = src
	if c.ports[src] {
		return nil
	}
	if err := c.prog.Attach(s.conn, firstPortIndex+src); err != nil {
		delete(c.cut, f)
		_ = c.prog.Heal(f) // nothing is attached that would drop it
		return fmt.Errorf("cut flow at port %d: %w", src, err)
	}
	c.ports[src] = true
	return nil
}

// HealFlow lets a flow pass again; one that was not cut is no error.
func (s *Switch) HealFlow(f Flow) error {
	c := &s.flows
	c.mu.Lock()
	defer c.mu.Unlock()
	src, ok := c.cut[f]
	if !ok {
		return nil
	}
	if err := c.prog.Heal(f); err != nil {
		return err
	}
	delete(c.cut, f)
	for _, at := range c.cut {
		if at == src {
			return nil
		}
	}
	if err := c.prog.Detach(s.conn, firstPortIndex+src); err != nil {
		return err
	}
	delete(c.ports, src)
	return nil
}

// FlowDropped returns how many packets of a flow were dropped since it was cut.
func (s *Switch) FlowDropped(f Flow) (n uint64, ok bool) {
	c := &s.flows
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prog == nil {
		return 0, false
	}
	return c.prog.Dropped(f)
}

// Flows returns how many flows are cut.
func (s *Switch) Flows() int {
	s.flows.mu.Lock()
	defer s.flows.mu.Unlock()
	return len(s.flows.cut)
}

func (c *flowCuts) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prog != nil {
		c.prog.Close()
		c.prog = nil
	}
}
