package kvserver

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// acceptErrors pass: of files, of memory, or because the other end has gone (accept(2)).
var acceptErrors = []syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPROTO, syscall.EINTR,
}

// accept waits for the next connection until ctx ends. A host that is short of
// something costs time, not the listener.
func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	const first, most = 5 * time.Millisecond, 500 * time.Millisecond
	for pause := first; ; pause = min(2*pause, most) {
		conn, err := ln.Accept()
		var no syscall.Errno
		if err == nil || !errors.As(err, &no) || !slices.Contains(acceptErrors, no) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}
