package faults

import (
	"context"
	"fmt"

	"brownout/cluster"
	"brownout/internal/wire"
)

// A netemFault impairs links by the kernel's own emulator.
type netemFault struct {
	b          *bench
	impairment func(Dose) (wire.Impairment, error)
}

// newNetem gives what a provider by the wire gives for the same dose.
func newNetem(impairment func(Dose) (wire.Impairment, error)) func(*bench) Provider {
	return func(b *bench) Provider { return &netemFault{b, impairment} }
}

func (f *netemFault) Probe(ctx context.Context) error {
	_, err := cluster.ProbeNetem(ctx)
	return err
}

func (f *netemFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.netems.inject(ctx, site.Links, d, func(d Dose) (wire.Impairment, error) {
		imp, err := f.impairment(d)
		if err == nil {
			err = cluster.Emulable(imp)
		}
		return imp, err
	})
}

// emulate puts impairments on a link, and reads back. netem knows nothing of
// the healthy state of links, which is the wire's: where there is one, the
// switch refuses.
func (b *bench) emulate(ctx context.Context, l Link, imps []wire.Impairment) error {
	from, _, err := b.endpoint(l.From)
	if err != nil {
		return err
	}
	to, _, err := b.endpoint(l.To)
	if err != nil {
		return err
	}
	imp := wire.Compose(imps...)
	if err := b.Cluster.Switch().Emulate(ctx, from, to, imp); err != nil {
		return err
	}
	if got := b.Cluster.Switch().Emulated(from, to); got != imp {
		return fmt.Errorf("emulate %s>%s: the switch has %+v in force, not %+v", l.From, l.To, got, imp)
	}
	return nil
}
