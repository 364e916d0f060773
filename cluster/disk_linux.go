package cluster

import (
	"context"
	"errors"
	"fmt"

	"brownout/internal/faultfs"
)

// errPlain says that a node's disk cannot be hurt.
var errPlain = fmt.Errorf("the disk is %s, without a file system of ours: %w", DiskPlain, errors.ErrUnsupported)

// A disk is what serves /data of a box, in init: slowfs, or nothing.
type disk struct {
	server *faultfs.Server // nil for nothing
	ended  chan error
}

// mount shows the directory backing at another one.
func (d *disk) mount(backing, at string, passthrough bool) (err error) {
	d.server, err = faultfs.Mount(backing, at, faultfs.Options{Passthrough: passthrough})
	if err != nil {
		return err
	}
	d.ended = make(chan error, 1)
	go func() { d.ended <- d.server.Wait() }() // ends with the process
	return nil
}

// lost gets an error if the server ends.
func (d *disk) lost() <-chan error { return d.ended }

func (d *disk) setRules(r *faultfs.Rules) error {
	if d.server == nil {
		return errPlain
	}
	if r == nil {
		r = new(faultfs.Rules)
	}
	return d.server.SetRules(*r)
}

func (d *disk) stats() (*faultfs.Stats, error) {
	if d.server == nil {
		return nil, errPlain
	}
	st := d.server.Stats()
	return &st, nil
}

// SetDisk puts rules in force for all operations on the node's disk that begin
// from now on, in place of those before; the zero Rules heal it. It matches
// [errors.ErrUnsupported] on a plain disk.
func (n *Node) SetDisk(ctx context.Context, r faultfs.Rules) error {
	if n.box.c.cfg.Disk == DiskPlain {
		return fmt.Errorf("set disk of %s: %w", n.name, errPlain)
	}
	if _, err := n.box.call(ctx, order{Verb: verbRules, Rules: &r}); err != nil {
		return fmt.Errorf("set disk of %s: %w", n.name, err)
	}
	return nil
}

// DiskStats returns what the node's disk did since it was mounted. It matches
// [errors.ErrUnsupported] on a plain disk.
func (n *Node) DiskStats(ctx context.Context) (faultfs.Stats, error) {
	if n.box.c.cfg.Disk == DiskPlain {
		return faultfs.Stats{}, fmt.Errorf("statistics of %s's disk: %w", n.name, errPlain)
	}
	r, err := n.box.call(ctx, order{Verb: verbStats})
	if err != nil || r.Stats == nil {
		return faultfs.Stats{}, fmt.Errorf("statistics of %s's disk: %w", n.name, err)
	}
	return *r.Stats, nil
}
