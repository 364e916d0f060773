package faults

import (
	"context"
	"fmt"
	"slices"
	"syscall"

	"brownout/internal/faultfs"
	"brownout/internal/plan"
	"brownout/internal/sys/seccomp"
)

var diskRows = []row{
	{"disk.delay", meterDisk, []source{{"fuse", newSlowDisk("disk.delay")}, {"seccomp", newTrap("disk.delay")}, {"dm-delay", newBlockFault("dm-delay", blockDelayOf)}}},
	{"disk.hang", meterHang, []source{{"fuse", newSlowDisk("disk.hang")}, {"seccomp", newTrap("disk.hang")}}},
	{"disk.rate", meterDiskRate, []source{{"fuse", newSlowDisk("disk.rate")}, {"io.max", newThrottle("disk.rate", "io.max")}, {"blkio.throttle", newThrottle("disk.rate", "blkio.throttle")}}},
	{"disk.iops", meterIOPS, []source{{"fuse", newSlowDisk("disk.iops")}, {"io.max", newThrottle("disk.iops", "io.max")}, {"blkio.throttle", newThrottle("disk.iops", "blkio.throttle")}}},
	{"disk.error", meterDiskErrors, []source{{"fuse", newSlowDisk("disk.error")}, {"seccomp", newTrap("disk.error")}, {"dm-flakey", newBlockFault("dm-flakey", blockErrorOf)}}},
	{"disk.full", meterFull, []source{{"fuse", newSlowDisk("disk.full")}}},
	{"disk.torn", meterPower, []source{{"fuse", newPowerLoss(true)}}},
	{"disk.corrupt", meterBitFlips, []source{{"fuse", newSlowDisk("disk.corrupt")}}},
	{"power.loss", meterPower, []source{{"fuse", newPowerLoss(false)}, {"ext4", newShutdown}}},
	{"disk.contend", meterDiskContend, []source{{"tenant", newDiskContend}}},
}

// diskDelayOf is the delay that a dose asks for.
func diskDelayOf(d Dose) (faultfs.Delay, error) {
	delay := faultfs.Delay{Add: d.Duration("add"), Jitter: d.Duration("jitter")}
	if delay.Jitter > 0 {
		delay.Dist = faultfs.Dist(d.String("dist"))
	}
	if list := d.String("trace"); list != "" {
		trace, err := plan.ParseDurations(list)
		if err != nil {
			return delay, err
		}
		delay = faultfs.Delay{Trace: trace}
	}
	if delay.Add <= 0 && delay.Trace == nil {
		return delay, fmt.Errorf("disk.delay of %v: nothing to add", delay.Add)
	}
	return delay, nil
}

// diskOp is the class of operations that a dose is about.
func diskOp(d Dose) faultfs.Op {
	if op := d.String("op"); op != "" {
		return faultfs.Op(op)
	}
	return faultfs.Fsync
}

var errnos = map[string]syscall.Errno{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EROFS": syscall.EROFS}

// diskFault returns the rules that a fault alone asks for. The id tells it from others.
func diskFault(kind string, id int, d Dose) (r faultfs.Rules, err error) {
	op := diskOp(d)
	switch kind {
	case "disk.delay":
		var delay faultfs.Delay
		delay, err = diskDelayOf(d)
		r.Delay = map[faultfs.Op][]faultfs.Delay{op: {delay}}
	case "disk.hang":
		if each := d.Duration("each"); each > 0 {
			r.Delay = map[faultfs.Op][]faultfs.Delay{op: {{Add: each}}}
		} else {
			r.Hang = []faultfs.Op{op}
		}
	case "disk.rate":
		r.Limit = []faultfs.Limit{{ID: id, Op: op, Bytes: d.Float("limit_bytes_per_s")}}
	case "disk.iops":
		r.Limit = []faultfs.Limit{{ID: id, Op: op, Ops: d.Float("limit")}}
	case "disk.error":
		errno, ok := errnos[d.String("errno")]
		if !ok {
			return r, fmt.Errorf("%s: %q is none of EIO, ENOSPC, EROFS", kind, d.String("errno"))
		}
		if d.Has("percent") == d.Has("after") {
			return r, fmt.Errorf("%s: one of percent and after is needed", kind)
		}
		r.Error = []faultfs.Error{{ID: id, Op: op, Errno: errno, Share: d.Float("percent") / 100, After: int64(d.Float("after"))}}
	case "disk.full":
		r.Full = []faultfs.Full{{ID: id, Free: int64(d.Float("free_bytes"))}}
	case "disk.corrupt":
		r.Corrupt = []faultfs.Corrupt{{ID: id, Share: d.Float("percent") / 100, Bits: max(int(d.Float("bits")), 1)}}
	}
	if err == nil {
		err = r.Validate()
	}
	return r, err
}

// diskRules are several faults together: delays add up, the lowest limit and
// the first error win. When nothing is left, what still waits is let go.
func diskRules(asked []faultfs.Rules) faultfs.Rules {
	r := faultfs.Rules{Delay: map[faultfs.Op][]faultfs.Delay{}, Release: len(asked) == 0}
	for _, a := range asked {
		for _, op := range faultfs.Ops {
			r.Delay[op] = slices.Concat(r.Delay[op], a.Delay[op], a.Delay[faultfs.All])
		}
		r.Hang = append(r.Hang, a.Hang...)
		r.Limit = append(r.Limit, a.Limit...)
		r.Error = append(r.Error, a.Error...)
		r.Corrupt = append(r.Corrupt, a.Corrupt...)
		r.Full = append(r.Full, a.Full...)
	}
	return r
}

// A slowDisk is our own file system over the node's data directory.
type slowDisk struct {
	b    *bench
	kind string
}

func newSlowDisk(kind string) func(*bench) Provider {
	return func(b *bench) Provider { return &slowDisk{b, kind} }
}

func (f *slowDisk) Probe(ctx context.Context) error {
	if err := faultfs.Probe(); err != nil || f.b == nil {
		return err
	}
	for _, n := range f.b.Cluster.Nodes() {
		if _, err := n.DiskStats(ctx); err != nil { // whether it is there
			return err
		}
	}
	return nil
}

func (f *slowDisk) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	id := int(probes.Add(1))
	return f.b.disks.inject(ctx, site.Nodes, d, func(d Dose) (faultfs.Rules, error) { return diskFault(f.kind, id, d) })
}

func (b *bench) setDisk(ctx context.Context, node string, asked []faultfs.Rules) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	r := diskRules(asked)
	r.Seed = b.Seed
	return n.SetDisk(ctx, r)
}

// A trapFault meets the target's own system calls, on whatever disk they are.
type trapFault struct {
	b    *bench
	kind string
}

func newTrap(kind string) func(*bench) Provider {
	return func(b *bench) Provider { return &trapFault{b, kind} }
}

// Probe: on a cluster that was started without a trap it cannot be had.
func (f *trapFault) Probe(ctx context.Context) error {
	if err := seccomp.Probe(); err != nil || f.b == nil {
		return err
	}
	for _, n := range f.b.Cluster.Nodes() {
		if len(n.Trapped()) == 0 {
			return &Unsupported{
				What: f.kind + " by seccomp", Why: "the nodes were started without a trap for their calls",
				Cure: "provider: seccomp in the scenario, which is known before they start",
			}
		}
	}
	return nil
}

func (f *trapFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	id := int(probes.Add(1))
	return f.b.traps.inject(ctx, site.Nodes, d, func(d Dose) (faultfs.Rules, error) {
		nodes, err := f.b.nodes(site.Nodes)
		if err != nil {
			return faultfs.Rules{}, err
		}
		for _, n := range nodes {
			if op := diskOp(d); !slices.Contains(n.Trapped(), op) && !slices.Contains(n.Trapped(), faultfs.All) {
				return faultfs.Rules{}, fmt.Errorf("%s: the trap of %s is for %v, not %s", f.kind, n.Name(), n.Trapped(), op)
			}
		}
		return diskFault(f.kind, id, d)
	})
}

func (b *bench) setTrap(ctx context.Context, node string, asked []faultfs.Rules) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	r := diskRules(asked)
	r.Seed = b.Seed
	return n.SetTrap(ctx, r)
}
