package cluster

import (
	"encoding/json"
	"errors"
)

// A disk is what serves /data of a box: faultfs, or nothing.
type disk struct{}

func (d *disk) mount(backing, at string) error  { return errors.ErrUnsupported }
func (d *disk) lost() <-chan error              { return nil }
func (d *disk) setRules(json.RawMessage) error  { return errors.ErrUnsupported }
func (d *disk) stats() (json.RawMessage, error) { return nil, errors.ErrUnsupported }
