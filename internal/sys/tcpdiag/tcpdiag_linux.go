package tcpdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
	"brownout/internal/sys/unsupported"
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

// Conns returns the established connections, both ends of those that stay
// within the namespace.
func (s *Socket) Conns() ([]Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var conns []Conn
	for _, family := range []byte{familyV4, familyV6} {
		req := make([]byte, reqSize)
		req[0], req[1], req[2] = family, unix.IPPROTO_TCP, 1<<(attrInfo-1)
		const established = 1
		binary.NativeEndian.PutUint32(req[4:], 1<<established)
		err := s.ask(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, req, func(body []byte) error {
			c, ok, err := parseConn(body)
			if ok {
				conns = append(conns, c)
			}
			return err
		})
		if family == familyV6 && errors.Is(err, unix.ENOENT) { // a kernel without IPv6
			return conns, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ask sock_diag: %w", err)
		}
	}
	return conns, nil
}

// reqSize is that of struct inet_diag_req_v2 (linux/inet_diag.h).
const reqSize = 56

// Destroy ends a connection as an administrator may: the other end gets a
// reset, and the program on this end an error. One that is gone already is
// [fs.ErrNotExist]; a kernel that cannot is [errors.ErrUnsupported].
func (s *Socket) Destroy(c Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := make([]byte, reqSize)
	req[0], req[1] = familyV4, unix.IPPROTO_TCP
	if c.v6 {
		req[0] = familyV6
	}
	binary.NativeEndian.PutUint32(req[4:], ^uint32(0)) // in any state
	copy(req[8:], c.id[:])
	err := s.ask(sockDestroy, unix.NLM_F_ACK, req, func([]byte) error { return nil })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return &unsupported.Error{What: "reset of TCP connections", Why: "the kernel cannot destroy sockets: " + err.Error(), Cure: "a kernel with CONFIG_INET_DIAG_DESTROY=y"}
	}
	return fmt.Errorf("destroy %s to %s: %w", c.Local, c.Remote, err)
}

const sockDestroy = 21 // SOCK_DESTROY (linux/sock_diag.h), Linux 4.5

// ProbeDestroy says whether the kernel destroys sockets: [errors.ErrUnsupported]
// if it does not. It asks for one that cannot be there, in a namespace of its own.
func ProbeDestroy() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	s, err := Open(ns)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Destroy(Conn{}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ask sends one request and hands each answer to f, to the end of them or the
// first error.
func (s *Socket) ask(kind, flags uint16, req []byte, f func(body []byte) error) error {
	if s.fd < 0 {
		return os.ErrClosed
	}
	s.seq++
	n := binary.NativeEndian
	msg := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(req))
	n.PutUint32(msg, uint32(unix.NLMSG_HDRLEN+len(req)))
	n.PutUint16(msg[4:], kind)
	n.PutUint16(msg[6:], unix.NLM_F_REQUEST|flags)
	n.PutUint32(msg[8:], s.seq)
	if err := unix.Sendto(s.fd, append(msg, req...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		got, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := s.buf[:got]; len(b) >= unix.NLMSG_HDRLEN; {
			length, kind := int(n.Uint32(b)), n.Uint16(b[4:])
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				return fmt.Errorf("a message of %d bytes", length)
			}
			body := b[unix.NLMSG_HDRLEN:length]
			old := n.Uint32(b[8:]) != s.seq // of a question that we gave up
			b = b[min(len(b), (length+3)&^3):]
			switch {
			case old:
			case kind == unix.NLMSG_DONE:
				return nil
			case kind == unix.NLMSG_ERROR:
				if len(body) < 4 {
					return errors.New("an error without a number")
				}
				if errno := unix.Errno(-int32(n.Uint32(body))); errno != 0 {
					return errno
				}
				return nil // acknowledged
			case kind == unix.SOCK_DIAG_BY_FAMILY:
				if err := f(body); err != nil {
					return err
				}
			}
		}
	}
}
