package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"brownout/internal/sys/tcpdiag"
)

// The rows of faults of single connections.
var netTCPRows = []row{
	{"net.reset", meterReset, []source{{"sock_diag", newReset}}},
	{"net.halfopen", meterHalfOpen, []source{{"ebpf", newHalfOpen}}},
	{"net.flood", meterFlood, []source{{"flows", newFlood}}},
}

// A resetFault has the kernel of a link's sender destroy its connections to the receiver.
type resetFault struct{ b *bench }

func newReset(b *bench) Provider { return &resetFault{b} }

func (f *resetFault) Probe(context.Context) error { return tcpdiag.ProbeDestroy() }

func (f *resetFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	r := &resetting{watch: watchTCP(f.b, site.Links), done: make(chan struct{}), every: d.Duration("every")}
	if len(r.watch.links) == 0 || len(r.watch.diag) == 0 {
		r.watch.close()
		return nil, errors.New("no links whose connections could be reset")
	}
	if _, err := f.b.nodesOf(site.Links); err != nil {
		r.watch.close()
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		r.watch.close()
		return nil, err
	}
	if err := r.reset(); err != nil {
		r.watch.close()
		return nil, err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	go r.run(own)
	if r.every <= 0 {
		return onceReset{r}, nil
	}
	return r, nil
}

// nodesOf checks that the ends of links are there.
func (b *bench) nodesOf(links []Link) (names []string, err error) {
	for _, l := range links {
		for _, name := range []string{l.From, l.To} {
			if _, _, err := b.endpoint(name); err != nil {
				return nil, err
			}
			names = append(names, name)
		}
	}
	return names, nil
}

// Resetting is a reset, once or again and again.
type resetting struct {
	watch  *tcpWatch
	every  time.Duration
	cancel context.CancelFunc
	done   chan struct{}
}

func (r *resetting) run(ctx context.Context) {
	defer close(r.done)
	defer r.watch.close()
	if r.every <= 0 {
		return
	}
	t := time.NewTicker(r.every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			_ = r.reset() // one less, which the meter sees
		case <-ctx.Done():
			return
		}
	}
}

// reset ends all connections of the links. One that ends meanwhile by itself is
// as good as reset.
func (r *resetting) reset() error {
	var errs []error
	for from, conns := range r.watch.byNode() {
		for _, c := range conns {
			if err := r.watch.diag[from].Destroy(c); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("%s: %w", from, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Set changes nothing: a reset has no degrees.
func (r *resetting) Set(context.Context, Dose) error { return nil }

// Heal ends the resets. Who was reset connects anew by itself, or not at all.
func (r *resetting) Heal(ctx context.Context) error {
	r.cancel()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end resets: %w", ctx.Err())
	}
}

// A onceReset is over at once.
type onceReset struct{ *resetting }

func (r onceReset) Done() <-chan struct{} { return r.done }

// A resetMeter looks whether connections end, and how.
type resetMeter struct {
	linkMeter
	every time.Duration
	flock *flock
}

func meterReset(b *bench, site Site, d Dose) (Meter, error) {
	m, err := newLinkMeter(b, site)
	m.others = nil
	return &resetMeter{linkMeter: m, every: d.Duration("every")}, err
}

func (m *resetMeter) Baseline(ctx context.Context) (Reading, error) {
	m.tcp = watchTCP(m.b, m.links)
	values := map[string]any{"n": len(m.links)}
	m.tcp.baseline(values) // before there are any of ours
	var err error
	m.flock, err = release(ctx, m.b, m.links)
	return Reading{values}, err
}

// resetWithin is how long after a reset both ends know of it, and more.
const resetWithin = time.Second

func (m *resetMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	if m.every > 0 {
		m.watch(ctx)
	} else { // over already, or about to be
		for end := time.Now().Add(resetWithin); time.Now().Before(end) && m.fewest() == 0; {
			sleep(context.WithoutCancel(ctx), canaryRedial)
		}
	}
	resets, polite, fewest := 0, 0, -1
	var bad []string
	for _, c := range m.flock.birds {
		n := 0
		both := slices.Contains(m.links, Link{c.link.To, c.link.From})
		c.mu.Lock()
		for _, e := range c.ends {
			if e.reset(both) {
				n++
				continue
			}
			polite++
			bad = append(bad, fmt.Sprintf("%s: a connection ended, but not by a reset: %v here, %v there", c.link, e.near, e.far))
		}
		c.mu.Unlock()
		resets += n
		if fewest < 0 || n < fewest {
			fewest = n
		}
		if n == 0 {
			bad = append(bad, fmt.Sprintf("%s: its connection was not reset", c.link))
		}
	}
	if want := int(m.looks.length()/max(m.every, 1)) * 2 / 3; m.every > 0 && fewest < want {
		bad = append(bad, fmt.Sprintf("%d resets of some connection in %s, wanted one every %s", fewest, short(m.looks.length()), short(m.every)))
	}
	left := 0
	for _, c := range m.tcp.conns() {
		if _, was := m.tcp.base[c.Cookie]; was {
			left++
		}
	}
	if left > 0 {
		bad = append(bad, fmt.Sprintf("%d of %d real connections that there were before are still there", left, len(m.tcp.base)))
	}
	values := map[string]any{"resets": resets, "looked_ns": int64(m.looks.length()), "n": len(m.flock.birds), "tcp_conns": len(m.tcp.base), "tcp_gone": len(m.tcp.base) - left}
	why := fmt.Sprintf("%d resets seen by the far ends of %d connections of the meter's own; %d of %d real ones are gone",
		resets, len(m.flock.birds), len(m.tcp.base)-left, len(m.tcp.base))
	return verdict(values, why, bad)
}

// fewest is how often the canary that was reset least was reset.
func (m *resetMeter) fewest() int {
	fewest := -1
	for _, c := range m.flock.birds {
		c.mu.Lock()
		if n := len(c.ends); fewest < 0 || n < fewest {
			fewest = n
		}
		c.mu.Unlock()
	}
	return fewest
}

func (m *resetMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	from := time.Now()
	sleep(ctx, max(netHeal, min(2*m.every, time.Second)))
	var w spans
	w.add(from, time.Now())
	n := 0
	for _, c := range m.flock.birds {
		c.mu.Lock()
		came := w.count(c.back)
		for _, e := range c.ends {
			if w.hold(e.at, e.at) {
				came = 0
			}
		}
		c.mu.Unlock()
		if came == 0 {
			return Reading{map[string]any{"n": n}}, Answer{false, fmt.Sprintf("%s: its connection does not hold", c.link)}, nil
		}
		n += came
	}
	return Reading{map[string]any{"n": n}}, Answer{true, fmt.Sprintf("new connections hold (%d bytes came back)", n)}, nil
}

func (m *resetMeter) Close() error {
	m.flock.close()
	return m.linkMeter.Close()
}
