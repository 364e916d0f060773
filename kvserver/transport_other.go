//go:build !linux

package kvserver

import (
	"context"
	"net"
	"syscall"
	"time"
)

// giveUpAfter does nothing here: only Linux lets a program choose when TCP gives up.
func giveUpAfter(time.Duration) func(context.Context, string, string, syscall.RawConn) error {
	return nil
}

// tryWriter returns a function that leaves everything to whoever can wait.
func tryWriter(net.Conn) func([]byte) (int, error) {
	return func([]byte) (int, error) { return 0, nil }
}
