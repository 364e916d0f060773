package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
)

// A Frame is one that passed a device.
type Frame struct {
	At     time.Duration // CLOCK_REALTIME
	Out    bool          // sent by the namespace; else it came in
	Data   []byte        // to be copied
	Length int
}

// A Socket hears what passes one device, in both directions.
type Socket struct {
	fd   int
	buf  []byte
	oob  []byte
	lost uint64
}

const (
	buffer   = 16 << 20
	maxFrame = 70 << 10 // a super-packet and its headers
)

// Open listens on a device of ns.
func Open(ns *os.File, device string) (*Socket, error) {
	s := &Socket{fd: -1, buf: make([]byte, maxFrame), oob: make([]byte, 128)}
	err := netns.Do(ns, func() (err error) {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		// With no protocol nothing comes in before it is bound to its device.
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		err = errors.Join(
			unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
			unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}),
		)
		if err != nil {
			unix.Close(s.fd)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", device, err)
	}
	return s, nil
}

// Read hands out all that was heard since. It does not wait.
func (s *Socket) Read(f func(Frame)) error {
	for {
		n, oobn, _, from, err := unix.Recvmsg(s.fd, s.buf, s.oob, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("listen: %w", err)
		}
		fr := Frame{At: stampOf(s.oob[:oobn]), Data: s.buf[:min(n, len(s.buf))], Length: n}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			fr.Out = ll.Pkttype == unix.PACKET_OUTGOING
		}
		f(fr)
	}
}

func stampOf(oob []byte) time.Duration {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(data) >= 16 {
			n := binary.NativeEndian
			return time.Duration(n.Uint64(data))*time.Second + time.Duration(n.Uint64(data[8:]))
		}
		oob = rest
	}
	return time.Duration(time.Now().UnixNano())
}

// Lost is how many frames found no room in the buffer.
func (s *Socket) Lost() uint64 {
	if st, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		s.lost += uint64(st.Drops) // the kernel starts anew when it is asked
	}
	return s.lost
}

// Close stops listening.
func (s *Socket) Close() error { return unix.Close(s.fd) }
