package cluster

import (
	"context"
	"fmt"
	"os"

	"brownout/internal/run"
	"brownout/internal/sys/netns"
)

// makeSwitch makes the switch and plugs the load generator's namespace into it:
// at the port after the nodes'.
func (c *Cluster) makeSwitch(ctx context.Context) (err error) {
	c.sw, err = NewSwitch(ctx, SwitchConfig{
		Run: c.owner.String(), Exe: c.cfg.Exe, Seed: c.cfg.Seed, MTU: c.cfg.MTU, Congestion: c.cfg.Congestion,
	})
	if err != nil {
		return err
	}
	c.background.Go(c.minder(c.sw))
	if c.client, err = netns.New(); err != nil {
		return fmt.Errorf("make the client's namespace: %w", err)
	}
	p, err := c.sw.Plug(ctx, len(c.nodes), ClientName, c.client)
	c.note("congestion", p.Congestion)
	return err
}

// minder tells when the wire ended before its time.
func (c *Cluster) minder(s *Switch) func() {
	return func() {
		select {
		case <-s.WireDone():
			if !c.goingDown() {
				c.emit(run.Event{Type: run.TestbedFailed, Text: fmt.Sprintf("the wire ended: %v", s.WireErr())})
			}
		case <-c.going:
		}
	}
}

func (c *Cluster) closeSwitch() error {
	var err error
	if c.sw != nil {
		err = c.sw.Close()
	}
	if c.client != nil {
		c.client.Close()
	}
	return err
}

// Switch is what joins the nodes and the client.
func (c *Cluster) Switch() *Switch { return c.sw }

// ClientNetNS is the network namespace of the load generator, on the switch as
// [ClientName], open for the cluster's life.
func (c *Cluster) ClientNetNS() *os.File { return c.client }
