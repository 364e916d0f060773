package tcpdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// A Conn is one established connection.
type Conn struct {
	Local, Remote netip.AddrPort
	Cookie        uint64 // names the socket for as long as the host is up
	RTT           time.Duration
	RTTVar        time.Duration
	MinRTT        time.Duration
	Unacked       uint32 // segments
	Lost          uint32 // segments believed lost and not yet sent again
	NotSent       uint32 // bytes written but not sent, for the window or the link
	Retrans       uint32 // segments sent again, ever
	BytesSent     uint64 // acknowledged
	BytesReceived uint64
	RecvQueue     uint32 // bytes that the program has not read
	SendQueue     uint32 // bytes not acknowledged

	v6 bool     // of the socket
	id [48]byte // struct inet_diag_sockid, as the kernel knows it
}

// Layout of struct inet_diag_msg and its attributes (linux/inet_diag.h), and of
// struct tcp_info (linux/tcp.h), whose kernel grows it only at the end. The
// numbers are in the host's byte order but for addresses and ports.
const (
	msgSize  = 72
	attrInfo = 2 // INET_DIAG_INFO
	familyV4 = 2
	familyV6 = 10
	infoSize = 152 // up to and with min_rtt, Linux 4.6
)

// parseConn takes one answer of sock_diag apart. ok is false for a socket
// without TCP information, which is not connected any more.
func parseConn(b []byte) (c Conn, ok bool, err error) {
	if len(b) < msgSize {
		return c, false, fmt.Errorf("parse socket: %d bytes", len(b))
	}
	n := binary.NativeEndian
	c.v6, c.id = b[0] == familyV6, [48]byte(b[4:52])
	address := func(at int) (netip.Addr, error) {
		switch b[0] {
		case familyV4:
			return netip.AddrFrom4([4]byte(b[at : at+4])), nil
		case familyV6:
			return netip.AddrFrom16([16]byte(b[at : at+16])).Unmap(), nil
		}
		return netip.Addr{}, fmt.Errorf("parse socket: family %d", b[0])
	}
	local, err := address(8)
	if err != nil {
		return c, false, err
	}
	remote, _ := address(24)
	c.Local = netip.AddrPortFrom(local, binary.BigEndian.Uint16(b[4:]))
	c.Remote = netip.AddrPortFrom(remote, binary.BigEndian.Uint16(b[6:]))
	c.Cookie = uint64(n.Uint32(b[44:])) | uint64(n.Uint32(b[48:]))<<32
	c.RecvQueue, c.SendQueue = n.Uint32(b[56:]), n.Uint32(b[60:])
	for attrs := b[msgSize:]; len(attrs) >= 4; {
		size, kind := int(n.Uint16(attrs)), n.Uint16(attrs[2:])
		if size < 4 || size > len(attrs) {
			return c, false, fmt.Errorf("parse socket: attribute of %d bytes", size)
		}
		if body := attrs[4:size]; kind == attrInfo && len(body) >= infoSize {
			µs := func(at int) time.Duration { return time.Duration(n.Uint32(body[at:])) * time.Microsecond }
			c.Unacked, c.Lost = n.Uint32(body[24:]), n.Uint32(body[32:])
			c.RTT, c.RTTVar = µs(68), µs(72)
			c.Retrans = n.Uint32(body[100:])
			c.BytesSent, c.BytesReceived = n.Uint64(body[120:]), n.Uint64(body[128:])
			c.NotSent = n.Uint32(body[144:])
			if c.MinRTT = µs(148); n.Uint32(body[148:]) == ^uint32(0) {
				c.MinRTT = 0 // not measured yet
			}
			ok = true
		}
		attrs = attrs[min(len(attrs), (size+3)&^3):]
	}
	return c, ok, nil
}
