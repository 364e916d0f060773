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
	server      *faultfs.Server // nil for nothing
	backing, at string
	passthrough bool
	rules       faultfs.Rules // in force
	torn        bool          // armed for a torn write
	ended       chan error
}

// mount shows the directory backing at another one.
func (d *disk) mount(backing, at string, passthrough bool) (err error) {
	d.backing, d.at, d.passthrough, d.ended = backing, at, passthrough, make(chan error, 1)
	return d.again()
}

func (d *disk) again() error {
	s, err := faultfs.Mount(d.backing, d.at, faultfs.Options{Passthrough: d.passthrough})
	if err != nil {
		return err
	}
	d.server = s
	go func() { // ends with the process
		if err := s.Wait(); !s.Lost() {
			d.ended <- err
		}
	}()
	return nil
}

func (d *disk) arm(torn bool) error {
	if d.server == nil {
		return errPlain
	}
	d.torn = d.torn || torn
	return d.server.Arm(d.torn)
}

// lose is a power loss: what is left is mounted again, with the rules that were
// in force, and armed again.
func (d *disk) lose(torn *float64) (faultfs.Loss, error) {
	if d.server == nil {
		return faultfs.Loss{}, errPlain
	}
	share := -1.0
	if torn != nil {
		share = *torn
	}
	loss, err := d.server.Lose(share)
	if err != nil {
		return loss, err
	}
	if err := d.again(); err != nil {
		return loss, err
	}
	return loss, errors.Join(d.server.SetRules(d.rules), d.server.Arm(d.torn))
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
	err := d.server.SetRules(*r)
	if err == nil {
		d.rules = *r
		d.rules.Release = false
	}
	return err
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

// ArmDisk has the node's disk keep from now on what a power loss would take;
// torn says that it may take a part of a write. Files must not be open by
// passthrough.
func (n *Node) ArmDisk(ctx context.Context, torn bool) error {
	if n.box.c.cfg.Disk == DiskPlain {
		return fmt.Errorf("arm disk of %s: %w", n.name, errPlain)
	}
	o := order{Verb: verbArm}
	if torn {
		o.Torn = new(float64)
	}
	if _, err := n.box.call(ctx, o); err != nil {
		return fmt.Errorf("arm disk of %s: %w", n.name, err)
	}
	return nil
}

// Remounts changes whenever the node's disk is mounted again by [Node.LoseDisk]
// or [Node.ShutdownDisk]; it is odd while that is under way.
func (n *Node) Remounts() int64 { return n.box.remounts.Load() }

// LoseDisk takes everything from the node's disk that is not durable, as a
// power loss does, and mounts it again; a share torn that is not negative
// leaves all but the end of each file's last write. The disk is armed, and the
// target does not run. Files on it that others have open are lost to them.
func (n *Node) LoseDisk(ctx context.Context, torn float64) (faultfs.Loss, error) {
	n.box.remounts.Add(1)
	defer n.box.remounts.Add(1)
	o := order{Verb: verbLose}
	if torn >= 0 {
		o.Torn = &torn
	}
	r, err := n.box.call(ctx, o)
	if err != nil || r.Loss == nil {
		return faultfs.Loss{}, fmt.Errorf("power loss of %s's disk: %w", n.name, err)
	}
	return *r.Loss, nil
}
