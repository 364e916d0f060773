package cluster

import (
	"os"
	"strings"

	"brownout/internal/run"
	"brownout/internal/sys/link"
	"brownout/internal/sys/netns"
)

// tcpSettings are the settings of a node's namespace that change how TCP meets
// a fault of the network, below net/ipv4.
var tcpSettings = []string{
	"tcp_rmem", "tcp_wmem", "tcp_congestion_control", "tcp_sack", "tcp_timestamps", "tcp_window_scaling",
	"tcp_slow_start_after_idle", "tcp_retries2", "tcp_keepalive_time", "tcp_early_retrans", "tcp_recovery",
}

// Network says what the links between nodes are, as the kernel has them: they
// are the same at all ports. What cannot be read is absent.
func (c *Cluster) Network() run.Network {
	n := run.Network{MTU: c.sw.cfg.MTU, TCP: map[string]string{}}
	for _, p := range c.sw.Ports() {
		n.Congestion = p.Congestion
	}
	n.Offloads, _ = link.Offloads(c.client, tenantDevice)
	_ = netns.Do(c.client, func() error {
		for _, name := range tcpSettings {
			if b, err := os.ReadFile("/proc/sys/net/ipv4/" + name); err == nil {
				n.TCP[name] = strings.Join(strings.Fields(string(b)), " ")
			}
		}
		return nil
	})
	return n
}
