package faults

import (
	"context"
	"fmt"

	"brownout/cluster"
	"brownout/internal/plan"
	"brownout/internal/wire"
)

var netRows = []row{
	{"net.delay", meterDelay, []source{{"wire", newWire(delayOf)}, {"netem", newNetem(delayOf)}}},
	{"net.loss", meterLoss, []source{{"wire", newWire(lossOf)}, {"netem", newNetem(lossOf)}}},
	{"net.duplicate", meterDuplicate, []source{{"wire", newWire(duplicateOf)}, {"netem", newNetem(duplicateOf)}}},
	{"net.reorder", meterReorder, []source{{"wire", newWire(reorderOf)}, {"netem", newNetem(reorderOf)}}},
	{"net.corrupt", meterCorrupt, []source{{"wire", newWire(corruptOf)}, {"netem", newNetem(corruptOf)}}},
	{"net.rate", meterRate, []source{{"wire", newWire(rateOf)}, {"netem", newNetem(rateOf)}}},
	{"net.partition", meterPartition, []source{{"ebpf", newPartition}}},
}

// A netFault is a provider whose mechanism is an impairment of links.
type netFault struct {
	b          *bench
	probe      func(context.Context) error
	wired      bool // it needs the wire, which had better be up before the first fault
	impairment func(Dose) (wire.Impairment, error)
}

// newWire makes providers whose mechanism is the wire.
func newWire(impairment func(Dose) (wire.Impairment, error)) func(*bench) Provider {
	return func(b *bench) Provider { return &netFault{b, cluster.ProbeWire, true, impairment} }
}

// newPartition is the switch's own program, which decides at the source's port:
// no helper process that could fail open.
func newPartition(b *bench) Provider {
	return &netFault{b, cluster.ProbeSwitch, false, func(Dose) (wire.Impairment, error) {
		return wire.Impairment{Partition: true}, nil
	}}
}

func delayOf(d Dose) (wire.Impairment, error) {
	imp := wire.Impairment{
		Delay: d.Duration("add"), Jitter: d.Duration("jitter"), Dist: wire.Dist(d.String("dist")),
		Corr: d.Float("corr") / 100, Ordered: d.String("order") == "keep",
	}
	if d.Has("trace") {
		trace, err := plan.ParseDurations(d.String("trace"))
		if err != nil {
			return imp, err
		}
		imp.Trace = wire.MakeTrace(trace)
	}
	if imp.Delay <= 0 && imp.Jitter <= 0 && imp.Trace == "" {
		return imp, fmt.Errorf("net.delay of %v: nothing to add", imp.Delay)
	}
	return imp, imp.Validate()
}

func rateOf(d Dose) (wire.Impairment, error) {
	imp := wire.Impairment{RateBitsPerSec: int64(d.Float("limit_bits_per_s")), QueueBytes: int64(d.Float("queue_bytes"))}
	if t := d.Duration("queue_time"); t > 0 {
		imp.QueueBytes = max(int64(t.Seconds()*float64(imp.RateBitsPerSec)/8), 3000)
	}
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
	for _, n := range b.Cluster.Boxes() {
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
	imp := wire.Impairment{LossEvery: int64(d.Float("every")), LossFirst: int64(d.Float("first"))}
	share := func(name string, absent float64) float64 {
		if !d.Has(name) {
			return absent
		}
		return d.Float(name) / 100
	}
	percent := d.Float("percent") / 100
	switch burst := d.Float("burst"); {
	case d.Has("to_bad"):
		imp.GE = wire.GE{ToBad: share("to_bad", 0), ToGood: share("to_good", 0), LossBad: share("bad", 1), LossGood: share("good", 0)}
	case burst > 0 && percent < 1:
		// A burst ends before each packet with probability r, so that it is 1/r long;
		// the share of the bad state is p/(p+r).
		r := 1 / burst
		imp.GE = wire.GE{ToBad: min(r*percent/(1-percent), 1), ToGood: r, LossBad: 1}
	default:
		imp.Loss = percent
	}
	return imp, imp.Validate()
}

func duplicateOf(d Dose) (wire.Impairment, error) {
	imp := wire.Impairment{Duplicate: d.Float("percent") / 100}
	return imp, imp.Validate()
}

func reorderOf(d Dose) (wire.Impairment, error) {
	imp := wire.Impairment{Reorder: d.Float("percent") / 100, Delay: d.Duration("add")}
	return imp, imp.Validate()
}

func corruptOf(d Dose) (wire.Impairment, error) {
	imp := wire.Impairment{Corrupt: d.Float("percent") / 100}
	return imp, imp.Validate()
}
