//go:build !linux

package kvserver

import (
	"context"
	"syscall"
	"time"
)

// giveUpAfter does nothing here: only Linux lets a program choose when TCP gives up.
func giveUpAfter(time.Duration) func(context.Context, string, string, syscall.RawConn) error {
	return nil
}
