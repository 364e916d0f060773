// Command kvbench compares brownout's key-value server with etcd and Redis, on
// the same machine in the same minutes. It is a module of its own, so that
// nobody who builds brownout downloads etcd.
//
// Three nodes of each replicated system run in network namespaces of their own
// behind one switch, as brownout's clusters do, with a namespace for the
// clients. All systems are up all the time, and only one is driven at a time:
// every round goes through all of them, and what is reported are medians of
// the ratios within a round, with their extremes. Absolute numbers belong to
// the host and to the hour.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/proc"
	"brownout/kvserver/kvload"
)

const (
	keys      = 10_000
	valueSize = 256
	maxConns  = 16 // of one load, unless its clients have connections of their own
)

func main() {
	if filepath.Base(os.Args[0]) == "etcd" {
		runtime.GOMAXPROCS((runtime.NumCPU() + 2) / 3) // its share, as brownout's nodes take theirs; it is faster so
		etcdmain.Main(os.Args)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := bench(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kvbench:", err)
		os.Exit(1)
	}
}

// A point is one thing that is measured.
type point struct {
	name       string
	read       bool
	clients    int
	own        bool               // a connection for each client
	atLeast    map[string]float64 // the goals: throughput as a multiple of that system's
	p99NoWorse string             // than that system's
}

var points = []point{
	{name: "put", clients: 1, atLeast: map[string]float64{"etcd": 1.1}},
	{name: "put", clients: 100, atLeast: map[string]float64{"etcd": 3}, p99NoWorse: "etcd"},
	{name: "put, own connections", clients: 100, own: true},
	{name: "put", clients: 500, atLeast: map[string]float64{"etcd": 5}},
	// Redis' own benchmark (redis-benchmark -c 500) gives each client a connection.
	{name: "put, own connections", clients: 500, own: true, atLeast: map[string]float64{"redis": 0.6}},
	{name: "linearizable read", read: true, clients: 1},
	{name: "linearizable read", read: true, clients: 100, atLeast: map[string]float64{"etcd": 5}},
	{name: "linearizable read, own connections", read: true, clients: 100, own: true},
}

// A sample is what one system did at one point in one round.
type sample struct {
	kvload.Result
	cpu float64 // µs an operation, all its servers together
}

// A system is one that is compared.
type system interface {
	name() string
	load(ctx context.Context, p point, warm, d time.Duration) (kvload.Result, error)
	pids() []int
}

func bench(ctx context.Context) (err error) {
	var (
		brownout = flag.String("brownout", "bin/brownout", "the `binary` that is compared")
		against  = flag.String("against", "", "also another `binary` of brownout, as it was before a change")
		skip     = flag.String("skip", "", "`systems` that are left out: etcd, redis, or both with a comma")
		only     = flag.String("only", "", "only points whose names match this `expression`, as in ^put/1$")
		rounds   = flag.Int("rounds", 5, "how often everything is measured")
		d        = flag.Duration("time", time.Second, "one measurement takes this long")
		warm     = flag.Duration("warm", 300*time.Millisecond, "and this long before it counts")
		dir      = flag.String("dir", "", "where all data live; default a new directory beside this program, since /tmp may be memory")
	)
	flag.Parse()
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	skipped := strings.FieldsFunc(*skip, func(r rune) bool { return r == ',' })
	for _, name := range skipped {
		if name != "etcd" && name != "redis" {
			return fmt.Errorf("-skip: %q is none of etcd, redis", name)
		}
	}
	if *dir == "" {
		var self string
		if self, err = os.Executable(); err == nil {
			*dir, err = os.MkdirTemp(filepath.Dir(self), "kvbench-")
		}
	} else {
		err = os.MkdirAll(*dir, 0o755)
	}
	if err != nil {
		return err
	}
	*dir, err = filepath.Abs(*dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(*dir)) }()
	n, err := newNet(ctx, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()

	var systems []system
	for _, candidate := range []struct {
		name  string
		start func(context.Context) (system, error)
	}{
		{"brownout", func(ctx context.Context) (system, error) {
			return startBrownout(ctx, n, "brownout", *brownout, *dir, 0)
		}},
		{"before", func(ctx context.Context) (system, error) { return startBrownout(ctx, n, "before", *against, *dir, 100) }},
		{"etcd", func(ctx context.Context) (system, error) { return startEtcd(ctx, n, *dir) }},
		{"redis", func(ctx context.Context) (system, error) { return startRedis(ctx, n, *dir) }},
	} {
		if candidate.name == "before" && *against == "" || slices.Contains(skipped, candidate.name) {
			continue
		}
		s, err := candidate.start(ctx)
		if errors.Is(err, errAbsent) {
			fmt.Fprintf(os.Stderr, "=== SKIPPED: %v ===\n", err)
			continue
		}
		if err != nil {
			return err
		}
		systems = append(systems, s)
	}
	m := &meter{systems: systems, dir: *dir, warm: *warm, time: *d, got: map[string][]sample{}}
	for r := range *rounds {
		for _, p := range points {
			if !wanted.MatchString(fmt.Sprintf("%s/%d", p.name, p.clients)) {
				continue
			}
			if err := m.measure(ctx, r, p); err != nil {
				return err
			}
		}
	}
	return m.report()
}

// A meter drives the systems and keeps what comes of it.
type meter struct {
	systems    []system
	dir        string
	warm, time time.Duration

	got       map[string][]sample // by point and system
	floor     []time.Duration     // fdatasync
	foreign   []float64           // share of the CPUs that others used
	again     int                 // points measured again because the disk stalled
	disturbed int                 // ... and kept nevertheless
}

// How often a point is measured until the disk keeps still, and what that is.
const (
	attempts = 4
	still    = 4 // the slowest fdatasync beside it is no more than so many times the fastest
)

// measure takes one sample of each system at one point: all of them are good, or all are taken again.
func (m *meter) measure(ctx context.Context, round int, p point) error {
	for attempt := 1; ; attempt++ {
		samples, floor, err := m.once(ctx, round, p)
		if err != nil {
			return err
		}
		disturbed := slices.Max(floor) > still*slices.Min(floor)
		for _, s := range samples {
			disturbed = disturbed || s.Ops == 0
		}
		if disturbed && attempt < attempts {
			m.again++
			continue
		}
		if disturbed {
			m.disturbed++
		}
		m.floor = append(m.floor, floor...)
		for _, i := range slices.Sorted(maps.Keys(samples)) {
			s := samples[i]
			m.got[i] = append(m.got[i], s)
			fmt.Fprintf(os.Stderr, "round %d: %-50s %8.0f/s  p50 %v\n", round+1, i, s.PerSecond(), s.Quantile(0.5).Round(time.Microsecond))
		}
		return nil
	}
}

func (m *meter) once(ctx context.Context, round int, p point) (samples map[string]sample, floor []time.Duration, err error) {
	samples = map[string]sample{}
	for i := range len(m.systems) + 1 {
		f, err := fsyncP50(m.dir)
		if err != nil {
			return nil, nil, err
		}
		if floor = append(floor, f); i == len(m.systems) {
			break
		}
		s := m.systems[(i+round)%len(m.systems)]
		if p.own && s.name() == "etcd" {
			continue // its client library multiplexes
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		host, err := proc.ReadHost()
		if err != nil {
			return nil, nil, err
		}
		all, own := m.ownCPU(), cpuOf(s)
		res, err := s.load(ctx, p, m.warm, m.time)
		if err != nil {
			return nil, nil, fmt.Errorf("%s, %s by %d clients: %w", s.name(), p.name, p.clients, err)
		}
		own = cpuOf(s) - own
		after, err := proc.ReadHost()
		if err != nil {
			return nil, nil, err
		}
		spent := after.CPU.Sub(host.CPU)
		m.foreign = append(m.foreign, max(0, (spent.Busy()-m.ownCPU()+all).Seconds()/spent.Total().Seconds()))
		x := sample{Result: res}
		if res.Ops > 0 {
			x.cpu = own.Seconds() * 1e6 / float64(res.Ops) * m.time.Seconds() / (m.warm + m.time).Seconds()
		}
		samples[p.key(s)] = x
	}
	return samples, floor, nil
}

// ownCPU is what we and all systems have used.
func (m *meter) ownCPU() (all time.Duration) {
	for _, s := range m.systems {
		all += cpuOf(s)
	}
	if st, err := proc.ReadStat(os.Getpid()); err == nil {
		all += st.User + st.System
	}
	return all
}

func (p point) key(s system) string { return fmt.Sprint(p.name, "/", p.clients, "/", s.name()) }

func cpuOf(s system) (all time.Duration) {
	for _, pid := range s.pids() {
		if st, err := proc.ReadStat(pid); err == nil {
			all += st.User + st.System
		}
	}
	return all
}

// report prints the table, and whether the goals were reached.
func (m *meter) report() error {
	systems, got, floor := m.systems, m.got, m.floor
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "operation\tclients\tsystem\tper second\tp50 µs\tp99 µs\tserver CPU µs\tbrownout is\tp99 is\tgoal")
	missed := 0
	for _, p := range points {
		ours := got[p.key(systems[0])]
		for _, s := range systems {
			g := got[p.key(s)]
			if len(g) == 0 {
				continue
			}
			us := func(q float64) string {
				return spread(g, "%.0f", func(s sample) float64 { return float64(s.Quantile(q).Nanoseconds()) / 1e3 })
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t", p.name, p.clients, s.name(),
				spread(g, "%.0f", func(s sample) float64 { return s.PerSecond() }), us(0.5), us(0.99),
				spread(g, "%.1f", func(s sample) float64 { return s.cpu }))
			if s.name() == systems[0].name() {
				fmt.Fprintln(w, "\t\t")
				continue
			}
			faster := pairs(ours, g, func(a, b sample) float64 { return a.PerSecond() / b.PerSecond() })
			tail := pairs(ours, g, func(a, b sample) float64 { return float64(a.Quantile(0.99)) / float64(b.Quantile(0.99)) })
			goal := ""
			if want, ok := p.atLeast[s.name()]; ok {
				goal = fmt.Sprintf("≥ %gx: ", want) + verdict(median(faster) >= want, &missed)
			}
			if p.p99NoWorse == s.name() {
				goal += ", p99 no worse: " + verdict(median(tail) <= 1, &missed)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", times(faster), times(tail), goal)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	slices.Sort(floor)
	if len(floor) > 0 {
		f := floor[len(floor)/2]
		fmt.Printf("\nfdatasync of 512 appended bytes: p50 %v (median of %d readings between the measurements, %v to %v)\n",
			f.Round(time.Microsecond), len(floor), floor[0].Round(time.Microsecond), floor[len(floor)-1].Round(time.Microsecond))
		if g := got[points[0].key(systems[0])]; len(g) > 0 {
			x := make([]float64, len(g))
			for i := range g {
				x[i] = float64(g[i].Quantile(0.5)) / float64(2*f+100*time.Microsecond)
			}
			fmt.Printf("one client's put p50 is %s (2 fdatasync p50 + 100 µs); goal ≤ 1.3x: %s\n", times(x), verdict(median(x) <= 1.3, &missed))
		}
	}
	if len(m.foreign) > 0 {
		fmt.Printf("others used %.0f %% of the CPUs (median; at most %.0f %%); %d points were measured again because the disk stalled, %d were kept although it did\n",
			100*median(m.foreign), 100*slices.Max(m.foreign), m.again, m.disturbed)
	}
	if missed > 0 {
		return fmt.Errorf("%d goals were missed", missed)
	}
	return nil
}

func verdict(ok bool, missed *int) string {
	if ok {
		return "reached"
	}
	*missed++
	return "MISSED"
}

// pairs are the ratios of what was measured in the same round.
func pairs(a, b []sample, ratio func(a, b sample) float64) []float64 {
	var x []float64
	for i := range min(len(a), len(b)) {
		x = append(x, ratio(a[i], b[i]))
	}
	return x
}

func median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

func times(x []float64) string {
	if len(x) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2fx (%.2f–%.2f)", median(x), slices.Min(x), slices.Max(x))
}

// spread is the median and the extremes.
func spread(g []sample, format string, of func(sample) float64) string {
	var x []float64
	for _, s := range g {
		x = append(x, of(s))
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", median(x), slices.Min(x), slices.Max(x))
}

// fsyncP50 measures what one durable append costs here and now.
func fsyncP50(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "floor")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	block := make([]byte, 512)
	for range 100 {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
