package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/internal/target"
	"brownout/internal/undo"
)

// grid are the doses at which a kind is calibrated, and how long each is looked at.
var grid = map[string]struct {
	hold  time.Duration
	doses []Dose
}{
	"net.delay":     {1500 * time.Millisecond, delayDoses},
	"net.rate":      {2 * time.Second, rates(1e6, 10e6, 100e6, 500e6, 1e9)},
	"net.loss":      {3200 * time.Millisecond, lossDoses},
	"net.duplicate": {3200 * time.Millisecond, percents(1, 2, 5, 10, 50)},
	"net.reorder":   {3200 * time.Millisecond, reorders(5, 10, 25, 50, 75)},
	"net.corrupt":   {3200 * time.Millisecond, percents(1, 2, 5, 10, 50)},
	"net.partition": {time.Second, partitionDoses},
	"net.reset":     {2 * time.Second, resetDoses},
	"net.halfopen":  {1500 * time.Millisecond, halfOpenDoses},
	"net.flood":     {1500 * time.Millisecond, floodDoses},
	"disk.delay":    {1500 * time.Millisecond, times("add", 1, 2, 5, 20, 100)},
	"disk.hang":     {time.Second, []Dose{{"op": "fsync"}, {"op": "write"}, {"op": "read"}, {"op": "open"}, {"op": "all"}}},
	"disk.rate":     {2 * time.Second, counts("limit_bytes_per_s", 256<<10, 1<<20, 4<<20, 16<<20, 64<<20)},
	"disk.iops":     {2 * time.Second, counts("limit", 20, 50, 100, 500, 2000)},
	"disk.error":    {2 * time.Second, diskErrors(5, 10, 25, 50, 100)},
	"disk.full":     {time.Second, counts("free_bytes", 0, 4<<10, 8<<10, 16<<10, 32<<10)},
	"disk.corrupt":  {2 * time.Second, percents(5, 10, 25, 50, 100)},
	"disk.torn":     {time.Second, torn(0, 25, 50, 75, 99)},
	"power.loss":    {time.Second, slices.Repeat(times("restart", 200), 5)},
	"disk.contend":  {2 * time.Second, counts("rate", 10, 25, 50, 100, 200)},
}

func times(name string, millis ...int64) (out []Dose) {
	for _, ms := range millis {
		d := Dose{name + "_ns": ms * int64(time.Millisecond)}
		if name == "length" {
			d["every_ns"] = int64(600 * time.Millisecond)
		}
		out = append(out, d)
	}
	return out
}

func reorders(shares ...float64) (out []Dose) {
	for _, p := range shares {
		out = append(out, Dose{"percent": p, "add_ns": int64(5 * time.Millisecond)})
	}
	return out
}

func storms(mib ...int64) (out []Dose) {
	for _, m := range mib {
		out = append(out, Dose{"heap_bytes": m << 20, "gogc": int64(10), "alloc_bytes_per_s": m << 20})
	}
	return out
}

func sizes(name string, mib ...int64) (out []Dose) {
	for _, m := range mib {
		out = append(out, Dose{name + "_bytes": m << 20, "rate_bytes_per_s": int64(64 << 20)})
	}
	return out
}

func convoys(millis, contenders int64) Dose {
	return Dose{"hold_ns": millis * int64(time.Millisecond), "period_ns": int64(100 * time.Millisecond), "contenders": contenders}
}

func contention(burners, weight int64) Dose { return Dose{"burners": burners, "weight": weight} }

// pins are all single CPUs, at most five.
func pins() (out []Dose) {
	for _, c := range usableCPUs() {
		if len(out) < 5 {
			out = append(out, Dose{"cpus": strconv.Itoa(c)})
		}
	}
	return out
}

func rates(bits ...int64) (out []Dose) {
	for _, b := range bits {
		// Room for trains that last long enough to be timed.
		out = append(out, Dose{"limit_bits_per_s": b, "queue_bytes": max(int64(256<<10), b/8/100)})
	}
	return out
}

// Calibrate injects each kind of fault at several doses on a small cluster of
// its own and says what was asked for and what was measured. Families are
// "net", "disk", ... or whole kinds; none means all. exe is this binary.
func Calibrate(ctx context.Context, exe string, families []string) (_ []Row, err error) {
	var kinds []row
	for _, r := range table {
		family, _, _ := strings.Cut(r.kind, ".")
		if len(families) == 0 || slices.Contains(families, family) || slices.Contains(families, r.kind) {
			kinds = append(kinds, r)
		}
	}
	if kinds == nil {
		return nil, fmt.Errorf("calibrate %s: there is no such family", strings.Join(families, " "))
	}
	b, down, err := throwAway(ctx, exe)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, down()) }()
	var rows []Row
	for _, k := range kinds {
		cand, _, err := choose(ctx, k.kind, "", b.candidates(k.kind))
		if u, ok := errors.AsType[*Unsupported](err); ok {
			rows = append(rows, Row{Kind: k.kind, Verdict: RowUnavailable, Why: u.Why, Cure: u.Cure})
			continue
		}
		if err != nil {
			return rows, err
		}
		doses, hold := gridOf(k.kind, cand.name)
		for _, d := range doses {
			r, err := b.calibrate(ctx, k, cand, d, max(hold, shareHold(k.kind, d)))
			switch {
			case ctx.Err() != nil || errors.Is(err, errStays):
				return rows, fmt.Errorf("calibrate %s: %w", k.kind, err)
			case err != nil: // the others can be measured all the same
				r = Row{Kind: k.kind, Provider: cand.name, Requested: doseWords(d), Verdict: RowOff, Why: err.Error()}
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// gridOf returns the doses of a kind that a provider is calibrated at, and how long each is held.
func gridOf(kind, provider string) ([]Dose, time.Duration) {
	if kind == "memory.stall" && provider == "cgroup2" {
		return []Dose{{"length_ns": int64(highSleep)}, {"length_ns": int64(2 * highSleep)}}, 3 * highSleep // see canStall
	}
	return grid[kind].doses, grid[kind].hold
}

// shareMost bounds the time of one row: a share so small that it is not seen well
// by then is told as such.
const shareMost = 25 * time.Second

// shareHold is for how long a share has to be counted until chance is no larger
// than the goal; 0 of what is no share.
func shareHold(kind string, d Dose) time.Duration {
	p, stretch, rate := d.Float("percent")/100, 1.0, float64(shareIdle)*shareSure
	switch kind {
	case "net.loss":
		m := shareMeter{kind: kindLost}
		if d.Has("every") || m.asks(d) != nil {
			return 0
		}
		p, stretch = m.want, m.stretch
	case "net.duplicate", "net.corrupt", "net.reorder":
	case "disk.error", "disk.corrupt":
		rate = diskIdle
	default:
		return 0
	}
	return min(time.Duration(stretch*stretch*sampleFor(p)/rate*float64(time.Second)), shareMost)
}

// Rates at which probes are sure to come on a host of two CPUs.
const (
	shareSure = 0.85 // of those that are asked for
	diskIdle  = 1500.0
)

// sampleFor is how many have to be counted to see a share p: twice the standard
// error is then the goal.
func sampleFor(p float64) float64 {
	if p <= 0 {
		return 0
	}
	n := 2 / (GoalPct / 100)
	return n * n * (1 - p) / p
}

// errStays marks a fault that could not be healed: after it nothing can be measured.
var errStays = errors.New("the fault stays")

// doseWords is a dose that was not measured.
func doseWords(d Dose) string {
	var out []string
	for k, v := range d {
		if at, ok := v.(int64); ok && strings.HasSuffix(k, "_ns") {
			v, k = short(time.Duration(at)), strings.TrimSuffix(k, "_ns")
		}
		out = append(out, fmt.Sprintf("%s %v", k, v))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// quick are the kinds that stand for their mechanisms in a quick look, in the
// order of what is asked for most.
var quick = []string{"net.delay", "disk.delay", "cpu.quota", "process.pause", "gc.pause", "net.partition", "disk.error", "cpu.steal", "clock.skew", "net.loss"}

// Bounds of a quick look.
const (
	quickHold  = 800 * time.Millisecond  // of one dose
	quickStart = 7500 * time.Millisecond // after which no other is begun
)

// Quick injects some kinds at one dose each on a small cluster of its own, in
// ten seconds or so, and says how exactly this host gives them now.
func Quick(ctx context.Context, exe string) (_ []Row, err error) {
	began := time.Now()
	b, down, err := throwAway(ctx, exe)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, down()) }()
	var rows []Row
	for _, kind := range quick {
		if time.Since(began) > quickStart {
			break
		}
		i := slices.IndexFunc(table, func(r row) bool { return r.kind == kind })
		cand, _, err := choose(ctx, kind, "", b.candidates(kind))
		if err != nil {
			continue // the survey says why
		}
		doses, hold := grid[kind].doses, quickHold
		if kind == "cpu.quota" { // a share of time takes some periods to be seen
			hold *= 2
		}
		r, err := b.calibrate(ctx, table[i], cand, doses[len(doses)/2], hold)
		if ctx.Err() != nil {
			return rows, context.Cause(ctx)
		}
		if err != nil {
			r = Row{Kind: kind, Provider: cand.name, Verdict: RowOff, Why: err.Error()}
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// throwAway brings a cluster up that nobody else uses, and nobody loads.
func throwAway(ctx context.Context, exe string) (b *bench, down func() error, err error) {
	dir, err := os.MkdirTemp("", "bo-calibrate-")
	if err != nil {
		return nil, nil, err
	}
	journal, err := undo.Create(filepath.Join(dir, "cleanup.json"), undo.Revert)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	undoAll := func() error { return errors.Join(journal.Unwind(), os.RemoveAll(dir)) }
	kv, err := target.NewKVServer(nil)
	if err != nil {
		return nil, nil, errors.Join(err, undoAll())
	}
	c, err := cluster.Up(ctx, cluster.Config{
		ID: "cal" + strconv.Itoa(os.Getpid()), Dir: dir, Nodes: 3, Target: kv, Exe: exe,
		Journal: journal,
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start cluster: %w", err), undoAll())
	}
	b = newBench(Bed{Cluster: c, Exe: exe})
	b.idle = true
	return b, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
		defer cancel()
		return errors.Join(c.Down(ctx), undoAll())
	}, nil
}

// calibrate measures one dose, for so long, on the last node, or on the first link to it.
func (b *bench) calibrate(ctx context.Context, k row, by candidate, d Dose, hold time.Duration) (r Row, err error) {
	nodes := b.Cluster.Nodes()
	victim := nodes[len(nodes)-1]
	if strings.HasPrefix(k.kind, "lock.") || k.kind == "codec.switch" { // a leader's clients wait for one turn, and it alone encodes
		if victim, err = b.leader(ctx); err != nil {
			return r, err
		}
	}
	site := Site{Nodes: []string{victim.Name()}}
	if strings.HasPrefix(k.kind, "net.") {
		var names []string
		for _, n := range nodes {
			names = append(names, n.Name())
		}
		site = Site{Links: calibrationLinks(names, d)}
	}
	switch k.kind { // some are felt only by those who want more
	case "cpu.quota":
		defer b.keepBusy(victim)()
	case "memory.limit":
		defer b.keepHungry(ctx, victim)()
	case "memory.stall":
		defer b.keepGrowing(ctx, victim)()
	}
	m, err := k.meter(b, site, d)
	if err != nil {
		return r, err
	}
	defer m.Close()
	if _, err := m.Baseline(ctx); err != nil {
		return r, err
	}
	begun, up := time.Now(), b.ups.Load()
	inj, err := by.Inject(ctx, site, d)
	injected, injectUp := time.Since(begun), b.ups.Load()-up
	if err != nil {
		return r, err
	}
	look, cancel := context.WithTimeout(ctx, hold)
	reading, answer, err := m.Measure(look, d)
	cancel()
	heal, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
	defer cancel()
	begun, up = time.Now(), b.ups.Load()
	if e := inj.Heal(heal); e != nil {
		return r, errors.Join(err, fmt.Errorf("%w: heal: %w", errStays, e))
	}
	healed, healUp := time.Since(begun), b.ups.Load()-up
	if err == nil {
		err = ctx.Err()
	}
	r = calibrated(k.kind, by.name, d, reading, answer)
	r.InjectNS, r.HealNS = int64(injected), int64(healed)
	r.InjectUpNS, r.HealUpNS = min(injectUp, r.InjectNS), min(healUp, r.HealNS)
	return r, err
}

// leader returns the node that leads now.
func (b *bench) leader(ctx context.Context) (*cluster.Node, error) {
	for _, st := range b.statuses(ctx) {
		if st.Role == "leader" && st.Ready {
			return b.node(st.Node)
		}
	}
	return nil, errors.New("no node leads")
}

// calibrated puts a reading into a row.
func calibrated(kind, provider string, d Dose, got Reading, answer Answer) Row {
	r := Row{Kind: kind, Provider: provider, Verdict: RowOff, Why: answer.Why}
	if answer.Yes {
		r.Verdict, r.Why = RowOK, ""
	}
	v := Dose(got.Values)
	r.N = int(v.Float("n"))
	off := func(got, want float64) float64 { return 100 * (got - want) / want }
	switch kind {
	case "net.delay", "net.rate", "net.loss", "net.duplicate", "net.reorder", "net.corrupt", "net.partition", "net.reset", "net.halfopen", "net.flood":
		r.net(d, v, off)
	case "disk.hang", "disk.rate", "disk.iops", "disk.error", "disk.full", "disk.corrupt", "disk.torn", "power.loss", "disk.contend":
		r.disk(d, v, off)
	case "cpu.quota":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.4g%%", d.Float("percent")), fmt.Sprintf("%.4g%%", v.Float("percent"))
		r.ErrorPct = off(v.Float("percent"), d.Float("percent"))
	case "cpu.contend", "cpu.steal":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.4g%%", v.Float("asked_percent")), fmt.Sprintf("%.4g%%", v.Float("percent"))
		r.ErrorPct = off(v.Float("percent"), v.Float("asked_percent"))
	case "neighbour.noisy":
		r.Requested, r.MeasuredP50, r.ErrorPct = noisyRow(d, v)
	case "clock.offset":
		r.Requested, r.MeasuredP50 = short(signed(d)), short(v.Duration("off"))
		r.ErrorPct = off(v.Float("off_ns"), float64(signed(d)))
	case "clock.skew":
		if ask, _ := skewOf(d); ask.Rate != 0 {
			r.Requested, r.MeasuredP50 = fmt.Sprintf("%+.4g%%", 100*ask.Rate), fmt.Sprintf("%+.4g%%", v.Float("percent"))
			r.ErrorPct = off(v.Float("percent"), 100*ask.Rate)
			break
		}
		r.Requested, r.MeasuredP50 = short(signed(d)), short(v.Duration("off"))
		r.ErrorPct = off(v.Float("off_ns"), float64(signed(d)))
	case "cpu.pin":
		r.Requested, r.MeasuredP50 = "on "+d.String("cpus"), "on "+v.String("cpus")
	case "gc.storm":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.0fMiB", d.Float("heap_bytes")/(1<<20)), fmt.Sprintf("%.1fMiB", v.Float("heap_bytes")/(1<<20))
		r.ErrorPct = off(v.Float("heap_bytes"), d.Float("heap_bytes"))
	case "lock.convoy":
		r.Requested, r.MeasuredP50, r.MeasuredP99 = short(v.Duration("asked")), short(v.Duration("p50")), short(v.Duration("max"))
		r.ErrorPct, r.ErrorNS = off(v.Float("p50_ns"), v.Float("asked_ns")), int64(v.Duration("p50")-v.Duration("asked"))
	case "codec.switch":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.0fB/command", v.Float("asked_bytes")), fmt.Sprintf("%.0fB/command", v.Float("bytes"))
		r.ErrorPct = off(v.Float("bytes"), v.Float("asked_bytes"))
	case "process.crashloop":
		r.Requested, r.MeasuredP50 = short(d.Duration("every")), short(v.Duration("every"))
		r.ErrorPct = off(v.Float("every_ns"), d.Float("every_ns"))
	case "process.restart":
		r.Requested, r.MeasuredP50 = short(d.Duration("down"))+" "+d.String("data"), short(v.Duration("down"))
		r.ErrorPct = off(v.Float("down_ns"), d.Float("down_ns"))
	case "memory.limit", "memory.pressure":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.0fMiB", d.Float("limit_bytes")/(1<<20)), fmt.Sprintf("%.1fMiB", v.Float("bytes")/(1<<20))
		r.ErrorPct = off(v.Float("bytes"), d.Float("limit_bytes"))
	case "process.kill", "process.term", "memory.oom":
		r.Requested, r.MeasuredP50 = short(d.Duration("restart")), short(v.Duration("down"))
		r.ErrorPct = off(v.Float("down_ns"), d.Float("restart_ns"))
	default:
		want := cmp.Or(d.Duration("add"), d.Duration("length"))
		r.Requested, r.MeasuredP50 = short(want), short(v.Duration("p50"))
		r.MeasuredP99 = short(cmp.Or(v.Duration("p99"), v.Duration("max")))
		r.ErrorPct, r.ErrorNS = off(v.Float("p50_ns"), float64(want)), int64(v.Duration("p50")-want)
	}
	r.ErrorPct = float64(int64(r.ErrorPct*100)) / 100
	if want := cmp.Or(v.Float("expected_percent"), d.Float("percent")); want > 0 {
		r.SigmaPct = 100 * v.Float("sigma_percent") / want
	}
	return r
}
