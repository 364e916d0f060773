package netns

import (
	"context"
	"net"
	"os"
	"syscall"
)

// Listen opens a listener inside ns. Networks and addresses are those of
// [net.ListenConfig]; unix sockets in the file system ignore namespaces, those
// whose name starts with @ do not.
func Listen(ctx context.Context, ns *os.File, network, address string) (l net.Listener, err error) {
	err = Do(ns, func() error {
		var lc net.ListenConfig
		l, err = lc.Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a packet socket inside ns, as [net.ListenConfig.ListenPacket]
// does. control, unless nil, sets options before it is bound.
func ListenPacket(ctx context.Context, ns *os.File, network, address string, control func(network, address string, c syscall.RawConn) error) (p net.PacketConn, err error) {
	err = Do(ns, func() error {
		lc := net.ListenConfig{Control: control}
		p, err = lc.ListenPacket(ctx, network, address)
		return err
	})
	return p, err
}

// Dial connects from inside ns. The address must be literal: a name would be
// looked up, and two addresses would be raced, on threads outside of ns.
//
// The thread waits for the connection, so that a slow link holds one thread per
// dial until ctx ends.
func Dial(ctx context.Context, ns *os.File, network, address string) (c net.Conn, err error) {
	err = Do(ns, func() error {
		d := net.Dialer{FallbackDelay: -1}
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}
