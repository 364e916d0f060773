package scenarios

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"brownout/cluster"
	"brownout/faults"
	"brownout/internal/clock"
	"brownout/internal/faultfs"
	"brownout/internal/plan"
	"brownout/internal/run"
	systems "brownout/internal/target"
	"brownout/internal/undo"
	"brownout/internal/wire"
	"brownout/internal/workload"
)

// Options of one run.
type Options struct {
	Plan   *plan.Plan
	Source []byte // of the scenario, after --set; kept with the run
	Dir    string // of the run; made here, must not hold anything
	ID     string // of the run
	Short  string // names what is made on the host, [a-z0-9]+; unique among live runs
	Exe    string // this binary
	Argv   []string

	Watch  bool                     // end the run with the first violation that is seen while it goes on
	Keep   func(standing Info) bool // when all is recorded and the nodes still run: whether to hold them for people to look at; may be nil
	Event  func(run.Event)          // each event as it happens; may be nil
	Status func(workload.Progress)  // about twice a second; may be nil
}

// Bounds of the steps that wait.
const (
	calibrateFor  = 3 * time.Second  // closed loop before a load relative to the maximum
	quiesceWithin = 15 * time.Second // for the nodes to agree after the last heal
	readWithin    = 20 * time.Second // for the final reads
	readHasty     = 5 * time.Second  // the same, of nodes that had not settled before
	boxWithin     = 5 * time.Second  // for our own processes to answer when nothing hurts any more
	closeWithin   = 10 * time.Second // for each step of taking things down after the run ended or was interrupted
)

// Run makes one run of a plan: cluster up, load, faults, heal, final reads,
// cluster down. When it returns, everything that it saw is in the run's
// directory, also after an error and an interrupt; judging is somebody else's.
//
// Errors that are [errors.ErrUnsupported] mean that this host cannot do it.
func Run(ctx context.Context, o Options) (err error) {
	s := &session{Options: o}
	if err := s.open(); err != nil {
		return err
	}
	noted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(noted)
		if s.ended.Load() {
			return // the record is closed, and only the nodes were kept
		}
		s.events.emit(run.Event{Type: run.Interrupted, Text: context.Cause(ctx).Error()})
	})
	defer func() {
		interrupted := !stop()
		if interrupted {
			<-noted
		}
		err = errors.Join(err, s.close(ctx, err, interrupted))
	}()
	if err := s.setup(ctx); err != nil {
		return err
	}
	// After a violation, too, it is worth knowing whether what was written is still there.
	if err := s.drive(ctx); err != nil && !errors.Is(err, errViolated) {
		return err
	}
	if err := s.settle(ctx); err != nil || s.Keep == nil {
		return err
	}
	return s.keep(ctx)
}

// A session is one run in progress.
type session struct {
	Options
	manifest run.Manifest
	events   *eventLog
	journal  *undo.Journal
	target   cluster.Target
	cluster  *cluster.Cluster
	nemesis  *faults.Nemesis
	load     *workload.Generator
	clock    clock.Clock
	rate     float64     // operations per second offered; 0 for a closed loop
	max      float64     // calibrated; 0 if it was not
	violated bool        // a violation ended it before its time
	ended    atomic.Bool // the record is closed
}

func (s *session) path(name string) string { return filepath.Join(s.Dir, name) }

// open makes the run's directory and all files that can be written before
// anything is started.
func (s *session) open() error {
	abs, err := filepath.Abs(s.Dir)
	if err != nil {
		return err
	}
	s.Dir = abs
	if err := makeDir(s.Dir); err != nil {
		return err
	}
	s.manifest = manifest(s.Plan, s.ID, s.Dir, s.Exe, s.Argv)
	for _, f := range []struct {
		name string
		b    []byte
	}{
		{run.ScenarioFile, s.Source},
		{run.PlanFile, Encode(s.Plan)},
		{run.HistoryFile, nil}, // so that a run that never got to its load can be judged for what it is
	} {
		if err := writeFile(s.path(f.name), f.b); err != nil {
			return &DirError{s.Dir, err}
		}
	}
	if err := writeJSON(s.path(run.ManifestFile), s.manifest); err != nil {
		return &DirError{s.Dir, err}
	}
	if s.events, err = newEventLog(s.path(run.EventsFile), s.Event); err != nil {
		return &DirError{s.Dir, err}
	}
	if s.journal, err = undo.Create(s.path(run.CleanupFile), undo.Revert); err != nil {
		return &DirError{s.Dir, err}
	}
	return nil
}

func (s *session) note(format string, a ...any) {
	s.events.emit(run.Event{Type: run.Note, Text: fmt.Sprintf(format, a...)})
}

// setup brings the cluster and the load generator up, chooses the faults'
// providers and finds the rate.
func (s *session) setup(ctx context.Context) error {
	var err error
	if s.target, err = targetFor(s.Plan.Target); err != nil {
		return err
	}
	began := time.Now()
	s.cluster, err = cluster.Up(ctx, cluster.Config{
		ID: s.Short, Dir: s.Dir, Nodes: s.Plan.Target.Nodes, Target: s.target, Cache: s.Plan.Target.Downstream != nil, Exe: s.Exe,
		Journal: s.journal, Emit: s.events.emit, Seed: s.Plan.Seed, MTU: s.Plan.Network.MTU, Congestion: s.Plan.Network.Congestion,
		Disk: diskFor(s.Plan.Faults), Passthrough: !touchesData(s.Plan.Faults), Trap: trapFor(s.Plan.Faults),
		Block: faults.BlockFor(s.Plan.Faults), Loop: wantsLoop(s.Plan.Faults),
	})
	if err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	if err := s.arm(ctx); err != nil {
		return err
	}
	s.note("cluster    %d nodes up in %v, %s", s.Plan.Target.Nodes, time.Since(began).Round(time.Millisecond), led(s.cluster.Leaders()))
	s.load, err = workload.Start(ctx, s.Exe, s.cluster.ClientNetNS(), s.path("load.log"), s.Short)
	if err != nil {
		return fmt.Errorf("start load generator: %w", err)
	}
	if err := s.measureNoise(ctx); err != nil {
		return err
	}
	return s.calibrate(ctx)
}

// arm puts the links' healthy state in force, chooses a provider for every
// fault and records both.
func (s *session) arm(ctx context.Context) (err error) {
	s.nemesis, err = faults.NewNemesis(ctx, faults.Bed{
		Cluster: s.cluster, Seed: s.Plan.Seed, Emit: s.events.emit, Network: s.Plan.Network, Exe: s.Exe, Baseline: s.baseline(),
	})
	if err != nil {
		return err
	}
	if s.manifest.Providers, err = s.nemesis.Prepare(ctx, s.Plan.Faults); err != nil {
		return err
	}
	s.manifest.Mechanisms = s.cluster.Mechanisms()
	cost, err := faults.DiskCost(ctx, s.cluster)
	if err != nil {
		cost = "not measured: " + err.Error()
	}
	if cost != "" {
		s.manifest.Mechanisms["disk idle cost"] = cost
		s.note("disk       %s", cost)
	}
	s.manifest.Network = networkOf(s.cluster, s.Plan.Network)
	return writeJSON(s.path(run.ManifestFile), s.manifest)
}

// baseline is the phase that the faults are compared with; the zero value if
// there is none.
func (s *session) baseline() plan.Phase {
	for _, p := range s.Plan.Phases {
		if p.Name == "baseline" {
			return p
		}
	}
	return plan.Phase{}
}

// diskFor says what disk the faults need. Without any that hurts a disk, a host
// that cannot serve one of ours is as good; and one whose faults are all done by
// traps at the targets' calls, or by a file system of the nodes' own, is to be
// the plain one.
func diskFor(fs []plan.Fault) string {
	plain := false
	for _, f := range fs {
		switch {
		case !strings.HasPrefix(f.Kind, "disk.") && f.Kind != "power.loss":
		case f.Provider != trapProvider && !slices.Contains(loopProviders, f.Provider):
			return cluster.DiskSlowFS
		default:
			plain = true
		}
	}
	if plain {
		return cluster.DiskPlain
	}
	return cluster.DiskAny
}

const trapProvider = "seccomp"

// loopProviders work on a file system of the node's own on a loop device.
var loopProviders = []string{"ext4", "io.max", "blkio.throttle"}

// wantsLoop reports whether a fault needs the nodes to have file systems of their own.
func wantsLoop(fs []plan.Fault) bool {
	return diskFor(fs) == cluster.DiskPlain && slices.ContainsFunc(fs, func(f plan.Fault) bool { return slices.Contains(loopProviders, f.Provider) })
}

// trapFor are the classes of the targets' calls that faults want trapped. A
// filter cannot be put on later.
func trapFor(fs []plan.Fault) (ops []faultfs.Op) {
	for _, f := range fs {
		if op := faultfs.Op(f.Params.String("op")); f.Provider == trapProvider && op != "" && !slices.Contains(ops, op) {
			ops = append(ops, op)
		}
	}
	return ops
}

// touchesData reports whether a fault needs the nodes' reads and writes to go
// through our file system. Where none does, they pass it by at the kernel's
// speed; what is fixed when a file is opened must be known before the nodes start.
func touchesData(fs []plan.Fault) bool {
	return slices.ContainsFunc(fs, func(f plan.Fault) bool {
		switch f.Kind {
		case "disk.rate", "disk.iops", "disk.full", "disk.corrupt", "disk.torn", "power.loss":
			return true
		}
		return strings.HasPrefix(f.Kind, "disk.") && slices.Contains([]string{"read", "write", "all"}, f.Params.String("op"))
	})
}

// calibrate turns a load that is a share of the maximum into a rate.
func (s *session) calibrate(ctx context.Context) error {
	l := s.Plan.Load
	s.rate = l.Rate
	if l.OfMax == 0 {
		return nil
	}
	s.note("calibrate  closed loop for %v", calibrateFor)
	max, err := s.load.Calibrate(ctx, s.spec(), calibrateFor)
	if err != nil {
		return fmt.Errorf("calibrate load: %w", err)
	}
	s.max, s.rate = max, max*l.OfMax
	return nil
}

// spec tells the load generator what to do.
func (s *session) spec() workload.Spec {
	sp := workload.Spec{
		Zero: s.clock.Zero(), Load: s.Plan.Load, Seed: s.Plan.Seed, Rate: s.rate,
		Watch:  s.Watch,
		Target: s.Plan.Target.Kind, Shards: s.Plan.Target.Shards(), Spool: s.path(run.SpoolFile), History: s.path(run.HistoryFile),
	}
	if n := len(s.Plan.Phases); n > 0 {
		sp.Start, sp.End = s.Plan.Phases[0].Start, s.Plan.Phases[n-1].End
	}
	for _, n := range s.cluster.Nodes() {
		sp.Endpoints = append(sp.Endpoints, workload.Endpoint{Node: n.Name(), Addr: clientAddr(n)})
	}
	return sp
}

// startIn is how far ahead of now the run's zero lies: enough for everyone to
// be waiting when it comes.
const startIn = 100 * time.Millisecond

// drive runs the load, the telemetry and the faults of the plan. The first
// error of any of them ends all.
func (s *session) drive(ctx context.Context) error {
	s.clock = clock.At(clock.Raw() + int64(startIn))
	s.nemesis.Start(s.clock)
	s.events.start(s.clock)
	s.events.emit(run.Event{Type: run.LoadStarted, Data: map[string]any{
		"rate_per_s": s.rate, "max_per_s": s.max, "clients": s.Plan.Load.Clients,
		"zero_monotonic_ns": s.clock.Zero(),
	}})

	// The load and the faults end by themselves; with the later of them ends the rest.
	watching, stop := context.WithCancel(ctx)
	defer stop()
	g, live := errgroup.WithContext(watching)
	var acts sync.WaitGroup
	act := func(what string, f func() error) {
		acts.Add(1)
		g.Go(func() error { defer acts.Done(); return wrap(what, f()) })
	}
	act("load", func() error { return s.runLoad(live) })
	act("faults", func() error { return s.nemesis.Play(live, s.Plan.Faults) })
	g.Go(func() error { acts.Wait(); stop(); return nil })
	g.Go(func() error { return wrap("telemetry", s.sample(live)) })
	g.Go(func() error { return wrap("watch roles", s.cluster.Watch(live)) })
	g.Go(func() error { return wrap("phases", s.announce(live)) })
	g.Go(func() error { return s.awaitViolation(live) })
	err := g.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	return err
}

// errViolated ends a run that has shown what it was for.
var errViolated = errors.New("a violation was seen")

// runLoad offers the load until the plan's end and records how it went.
func (s *session) runLoad(ctx context.Context) error {
	shown := make(chan struct{})
	defer close(shown)
	if s.Status != nil {
		go func() {
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-shown:
					return
				case <-tick.C:
					s.Status(s.load.Progress())
				}
			}
		}()
	}
	rep, err := s.load.Run(ctx, s.spec())
	s.events.emit(run.Event{Type: run.LoadEnded, Data: rep.Data()})
	return err
}

// awaitViolation returns errViolated with the first violation that the load
// generator tells of. It does not wait for what is still in flight: by the end
// of the load, the faults are long to be healed.
func (s *session) awaitViolation(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case v := <-s.load.Violated():
		s.violated = true
		s.events.emit(run.Event{Type: run.Violated, Text: v.Text, Data: map[string]any{
			"op": v.Op, "returned_ns": v.Returned, "found_ns": v.Found,
		}})
		return errViolated
	}
}

// close ends the run on every path, also after an interrupt: it heals, writes
// what was recorded, takes the cluster down and reports what could not be undone.
// Each step has a time of its own: one that hangs takes none from the next.
func (s *session) close(ctx context.Context, cause error, interrupted bool) error {
	ctx = context.WithoutCancel(ctx)
	failed := func(err error) {
		if err != nil && !interrupted && !errors.Is(err, errors.ErrUnsupported) {
			s.events.emit(run.Event{Type: run.TestbedFailed, Text: err.Error()})
		}
	}
	failed(cause) // before what follows from it
	var errs []error
	step := func(what string, f func(context.Context) error) error {
		ctx, cancel := context.WithTimeoutCause(ctx, closeWithin, fmt.Errorf("not within %v", closeWithin))
		defer cancel()
		err := wrap(what, f(ctx))
		errs = append(errs, err)
		return err
	}
	if s.nemesis != nil {
		failed(step("heal", s.nemesis.Close))
	}
	if s.load != nil {
		failed(step("write history", s.load.Finish))
	}
	s.end(ctx, cause)
	if s.cluster != nil {
		_ = step("stop cluster", s.cluster.Down) // no fault of the run's; told by the caller, and in the journal
	}
	errs = append(errs, wrap("clean up", s.journal.Unwind()), s.events.close())
	return errors.Join(errs...)
}

// end writes the last lines of the record, once. cause is why the run ended
// early, or nil.
func (s *session) end(ctx context.Context, cause error) {
	if s.ended.Swap(true) {
		return
	}
	if s.cluster != nil {
		s.reportCache(ctx)
		s.reportWire(ctx)
	}
	if s.violated {
		cause = errors.Join(errViolated, cause)
	}
	e := run.Event{Type: run.RunEnded}
	if cause != nil {
		e.Text = cause.Error()
	}
	s.events.emit(e)
	s.events.seal()
}

// reportCache records how writing through to the cache went, if there is one.
func (s *session) reportCache(ctx context.Context) {
	t, ok := s.target.(*systems.KVServer)
	if !ok || s.Plan.Target.Downstream == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, boxWithin)
	defer cancel()
	var writes, failed, dropped, retried, late, waits, wait, most float64
	for _, n := range s.cluster.Nodes() {
		v, err := t.Metrics(ctx, n.Admin())
		if err != nil { // it is down, and what it counted with it
			continue
		}
		writes, failed, dropped = writes+v["downstream_writes"], failed+v["downstream_failed"], dropped+v["downstream_dropped"]
		retried, waits, wait = retried+v["downstream_retried"], waits+v["downstream_wait_count"], wait+v["downstream_wait_ns"]
		late, most = late+v["downstream_late"], max(most, v["downstream_wait_max_ns"])
	}
	s.events.emit(run.Event{Type: run.CacheReport, Data: map[string]any{
		"writes": writes, "failed": failed, "dropped": dropped, "retried": retried, "late": late,
		"wait_mean_ns": wait / max(waits, 1), "wait_max_ns": most,
	}})
}

// reportWire records how late the wire was with the packets it held, what it
// lost because it could not keep up, and what it did on each link.
func (s *session) reportWire(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, boxWithin)
	defer cancel()
	sw := s.cluster.Switch()
	st, ok, err := sw.WireStats(ctx, false)
	if err != nil || !ok { // a wire that died was reported when it did
		return
	}
	names := map[int]string{}
	for _, p := range sw.Ports() {
		names[p.Index] = p.Name
	}
	lost := st.Overruns + st.WriteErrors
	links := map[string]wire.Counters{}
	for _, p := range st.Pairs {
		lost += p.Overflowed
		if p.Seen > 0 {
			links[names[p.Src]+">"+names[p.Dst]] = p.Counters
		}
	}
	s.events.emit(run.Event{Type: run.WireReport, Data: map[string]any{
		"lateness_p50_ns": st.Lateness.P50, "lateness_p99_ns": st.Lateness.P99, "lateness_max_ns": st.Lateness.Max,
		"frames": st.Lateness.N, "overruns": st.Overruns, "lost": lost, "scheduling": st.Sched, "cpu_ns": st.CPU, "links": links,
	}})
}
