package kvserver

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// giveUpAfter sets TCP_USER_TIMEOUT (tcp(7)) on new connections.
func giveUpAfter(patience time.Duration) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, _ string, raw syscall.RawConn) error {
		var err error
		ctl := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds()))
		})
		if ctl != nil {
			return ctl
		}
		return err
	}
}

// tryWriter returns a function that writes as much to conn as can be written without waiting.
func tryWriter(conn net.Conn) func([]byte) (int, error) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return func([]byte) (int, error) { return 0, err }
	}
	var b []byte
	var n int
	var failed error
	attempt := func(fd uintptr) bool {
		for {
			switch n, failed = unix.Write(int(fd), b); failed {
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				failed = nil
			}
			n = max(n, 0)
			return true
		}
	}
	return func(p []byte) (int, error) {
		b = p
		err := raw.Write(attempt)
		b = nil
		if err == nil {
			err = failed
		}
		return n, err
	}
}
