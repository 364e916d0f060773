package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// A gcFault asks the target itself for a stop-the-world: a pause that the
// target's runtime makes and accounts for as one of its collector's.
type gcFault struct{ b *bench }

func newGCPause(b *bench) Provider { return &gcFault{b} }

// Probe asks the nodes, if there are any, whether they can: the mechanism is in
// the target, not in this host.
func (f *gcFault) Probe(ctx context.Context) error {
	return f.b.probeAdmin(ctx, "gc.pause", "process.pause, which stops any program")
}

// probeAdmin asks whether the target has an admin socket, which is what kinds of
// faults need that only a program itself can give.
func (b *bench) probeAdmin(ctx context.Context, kind, instead string) error {
	if b == nil {
		return nil
	}
	for _, n := range b.Cluster.Nodes() {
		c := adminOf(n)
		err := c.call(ctx, http.MethodGet, "/metrics", nil, nil)
		c.close()
		var status *statusError
		switch {
		case errors.As(err, &status) && status.code == http.StatusNotFound, errors.Is(err, errNoSocket):
			return &Unsupported{
				What: kind + " by agent", Why: n.Name() + "'s program has no admin socket that could be asked for it",
				Cure: "target: kvserver, or " + instead,
			}
		case err == nil:
			return nil // one that answers is enough: all run the same program
		}
	}
	return errors.New("no node answers on its admin socket")
}

func (f *gcFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	nodes, err := f.b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	var clients []*admin
	for _, n := range nodes {
		clients = append(clients, adminOf(n))
	}
	for i, c := range clients { // so that what cannot work is an error now
		if err := c.call(ctx, http.MethodGet, "/status", nil, nil); err != nil {
			return nil, fmt.Errorf("ask %s: %w", nodes[i].Name(), err)
		}
	}
	return startPulses(ctx, d, nil, f.b.pauseLengths(site.Nodes), nil, func(ctx context.Context, d Dose, begun func()) error {
		length := d.Duration("length")
		// It cannot be cut short: the world of who should hear of it has stopped.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), length+10*time.Second)
		defer cancel()
		// What is refused is refused at once.
		defer time.AfterFunc(min(length/2, 5*time.Millisecond), begun).Stop()
		errs := make([]error, len(clients))
		var wg sync.WaitGroup
		for i, c := range clients {
			wg.Go(func() {
				ask := map[string]int64{"length_ns": int64(length)}
				path := fmt.Sprintf("/fault/gcpause?timeout=%v", length+5*time.Second)
				if err := c.call(ctx, http.MethodPost, path, ask, nil); err != nil {
					errs[i] = fmt.Errorf("stop the world of %s: %w", nodes[i].Name(), err)
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	})
}
