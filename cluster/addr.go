package cluster

import "net/netip"

// IP4 returns the IPv4 address of port i of the switch. The network exists only
// inside namespaces of ours, so it cannot clash with the host's.
func IP4(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}) }

// IP6 returns the IPv6 address of port i of the switch.
func IP6(i int) netip.Addr {
	a := netip.MustParseAddr("fd77::").As16()
	a[15] = byte(i + 1)
	return netip.AddrFrom16(a)
}
