package cluster

import "os"

func (c *Cluster) makeSwitch() error                          { return nil }
func (c *Cluster) plug(name string, i int, ns *os.File) error { return nil }
func (c *Cluster) closeSwitch() error                         { return nil }

// ClientNetNS is the network namespace of the load generator, on the switch as [ClientName].
func (c *Cluster) ClientNetNS() *os.File { return nil }
