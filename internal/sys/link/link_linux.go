package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A Conn is a netlink socket inside one namespace. It can be used from several
// goroutines; the kernel takes requests one at a time anyway.
type Conn struct{ h *netlink.Handle }

// At opens a Conn inside ns. It holds the namespace until it is closed.
func At(ns *os.File) (*Conn, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Conn{h}, nil
}

// Close closes the socket.
func (c *Conn) Close() { c.h.Close() }

// Bridge makes a learning bridge without spanning tree and multicast snooping
// and brings it up.
func (c *Conn) Bridge(name string, index, mtu int) error {
	no := false
	b := &netlink.Bridge{LinkAttrs: attrs(name, index, mtu), MulticastSnooping: &no}
	b.Flags = net.FlagUp
	if err := c.h.LinkAdd(b); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	return nil
}

// A Veth is a pair of devices: a port on a bridge of this namespace and its
// peer in another.
type Veth struct {
	Name    string // of the port, in the namespace of the Conn
	Index   int    // of the port, chosen by the caller
	Bridge  int    // index of the bridge that the port joins
	MTU     int    // of both
	Peer    string // name of the peer
	PeerMAC net.HardwareAddr
	PeerNS  *os.File // the peer's namespace
}

// Veth makes the pair, joins the port to its bridge and brings the port up. The
// peer is born in its namespace: moving it there would cost an RCU grace period.
func (c *Conn) Veth(v Veth) error {
	l := netlink.NewVeth(attrs(v.Name, v.Index, v.MTU))
	l.Flags = net.FlagUp
	l.MasterIndex = v.Bridge
	l.PeerName, l.PeerHardwareAddr, l.PeerNamespace = v.Peer, v.PeerMAC, netlink.NsFd(v.PeerNS.Fd())
	if err := c.h.LinkAdd(l); err != nil {
		return fmt.Errorf("add veth %s: %w", v.Name, err)
	}
	return nil
}

// Couple makes a pair of devices that are both in this namespace, up and
// without addresses, and returns the index of the second.
func (c *Conn) Couple(name string, index, mtu int, second string) (int, error) {
	l := netlink.NewVeth(attrs(name, index, mtu))
	l.PeerName = second
	if err := c.h.LinkAdd(l); err != nil {
		return 0, fmt.Errorf("add veth %s: %w", name, err)
	}
	other, err := c.Index(second)
	for _, i := range []int{index, other} {
		if err == nil {
			err = errors.Join(c.NoLinkLocal(i), c.Up(i))
		}
	}
	if err != nil {
		return 0, errors.Join(err, c.Delete(index))
	}
	return other, nil
}

// Segments returns how many packets a device takes as one.
func (c *Conn) Segments(index int) (int, error) {
	l, err := c.h.LinkByIndex(index)
	if err != nil {
		return 0, fmt.Errorf("find link %d: %w", index, err)
	}
	return int(l.Attrs().GSOMaxSegs), nil
}

// SetSegments limits that; with 1 the sender cuts super-packets itself,
// also those of connections that exist.
func (c *Conn) SetSegments(index, most int) error {
	if err := c.h.LinkSetGSOMaxSegs(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, most); err != nil {
		return fmt.Errorf("let link %d take %d packets as one: %w", index, most, err)
	}
	return nil
}

func attrs(name string, index, mtu int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.Index, a.MTU = name, index, mtu
	return a
}

// Delete removes a device; one that is not there is no error.
func (c *Conn) Delete(index int) error {
	err := c.h.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %d: %w", index, err)
	}
	return nil
}

// Index returns the index of a device.
func (c *Conn) Index(name string) (int, error) {
	l, err := c.h.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find link %s: %w", name, err)
	}
	return l.Attrs().Index, nil
}

// Up brings a device up.
func (c *Conn) Up(index int) error {
	if err := c.h.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}); err != nil {
		return fmt.Errorf("bring link %d up: %w", index, err)
	}
	return nil
}

// Running waits until a device that was brought up passes frames. A moment
// after its peer came up it still drops them: the kernel lets it go by a work
// queue, and a port joins its bridge's forwarding even later.
func (c *Conn) Running(ctx context.Context, index int) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		// Kernels from 5.17 do that work now, because we ask.
		l, err := c.h.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("find link %d: %w", index, err)
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for link %d to run: %w", index, context.Cause(ctx))
		}
	}
}

// Local waits until the host takes in what is sent to its own address ip: for
// IPv6 the kernel enters the route by a work queue, a moment after the address.
func (c *Conn) Local(ctx context.Context, ip netip.Addr) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		routes, err := c.h.RouteGet(ip.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for address %s: %w", ip, errors.Join(context.Cause(ctx), err))
		}
	}
}

// Configure gives a device its MTU and the length of its transmit queue in packets (0: leave it).
func (c *Conn) Configure(index, mtu, queue int) error {
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	if err := c.h.LinkSetMTU(l, mtu); err != nil {
		return fmt.Errorf("set MTU of link %d to %d: %w", index, mtu, err)
	}
	if queue > 0 {
		if err := c.h.LinkSetTxQLen(l, queue); err != nil {
			return fmt.Errorf("set queue of link %d to %d: %w", index, queue, err)
		}
	}
	return nil
}

// NoLinkLocal stops the kernel from making a link-local IPv6 address for a
// device, and with it router solicitations and reports. Call it before Up. A
// kernel without IPv6 has nothing to stop.
func (c *Conn) NoLinkLocal(index int) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err := c.h.LinkSetIP6AddrGenMode(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, none)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("stop link-local address of link %d: %w", index, err)
	}
	return nil
}

// Address adds an address with its prefix. IPv6 addresses are usable at once:
// duplicate address detection (RFC 4862) is skipped.
func (c *Conn) Address(index int, p netip.Prefix) error {
	a := &netlink.Addr{LinkIndex: index, IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := c.h.AddrReplace(nil, a); err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

// Neighbour makes a permanent entry, so that the address is never asked for.
func (c *Conn) Neighbour(index int, ip netip.Addr, mac net.HardwareAddr) error {
	err := c.h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: mac})
	if err != nil {
		return fmt.Errorf("add neighbour %s: %w", ip, err)
	}
	return nil
}

// Overruns returns how many frames a device dropped on transmit. For a TAP they
// are those that its reader was too slow to take.
func (c *Conn) Overruns(index int) (uint64, error) {
	l, err := c.h.LinkByIndex(index)
	if err != nil {
		return 0, fmt.Errorf("read statistics of link %d: %w", index, err)
	}
	if s := l.Attrs().Statistics; s != nil {
		return s.TxDropped, nil
	}
	return 0, nil
}

// Received returns how many frames have come in at a device.
func (c *Conn) Received(index int) (uint64, error) {
	l, err := c.h.LinkByIndex(index)
	if err != nil {
		return 0, fmt.Errorf("read statistics of link %d: %w", index, err)
	}
	if s := l.Attrs().Statistics; s != nil {
		return s.RxPackets, nil
	}
	return 0, nil
}

// Ingress puts a classic ingress and egress hook (clsact) on a device.
func (c *Conn) Ingress(index int) error {
	err := c.h.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if err != nil {
		return fmt.Errorf("add clsact to link %d: %w", index, err)
	}
	return nil
}

// The programs of a device's ingress, in the order in which they see a frame.
const (
	firstPriority  = 1
	usualPriority  = 2
	programsHandle = 1
)

// Program runs a loaded eBPF program of type sched_cls on every frame that
// comes in at a device with an Ingress hook. It stays for the device's life.
func (c *Conn) Program(index, fd int, name string) error {
	return c.program(index, fd, name, usualPriority)
}

// FirstProgram runs another one before it, which lets frames go on with
// TC_ACT_UNSPEC, until RemoveFirst.
func (c *Conn) FirstProgram(index, fd int, name string) error {
	return c.program(index, fd, name, firstPriority)
}

// RemoveFirst takes the FirstProgram away; that there is none is no error.
func (c *Conn) RemoveFirst(index int) error {
	err := c.h.FilterDel(&netlink.BpfFilter{FilterAttrs: ingress(index, firstPriority)})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("take the first program from ingress of link %d: %w", index, err)
	}
	return nil
}

func (c *Conn) program(index, fd int, name string, priority uint16) error {
	err := c.h.FilterAdd(&netlink.BpfFilter{FilterAttrs: ingress(index, priority), Fd: fd, Name: name, DirectAction: true})
	if err != nil {
		return fmt.Errorf("attach %s to ingress of link %d: %w", name, index, err)
	}
	return nil
}

func ingress(index int, priority uint16) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: programsHandle, Protocol: unix.ETH_P_ALL, Priority: priority,
	}
}

// RouteCongestion has connections over a device to its own subnet use a
// congestion control that the namespace may not make its default: the host
// allows only some of them for that, but any for a route.
func (c *Conn) RouteCongestion(index int, p netip.Prefix, congestion string) error {
	r := &netlink.Route{
		LinkIndex: index, Dst: &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Protocol: unix.RTPROT_KERNEL, Congctl: congestion,
	}
	if p.Addr().Is4() {
		r.Scope, r.Src = netlink.SCOPE_LINK, p.Addr().AsSlice()
	} else {
		const kernel = 256 // the metric of the route that came with the address
		r.Priority = kernel
	}
	if err := c.h.RouteReplace(r); err != nil {
		return fmt.Errorf("route to %s by %s: %w", p.Masked(), congestion, err)
	}
	return nil
}

// LocalCongestion is RouteCongestion for connections of a namespace to an
// address of its own.
func (c *Conn) LocalCongestion(index int, a netip.Addr, congestion string) error {
	r := &netlink.Route{
		LinkIndex: index, Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: unix.RTPROT_KERNEL, Congctl: congestion,
	}
	if a.Is4() {
		r.Scope, r.Src = netlink.SCOPE_HOST, a.AsSlice()
	} else {
		r.Protocol = unix.RTPROT_STATIC // beside the kernel's, which cannot be replaced
	}
	err := c.h.RouteReplace(r)
	if err == nil && a.Is6() {
		err = c.h.RouteDel(&netlink.Route{LinkIndex: index, Dst: r.Dst, Table: r.Table, Type: r.Type, Protocol: unix.RTPROT_KERNEL})
	}
	if err != nil {
		return fmt.Errorf("route to %s by %s: %w", a, congestion, err)
	}
	return nil
}
