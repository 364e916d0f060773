package faults

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/plan"
	"brownout/internal/sys/cgroup"
	"brownout/internal/undo"
)

var cpuRows = []row{
	{"cpu.quota", meterQuota, []source{{"cgroup2", newQuota(2)}, {"cgroup1", newQuota(1)}, {"freezer2", newQuotaByFreezer("freezer2")}}},
	{"cpu.contend", meterContend, []source{{"cgroup2", newContend(2)}, {"cgroup1", newContend(1)}}},
	{"cpu.steal", meterSteal, []source{{"cgroup2", newSteal(2)}, {"cgroup1", newSteal(1)}}},
	{"cpu.pin", meterPin, []source{{"cgroup2", newPin("cgroup2")}, {"cgroup1", newPin("cgroup1")}, {"affinity", newPin("affinity")}}},
}

// A quota is a share of CPU time; the zero value is no limit.
type quota struct {
	percent float64 // of one CPU
	period  time.Duration
	burst   time.Duration
	demand  float64            // instead of percent: percent of what the node used in the baseline
	used    map[string]float64 // by node: that, in percent of one CPU
}

// of returns the quota of one node, or why the kernel would refuse it.
func (q quota) of(node string) (quota, error) {
	if q.demand > 0 {
		used, ok := q.used[node]
		if !ok {
			return q, fmt.Errorf("of_demand: nothing is known of what %s used", node)
		}
		q.percent, q.demand, q.used = used*q.demand/100, 0, nil
		if _, err := cgroup.QuotaFor(q.percent, q.period); err != nil {
			return q, fmt.Errorf("of_demand: %s used %.2f %% of a CPU: %w", node, used, err)
		}
		return q, nil
	}
	_, err := cgroup.QuotaFor(q.percent, q.period)
	return q, err
}

// lowestQuota is what several quotas on one node are together.
func lowestQuota(qs []quota) quota {
	var low quota
	for _, q := range qs {
		if low.percent == 0 || q.percent < low.percent {
			low = q
		}
	}
	return low
}

// quotaOf reads a dose. used is what the nodes used in the baseline, if that matters.
func quotaOf(d Dose, used map[string]float64) (quota, error) {
	q := quota{percent: d.Float("percent"), period: d.Duration("period"), burst: d.Duration("burst"), demand: d.Float("of_demand"), used: used}
	if q.period == 0 {
		q.period = cgroup.DefaultPeriod
	}
	if (q.percent > 0) == (q.demand > 0) {
		return q, errors.New("cpu.quota: one of percent and of_demand is to be given")
	}
	if q.demand > 0 {
		return q, nil // known for each node only
	}
	c, err := cgroup.QuotaFor(q.percent, q.period)
	if err == nil && q.burst > c.Quota {
		err = fmt.Errorf("burst of %v: at most %v, the share of one period", q.burst, c.Quota)
	}
	return q, err
}

// A quotaFault throttles by the bandwidth controller of one version of cgroups.
type quotaFault struct {
	b       *bench
	version int
}

func newQuota(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &quotaFault{b, version} }
}

func (f *quotaFault) Probe(context.Context) error {
	return f.b.probeCPU("cpu.quota", f.version, func(g *cgroup.Group) error {
		if err := g.SetCPUQuota(50, 100*time.Millisecond); err != nil {
			return &Unsupported{What: "cpu.quota", Why: err.Error(), Cure: "a kernel with CONFIG_CFS_BANDWIDTH"}
		}
		return g.ClearCPUQuota()
	})
}

// probeCPU tries something in a group of the cpu controller of a version.
func (b *bench) probeCPU(kind string, version int, try func(*cgroup.Group) error) error {
	h, err := cgroup.Discover()
	if err != nil {
		return err
	}
	c, err := h.Controller("cpu")
	if err != nil {
		return err
	}
	if c.Version != version {
		return &Unsupported{
			What: fmt.Sprintf("%s by cgroup v%d", kind, version), Why: fmt.Sprintf("the cpu controller of this host is v%d's", c.Version),
			Cure: fmt.Sprintf("provider: cgroup%d", c.Version),
		}
	}
	return b.withProbeGroup(h, try)
}

var probes atomic.Int64

// withProbeGroup makes a cgroup of no processes for a probe and takes it away. It is
// below the run's, whose reaper removes it if this process is killed; without
// a run it has a name by which brownout clean knows it.
func (b *bench) withProbeGroup(h *cgroup.Host, f func(*cgroup.Group) error) error {
	id := "probe" + strconv.FormatInt(probes.Add(1), 10)
	var g *cgroup.Group
	var err error
	if b != nil && b.Cluster != nil {
		g, err = b.Cluster.Group().Child(id)
	} else {
		var own undo.Owner
		if own, err = undo.Self(id); err == nil {
			g, err = h.Create(own.String())
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = g.Delete(ctx) // an empty group in the worst case
	}()
	return f(g)
}

func (f *quotaFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	used, err := f.b.demandOf(ctx, site.Nodes, d)
	if err != nil {
		return nil, err
	}
	return f.b.quotas.inject(ctx, site.Nodes, d, func(d Dose) (quota, error) { return quotaOf(d, used) })
}

// setQuota limits a node; the cgroup package reads back what it wrote.
func (b *bench) setQuota(_ context.Context, node string, asked []quota) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	q, err := lowestOf(node, asked)
	if err != nil {
		return err
	}
	g := n.Group()
	if err := g.SetCPUBurst(0); err != nil { // it may be no more than the quota at any time
		return err
	}
	if q.percent == 0 {
		return g.ClearCPUQuota()
	}
	if err := g.SetCPUQuota(q.percent, q.period); err != nil {
		return err
	}
	return g.SetCPUBurst(q.burst)
}

// lowestOf is the lowest of several quotas for one node.
func lowestOf(node string, asked []quota) (quota, error) {
	own := make([]quota, len(asked))
	for i, q := range asked {
		var err error
		if own[i], err = q.of(node); err != nil {
			return quota{}, err
		}
	}
	return lowestQuota(own), nil
}

// A demand is what nodes used of the CPU, looked at all the time: a quota may be
// a share of it.
type demand struct {
	mu    sync.Mutex
	marks []usageMark
	last  map[string]float64 // by node: what the latest quota was a share of
}

// A usageMark is what each node had used at a time.
type usageMark struct {
	when time.Time
	used map[string]time.Duration
}

const (
	demandEvery = 200 * time.Millisecond
	demandLook  = 5 * time.Second // that count, without a baseline
	demandLeast = 400 * time.Millisecond
	demandMarks = 4096 // some 13 minutes; a baseline longer ago than that is not known
)

// watch notes what the nodes use until ctx ends.
func (b *bench) watchDemand(ctx context.Context) {
	for ctx.Err() == nil {
		m := usageMark{time.Now(), map[string]time.Duration{}}
		for _, n := range b.Cluster.Boxes() {
			if u, err := n.Group().CPUUsage(); err == nil {
				m.used[n.Name()] = u
			}
		}
		b.demand.mu.Lock()
		if len(b.demand.marks) == demandMarks {
			b.demand.marks = append(b.demand.marks[:0], b.demand.marks[1:]...)
		}
		b.demand.marks = append(b.demand.marks, m)
		b.demand.mu.Unlock()
		if !sleep(ctx, demandEvery) {
			return
		}
	}
}

// demandOf returns what each of the nodes used of one CPU, in percent, in the
// run's baseline, or lately if there is none. Nothing if the dose is no share of it.
func (b *bench) demandOf(_ context.Context, nodes []string, d Dose) (map[string]float64, error) {
	if !d.Has("of_demand") {
		return nil, nil
	}
	from, to := time.Now().Add(-demandLook), time.Now()
	if c := b.started.Load(); c != nil && b.Baseline.End > b.Baseline.Start {
		from, to = c.Time(b.Baseline.Start), c.Time(b.Baseline.End)
	}
	b.demand.mu.Lock()
	defer b.demand.mu.Unlock()
	var first, last *usageMark
	for i := range b.demand.marks {
		m := &b.demand.marks[i]
		if m.when.Before(from) || m.when.After(to) {
			continue
		}
		if first == nil {
			first = m
		}
		last = m
	}
	if first == nil || last.when.Sub(first.when) < demandLeast {
		return nil, errors.New("of_demand: the nodes were not looked at for long enough; a baseline of a second would do")
	}
	used := map[string]float64{}
	if b.demand.last == nil {
		b.demand.last = map[string]float64{}
	}
	for _, n := range nodes {
		used[n] = 100 * float64(last.used[n]-first.used[n]) / float64(last.when.Sub(first.when))
		b.demand.last[n] = used[n]
	}
	return used, nil
}

// lastDemand is what the latest of_demand found.
func (b *bench) lastDemand() map[string]float64 {
	b.demand.mu.Lock()
	defer b.demand.mu.Unlock()
	out := map[string]float64{}
	for n, u := range b.demand.last {
		out[n] = u
	}
	return out
}

// A freezerQuota gives a quota where no controller does: it looks what the node
// has used of its share in this period, and freezes it for the rest once it has
// had it.
type freezerQuota struct {
	b   *bench
	how string
}

func newQuotaByFreezer(how string) func(*bench) Provider {
	return func(b *bench) Provider { return &freezerQuota{b, how} }
}

func (f *freezerQuota) Probe(ctx context.Context) error {
	if err := (&pauseFault{f.b, f.how}).Probe(ctx); err != nil {
		return err
	}
	h, err := cgroup.Discover()
	if err != nil {
		return err
	}
	return f.b.withProbeGroup(h, func(g *cgroup.Group) error { _, err := g.CPUUsage(); return err })
}

// Inject regulates each node by itself.
func (f *freezerQuota) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	nodes, err := f.b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	used, err := f.b.demandOf(ctx, site.Nodes, d)
	if err != nil {
		return nil, err
	}
	r := &regulation{f: f, nodes: nodes, used: used}
	if err := r.Set(ctx, d); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	for _, n := range nodes {
		r.wg.Go(func() { r.regulate(own, n) })
	}
	return r, nil
}

// A regulation holds nodes to a quota by freezing them.
type regulation struct {
	f      *freezerQuota
	nodes  []*cluster.Node
	used   map[string]float64
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	q   quota
	err error
}

func (r *regulation) Set(_ context.Context, d Dose) error {
	q, err := quotaOf(d, r.used)
	if err != nil {
		return err
	}
	if err := cannot("cpu.quota", r.f.how, d); err != nil {
		return err
	}
	for _, n := range r.nodes {
		if _, err := q.of(n.Name()); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.q = q
	return nil
}

func (r *regulation) Heal(context.Context) error {
	r.cancel()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

const regulatePoll = plan.FreezerPeriod / 4

// regulate freezes a node whenever it has had its share of a period. What it
// had too much is taken from the next.
func (r *regulation) regulate(ctx context.Context, n *cluster.Node) {
	l := r.f.b.frozen[r.f.how]
	hold := &post[string, bool]{l: l, id: l.id(), places: []string{n.Name()}, value: func(Dose) (bool, error) { return true, nil }}
	defer func() {
		if err := hold.Heal(context.WithoutCancel(ctx)); err != nil {
			r.fail(err)
		}
	}()
	// It must be there in time on a host that is busy, so it has a thread of its
	// own, before others; the thread ends with it.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -15) // else it is late at times, which the debt makes good
	var debt time.Duration
	begin := time.Now()
	from, err := n.Group().CPUUsage()
	for err == nil && ctx.Err() == nil {
		r.mu.Lock()
		q, _ := r.q.of(n.Name()) // Set has seen to it
		r.mu.Unlock()
		end := begin.Add(q.period)
		budget := time.Duration(q.percent/100*float64(q.period)) - debt
		var used time.Duration
		for {
			now, e := n.Group().CPUUsage()
			if used, err = now-from, e; err != nil || used >= budget || time.Until(end) <= 0 {
				break
			}
			// It cannot have used up what is left any sooner.
			wait := max((budget-used)/time.Duration(usable()), regulatePoll)
			if doze(min(wait, time.Until(end))); ctx.Err() != nil {
				return
			}
		}
		if err != nil {
			break
		}
		if used >= budget && time.Until(end) > 0 {
			if err = hold.Set(ctx, nil); err != nil {
				break
			}
			doze(time.Until(end)) // a period at most
			if err = hold.Heal(context.WithoutCancel(ctx)); err != nil {
				break
			}
		}
		var now time.Duration
		if now, err = n.Group().CPUUsage(); err == nil {
			debt = max(now-from-budget, 0)
			// Periods follow each other by the clock, however late a thaw was.
			if from, begin = now, end; time.Since(end) > q.period {
				begin = time.Now()
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		r.fail(fmt.Errorf("hold %s to a quota: %w", n.Name(), err))
	}
}

// doze sleeps in the kernel: Go's timers wake another thread first, which has to
// wait for a CPU behind whom it is to stop.
func doze(d time.Duration) {
	if d > 0 {
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&ts, nil) // a signal may end it sooner: who is asked next says how long is left
	}
}

func (r *regulation) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, err)
}

// cpuList reads the CPUs that a dose names, or says which there are.
func cpuList(list string) ([]int, error) {
	cpus, err := parseCPUs(list)
	if err != nil {
		return nil, err
	}
	have := usableCPUs()
	for _, c := range cpus {
		if !contains(have, c) {
			return nil, fmt.Errorf("cpus %s: there is no CPU %d for us; this host has %s", list, c, formatCPUs(have))
		}
	}
	return cpus, nil
}

// places says on which CPUs each of the nodes is to be, for faults that take
// the CPU from one node and not from others.
func places(nodes []string, list string) (map[string]string, error) {
	out := map[string]string{}
	if list != "" {
		cpus, err := cpuList(list)
		for _, n := range nodes {
			out[n] = formatCPUs(cpus)
		}
		return out, err
	}
	have := usableCPUs()
	for i, n := range nodes { // from the last: the first CPU has the host's own work
		out[n] = strconv.Itoa(have[len(have)-1-i%len(have)])
	}
	return out, nil
}

// leavesOut says whether a list leaves any CPU out.
func leavesOut(list string) bool { return list != formatCPUs(usableCPUs()) }

// A pinFault lets nodes run on some CPUs only.
type pinFault struct {
	b   *bench
	how string
}

func newPin(how string) func(*bench) Provider {
	return func(b *bench) Provider { return &pinFault{b, how} }
}

func (f *pinFault) Probe(context.Context) error {
	if n := usable(); n < 2 {
		return &Unsupported{What: "cpu.pin", Why: "this host has one CPU", Cure: "a host with more"}
	}
	if f.how == "affinity" {
		return nil // whoever can start a node can move its threads
	}
	h, err := cgroup.Discover()
	if err != nil {
		return err
	}
	c, err := h.Controller("cpuset")
	if err != nil {
		return err
	}
	if by := fmt.Sprintf("cgroup%d", c.Version); by != f.how {
		return &Unsupported{What: "cpu.pin by " + f.how, Why: fmt.Sprintf("the cpuset controller of this host is v%d's", c.Version), Cure: "provider: " + by}
	}
	return f.b.withProbeGroup(h, func(g *cgroup.Group) error {
		return errors.Join(g.SetCPUs(strconv.Itoa(usableCPUs()[0])), g.ClearCPUs())
	})
}

func (f *pinFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.pins.inject(ctx, site.Nodes, d, func(d Dose) (pin, error) {
		cpus, err := cpuList(d.String("cpus"))
		if err == nil && !leavesOut(formatCPUs(cpus)) {
			err = fmt.Errorf("cpus %s: these are all that there are", d.String("cpus"))
		}
		return pin{formatCPUs(cpus), f.how}, err
	})
}

// A pin is a list of CPUs and the way in which a node is bound to them.
type pin struct{ cpus, how string }

// setPin binds a node to the CPUs of the latest pin, or to none. A pinned node
// that is started again stays where it was if its cgroup is what binds it.
func (b *bench) setPin(_ context.Context, node string, asked []pin) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	if len(asked) == 0 {
		if err := n.Group().ClearCPUs(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		return setAffinity(n, usableCPUs())
	}
	p := asked[len(asked)-1]
	if p.how != "affinity" {
		return n.Group().SetCPUs(p.cpus)
	}
	cpus, err := parseCPUs(p.cpus)
	if err != nil {
		return err
	}
	return setAffinity(n, cpus)
}

// pinner is how this host binds a node to CPUs.
func pinner(g *cgroup.Group) string {
	if _, version, err := g.Dir("cpuset"); err == nil {
		return fmt.Sprintf("cgroup%d", version)
	}
	return "affinity"
}

// A burnFault has processes of ours want the CPUs of a node.
type burnFault struct {
	b       *bench
	kind    string
	version int
	want    func(Dose) (burning, error)
}

func newContend(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &burnFault{b, "cpu.contend", version, contentionOf} }
}

func newSteal(version int) func(*bench) Provider {
	return func(b *bench) Provider { return &burnFault{b, "cpu.steal", version, stealOf} }
}

// A burning is what burners on one list of CPUs want.
type burning struct {
	threads int // 0: one for each CPU
	shares  int
	percent float64       // of each CPU; 0 for no limit
	burst   time.Duration // of it at once
}

func contentionOf(d Dose) (burning, error) {
	return burning{threads: max(int(d.Float("burners")), 1), shares: max(int(d.Float("weight")), cgroup.MinShares)}, nil
}

func stealOf(d Dose) (burning, error) {
	w := burning{shares: cgroup.MaxShares, percent: d.Float("percent"), burst: d.Duration("burst")}
	if w.burst == 0 {
		w.burst = 10 * time.Millisecond
	}
	if w.percent <= 0 || w.percent > 95 {
		return w, fmt.Errorf("steal of %v%%: 1%% to 95%%", w.percent)
	}
	// A long wish at a small share would take a longer period than the kernel has.
	if most := time.Duration(w.percent / 100 * float64(cgroup.MaxPeriod)); w.burst > most {
		return w, fmt.Errorf("steal of %v%% in bursts of %v: with this percentage %v to %v", w.percent, w.burst, cgroup.MinQuota, most.Round(time.Microsecond))
	}
	return w, nil
}

// quota is that of burners on so many CPUs.
func (w burning) quota(cpus int) (percent float64, period time.Duration) {
	return w.percent * float64(cpus), time.Duration(float64(w.burst) * 100 / w.percent)
}

func (f *burnFault) Probe(context.Context) error {
	return f.b.probeCPU(f.kind, f.version, func(g *cgroup.Group) error {
		return errors.Join(g.SetCPUShares(cgroup.MaxShares), g.SetCPUQuota(50, 20*time.Millisecond))
	})
}

// Inject pins the nodes and starts burners beside them, one process for each
// list of CPUs.
func (f *burnFault) Inject(ctx context.Context, site Site, d Dose) (_ Injection, err error) {
	w, err := f.want(d)
	if err != nil {
		return nil, err
	}
	if _, err := f.b.nodes(site.Nodes); err != nil {
		return nil, err
	}
	at, err := places(site.Nodes, d.String("cpus"))
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fire := &fire{f: f, fires: map[string]*burners{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, fire.Heal(context.WithoutCancel(ctx)))
		}
	}()
	if fire.lift, err = f.b.weights.inject(ctx, []string{""}, nil, func(Dose) (bool, error) { return true, nil }); err != nil {
		return nil, err
	}
	for _, n := range site.Nodes {
		if leavesOut(at[n]) {
			hold, err := f.b.pins.inject(ctx, []string{n}, nil, func(Dose) (pin, error) { return pin{at[n], pinner(f.b.Cluster.Group())}, nil })
			if err != nil {
				return nil, err
			}
			fire.pins = append(fire.pins, hold)
		}
		if fire.fires[at[n]] != nil {
			continue
		}
		b, err := f.b.burn(at[n], w)
		if err != nil {
			return nil, err
		}
		fire.fires[at[n]] = b
	}
	return fire, nil
}

// Burners are a process that spins on a list of CPUs.
type burners struct {
	cpus  int
	group *cgroup.Group
	t     *tenant
	w     burning
}

func (b *bench) burn(list string, w burning) (_ *burners, err error) {
	cpus, err := parseCPUs(list)
	if err != nil {
		return nil, err
	}
	f := &burners{cpus: len(cpus)}
	if f.group, err = b.newGroup(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.end(context.Background()))
		}
	}()
	if err := f.set(w); err != nil {
		return nil, err
	}
	bind := pinner(f.group) != "affinity"
	if bind {
		if err := f.group.SetCPUs(list); err != nil {
			return nil, err
		}
	}
	threads := w.threads
	if threads == 0 {
		threads = len(cpus)
	}
	if f.t, err = b.startTenant(f.group, appetite{burn: threads}, nil); err != nil {
		return nil, err
	}
	if !bind {
		if err := pinProcess(f.t.pid(), cpus); err != nil {
			return nil, err
		}
	}
	if err := f.t.begin(); err != nil {
		return nil, err
	}
	return f, f.burning()
}

const (
	burnSeen   = 500 * time.Microsecond // of CPU time, by which a process is seen burning
	burnWithin = 3 * time.Second
)

// burning returns when the burners do burn: on a busy host a process may take
// its time to begin.
func (f *burners) burning() error {
	from, err := f.group.CPUUsage()
	for begun := time.Now(); err == nil; {
		var now time.Duration
		if now, err = f.group.CPUUsage(); err == nil && now-from >= burnSeen {
			return nil
		}
		if time.Since(begun) > burnWithin {
			return fmt.Errorf("burners had %v of CPU time in %v", now-from, burnWithin)
		}
		sleep(context.Background(), time.Millisecond)
	}
	return err
}

// set changes weight and quota.
func (f *burners) set(w burning) error {
	f.w = w
	if err := f.group.SetCPUShares(w.shares); err != nil {
		return err
	}
	if w.percent == 0 {
		return nil
	}
	percent, period := w.quota(f.cpus)
	return f.group.SetCPUQuota(percent, period)
}

// end lets go of the quota first: who is throttled dies in its next period only.
func (f *burners) end(ctx context.Context) error {
	var err error
	if f.w.percent > 0 {
		err = f.group.ClearCPUQuota()
	}
	if f.t != nil {
		f.t.end()
	}
	return errors.Join(err, deleteGroup(ctx, f.group))
}

// A fire is burners beside nodes.
type fire struct {
	f     *burnFault
	lift  Injection // of the whole run's weight
	pins  []Injection
	fires map[string]*burners // by list of CPUs
}

// Set changes what the burners want; how many there are and where stays.
func (f *fire) Set(_ context.Context, d Dose) error {
	w, err := f.f.want(d)
	if err != nil {
		return err
	}
	for _, b := range f.fires {
		if w.threads != b.w.threads && w.threads > 0 {
			return fmt.Errorf("%d burners: their number, %d, cannot change while they burn", w.threads, b.w.threads)
		}
		if err := b.set(w); err != nil {
			return err
		}
	}
	return nil
}

func (f *fire) Heal(ctx context.Context) error {
	var errs []error
	for list, b := range f.fires {
		if err := b.end(ctx); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(f.fires, list)
	}
	for _, p := range f.pins {
		errs = append(errs, p.Heal(ctx))
	}
	if f.lift != nil {
		errs = append(errs, f.lift.Heal(ctx))
	}
	return errors.Join(errs...)
}

// setWeight lets all of the run weigh as much as can be while burners are in
// force: they are to take the CPU from nodes, and the host's others shall not
// take it from them.
func (b *bench) setWeight(_ context.Context, _ string, asked []bool) error {
	g := b.Cluster.Group()
	if len(asked) > 0 {
		if b.weight == 0 {
			was, err := g.CPUShares()
			if err != nil {
				return err
			}
			b.weight = was
		}
		return g.SetCPUShares(cgroup.MaxShares)
	}
	if b.weight == 0 {
		return nil
	}
	if err := g.SetCPUShares(b.weight); err != nil {
		return err
	}
	b.weight = 0
	return nil
}
