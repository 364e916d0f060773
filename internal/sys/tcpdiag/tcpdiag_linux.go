package tcpdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
)

// A Socket asks about one network namespace, from anywhere.
type Socket struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// Open opens a socket in ns (nil: in our own).
func Open(ns *os.File) (*Socket, error) {
	s := &Socket{fd: -1, buf: make([]byte, 32<<10)}
	open := func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return fmt.Errorf("open sock_diag: %w", err)
		}
		// The kernel answers within the request; the bound is for one that does not.
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
			unix.Close(fd)
			return fmt.Errorf("open sock_diag: %w", err)
		}
		s.fd = fd
		return nil
	}
	if ns == nil {
		return s, open()
	}
	return s, netns.Do(ns, open)
}

// Close lets go of the socket, and of the namespace.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return err
}

// Conns returns the established IPv4 connections, both ends of those that stay
// within the namespace.
func (s *Socket) Conns() ([]Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, os.ErrClosed
	}
	s.seq++
	const size = unix.NLMSG_HDRLEN + 56
	req := make([]byte, size) // struct nlmsghdr and struct inet_diag_req_v2
	n := binary.NativeEndian
	n.PutUint32(req, size)
	n.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	n.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	n.PutUint32(req[8:], s.seq)
	req[16], req[17], req[18] = familyV4, unix.IPPROTO_TCP, 1<<(attrInfo-1)
	const established = 1
	n.PutUint32(req[20:], 1<<established)
	if err := unix.Sendto(s.fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask sock_diag: %w", err)
	}
	var conns []Conn
	for {
		got, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask sock_diag: %w", err)
		}
		for b := s.buf[:got]; len(b) >= unix.NLMSG_HDRLEN; {
			length, kind := int(n.Uint32(b)), n.Uint16(b[4:])
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				return nil, fmt.Errorf("ask sock_diag: a message of %d bytes", length)
			}
			body := b[unix.NLMSG_HDRLEN:length]
			old := n.Uint32(b[8:]) != s.seq // of a question that we gave up
			b = b[min(len(b), (length+3)&^3):]
			switch {
			case old:
			case kind == unix.NLMSG_DONE:
				return conns, nil
			case kind == unix.NLMSG_ERROR:
				if len(body) >= 4 {
					err = unix.Errno(-int32(n.Uint32(body)))
				}
				return nil, fmt.Errorf("ask sock_diag: %w", err)
			case kind == unix.SOCK_DIAG_BY_FAMILY:
				c, ok, err := parseConn(body)
				if err != nil {
					return nil, err
				}
				if ok {
					conns = append(conns, c)
				}
			}
		}
	}
}
