package faults

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/faultfs"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/dm"
)

// Versions of the io controller, by the name of their provider.
var throttleVersions = map[string]int{"io.max": 2, "blkio.throttle": 1}

// A throttleFault caps what a node's processes ask of the block device below
// their data. It is never chosen by itself: nodes have such devices only where a
// scenario names the provider.
type throttleFault struct {
	b              *bench
	kind, provider string
}

func newThrottle(kind, provider string) func(*bench) Provider {
	return func(b *bench) Provider { return &throttleFault{b, kind, provider} }
}

func (f *throttleFault) Probe(context.Context) error {
	h, err := cgroup.Discover()
	if err != nil {
		return err
	}
	c, err := h.Controller("io")
	if err != nil {
		return err
	}
	if c.Version != throttleVersions[f.provider] {
		other := "io.max"
		if c.Version == 1 {
			other = "blkio.throttle"
		}
		return &Unsupported{
			What: f.kind + " by " + f.provider, Why: fmt.Sprintf("the io controller of this host is v%d's", c.Version), Cure: "provider: " + other,
		}
	}
	if err := cluster.ProbeLoop(); err != nil {
		return err
	}
	if f.b != nil && f.b.Cluster != nil {
		for _, n := range f.b.Cluster.Nodes() {
			if !n.OwnDisk() {
				return &Unsupported{
					What: f.kind + " by " + f.provider, Why: "the nodes' data are on no block devices of their own",
					Cure: "name the provider in a scenario without faults of slowfs: then its nodes get devices",
				}
			}
		}
	}
	return f.b.withProbeGroup(h, tryThrottle)
}

// tryThrottle limits a group on a device that nobody else uses.
func tryThrottle(g *cgroup.Group) (err error) {
	file, err := os.CreateTemp("", "bo-throttle-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	if err := file.Truncate(1 << 20); err != nil {
		return err
	}
	loop, err := dm.Attach(file.Name())
	if err != nil {
		return err
	}
	defer loop.Close()
	var st unix.Stat_t
	if err := unix.Stat(loop.Path(), &st); err != nil {
		return fmt.Errorf("look at %s: %w", loop.Path(), err)
	}
	return errors.Join(g.SetIOLimit(st.Rdev, cgroup.IOLimit{WriteBytes: 1 << 20}), g.SetIOLimit(st.Rdev, cgroup.IOLimit{}))
}

func (f *throttleFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.throttles.inject(ctx, site.Nodes, d, f.limitOf)
}

// limitOf is what a dose asks for. A device has a limit for each direction, and
// knows nothing of other operations.
func (f *throttleFault) limitOf(d Dose) (l cgroup.IOLimit, err error) {
	op, bytes, ops := diskOp(d), int64(d.Float("limit_bytes_per_s")), int64(d.Float("limit"))
	if err := cannot(f.kind, f.provider, d); err != nil {
		return l, err
	}
	switch {
	case f.kind == "disk.rate" && bytes < 4096:
		return l, fmt.Errorf("limit of %d bytes/s: 4KiB/s or more", bytes)
	case f.kind == "disk.rate" && op == faultfs.Read:
		l.ReadBytes = bytes
	case f.kind == "disk.rate":
		l.WriteBytes = bytes
	case op == faultfs.Read:
		l.ReadOps = ops
	default:
		l.WriteOps = ops
	}
	return l, nil
}

// setThrottle makes the lowest of the limits that are asked for the node's own.
func (b *bench) setThrottle(_ context.Context, node string, asked []cgroup.IOLimit) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	dev, err := deviceOf(n)
	if err != nil {
		return err
	}
	var all cgroup.IOLimit
	lower := func(l *int64, v int64) {
		if v > 0 && (*l == 0 || v < *l) {
			*l = v
		}
	}
	for _, a := range asked {
		lower(&all.ReadBytes, a.ReadBytes)
		lower(&all.WriteBytes, a.WriteBytes)
		lower(&all.ReadOps, a.ReadOps)
		lower(&all.WriteOps, a.WriteOps)
	}
	return n.Group().SetIOLimit(dev, all)
}

// deviceOf is the block device below a node's data.
func deviceOf(n *cluster.Node) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(n.Data(), &st); err != nil {
		return 0, fmt.Errorf("find the device of %s: %w", n.Name(), err)
	}
	return st.Dev, nil
}

// ownDisks reports whether the nodes have block devices of their own, where
// only the device can be limited.
func (b *bench) ownDisks(site Site) bool {
	nodes, err := b.nodes(site.Nodes)
	return err == nil && len(nodes) > 0 && nodes[0].OwnDisk()
}
