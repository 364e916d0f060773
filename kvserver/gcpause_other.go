//go:build !linux

package kvserver

import (
	"errors"
	"fmt"
	"time"
)

// stopTheWorld is only known for Linux.
func stopTheWorld(time.Duration) (time.Duration, error) {
	return 0, fmt.Errorf("stop the world: %w", errors.ErrUnsupported)
}
