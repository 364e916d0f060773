package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"brownout/cluster"
	"brownout/internal/clock"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/internal/seed"
)

// Bounds of a fault's life.
const (
	lead         = 800 * time.Millisecond // before the start: to aim and to take the meter's baseline
	aimWithin    = 2 * time.Second        // past the start: for roles to settle, when an election is on
	aimTries     = 3                      // baselines taken because a role moved meanwhile
	baseWithin   = 5 * time.Second
	settle       = 30 * time.Millisecond // from the injection until the meter looks
	grace        = 5 * time.Millisecond  // past the end: for the meter, before the heal
	rolePoll     = 200 * time.Millisecond
	firstLook    = time.Second // after which a live view may know whether it bites
	healWithin   = 30 * time.Second
	healTries    = 3
	verifyWithin = 10 * time.Second
	verifyHasty  = time.Second // when the run was interrupted
	verifyPause  = 100 * time.Millisecond
)

// mechanisms are what a nemesis needs of the place it plays at.
type mechanisms interface {
	// statuses asks all nodes.
	statuses(ctx context.Context) []cluster.Status
	// candidates are the providers of a kind, in order of preference.
	candidates(kind string) []candidate
	// meter makes a meter for one fault.
	meter(kind string, site Site, d Dose) (Meter, error)
}

// A Nemesis plays faults: it aims each at whoever its selectors mean when it
// fires, injects, measures, heals it in any case, and looks whether it is gone.
// It is safe for concurrent use.
type Nemesis struct {
	at    mechanisms
	clock clock.Clock
	seed  uint64
	out   func(run.Event)

	ctx  context.Context // of faults added by hand
	stop context.CancelFunc
	wg   sync.WaitGroup // of their goroutines, and of the watchdog

	mu     sync.Mutex
	emits  sync.Mutex
	chosen map[string]chosen // by fault id
	probed map[string]error  // by kind and provider
	lives  []*life           // in force or about to be, in order of their start
	change chan struct{}     // closed and replaced when the faults in force change
	errs   []error           // of healing
	last   int               // number of the last fault added by hand
}

type chosen struct {
	candidate
	report run.Provider
}

// A State is a fault as it stands.
type State struct {
	ID        string
	Kind      string
	Nodes     []string // or links, as "n1>n2"; none before it fired
	Provider  string
	Requested map[string]any
	Measured  map[string]any
	Bit       run.Bit
	Why       string
}

// A life is one fault from its planned start to the proof that it is gone.
type life struct {
	plan.Fault
	by      candidate
	endless bool // it ends when told to, or by itself
	cancel  context.CancelCauseFunc
	seen    *look         // of the longest stint; of the goroutine that plays it
	fired   chan struct{} // closed when it is in force, or never will be
	done    chan struct{} // closed when it is gone

	// Guarded by Nemesis.mu.
	inForce  bool
	severity float64 // of a profile
	site     Site
	state    State
	failure  error
}

func newNemesis(ctx context.Context, at mechanisms, c clock.Clock, seed uint64, emit func(run.Event)) *Nemesis {
	n := &Nemesis{
		at: at, clock: c, seed: seed, out: emit,
		chosen: map[string]chosen{}, probed: map[string]error{}, change: make(chan struct{}),
	}
	n.ctx, n.stop = context.WithCancel(ctx)
	return n
}

// Start sets the run's time line, which is known only when all is ready: the
// healthy links' profile is in force while a load is calibrated, before it.
// It must be called before [Nemesis.Play] and [Nemesis.Add].
func (n *Nemesis) Start(c clock.Clock) {
	n.clock = c
	if at, ok := n.at.(interface{ start(clock.Clock) }); ok {
		at.start(c)
	}
}

func (n *Nemesis) emit(e run.Event) {
	n.emits.Lock()
	defer n.emits.Unlock()
	n.out(e)
}

// Prepare chooses a provider for each fault. Its error tells all that this host
// cannot give; it then matches [errors.ErrUnsupported].
func (n *Nemesis) Prepare(ctx context.Context, fs []plan.Fault) (map[string]run.Provider, error) {
	report := map[string]run.Provider{}
	var errs []error
	for _, f := range fs {
		c, err := n.choose(ctx, f)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.ID, err))
			continue
		}
		report[f.ID] = c.report
	}
	return report, errors.Join(errs...)
}

func (n *Nemesis) choose(ctx context.Context, f plan.Fault) (chosen, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c, ok := n.chosen[f.ID]; ok {
		return c, nil
	}
	cands := n.at.candidates(f.Kind)
	for i, c := range cands {
		cands[i].Provider = remembered{c.Provider, n.probed, f.Kind + " " + c.name}
	}
	c, refused, err := choose(ctx, f.Kind, f.Provider, cands)
	if err != nil {
		return chosen{}, err
	}
	n.chosen[f.ID] = chosen{c, run.Provider{Name: c.name, Refused: refused}}
	return n.chosen[f.ID], nil
}

// remembered probes a provider once.
type remembered struct {
	Provider
	probed map[string]error // guarded by Nemesis.mu
	key    string
}

func (r remembered) Probe(ctx context.Context) error {
	err, ok := r.probed[r.key]
	if !ok {
		err = r.Provider.Probe(ctx)
		if ctx.Err() == nil {
			r.probed[r.key] = err
		}
	}
	return err
}

// Play plays a timeline and returns when every fault of it is healed, also when
// ctx ends before its time. A fault that cannot be applied is an event, and the
// others go on.
func (n *Nemesis) Play(ctx context.Context, fs []plan.Fault) error {
	if _, err := n.Prepare(ctx, fs); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var lives []*life
	for _, f := range fs {
		life, ctx := n.begin(ctx, f)
		// One that the plan gives no length is over when its injection says so.
		life.endless = f.End <= f.Start
		lives = append(lives, life)
		wg.Go(func() { n.live(ctx, life) })
	}
	wg.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, l := range lives {
		if l.failure != nil && !errors.Is(l.failure, errNotApplied) {
			errs = append(errs, fmt.Errorf("%s %s: %w", l.ID, l.Kind, l.failure))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// errNotApplied marks failures after which nothing is in force.
var errNotApplied = errors.New("not applied")

// Causes for which a fault ends before its time.
var (
	errRemoved = errors.New("removed")
	errClosed  = errors.New("all faults are healed")
)

// Add applies a fault now and returns its id when it is in force. It lasts for
// its planned length, or until it is removed or the nemesis closed.
func (n *Nemesis) Add(ctx context.Context, f plan.Fault) (string, error) {
	length := f.End - f.Start
	n.mu.Lock()
	for f.ID == "" || slices.ContainsFunc(n.lives, func(l *life) bool { return l.ID == f.ID }) {
		n.last++
		f.ID = fmt.Sprintf("h%d", n.last)
	}
	delete(n.chosen, f.ID)
	n.mu.Unlock()
	if _, err := n.choose(ctx, f); err != nil {
		return "", err
	}
	f.Start = n.clock.Now()
	f.End = f.Start + max(length, 0)
	l, life := n.begin(n.ctx, f)
	l.endless = length <= 0
	n.wg.Go(func() { n.live(life, l) })
	select {
	case <-l.fired:
	case <-ctx.Done():
		l.cancel(errRemoved)
		<-l.done
		return "", ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return l.ID, l.failure
}

// List tells of the faults in force or about to be, oldest first.
func (n *Nemesis) List() []State {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []State
	for _, l := range n.lives {
		s := l.state
		s.Requested, s.Measured = maps.Clone(s.Requested), maps.Clone(s.Measured)
		out = append(out, s)
	}
	return out
}

// Remove heals a fault before its time and returns when it is gone.
func (n *Nemesis) Remove(ctx context.Context, id string) error {
	n.mu.Lock()
	i := slices.IndexFunc(n.lives, func(l *life) bool { return l.ID == id })
	if i < 0 {
		var ids []string
		for _, l := range n.lives {
			ids = append(ids, l.ID)
		}
		n.mu.Unlock()
		return fmt.Errorf("no fault %q in force (%s)", id, cmp.Or(strings.Join(ids, ", "), "none is"))
	}
	l := n.lives[i]
	n.mu.Unlock()
	l.cancel(errRemoved)
	select {
	case <-l.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return l.failure
}

// Close heals every fault and returns what could not be healed. It waits for
// that until ctx ends.
func (n *Nemesis) Close(ctx context.Context) error {
	n.stop()
	n.mu.Lock()
	lives := slices.Clone(n.lives)
	n.mu.Unlock()
	for _, l := range lives {
		l.cancel(errClosed)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, l := range lives {
			<-l.done
		}
		n.wg.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("heal all faults: %w", context.Cause(ctx))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	err := errors.Join(n.errs...)
	n.errs = nil // told once
	return err
}

// begin registers a fault.
func (n *Nemesis) begin(ctx context.Context, f plan.Fault) (*life, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	by := n.chosen[f.ID].candidate
	l := &life{
		Fault: f, by: by, cancel: cancel, fired: make(chan struct{}), done: make(chan struct{}),
		state: State{ID: f.ID, Kind: f.Kind, Provider: by.name, Bit: run.BitUnmeasured},
	}
	l.state.Requested = l.requested()
	n.lives = append(n.lives, l)
	return l, ctx
}

// requested is the dose with its profile, for events and results.
func (l *life) requested() Dose {
	if l.Profile == nil {
		return l.Params
	}
	d := l.Params.Clone()
	d["profile"] = l.Profile.String()
	return d
}

// live plays one fault from its start to its end.
func (n *Nemesis) live(ctx context.Context, l *life) {
	defer close(l.done)
	defer l.cancel(nil)
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.lives = slices.DeleteFunc(n.lives, func(o *life) bool { return o == l })
		select {
		case <-l.fired:
		default:
			close(l.fired) // it never did
		}
	}()
	if !n.sleepUntil(ctx, l.Start-lead) {
		return
	}
	a, err := n.aim(ctx, l)
	if ctx.Err() != nil {
		a.close()
		return
	}
	if err != nil {
		n.fail(l, fmt.Errorf("%w: %w", errNotApplied, err))
		return
	}
	n.hold(ctx, l, a)
}

// fail records that a fault could not be applied or healed.
func (n *Nemesis) fail(l *life, err error) {
	n.mu.Lock()
	l.failure = err
	if !errors.Is(err, errNotApplied) {
		n.errs = append(n.errs, fmt.Errorf("%s %s: %w", l.ID, l.Kind, err))
	}
	n.mu.Unlock()
	n.emit(run.Event{Type: run.FaultFailed, Fault: l.ID, Kind: l.Kind, Provider: l.by.name, Text: err.Error()})
}

// An aim is where a fault is to be applied, with a meter that has seen the
// place healthy.
type aim struct {
	site  Site
	seats []seat
	meter Meter  // nil if it cannot be measured
	why   string // then
	// Faults in force at the baseline that the meter sees as well.
	beside []string
}

func (a *aim) close() {
	if a != nil && a.meter != nil {
		a.meter.Close() // a meter only observes: what its end may say changes nothing
	}
}

// aim resolves the fault's selectors, takes the meter's baseline, waits for the
// start, and resolves again: a fault hits whoever has the role then. If that is
// somebody else, all but the wait is done again.
func (n *Nemesis) aim(ctx context.Context, l *life) (*aim, error) {
	for try := 1; ; try++ {
		a, err := n.resolve(ctx, l)
		if err != nil {
			return nil, err
		}
		a.meter, err = n.at.meter(l.Kind, a.site, l.Params)
		if err != nil {
			a.why = "no meter: " + err.Error()
		} else {
			base, cancel := context.WithTimeout(ctx, baseWithin)
			a.beside = n.disturbing(l, a.site)
			if _, err = a.meter.Baseline(base); err != nil {
				a.close()
				a.meter, a.why = nil, "no baseline: "+err.Error()
			}
			cancel()
		}
		if !n.sleepUntil(ctx, l.Start) || !roleBound(l.Fault) || try == aimTries {
			return a, ctx.Err()
		}
		now, err := n.resolve(ctx, l)
		if err != nil {
			a.close()
			return nil, err
		}
		if slices.Equal(now.site.Names(), a.site.Names()) {
			a.seats = now.seats
			return a, nil
		}
		a.close()
	}
}

// resolve asks the nodes and applies the selectors, for a while after the start
// if they mean nobody: an election may be on.
func (n *Nemesis) resolve(ctx context.Context, l *life) (*aim, error) {
	for {
		st := n.at.statuses(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// The same fresh stream each time: the same roles mean the same nodes.
		site, err := resolve(l.Fault, st, seed.Stream(n.seed, "fault/"+l.ID))
		if err == nil {
			return &aim{site: site, seats: seats(l.Fault, site, st)}, nil
		}
		if n.clock.Now() > l.Start+aimWithin {
			return nil, fmt.Errorf("aim %s: %w", selector(l.Fault), err)
		}
		if !sleep(ctx, rolePoll/4) {
			return nil, ctx.Err()
		}
	}
}

// hold has a fault in force from now to its end, and heals it whatever happens.
func (n *Nemesis) hold(ctx context.Context, l *life, a *aim) {
	for first := true; a != nil; first = false {
		n.inForce(l, a.site, true) // before it is, so that no meter takes it for its own
		inj, err := n.inject(ctx, l, a.site)
		if err != nil {
			n.inForce(l, a.site, false)
			a.close()
			if ctx.Err() == nil {
				n.fail(l, fmt.Errorf("%w: %w", errNotApplied, err))
			}
			return
		}
		if first {
			n.emit(run.Event{
				T: n.now(), Type: run.FaultFired, Fault: l.ID, Kind: l.Kind, Nodes: a.site.Names(), Provider: l.by.name,
				Requested: l.requested(), Text: selector(l.Fault),
			})
			close(l.fired)
		}
		a = n.stint(ctx, l, a, inj)
	}
}

// stint has a fault in force at one place, heals it, and proves both. It
// returns the next place if the fault follows a role that has moved.
func (n *Nemesis) stint(ctx context.Context, l *life, a *aim, inj Injection) (next *aim) {
	defer a.close()
	over, end := n.until(ctx, l, inj)
	defer end()
	looks := make(chan *look, 1)
	c, _ := inj.(*course)
	go func() { looks <- n.measure(over, l, a, c) }()
	undone := n.stand(over, l, a, c)
	follow := make(chan bool, 1)
	go func() { follow <- n.watchRole(over, l, a, end) }()
	<-over.Done()

	// To heal comes first: past every cancellation, and without waiting for a
	// meter that is late.
	var seen *look
	select {
	case seen = <-looks:
	case <-time.After(grace):
	}
	err := n.heal(ctx, inj)
	healed := n.now()
	n.inForce(l, a.site, false)
	if seen == nil {
		seen = <-looks
	}
	if why := undone(); why != "" {
		seen.bit, seen.why = run.BitNo, why+"; before that: "+seen.why
	}
	// Of several stints the longest tells most.
	if l.seen == nil || seen.took > l.seen.took {
		l.seen = seen
	}
	follows := <-follow && err == nil && ctx.Err() == nil
	if follows {
		if next, err = n.aim(ctx, l); err == nil {
			return next
		}
		if ctx.Err() == nil {
			n.fail(l, fmt.Errorf("%w: follow %s: %w", errNotApplied, l.Follow, err))
		}
	}
	n.emit(run.Event{T: int64(l.seen.at), Type: run.FaultMeasured, Fault: l.ID, Kind: l.Kind, Measured: l.seen.values, Bit: l.seen.bit, Text: l.seen.why})
	if err != nil && !follows {
		n.fail(l, fmt.Errorf("heal: %w", err))
		return nil
	}
	n.emit(run.Event{T: healed, Type: run.FaultHealed, Fault: l.ID, Kind: l.Kind, Nodes: a.site.Names(), Provider: l.by.name})
	n.verify(ctx, l, a)
	return nil
}

// until returns a context that ends when the fault shall: at its planned end,
// when it has ended by itself, or with ctx.
func (n *Nemesis) until(ctx context.Context, l *life, inj Injection) (context.Context, context.CancelFunc) {
	fin, ok := inj.(finite)
	switch {
	case l.End > l.Start:
		return context.WithDeadline(ctx, n.clock.Time(l.End))
	case ok:
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-fin.Done():
				cancel()
			case <-ctx.Done():
			}
		}()
		return ctx, cancel
	case l.endless:
		return context.WithCancel(ctx)
	default:
		return context.WithDeadline(ctx, n.clock.Time(l.End)) // it has no length: over at once
	}
}

// heal tries more than once: nothing is worse than a fault that stays.
func (n *Nemesis) heal(ctx context.Context, inj Injection) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
	defer cancel()
	for range healTries {
		if err = inj.Heal(ctx); err == nil || !sleep(ctx, settle) {
			return err
		}
	}
	return err
}

// A look is what a meter saw of a fault.
type look struct {
	values map[string]any
	bit    run.Bit
	why    string
	at     time.Duration // when it ended
	took   time.Duration
}

// margin keeps the last probes of a meter clear of the heal.
const margin = 10 * time.Millisecond

// measure lets the meter look while the fault is in force and the other faults
// that it would see as well are as they were when it began. A fault that follows
// a course is measured at its peak, and looked for between its turns.
func (n *Nemesis) measure(ctx context.Context, l *life, a *aim, c *course) *look {
	began := n.clock.Now()
	seen := &look{bit: run.BitUnmeasured, why: a.why}
	defer func() { seen.at = n.clock.Now(); seen.took = seen.at - began }()
	if a.meter == nil {
		n.see(l, seen)
		return seen
	}
	if at, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, at.Add(-min(margin, time.Until(at)/4)))
		defer cancel()
		sleep(ctx, min(settle, time.Until(at)/4))
	} else {
		sleep(ctx, settle)
	}
	var others []string
	var note string
	told := false
	dose := l.Params
	var between turns
	if c != nil {
		defer func() { between.judge(seen); n.see(l, seen) }()
		dose = c.kind.At(dose, l.Profile.Peak())
	}
	length := firstLook
	for {
		if seen.bit != run.BitYes {
			// Another fault that was about to go when this one came is gone for good.
			others = n.disturbing(l, a.site)
			note = beside(a.beside, others)
		}
		window, cancel := n.undisturbed(ctx, l, a.site, others)
		if c != nil {
			turn, healthy, over := c.window(window)
			if healthy {
				between.look(turn, a.meter)
				over()
				cancel()
				if ctx.Err() != nil {
					return seen
				}
				continue
			}
			sleep(turn, settle)
			window, cancel = turn, func(undisturbed context.CancelFunc) context.CancelFunc {
				return func() { over(); undisturbed() }
			}(cancel)
		}
		limited, stop := context.WithTimeout(window, length)
		r, answer, err := a.meter.Measure(limited, dose)
		early := limited.Err() == nil // it has seen enough
		early = early && (c == nil || !l.Profile.OnOff() || between.away+between.still > 0)
		stop()
		cancel()
		switch {
		case err != nil && seen.values != nil: // what was seen before still counts
		case err != nil:
			seen.why = err.Error() + note
		case answer.Yes:
			seen.values, seen.bit, seen.why = r.Values, run.BitYes, answer.Why+note
		default:
			seen.values, seen.bit, seen.why = r.Values, run.BitNo, answer.Why+note
		}
		n.see(l, seen)
		if ctx.Err() != nil || early {
			return seen
		}
		if seen.bit == run.BitYes && !told {
			told = true
			n.emit(run.Event{
				T: n.now(), Type: run.FaultMeasured, Fault: l.ID, Kind: l.Kind, Measured: seen.values, Bit: seen.bit,
				Text: seen.why, Data: map[string]any{"final": false},
			})
		}
		length *= 2
	}
}

// see keeps a reading for List.
func (n *Nemesis) see(l *life, seen *look) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l.state.Measured, l.state.Bit, l.state.Why = maps.Clone(seen.values), seen.bit, seen.why
}

// beside says in words which other faults are part of a reading.
func beside(base, now []string) string {
	if slices.Equal(base, now) {
		if now == nil {
			return ""
		}
		return "; beyond " + strings.Join(now, ", ") + ", in force before it"
	}
	return fmt.Sprintf("; NB: other faults of this place changed between baseline (%s) and reading (%s)",
		cmp.Or(strings.Join(base, ", "), "none"), cmp.Or(strings.Join(now, ", "), "none"))
}

// inForce notes where a fault is in force, or that it is no longer.
func (n *Nemesis) inForce(l *life, site Site, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l.inForce, l.site = on, site
	if on {
		l.state.Nodes = site.Names()
	}
	close(n.change)
	n.change = make(chan struct{})
}

// disturbing returns the other faults in force that a meter of l at site would see.
func (n *Nemesis) disturbing(l *life, site Site) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.disturbingLocked(l, site)
}

func (n *Nemesis) disturbingLocked(l *life, site Site) (ids []string) {
	for _, o := range n.lives {
		if o != l && o.inForce && disturbs(l.Kind, site, o.Kind, o.site) {
			id := o.ID + " " + o.Kind
			if o.Profile != nil {
				id += fmt.Sprintf(" at %.0f%%", o.severity*100)
			}
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// undisturbed waits until the faults that disturb l are just these, and
// returns a context that ends when they no longer are.
func (n *Nemesis) undisturbed(ctx context.Context, l *life, site Site, others []string) (context.Context, context.CancelFunc) {
	are := func(now []string) bool { return slices.Equal(now, others) }
	n.await(ctx, l, site, are)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		n.await(ctx, l, site, func(now []string) bool { return !are(now) })
		cancel()
	}()
	return ctx, cancel
}

// await waits until the faults that disturb l at site are as wanted, or for the
// end of ctx, and returns them.
func (n *Nemesis) await(ctx context.Context, l *life, site Site, wanted func(now []string) bool) []string {
	for {
		n.mu.Lock()
		now, change := n.disturbingLocked(l, site), n.change
		n.mu.Unlock()
		if wanted(now) {
			return now
		}
		select {
		case <-change:
		case <-ctx.Done():
			return now
		}
	}
}

// watchRole looks whether the nodes that were chosen for their role still have
// it, and says so once. If the fault follows its role, it ends the stint then
// and returns true.
func (n *Nemesis) watchRole(ctx context.Context, l *life, a *aim, end context.CancelFunc) bool {
	if a.seats == nil {
		return false
	}
	for sleep(ctx, rolePoll) {
		words := moved(a.seats, n.at.statuses(ctx))
		if words == "" || ctx.Err() != nil {
			continue
		}
		n.emit(run.Event{T: n.now(), Type: run.RoleMoved, Fault: l.ID, Kind: l.Kind, Nodes: a.site.Names(), Text: words})
		if l.Follow != "" {
			end()
			return true
		}
		return false
	}
	return false
}

// verify has the meter look at the healed place until it sees it healthy.
// Other faults that it would see too are waited for, but for those that its
// baseline saw: they may be there, or gone by now.
func (n *Nemesis) verify(ctx context.Context, l *life, a *aim) {
	e := run.Event{Type: run.FaultVerified, Fault: l.ID, Kind: l.Kind, Healed: run.HealedNo}
	if a.meter == nil {
		e.T, e.Text = n.now(), a.why
		n.emit(e)
		return
	}
	patience := ctx
	if errors.Is(context.Cause(ctx), errRemoved) { // by hand, as others that have no end
		ctx = context.WithoutCancel(ctx)
		var stop context.CancelFunc
		patience, stop = context.WithTimeout(ctx, verifyHasty)
		defer stop()
	}
	known := func(now []string) bool {
		return !slices.ContainsFunc(now, func(o string) bool { return !slices.Contains(a.beside, o) })
	}
	others := n.await(patience, l, a.site, known)
	if ctx.Err() == nil && !known(others) {
		e.T, e.Text = n.now(), "not looked at: other faults are in force here ("+strings.Join(others, ", ")+")"
		n.emit(e)
		return
	}
	note := ""
	if !slices.Equal(others, a.beside) {
		note = beside(a.beside, others)
	}
	within := verifyWithin
	if ctx.Err() != nil {
		within = verifyHasty
	}
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	if ctx.Err() == nil { // an interrupt makes it hasty also in the middle
		defer context.AfterFunc(ctx, func() { time.AfterFunc(verifyHasty, cancel) })()
	}
	for {
		r, answer, err := a.meter.Healed(look)
		switch {
		case err != nil:
			e.Text = cmp.Or(e.Text, err.Error())
		default:
			e.Measured, e.Text = r.Values, answer.Why+note
			if answer.Yes {
				e.Healed = run.HealedYes
			}
		}
		_, over := errors.AsType[*overError](err)
		if e.Healed == run.HealedYes || over || !sleep(look, verifyPause) {
			e.T = n.now()
			n.emit(e)
			return
		}
	}
}

// An overError ends a meter: it will never see more.
type overError struct{ error }

func (e *overError) Unwrap() error { return e.error }

func (n *Nemesis) now() int64 { return int64(n.clock.Now()) }

// sleepUntil waits for a run time, or returns false if ctx ends before.
func (n *Nemesis) sleepUntil(ctx context.Context, t time.Duration) bool {
	return sleep(ctx, t-n.clock.Now())
}

// sleep waits, or returns false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
