package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"brownout/kvserver"
)

var serverRows = []row{
	{"lock.hold", meterHold, []source{{"agent", newLockFault("lock.hold", holdOf)}}},
	{"lock.convoy", meterConvoy, []source{{"agent", newLockFault("lock.convoy", convoyOf)}}},
	{"codec.switch", meterCodec, []source{{"agent", newCodecFault}}},
}

// A lockFault asks the target itself to hold its state's lock.
type lockFault struct {
	b    *bench
	kind string
	ask  func(Dose) (kvserver.LockRequest, error)
}

func newLockFault(kind string, ask func(Dose) (kvserver.LockRequest, error)) func(*bench) Provider {
	return func(b *bench) Provider { return &lockFault{b, kind, ask} }
}

func (f *lockFault) Probe(ctx context.Context) error {
	return f.b.probeAdmin(ctx, f.kind, "cpu.quota or process.pause, which slow all that a program does")
}

func (f *lockFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.locks.inject(ctx, site.Nodes, d, f.ask)
}

func holdOf(d Dose) (kvserver.LockRequest, error) {
	h := kvserver.LockHold{AddNS: int64(d.Duration("add")), Which: d.String("which"), Share: 100, Busy: d.Bool("busy")}
	if h.Which == "" {
		h.Which = "apply"
	}
	if d.Has("share") {
		h.Share = d.Float("share")
	}
	if h.AddNS <= 0 || h.Share <= 0 || h.Share > 100 {
		return kvserver.LockRequest{}, errors.New("lock.hold: add must be more than nothing, share above 0% and at most 100%")
	}
	return kvserver.LockRequest{Holds: []kvserver.LockHold{h}}, nil
}

func convoyOf(d Dose) (kvserver.LockRequest, error) {
	c := kvserver.LockConvoy{
		HoldNS: int64(d.Duration("hold")), PeriodNS: int64(d.Duration("period")), Contenders: int64(d.Float("contenders")), Busy: d.Bool("busy"),
	}
	if c.HoldNS <= 0 || c.PeriodNS <= 0 || c.Contenders < 0 || 10*c.HoldNS*(1+c.Contenders) > 9*c.PeriodNS {
		return kvserver.LockRequest{}, fmt.Errorf("lock.convoy: %d tasks with the lock for %v each, every %v: it must be more than nothing, and at most 90%% of the period",
			1+c.Contenders, d.Duration("hold"), d.Duration("period"))
	}
	return kvserver.LockRequest{Convoys: []kvserver.LockConvoy{c}}, nil
}

// setLocks tells a node's program all that its locks are to suffer. A program
// that does not run has none.
func (b *bench) setLocks(ctx context.Context, node string, asked []kvserver.LockRequest) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	var all kvserver.LockRequest
	for _, r := range asked {
		all.Holds, all.Convoys = append(all.Holds, r.Holds...), append(all.Convoys, r.Convoys...)
	}
	a := adminOf(n)
	defer a.close()
	if err := a.call(ctx, http.MethodPost, "/fault/lock", all, nil); err != nil && (len(asked) > 0 || n.Running()) {
		return fmt.Errorf("ask %s to hold its lock: %w", node, err)
	}
	return nil
}
