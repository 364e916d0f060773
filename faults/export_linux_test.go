package faults

import (
	"context"

	"brownout/cluster"
	"brownout/internal/wire"
)

// What the conformance tests need, which is in another package so that the
// suite can import this one.

// A Bench gives tests the table with a cluster behind it.
type Bench struct{ *bench }

func NewBench(b Bed) Bench { return Bench{newBench(b)} }

// Source returns the provider called name of a kind.
func (b Bench) Source(kind, name string) Provider {
	for _, c := range b.candidates(kind) {
		if c.name == name {
			return c.Provider
		}
	}
	return nil
}

func (b Bench) Meter(kind string, s Site, d Dose) (Meter, error) { return b.meter(kind, s, d) }

func (b Bench) Applied(l Link) wire.Impairment {
	from, _ := b.Cluster.Index(l.From)
	to, _ := b.Cluster.Index(l.To)
	return b.Cluster.Switch().Impairment(from, to)
}

func (b Bench) Emulated(l Link) wire.Impairment {
	from, _ := b.Cluster.Index(l.From)
	to, _ := b.Cluster.Index(l.To)
	return b.Cluster.Switch().Emulated(from, to)
}

// ShareMeters are those of faults that hit a share of the packets, whoever gives them.
var ShareMeters = map[string]func(*bench, Site, Dose) (Meter, error){
	"net.loss": meterLoss, "net.duplicate": meterDuplicate, "net.reorder": meterReorder, "net.corrupt": meterCorrupt,
}

// MeterBy makes one of them.
func (b Bench) MeterBy(m func(*bench, Site, Dose) (Meter, error), s Site, d Dose) (Meter, error) {
	return m(b.bench, s, d)
}

var (
	Stopped     = stopped
	AllowedCPUs = allowedCPUs
	Usable      = usable
)

// Watch notes what the nodes use until ctx ends.
func (b Bench) Watch(ctx context.Context) { b.watchDemand(ctx) }

// KeepHungry has a node want page cache until the test ends.
func (b Bench) KeepHungry(ctx context.Context, cleanup func(func()), n *cluster.Node) {
	cleanup(b.keepHungry(ctx, n))
}

// KeepGrowing has a node need new memory until the test ends.
func (b Bench) KeepGrowing(ctx context.Context, cleanup func(func()), n *cluster.Node) {
	cleanup(b.keepGrowing(ctx, n))
}

// DeviceOf is the block device below a node's data.
func DeviceOf(n *cluster.Node) (uint64, error) { return deviceOf(n) }
