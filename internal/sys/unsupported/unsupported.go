// Package unsupported is the error by which kernel mechanisms say that this
// host does not have them: what is missing, why, and what would help.
//
// It is a leaf so that mechanisms and faults need not know each other.
package unsupported

import (
	"errors"
	"fmt"
)

// An Error matches [errors.ErrUnsupported].
type Error struct {
	What string // the mechanism, as in "TAP device"
	Why  string // the fact that was found, as in "/dev/net/tun does not exist"
	Cure string // what the user can do about it
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%s)", e.What, e.Why, e.Cure) }

// Is makes every Error match [errors.ErrUnsupported].
func (e *Error) Is(target error) bool { return target == errors.ErrUnsupported }
