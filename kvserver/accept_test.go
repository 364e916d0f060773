package kvserver

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// A shortListener fails some times.
type shortListener struct {
	net.Listener
	errs []error
}

func (l *shortListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		c, _ := net.Pipe()
		return c, nil
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
}

func TestAcceptOutlivesShortages(t *testing.T) {
	for _, tt := range []struct {
		name string
		errs []error
		want error
	}{
		{"none", nil, nil},
		{"files, memory, a client that is gone", []error{syscall.ENFILE, syscall.EMFILE, syscall.ENOMEM, syscall.ECONNABORTED}, nil},
		{"a socket that is none", []error{syscall.EMFILE, syscall.EBADF}, syscall.EBADF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := accept(t.Context(), &shortListener{errs: tt.errs})
			if !errors.Is(err, tt.want) || (conn == nil) != (tt.want != nil) {
				t.Errorf("accept = %v, %v; want %v", conn, err, tt.want)
			}
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := accept(ended, &shortListener{errs: []error{syscall.EMFILE, syscall.EMFILE}}); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("accept after the end = %v", err)
	}
}
