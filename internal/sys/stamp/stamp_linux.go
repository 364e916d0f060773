package stamp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
)

const (
	batch  = 32   // datagrams in one system call
	most   = 2048 // bytes of one that is received
	stamps = 64   // bytes of control messages of one
)

// A Socket is one UDP socket over IPv4. Sending and receiving may go on at the
// same time, from several goroutines.
type Socket struct {
	fd   int
	addr netip.AddrPort

	sending sync.Mutex
	out     vector
	to      [batch]unix.RawSockaddrInet4

	receiving sync.Mutex
	in        vector
	data      []byte
	oob       []byte
}

// A vector is what sendmmsg(2) and recvmmsg(2) take.
type vector struct {
	msg [batch]mmsghdr
	iov [batch]unix.Iovec
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// Open opens a socket inside ns at a port of the kernel's choice, with a receive
// buffer of so many bytes.
func Open(ns *os.File, ip netip.Addr, buffer int) (*Socket, error) {
	s := &Socket{fd: -1, data: make([]byte, batch*most), oob: make([]byte, batch*stamps)}
	for i := range batch {
		s.in.iov[i].Base = &s.data[i*most]
		s.in.iov[i].SetLen(most)
	}
	if err := netns.Do(ns, func() error { return s.open(ip, buffer) }); err != nil {
		return nil, fmt.Errorf("open UDP socket at %s: %w", ip, err)
	}
	return s, nil
}

func (s *Socket) open(ip netip.Addr, buffer int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: ip.As4()}),
	)
	var at unix.Sockaddr
	if err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	s.fd, s.addr = fd, netip.AddrPortFrom(ip, uint16(at.(*unix.SockaddrInet4).Port))
	return nil
}

// Addr is where datagrams for this socket go.
func (s *Socket) Addr() netip.AddrPort { return s.addr }

// Close closes the socket. Nobody may use it then.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Send sends datagrams back to back and returns how many the kernel took.
func (s *Socket) Send(to netip.AddrPort, datagrams [][]byte) (n int) {
	s.sending.Lock()
	defer s.sending.Unlock()
	for n < len(datagrams) {
		some := datagrams[n:min(n+batch, len(datagrams))]
		for i, d := range some {
			s.to[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
			binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.to[i].Port))[:], to.Port())
			s.out.iov[i].Base = &d[0]
			s.out.iov[i].SetLen(len(d))
			h := &s.out.msg[i].hdr
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.to[i])), unix.SizeofSockaddrInet4
			h.Iov = &s.out.iov[i]
			h.SetIovlen(1)
		}
		sent, errno := s.call(unix.SYS_SENDMMSG, &s.out, len(some))
		switch {
		case errno == unix.EINTR, errno == unix.ECONNREFUSED: // of an earlier one, to a place that was closed
			continue
		case errno != 0 || sent == 0:
			return n
		}
		n += sent
	}
	return n
}

// SendSegments sends what b holds in datagrams of size bytes, as few system calls
// and as close together as the kernel can (UDP_SEGMENT, Linux 4.18). It reports
// whether the kernel can; what it then does not take is lost.
func (s *Socket) SendSegments(to netip.AddrPort, b []byte, size int) bool {
	const (
		segments = 44 // of Ethernet's size fill a packet; the kernel takes 64
		largest  = 65_000
	)
	oob := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(size))
	most := min(segments, largest/size) * size
	for sent := 0; len(b) > 0; {
		some := b[:min(most, len(b))]
		at := unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()} // the library writes into it
		err := unix.Sendmsg(s.fd, some, oob, &at, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return sent > 0
		}
		b, sent = b[len(some):], sent+1
	}
	return true
}

// Receive hands out all that has come in, each with the kernel's time stamp by
// CLOCK_REALTIME, 0 without one. It does not wait. f must not keep the bytes.
func (s *Socket) Receive(f func(datagram []byte, at time.Duration)) {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	for {
		for i := range batch {
			h := &s.in.msg[i].hdr
			h.Iov = &s.in.iov[i]
			h.SetIovlen(1)
			h.Control = &s.oob[i*stamps]
			h.SetControllen(stamps)
		}
		n, errno := s.call(unix.SYS_RECVMMSG, &s.in, batch)
		if errno == unix.EINTR || errno == unix.ECONNREFUSED {
			continue
		}
		if errno != 0 {
			return
		}
		for i := range n {
			m := &s.in.msg[i]
			f(s.data[i*most:i*most+min(int(m.len), most)], arrival(s.oob[i*stamps:i*stamps+int(m.hdr.Controllen)]))
		}
		if n < batch {
			return
		}
	}
}

func (s *Socket) call(number uintptr, v *vector, n int) (int, unix.Errno) {
	r, _, errno := unix.Syscall6(number, uintptr(s.fd), uintptr(unsafe.Pointer(&v.msg[0])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	return int(r), errno
}

// arrival finds the time stamp among control messages.
func arrival(oob []byte) time.Duration {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(data) >= 16 {
			n := binary.NativeEndian
			return time.Duration(n.Uint64(data))*time.Second + time.Duration(n.Uint64(data[8:]))
		}
		oob = rest
	}
	return 0
}
