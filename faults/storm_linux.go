package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/proc"
	"brownout/kvserver"
)

// A stormFault asks the target itself to keep its collector at work.
type stormFault struct{ b *bench }

func newGCStorm(b *bench) Provider { return &stormFault{b} }

func (f *stormFault) Probe(ctx context.Context) error {
	return f.b.probeAdmin(ctx, "gc.storm", "cpu.quota, which is what most of a storm comes to")
}

func stormOf(d Dose) (kvserver.StormRequest, error) {
	req := kvserver.StormRequest{
		HeapBytes: int64(d.Float("heap_bytes")), GOGC: int64(d.Float("gogc")),
		AllocPerS: int64(d.Float("alloc_bytes_per_s")), LimitBytes: int64(d.Float("limit_bytes")),
	}
	if req.HeapBytes <= 0 || req.GOGC <= 0 {
		return req, fmt.Errorf("storm of %d bytes at GOGC %d: both must be more than nothing", req.HeapBytes, req.GOGC)
	}
	m, err := proc.ReadMemInfo()
	if err != nil {
		return req, err
	}
	if most := int64(m.Available / 2); req.HeapBytes > most {
		return req, fmt.Errorf("heap of %d MiB: up to %d MiB, half of what this host has available", req.HeapBytes>>20, most>>20)
	}
	return req, nil
}

func (f *stormFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	nodes, err := f.b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	s := &storm{nodes: nodes}
	if err := s.Set(ctx, d); err != nil {
		heal, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
		defer cancel()
		return nil, errors.Join(err, s.Heal(heal))
	}
	return s, nil
}

type storm struct {
	nodes []*cluster.Node
	begun bool
}

func (s *storm) Set(ctx context.Context, d Dose) error {
	req, err := stormOf(d)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.begun = true
	return s.ask(ctx, req)
}

// Heal is no error on a node that is down: the storm has gone with its process.
func (s *storm) Heal(ctx context.Context) error {
	if !s.begun {
		return nil
	}
	return s.ask(ctx, kvserver.StormRequest{})
}

func (s *storm) ask(ctx context.Context, req kvserver.StormRequest) error {
	var errs []error
	for _, n := range s.nodes {
		a := adminOf(n)
		err := a.call(ctx, http.MethodPost, "/fault/gcstorm", req, nil)
		a.close()
		if err != nil && (req.HeapBytes > 0 || n.Running()) {
			errs = append(errs, fmt.Errorf("ask %s for a storm: %w", n.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// A stormMeter looks at a storm from the kernel's side (resident memory), the
// runtime's (cycles) and a client's (pings).
type stormMeter struct {
	b     *bench
	names []string

	pingers
	before []stormLook
	begun  time.Time
	grown  map[string]bool // of Undone, by node: the ballast was there
}

// A stormLook is what is known of a node's memory and collector at a time.
type stormLook struct {
	when   time.Time
	rss    int64
	follow int64 // bytes that the collector follows for pointers
	cycles int64
	used   time.Duration // CPU
}

func meterStorm(b *bench, site Site, d Dose) (Meter, error) {
	if len(site.Nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	_, err := stormOf(d)
	return &stormMeter{b: b, names: site.Nodes}, err
}

func lookAtStorm(ctx context.Context, n *cluster.Node) (stormLook, error) {
	l := stormLook{when: time.Now()}
	acc, err := accountOf(ctx, n)
	if err != nil {
		return l, fmt.Errorf("read %s's account of its collector: %w", n.Name(), err)
	}
	l.cycles = acc.cycles
	var m kvserver.Metrics
	a := adminOf(n)
	defer a.close()
	if err := a.call(ctx, http.MethodGet, "/metrics", nil, &m); err != nil {
		return l, fmt.Errorf("read what %s's collector follows: %w", n.Name(), err)
	}
	l.follow = int64(m.Runtime.ScanBytes)
	if l.used, err = n.Group().CPUUsage(); err != nil {
		return l, err
	}
	l.rss, err = resident(n)
	return l, err
}

// resident is the memory of a node's processes as the kernel counts it.
func resident(n *cluster.Node) (sum int64, err error) {
	pids, err := n.Pids()
	for _, pid := range pids {
		st, err := proc.ReadStatus(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		sum += int64(st.RSSBytes)
	}
	return sum, err
}

func (m *stormMeter) Baseline(ctx context.Context) (Reading, error) {
	if err := m.start(ctx, m.b, m.names, killPing, 10*killPing); err != nil {
		m.Close()
		return Reading{}, err
	}
	for _, n := range m.nodes {
		l, err := lookAtStorm(ctx, n)
		if err != nil {
			m.Close()
			return Reading{}, err
		}
		m.before = append(m.before, l)
	}
	m.begun = time.Now()
	return Reading{map[string]any{"resident_bytes": m.before[0].rss}}, nil
}

// Limits of what is taken for a storm: what the collector follows for pointers
// grew by the ballast, all of it is resident, and collections do come.
const (
	ballastShare = 0.1
	ballastLeast = 4 << 20
	rssSlack     = 48 << 20 // after a heal: what the runtime has not given back yet
	stormRate    = 1.0      // cycles a second
)

func (m *stormMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	heap := d.Float("heap_bytes")
	values := map[string]any{}
	var bad, whys []string
	for i, n := range m.nodes {
		now, err := lookAtStorm(ctx, n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		was := m.before[i]
		took := now.when.Sub(m.begun).Seconds()
		grown, follow := float64(now.rss-was.rss), float64(now.follow-was.follow)
		cycles := float64(now.cycles-was.cycles) / took
		cpu := 100 * (now.used - was.used).Seconds() / took
		gaps, usual, _ := m.ps[i].state(m.begun)
		var worst time.Duration
		for _, g := range gaps {
			worst = max(worst, g.to.Sub(g.from))
		}
		values["resident_bytes"] = int64(grown)
		values["heap_bytes"], values["cycles_per_s"], values["n"] = int64(follow), round1(cycles), int(now.cycles-was.cycles)
		values["cpu_percent"], values["gap_max_ns"], values["gap_p50_ns"] = round1(cpu), int64(worst), int64(usual)
		whys = append(whys, fmt.Sprintf("%s: %.0f MiB of ballast asked, the collector follows %.1f MiB more, resident memory grew by %.0f MiB; the runtime counts %.1f collections a second (n=%d), the node used %.0f %% of a CPU, longest gap between pings %s",
			n.Name(), heap/(1<<20), follow/(1<<20), grown/(1<<20), cycles, now.cycles-was.cycles, cpu, short(worst)))
		// What the node itself makes between two collections is followed in the next.
		own := d.Float("gogc") / 100 * heap
		if off := follow - heap; off < -max(ballastShare*heap, ballastLeast) || off > max(ballastShare*heap, ballastLeast)+own || grown < (1-ballastShare)*heap {
			bad = append(bad, n.Name()+": that is not the ballast")
		}
		if cycles < stormRate {
			bad = append(bad, fmt.Sprintf("%s: %.1f collections a second are no storm", n.Name(), cycles))
		}
	}
	why := strings.Join(whys, "; ")
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

func (m *stormMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	var from []stormLook
	for _, n := range m.nodes {
		l, err := lookAtStorm(ctx, n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		from = append(from, l)
	}
	r, a, err := m.alive(ctx, 25*killPing)
	if err != nil || !a.Yes {
		return r, a, err
	}
	for i, n := range m.nodes {
		now, err := lookAtStorm(ctx, n)
		if err != nil {
			return r, Answer{}, err
		}
		r.Values["heap_bytes"], r.Values["cycles"] = now.rss-m.before[i].rss, now.cycles-from[i].cycles
		if now.cycles-from[i].cycles > 3 {
			return r, Answer{false, fmt.Sprintf("%s: %d collections in %s", n.Name(), now.cycles-from[i].cycles, short(now.when.Sub(from[i].when)))}, nil
		}
		if now.rss-m.before[i].rss > rssSlack {
			return r, Answer{false, fmt.Sprintf("%s: resident memory is %d MiB more than before", n.Name(), (now.rss-m.before[i].rss)>>20)}, nil
		}
	}
	return r, a, nil
}

func (m *stormMeter) Close() error { m.close(); return nil }
