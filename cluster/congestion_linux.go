package cluster

import (
	"cmp"
	"net/netip"
	"os"

	"brownout/internal/sys/link"
	"brownout/internal/sys/unsupported"
)

// Congestion controls of links, unless a scenario names one. Faults of loss
// barely show with BBR, which many hosts default to.
const (
	usualCongestion  = "cubic"
	kernelCongestion = "reno" // that every kernel has
)

// congest sets a port's TCP congestion control and returns what is in force.
//
// A namespace may make its default only what the host allows to everybody
// (net.ipv4.tcp_allowed_congestion_control), and that may lack cubic. A route
// may have any that the kernel knows, so the subnet's gets it.
func (s *Switch) congest(p *port, tenant *os.File) (string, error) {
	want := cmp.Or(s.cfg.Congestion, usualCongestion)
	if got, err := link.Congestion(tenant, want); err == nil {
		return got, nil
	}
	prefixes := []netip.Prefix{netip.PrefixFrom(p.IP4, 24)}
	if s.ipv6 {
		prefixes = append(prefixes, netip.PrefixFrom(p.IP6, 64))
	}
	err := link.CongestionKnown(tenant, want)
	for _, prefix := range prefixes {
		if err == nil {
			err = p.conn.RouteCongestion(p.eth0, prefix, want)
		}
		if err == nil { // a tenant's connections to itself
			err = p.conn.LocalCongestion(p.eth0, prefix.Addr(), want)
		}
	}
	switch {
	case err == nil:
		return want, nil
	case s.cfg.Congestion != "":
		return "", &unsupported.Error{What: "congestion control " + want, Why: err.Error(), Cure: "modprobe tcp_" + want + ", or another one (sysctl net.ipv4.tcp_available_congestion_control)"}
	}
	return link.Congestion(tenant, kernelCongestion)
}
