package faults

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"brownout/internal/faultfs"
)

// A throttleMeter has a process in the node's cgroup read or write the node's
// device past the cache, as fast as it can, for a third of the time. Its rate is
// taken from the begin of one lump to that of a later one: the kernel hands out
// what is allowed in lumps of up to a tenth of a second.
//
// A node that takes much of it leaves less to the probe. Then the
// kernel's account of the cgroup, from lump to lump, tells whether they had as much
// as allowed together.
type throttleMeter struct {
	limit   float64 // per second, in unit
	busy    time.Duration
	size    float64 // of one operation, in unit
	unit    string
	op      faultfs.Op
	probers diskProbers
	looks   spans
	base    float64
}

// The probe's turns, and what counts as a wait of the kernel's.
const (
	throttleTolerance = 0.08
	throttleBusy      = time.Second
	throttleRest      = 2                     // times as long as it is busy
	throttleTurn      = 5                     // operations at the limit that a turn has time for, at least
	throttleDepth     = 4                     // operations at a time: the next one must be there when it is allowed
	throttleWait      = 10 * time.Millisecond // and more is between two lumps
	throttlePage      = 4096                  // bytes of an operation, at least
	throttleShare     = 0.002                 // of what is allowed in a second: what is left over of a lump is small
	throttleLast      = 3                     // operations of a turn, at least
)

func newThrottleMeter(b *bench, site Site, m *throttleMeter, size int) (Meter, error) {
	if m.limit <= 0 {
		return nil, fmt.Errorf("a limit of %v %s/s", m.limit, m.unit)
	}
	if m.op != faultfs.Read && m.op != faultfs.Write {
		return nil, fmt.Errorf("a device has no limit for %s operations", m.op)
	}
	m.busy = max(throttleBusy, time.Duration(throttleTurn*m.size/m.limit*float64(time.Second)))
	nodes, err := b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		dev, err := deviceOf(n)
		if err != nil {
			return nil, err
		}
		kept, err := n.Group().IOAccount()
		if err != nil {
			return nil, err
		}
		counts := account{file: kept.Ops, dev: dev, op: m.op, bytes: m.unit == "bytes", asked: kept.Asked}
		if counts.bytes {
			counts.file = kept.Bytes
		}
		p := newDiskProber(n, m.op)
		p.bare, p.size = true, size
		p.remote = &remote{n: n, name: filepath.Base(p.path), inside: b, busy: m.busy, counts: counts}
		m.probers = append(m.probers, p)
	}
	return m, nil
}

func (m *throttleMeter) Baseline(ctx context.Context) (Reading, error) {
	w, err := m.probers.baseline(ctx)
	if err != nil {
		return Reading{}, err
	}
	m.base = math.Inf(1)
	for _, p := range m.probers {
		seen, _, err := p.probes(w)
		if err != nil {
			return Reading{}, err
		}
		rs := m.rates(seen)
		if rs == nil {
			return Reading{}, fmt.Errorf("%s: only %d operations of the probe ended", p.node, len(seen))
		}
		m.base = min(m.base, m.size*slices.Max(rs))
	}
	return Reading{map[string]any{m.unit + "_per_s": m.base}}, nil
}

// rates are operations per second, one for each of the probe's turns.
func (m *throttleMeter) rates(seen []diskProbe) (rates []float64) {
	for len(seen) > 0 {
		n := 1
		var lumps []int // where they begin
		for ; n < len(seen); n++ {
			gap := seen[n].to.Sub(seen[n-1].to)
			if gap > throttleRest*m.busy/2 {
				break
			}
			if gap > throttleWait {
				lumps = append(lumps, n)
			}
		}
		turn := seen[:n]
		seen = seen[n:]
		first, last := 0, n-1
		if len(lumps) > 2 { // else they flow
			first, last = lumps[0], lumps[len(lumps)-1]
		}
		if length := turn[last].to.Sub(turn[first].to); last-first >= throttleLast-1 && length > 0 {
			rates = append(rates, float64(last-first)/length.Seconds())
		}
	}
	return rates
}

func (m *throttleMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	from := time.Now()
	<-ctx.Done()
	m.looks.add(from, time.Now())
	var bad, words []string
	n, typical := 0, math.Inf(1)
	for _, p := range m.probers {
		seen, on, err := p.probes(m.looks)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		rs := m.rates(seen)
		n += len(seen)
		if len(rs) == 0 {
			bad = append(bad, fmt.Sprintf("%s: only %d operations of the probe ended (one is on for %s)", p.node, len(seen), short(on)))
			continue
		}
		slices.Sort(rs)
		got := m.size * rs[len(rs)/2]
		all := m.counted(p)
		shown := got
		words = append(words, fmt.Sprintf("%s: %s by %d operations of a process in its cgroup", p.node, m.print(got), len(seen)))
		switch {
		case got > m.limit*(1+throttleTolerance):
			bad = append(bad, fmt.Sprintf("%s got %s, more than the limit of %s, tolerance %.0f %%", p.node, m.print(got), m.print(m.limit), 100*throttleTolerance))
		case got >= m.limit*(1-throttleTolerance):
		case math.Abs(all/m.limit-1) <= throttleTolerance+throttleDepth*m.size/(m.limit*m.busy.Seconds()): // each may be counted in the next lump
			shown = all
			words = append(words, fmt.Sprintf("with the node's, %s by the cgroup's account", m.print(all)))
		default:
			bad = append(bad, fmt.Sprintf("%s got %s, less than the limit of %s, and with the node's the cgroup's account is %s", p.node, m.print(got), m.print(m.limit), m.print(all)))
		}
		typical = min(typical, shown)
	}
	values := Reading{map[string]any{"n": n}}
	if !math.IsInf(typical, 1) {
		values.Values[m.unit+"_per_s"] = typical
	}
	if m.base < m.limit*(1+throttleTolerance) {
		bad = append(bad, fmt.Sprintf("without the fault it was %s, hardly more than the limit of %s: it cannot be felt", m.print(m.base), m.print(m.limit)))
	}
	if bad != nil {
		return values, Answer{false, strings.Join(bad, "; ")}, nil
	}
	return values, Answer{true, fmt.Sprintf("limit %s; %s; before it %s", m.print(m.limit), strings.Join(words, "; "), m.print(m.base))}, nil
}

func (m *throttleMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	from := time.Now()
	least := min(m.limit*2, m.limit+(m.base-m.limit)/4)
	got := 0.0
	for time.Since(from) < (throttleRest+1)*m.busy { // until its next turn has begun
		if !sleep(ctx, diskBase) {
			break
		}
		got = math.Inf(1)
		for _, p := range m.probers {
			seen, _, err := p.probes(spans{{from, time.Now()}})
			if err != nil {
				return Reading{}, Answer{}, err
			}
			own := 0.0
			if rs := m.rates(seen); rs != nil {
				own = m.size * slices.Max(rs)
			}
			got = min(got, own)
		}
		if got >= least {
			break
		}
	}
	values := Reading{map[string]any{m.unit + "_per_s": got}}
	if got < least {
		return values, Answer{false, fmt.Sprintf("%s, not %s again", m.print(got), m.print(least))}, nil
	}
	return values, Answer{true, fmt.Sprintf("%s again, before the fault %s", m.print(got), m.print(m.base))}, nil
}

func (m *throttleMeter) Close() error { m.probers.close(); return nil }

func (m *throttleMeter) print(v float64) string {
	return (&limitMeter{unit: m.unit}).print(v)
}

// counted is the rate of the whole cgroup during the probe's turns, by the
// kernel's account, in unit; NaN if there were no lumps.
func (m *throttleMeter) counted(p *diskProber) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum, length float64
	for i := 1; i < len(p.counts); i++ {
		from, to := p.counts[i-1], p.counts[i]
		if from.n != rested && to.n != rested && m.looks.hold(from.at, to.at) {
			length += to.at.Sub(from.at).Seconds()
			sum += float64(to.n - from.n)
		}
	}
	return sum / length
}
