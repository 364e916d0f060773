package faults

import (
	"context"
	"fmt"

	"brownout/cluster"
	"brownout/internal/plan"
	"brownout/internal/wire"
)

var netRows = []row{
	{"net.delay", meterDelay, []source{{"wire", newWireDelay}, {"netem", newNetem(delayOf)}}},
	{"net.rate", meterRate, []source{{"wire", newWireRate}, {"netem", newNetem(rateOf)}}},
	{"net.partition", meterPartition, []source{{"ebpf", newPartition}}},
}

// A netFault is a provider whose mechanism is an impairment of links.
type netFault struct {
	b          *bench
	probe      func(context.Context) error
	wired      bool // it needs the wire, which had better be up before the first fault
	impairment func(Dose) (wire.Impairment, error)
}

func newWireDelay(b *bench) Provider {
	return &netFault{b, cluster.ProbeWire, true, delayOf}
}

func newWireRate(b *bench) Provider {
	return &netFault{b, cluster.ProbeWire, true, rateOf}
}

// newPartition is the switch's own program, which decides at the source's port:
// no helper process that could fail open.
func newPartition(b *bench) Provider {
	return &netFault{b, cluster.ProbeSwitch, false, func(Dose) (wire.Impairment, error) {
		return wire.Impairment{Partition: true}, nil
	}}
}

func delayOf(d Dose) (wire.Impairment, error) {
	imp := wire.Impairment{Delay: d.Duration("add"), Jitter: d.Duration("jitter"), Dist: wire.Dist(d.String("dist"))}
	if imp.Delay <= 0 && imp.Jitter <= 0 {
		return imp, fmt.Errorf("net.delay of %v: nothing to add", imp.Delay)
	}
	return imp, imp.Validate()
}

func rateOf(d Dose) (wire.Impairment, error) {
	imp := wire.Impairment{RateBitsPerSec: int64(d.Float("limit_bits_per_s")), QueueBytes: int64(d.Float("queue_bytes"))}
	if imp.RateBitsPerSec <= 0 {
		return imp, fmt.Errorf("net.rate of %d bit/s: not a rate", imp.RateBitsPerSec)
	}
	return imp, imp.Validate()
}

func (f *netFault) Probe(ctx context.Context) error {
	if err := f.probe(ctx); err != nil {
		return err
	}
	if f.b != nil && f.wired {
		return f.b.Cluster.Switch().Prepare(ctx)
	}
	return nil
}

func (f *netFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.links.inject(ctx, site.Links, d, f.impairment)
}

// impair puts impairments on a link, on top of what a healthy link is, and
// reads back.
func (b *bench) impair(ctx context.Context, l Link, imps []wire.Impairment) error {
	imp := wire.Compose(append(imps, healthyLink(b.Network))...)
	from, _, err := b.endpoint(l.From)
	if err != nil {
		return err
	}
	to, _, err := b.endpoint(l.To)
	if err != nil {
		return err
	}
	if err := b.Cluster.Switch().Impair(ctx, from, to, imp); err != nil {
		return err
	}
	if got := b.Cluster.Switch().Impairment(from, to); got != imp {
		return fmt.Errorf("impair %s>%s: the switch has %+v in force, not %+v", l.From, l.To, got, imp)
	}
	return nil
}

// healthyLink is what a link is without any fault.
func healthyLink(n plan.Network) wire.Impairment {
	return wire.Impairment{
		Delay: n.Delay, Jitter: n.Jitter, Ordered: n.Jitter > 0, RateBitsPerSec: n.Rate, QueueBytes: n.Queue,
	}
}

// applyProfile makes all links what a healthy link of this run is.
func (b *bench) applyProfile(ctx context.Context) error {
	if healthyLink(b.Network) == (wire.Impairment{}) {
		return nil
	}
	names := []string{cluster.ClientName}
	for _, n := range b.Cluster.Nodes() {
		names = append(names, n.Name())
	}
	b.links.mu.Lock()
	defer b.links.mu.Unlock()
	for _, l := range appendLinks(nil, names, names) {
		if err := b.links.put(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// asked reports whether some fault is on a link.
func (b *bench) asked(l Link) bool {
	return b.links.asked(l) || b.netems.asked(l)
}

// lossOf is what a dose of net.loss asks for.
func lossOf(d Dose) (wire.Impairment, error) {
	imp := wire.Impairment{Loss: d.Float("percent") / 100}
	return imp, imp.Validate()
}
