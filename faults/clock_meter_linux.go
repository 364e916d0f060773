package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/netns"
	"brownout/kvserver"
)

// A clockLook is by how much a clock was found off, and how well that is known.
type clockLook struct {
	when time.Time
	off  time.Duration
	err  time.Duration // half of the round trip
}

// clockLooks are how often a clock is read; the quickest answer tells most.
const clockLooks = 15

// readClock asks for a clock several times and returns by how much it is ahead of ours.
func readClock(ctx context.Context, ours func() int64, theirs func(context.Context) (int64, error)) (best clockLook, err error) {
	for i := range clockLooks {
		before, at := ours(), time.Now()
		got, err := theirs(ctx)
		after := ours()
		if err != nil {
			return best, err
		}
		l := clockLook{at, time.Duration(got - (before + (after-before)/2)), time.Duration(after-before)/2 + time.Microsecond}
		if i == 0 || l.err < best.err {
			best = l
		}
	}
	return best, nil
}

// An offsetMeter asks nodes what their monotonic clocks show.
type offsetMeter struct {
	b     *bench
	nodes []*cluster.Node
}

func meterOffset(b *bench, site Site, d Dose) (Meter, error) {
	nodes, err := b.nodes(site.Nodes)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no nodes")
	}
	return &offsetMeter{b, nodes}, err
}

func (m *offsetMeter) look(ctx context.Context, n *cluster.Node) (mono, boot clockLook, err error) {
	a := adminOf(n)
	defer a.close()
	read := func(which func(kvserver.Clocks) int64) func(context.Context) (int64, error) {
		return func(ctx context.Context) (int64, error) {
			var c kvserver.Clocks
			err := a.call(ctx, http.MethodGet, "/clock", nil, &c)
			return which(c), err
		}
	}
	if mono, err = readClock(ctx, monotonic, read(func(c kvserver.Clocks) int64 { return c.MonotonicNS })); err != nil {
		return
	}
	boot, err = readClock(ctx, boottime, read(func(c kvserver.Clocks) int64 { return c.BoottimeNS }))
	return
}

func (m *offsetMeter) Baseline(ctx context.Context) (Reading, error) {
	mono, _, err := m.look(ctx, m.nodes[0])
	return Reading{map[string]any{"off_ns": int64(mono.off)}}, err
}

const (
	clockShare = 0.05
	clockLeast = 2 * time.Millisecond // beyond what a round trip leaves open
)

func (m *offsetMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyWithin)
	defer cancel()
	want := signed(d)
	var all []time.Duration
	var bad []string
	for _, n := range m.nodes {
		mono, boot, err := m.look(ctx, n)
		if err != nil {
			return Reading{}, Answer{}, fmt.Errorf("ask %s for its clocks: %w", n.Name(), err)
		}
		all = append(all, mono.off)
		for what, l := range map[string]clockLook{"monotonic": mono, "boot": boot} {
			if !within(l.off, want, 0, l.err+clockLeast) {
				bad = append(bad, fmt.Sprintf("%s: its %s time is off by %s, tolerance %s", n.Name(), what, short(l.off), short(l.err+clockLeast)))
			}
		}
	}
	got := quantile64(all)
	values := map[string]any{"off_ns": int64(got), "n": len(all) * clockLooks}
	why := fmt.Sprintf("clocks off by %s asked, %s read by the programs themselves (n=%d)", want, short(got), len(all)*clockLooks)
	if bad != nil {
		slices.Sort(bad)
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

// quantile64 is the median of times that may be negative.
func quantile64(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return ds[len(ds)/2]
}

func (m *offsetMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	for _, n := range m.nodes {
		mono, _, err := m.look(ctx, n)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		if !within(mono.off, 0, 0, mono.err+clockLeast) && !m.b.clocks.asked(n.Name()) {
			return Reading{map[string]any{"off_ns": int64(mono.off)}}, Answer{false, fmt.Sprintf("%s: its clock is off by %s", n.Name(), short(mono.off))}, nil
		}
	}
	return Reading{map[string]any{"off_ns": int64(0)}}, Answer{true, "the programs read the host's clocks"}, nil
}

func (m *offsetMeter) Close() error { return nil }

// A skewMeter asks nodes for the time as a client does.
type skewMeter struct {
	b     *bench
	nodes []*cluster.Node
	base  []clockLook
	first []clockLook // in force
}

func meterSkew(b *bench, site Site, d Dose) (Meter, error) {
	if _, err := skewOf(d); err != nil {
		return nil, err
	}
	nodes, err := b.nodes(site.Nodes)
	if err == nil && len(nodes) == 0 {
		err = errors.New("no nodes")
	}
	return &skewMeter{b: b, nodes: nodes}, err
}

// look asks the TIME command.
func (m *skewMeter) look(ctx context.Context, i int) (clockLook, error) {
	c, err := netns.Dial(ctx, m.b.Cluster.ClientNetNS(), "tcp", net.JoinHostPort(m.nodes[i].IP4().String(), strconv.Itoa(clientPort)))
	if err != nil {
		return clockLook{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	in := bufio.NewReader(c)
	return readClock(ctx, func() int64 { return time.Now().UnixNano() }, func(context.Context) (int64, error) {
		if _, err := c.Write([]byte("*1\r\n$4\r\nTIME\r\n")); err != nil {
			return 0, err
		}
		return parseTime(in)
	})
}

// parseTime reads the answer to TIME: two strings, seconds and microseconds.
func parseTime(in *bufio.Reader) (int64, error) {
	var fields []string
	for range 5 {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if line = strings.TrimRight(line, "\r\n"); strings.HasPrefix(line, "-") {
			return 0, fmt.Errorf("TIME: %s", line[1:])
		}
		fields = append(fields, line)
	}
	sec, err1 := strconv.ParseInt(fields[2], 10, 64)
	usec, err2 := strconv.ParseInt(fields[4], 10, 64)
	if fields[0] != "*2" || err1 != nil || err2 != nil || usec < 0 || usec >= 1e6 {
		return 0, fmt.Errorf("TIME: %q is no time", fields)
	}
	return sec*1e9 + usec*1e3, nil
}

func (m *skewMeter) Baseline(ctx context.Context) (Reading, error) {
	m.base = nil
	for i := range m.nodes {
		l, err := m.look(ctx, i)
		if err != nil {
			return Reading{}, fmt.Errorf("ask %s for the time: %w", m.nodes[i].Name(), err)
		}
		m.base = append(m.base, l)
	}
	return Reading{map[string]any{"off_ns": int64(m.base[0].off)}}, nil
}

const ratePoints = 0.05 // percentage points that are neither here nor there

func (m *skewMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	ask, err := skewOf(d)
	if err != nil {
		return Reading{}, Answer{}, err
	}
	if m.first == nil {
		for i := range m.nodes {
			l, err := m.look(ctx, i)
			if err != nil {
				m.first = nil
				return Reading{}, Answer{}, err
			}
			m.first = append(m.first, l)
		}
	}
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	values := map[string]any{"n": clockLooks * len(m.nodes)}
	var bad, whys []string
	for i, n := range m.nodes {
		l, err := m.look(ctx, i)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		if ask.Rate == 0 {
			got, want := l.off-m.base[i].off, time.Duration(ask.OffsetNS)
			values["off_ns"] = int64(got)
			whys = append(whys, fmt.Sprintf("%s: a clock off by %s asked, TIME is off by %s (n=%d)", n.Name(), want, short(got), clockLooks))
			if tol := l.err + m.base[i].err + clockLeast; !within(got, want, 0, tol) {
				bad = append(bad, fmt.Sprintf("%s: tolerance %s", n.Name(), short(tol)))
			}
			continue
		}
		took := l.when.Sub(m.first[i].when)
		got := 100 * float64(l.off-m.first[i].off) / float64(max(took, 1))
		values["percent"] = got
		whys = append(whys, fmt.Sprintf("%s: a clock that gains %+.4g %% asked, TIME gains %+.4g %% over %s", n.Name(), 100*ask.Rate, got, short(took)))
		known := 100 * float64(l.err+m.first[i].err) / float64(max(took, 1))
		if tol := max(100*clockShare*abs(ask.Rate), ratePoints, known); abs(got-100*ask.Rate) > tol {
			bad = append(bad, fmt.Sprintf("%s: tolerance %.3g points", n.Name(), tol))
		}
	}
	why := strings.Join(whys, "; ")
	if bad != nil {
		return Reading{values}, Answer{false, why + ": " + strings.Join(bad, "; ")}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

func abs(x float64) float64 { return max(x, -x) }

func (m *skewMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	values := map[string]any{}
	for i, n := range m.nodes {
		l, err := m.look(ctx, i)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		values["off_ns"] = int64(l.off)
		if tol := l.err + m.base[i].err + clockLeast; !within(l.off, m.base[i].off, 0, tol) {
			return Reading{values}, Answer{false, fmt.Sprintf("%s: TIME is off by %s, tolerance %s", n.Name(), short(l.off), short(tol))}, nil
		}
	}
	return Reading{values}, Answer{true, "TIME is the host's time"}, nil
}

func (m *skewMeter) Close() error { return nil }
