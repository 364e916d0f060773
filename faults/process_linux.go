package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/seed"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/proc"
)

var processRows = []row{
	{"gc.pause", meterGCPause, []source{{"agent", newGCPause}}},
	// A process that a v1 freezer holds ignores kill -9, so it comes last.
	{"process.pause", meterPause, []source{{"freezer2", newPause("freezer2")}, {"sigstop", newPause("sigstop")}, {"freezer1", newPause("freezer1")}}},
	{"gc.storm", meterStorm, []source{{"agent", newGCStorm}}},
	{"process.kill", meterKill, []source{{"signal", newKill(syscall.SIGKILL)}}},
	{"process.term", meterKill, []source{{"signal", newKill(syscall.SIGTERM)}}},
	{"process.restart", meterRestart, []source{{"signal", newRestart}}},
	{"process.crashloop", meterCrashloop, []source{{"signal", newCrashloop}}},
}

var pauseNames = []string{"freezer2", "sigstop", "freezer1"}

// A pauseFault freezes all processes of a node.
type pauseFault struct {
	b   *bench
	how string
}

func newPause(how string) func(*bench) Provider {
	return func(b *bench) Provider { return &pauseFault{b, how} }
}

func (f *pauseFault) Probe(ctx context.Context) error {
	if f.how == "sigstop" {
		return probeStop(ctx)
	}
	h, err := cgroup.Discover()
	if err != nil {
		return err
	}
	return f.b.withProbeGroup(h, func(g *cgroup.Group) error {
		fr, err := g.Freezer(freezerVersion(f.how))
		if err != nil {
			return err
		}
		if err := fr.Freeze(ctx); err != nil {
			return err
		}
		return fr.Thaw(ctx)
	})
}

func freezerVersion(how string) int {
	if how == "freezer1" {
		return 1
	}
	return 2
}

// probeStop stops a process of ours. Only a sandbox that filters system calls
// would refuse.
func probeStop(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "_spin", "-wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe() // open until Wait: it waits for our word
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the death signal comes with the end of this thread
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := setStopped(ctx, []int{cmd.Process.Pid}, true, func() bool { return false }); err != nil {
		return &Unsupported{What: "process.pause by SIGSTOP", Why: err.Error(), Cure: "run outside of the sandbox that forbids kill(2)"}
	}
	return nil
}

// Inject freezes at once, thaws after length, and freezes again from start to
// start if every says so.
func (f *pauseFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	l := f.b.frozen[f.how]
	hold := &post[string, bool]{l: l, id: l.id(), places: site.Nodes, value: func(Dose) (bool, error) { return true, nil }}
	return startPulses(ctx, d, nil, f.b.pauseLengths(site.Nodes), hold.Heal, hold.pulse)
}

// setFrozen stops or thaws a node. It returns when all its processes stand
// still, or run. A node that is down has nothing to freeze.
func (b *bench) setFrozen(ctx context.Context, how, node string, frozen bool) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	stuck := stuckTasks{stops: how == "sigstop", when: time.Now().Add(stuckAfter - stuckLook)}
	if how == "sigstop" {
		pids, err := n.Pids()
		if err != nil {
			return err
		}
		err = setStopped(ctx, pids, frozen, func() bool { return stuck.only(n) })
		if frozen {
			b.stuck.Store(node, stuck.String())
		}
		return stuck.named(err)
	}
	fr, err := n.Group().Freezer(freezerVersion(how))
	if err != nil {
		return err
	}
	if !frozen {
		return fr.Thaw(ctx)
	}
	err = fr.FreezeOr(ctx, func() bool { return stuck.only(n) })
	if fr.Version == 2 { // whom v1 has frozen looks asleep as well
		b.stuck.Store(node, stuck.String())
	}
	return stuck.named(err)
}

// setStopped sends SIGSTOP or SIGCONT to processes and waits until the kernel
// says that they obeyed, or enough that those which have to stop cannot run
// before they do. Processes that end meanwhile are no error.
func setStopped(ctx context.Context, pids []int, stopped bool, enough func() bool) error {
	sig := syscall.SIGCONT
	if stopped {
		sig = syscall.SIGSTOP
	}
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("send %v to %d: %w", sig, pid, err))
		}
		if !stopped {
			continue
		}
		// The kernel leaves it to one thread to stop all. That one may be in
		// uninterruptible sleep, so each gets the signal; SIGCONT takes all back.
		tids, _ := proc.Threads(pid)
		for _, tid := range tids {
			_ = unix.Tgkill(pid, tid, sig) // it may have ended
		}
	}
	for _, pid := range pids {
		for {
			st, err := proc.ReadStat(pid)
			if errors.Is(err, os.ErrNotExist) || err == nil && (st.State == 'T') == stopped || stopped && enough() {
				break
			}
			if err != nil {
				errs = append(errs, err)
				break
			}
			if !sleep(ctx, 100*time.Microsecond) {
				errs = append(errs, fmt.Errorf("wait for %v of %d: %w", sig, pid, ctx.Err()))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// Pulses are pauses that come once or again and again.
type pulses struct {
	cancel context.CancelFunc
	end    func(context.Context) error // of a pause that would not end; nil if there is nothing to do
	done   chan struct{}               // closed when no pause is on, nor will be
	may    func(Dose) error            // whether a dose can be given; nil: any

	mu   sync.Mutex
	dose Dose
}

// startPulses plays pulse, which calls begun when its pause is on, and returns
// when it is over. What keeps the first from beginning is returned; one that
// fails later is one pause less, which the meter sees.
// may says what is wrong with a dose, if it is not nil; lengths gives the length
// of each pause from its dose.
func startPulses(ctx context.Context, d Dose, may func(Dose) error, lengths func(Dose) time.Duration, end func(context.Context) error, pulse func(ctx context.Context, d Dose, begun func()) error) (Injection, error) {
	p := &pulses{end: end, done: make(chan struct{}), may: may}
	if err := p.Set(ctx, d); err != nil {
		return nil, err
	}
	// It outlives Inject's context; whoever injected heals.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	first := make(chan error, 1)
	tell := func(err error) {
		select {
		case first <- err:
		default: // told
		}
	}
	go func() {
		defer close(p.done)
		for {
			start := time.Now()
			p.mu.Lock()
			d := p.dose.Clone()
			p.mu.Unlock()
			d["length_ns"] = int64(lengths(d))
			tell(pulse(own, d, func() { tell(nil) }))
			if every := d.Duration("every"); every <= 0 || !sleep(own, time.Until(start.Add(every))) {
				return
			}
		}
	}()
	var err error
	select {
	case err = <-first:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		heal, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
		defer cancel()
		return nil, errors.Join(err, p.Heal(heal))
	}
	if d.Duration("every") <= 0 {
		return onePulse{p}, nil
	}
	return p, nil
}

// Set changes length and every from the next pause on.
func (p *pulses) Set(_ context.Context, d Dose) error {
	if d.Duration("length") <= 0 {
		return fmt.Errorf("pause of %v: no length", d.Duration("length"))
	}
	if p.may != nil {
		if err := p.may(d); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dose = d
	return nil
}

// Heal ends the pause that is on, if it can be ended, and waits for its end.
func (p *pulses) Heal(ctx context.Context) error {
	p.cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of a pause: %w", ctx.Err())
	}
	if p.end == nil {
		return nil
	}
	return p.end(ctx)
}

// A onePulse ends by itself.
type onePulse struct{ *pulses }

func (p onePulse) Done() <-chan struct{} { return p.done }

// Pareto's shape and cut of pauses: with 1.5 the mean is finite and the variance
// is not, as it is said of collectors' pauses.
const (
	paretoShape = 1.5
	paretoCut   = 20 // times the median
)

// pauseLengths draws the lengths of the pauses of some nodes: always the same
// ones in a run of the same seed, so that a meter knows them, too.
func (b *bench) pauseLengths(nodes []string) func(Dose) time.Duration {
	rng := seed.Stream(b.Seed, "pauses/"+strings.Join(nodes, ","))
	return func(d Dose) time.Duration {
		length := d.Duration("length")
		if d.String("dist") != "pareto" {
			return length
		}
		u := 1 - rng.Float64() // never 0
		return time.Duration(float64(length) * min(math.Pow(2*u, -1/paretoShape), paretoCut))
	}
}

// A killFault kills a node's processes, or asks them to end, and starts its
// program again.
type killFault struct {
	b   *bench
	sig syscall.Signal
}

func newKill(sig syscall.Signal) func(*bench) Provider {
	return func(b *bench) Provider { return &killFault{b, sig} }
}

// Probe finds nothing to ask: whoever can start a node can kill it.
func (f *killFault) Probe(context.Context) error { return nil }

func (f *killFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	dead, err := f.b.downs.inject(ctx, site.Nodes, Dose{}, func(Dose) (syscall.Signal, error) { return f.sig, nil })
	if err != nil {
		return nil, err
	}
	return f.b.comeBack(ctx, site.Nodes, dead, time.Now(), d.Duration("restart")), nil
}

// comeBack is what ends a node's death: the end of the fault, or a restart some
// time after the death, which does not wait for it.
func (b *bench) comeBack(ctx context.Context, nodes []string, dead Injection, died time.Time, after time.Duration) Injection {
	k := &killing{b: b, nodes: nodes, dead: dead}
	if after > 0 {
		k.ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
		k.up = make(chan struct{})
		go func() {
			defer close(k.up)
			if sleep(k.ctx, time.Until(died.Add(after))) {
				k.err = k.dead.Heal(context.WithoutCancel(k.ctx))
			}
		}()
		return restarting{k}
	}
	return k
}

// A killing is a node that is down until it is healed.
type killing struct {
	b     *bench
	nodes []string
	dead  Injection

	// Of one that is restarted before its end.
	ctx    context.Context
	cancel context.CancelFunc
	up     chan struct{} // closed when it was started again, or never will be by itself
	err    error         // valid then
}

// Set is not possible: dead is dead.
func (k *killing) Set(context.Context, Dose) error { return nil }

// Heal starts the nodes again if they are down, and returns when all are ready.
func (k *killing) Heal(ctx context.Context) error {
	if k.up != nil {
		k.cancel()
		<-k.up
	}
	errs := []error{k.dead.Heal(ctx)}
	nodes, err := k.b.nodes(k.nodes)
	errs = append(errs, err)
	for _, n := range nodes {
		errs = append(errs, k.b.waitReady(ctx, n))
	}
	return errors.Join(errs...)
}

// A restarting node needs no end of its fault.
type restarting struct{ *killing }

func (k restarting) Done() <-chan struct{} { return k.up }

// setDown ends a node's program by the latest signal asked for, or starts it again.
func (b *bench) setDown(ctx context.Context, node string, asked []syscall.Signal) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	if len(asked) > 0 {
		err := n.Kill(ctx, asked[len(asked)-1])
		if errors.Is(err, cluster.ErrNotRunning) {
			return nil // as asked
		}
		return err
	}
	if n.Running() {
		return nil
	}
	return n.Start(ctx)
}
