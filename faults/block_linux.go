package faults

import (
	"context"

	"brownout/cluster"
	"brownout/internal/faultfs"
	"brownout/internal/plan"
)

// The device mapper's targets that hurt a node's block device, by the name of
// their provider.
var blockTargets = map[string]string{"dm-delay": "delay", "dm-flakey": "flakey"}

const blockProviders = "dm-delay and dm-flakey"

// blockKinds are the file systems that they need.
var blockKinds = map[string]string{"dm-delay": cluster.BlockExt4, "dm-flakey": cluster.BlockBare}

// BlockFor says what block devices the nodes must have before they start, for
// faults that name a provider which hurts those: see [cluster.Config]. Where
// faults need different ones, the first decides, and the others say why they cannot.
func BlockFor(fs []plan.Fault) string {
	for _, f := range fs {
		if kind := blockKinds[f.Provider]; kind != "" {
			return kind
		}
	}
	return ""
}

// A blockFault hurts the device below a node's data. It is never chosen by
// itself: nodes have such devices only where a scenario names the provider.
type blockFault struct {
	b        *bench
	provider string
	ask      func(Dose) (cluster.BlockFault, error)
}

func newBlockFault(provider string, ask func(Dose) (cluster.BlockFault, error)) func(*bench) Provider {
	return func(b *bench) Provider { return &blockFault{b, provider, ask} }
}

func (f *blockFault) Probe(context.Context) error {
	if err := cluster.ProbeBlock(blockTargets[f.provider]); err != nil || f.b == nil {
		return err
	}
	for _, n := range f.b.Cluster.Nodes() {
		switch n.Block() {
		case blockKinds[f.provider]:
		case "":
			return &Unsupported{
				What: f.provider, Why: "the nodes' data are in the host's own file system, not on devices of their own",
				Cure: "name the provider in a scenario: then its nodes get devices",
			}
		default:
			return &Unsupported{
				What: f.provider, Why: "the nodes' devices hold " + n.Block() + ", for another fault",
				Cure: "one scenario for each of " + blockProviders,
			}
		}
	}
	return nil
}

func (f *blockFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.blocks.inject(ctx, site.Nodes, d, f.ask)
}

// blockDelayOf is what dm-delay can give of a disk.delay. It counts in whole
// milliseconds, and is late by up to a tick of the kernel's clock.
func blockDelayOf(d Dose) (cluster.BlockFault, error) {
	delay, err := diskDelayOf(d)
	if err != nil {
		return cluster.BlockFault{}, err
	}
	if err := cannot("disk.delay", "dm-delay", d); err != nil {
		return cluster.BlockFault{}, err
	}
	if diskOp(d) == faultfs.Read {
		return cluster.BlockFault{Read: delay.Add}, nil
	}
	return cluster.BlockFault{Flush: delay.Add}, nil // with a journal, each fsync flushes the device's cache once
}

// blockErrorOf is what dm-flakey can give of a disk.error.
func blockErrorOf(d Dose) (cluster.BlockFault, error) {
	if err := cannot("disk.error", "dm-flakey", d); err != nil {
		return cluster.BlockFault{}, err
	}
	return cluster.BlockFault{FailWrites: true}, nil
}

// setBlock puts all that is asked of a node's device in force: delays add up,
// and where writes fail there is nothing to delay.
func (b *bench) setBlock(_ context.Context, node string, asked []cluster.BlockFault) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	var all cluster.BlockFault
	for _, a := range asked {
		all.Read += a.Read
		all.Flush += a.Flush
		all.FailWrites = all.FailWrites || a.FailWrites
	}
	if all.FailWrites && all.Read+all.Flush > 0 {
		return &Unsupported{What: "disk.error by dm-flakey", Why: "a device either fails or is slow, and " + node + "'s is slow", Cure: "faults one after the other"}
	}
	return n.SetBlock(all)
}
