//go:build !linux

package undo

import (
	"context"
	"errors"
)

// Revert undoes one record; on this system there is nothing that it could undo.
func Revert(Record) error { return errors.ErrUnsupported }

// Find finds nothing on this system.
func Find(context.Context, bool) ([]Record, error) { return nil, errors.ErrUnsupported }

// Sweep finds nothing on this system.
func Sweep(context.Context, bool) ([]Record, error) { return nil, errors.ErrUnsupported }
