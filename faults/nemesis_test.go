package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"brownout/cluster"
	"brownout/internal/clock"
	"brownout/internal/plan"
	"brownout/internal/run"
)

// A stage is a place to play at without a kernel: a provider that only notes
// what is done, and a meter that says yes while the provider is at work.
type stage struct {
	mu      sync.Mutex
	st      []cluster.Status
	forced  map[string]int // injections in force, by site
	log     []string
	refuse  error // of Inject
	stuck   int   // Heals that fail
	lasting time.Duration
	meterOf func(kind string) Meter
	probe   error
}

func newStage() *stage { return &stage{st: five(), forced: map[string]int{}} }

func (s *stage) note(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprintf(format, a...))
}

func (s *stage) statuses(context.Context) []cluster.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.st)
}

func (s *stage) lead(name string, term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.st {
		s.st[i].Term, s.st[i].Role = term, "follower"
		if s.st[i].Node == name {
			s.st[i].Role = "leader"
		}
	}
}

func (s *stage) candidates(string) []candidate { return []candidate{{"fake", s}} }
func (s *stage) meter(kind string, site Site, _ Dose) (Meter, error) {
	if s.meterOf != nil {
		return s.meterOf(kind), nil
	}
	return &stageMeter{s, site}, nil
}
func (s *stage) Probe(context.Context) error { return s.probe }

func (s *stage) Inject(_ context.Context, site Site, d Dose) (Injection, error) {
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	name := strings.Join(site.Names(), " ")
	s.note("inject %s", name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forced[name]++
	i := &stageInjection{s: s, name: name}
	if s.lasting > 0 {
		return stageFinite{i, s.lasting}, nil
	}
	return i, nil
}

type stageInjection struct {
	s    *stage
	name string
}

func (i *stageInjection) Set(_ context.Context, d Dose) error {
	i.s.note("set %s %v", i.name, d.Duration("add"))
	return nil
}

func (i *stageInjection) Heal(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	if i.s.stuck > 0 {
		i.s.stuck--
		return errors.New("stuck")
	}
	i.s.log = append(i.s.log, "heal "+i.name)
	i.s.forced[i.name]--
	return nil
}

type stageFinite struct {
	*stageInjection
	lasting time.Duration
}

func (i stageFinite) Done() <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(i.lasting, func() { close(c) })
	return c
}

type stageMeter struct {
	s    *stage
	site Site
}

func (m *stageMeter) inForce() bool {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.s.forced[strings.Join(m.site.Names(), " ")] > 0
}

func (m *stageMeter) Baseline(ctx context.Context) (Reading, error) {
	m.s.note("baseline %s", strings.Join(m.site.Names(), " "))
	if m.inForce() {
		m.s.note("the baseline is not healthy")
	}
	sleep(ctx, 300*time.Millisecond)
	return Reading{}, ctx.Err()
}

func (m *stageMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	yes := m.inForce()
	<-ctx.Done()
	return Reading{Values: map[string]any{"n": 1}}, Answer{yes, "as asked"}, nil
}

func (m *stageMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	return Reading{}, Answer{!m.inForce(), "looked"}, nil
}
func (m *stageMeter) Close() error { return nil }

// A tape records events, in words of a test's choosing.
type tape struct {
	mu     sync.Mutex
	events []run.Event
}

func (t *tape) emit(e run.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, e)
}

// words are the events of one fault ("" for all), with times rounded to 10 ms.
func (t *tape) words(fault string) (out []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.events {
		if fault != "" && e.Fault != fault {
			continue
		}
		w := fmt.Sprintf("%v %s", time.Duration(e.T).Round(10*time.Millisecond), strings.TrimPrefix(string(e.Type), "fault."))
		if e.Type == run.FaultFired {
			w += " " + strings.Join(e.Nodes, " ")
		}
		if e.Data["final"] == false {
			w += " early"
		}
		out = append(out, strings.TrimSpace(w+" "+string(e.Bit)+string(e.Healed)))
	}
	return out
}

func (t *tape) text(typ run.EventType) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range slices.Backward(t.events) {
		if e.Type == typ {
			return e.Text
		}
	}
	return ""
}

func play(t *testing.T, s *stage, ctx context.Context, fs ...plan.Fault) (*tape, error) {
	t.Helper()
	tape := &tape{}
	n := newNemesis(t.Context(), s, clock.At(clock.Raw()), 1, tape.emit)
	err := n.Play(ctx, fs)
	for name, forced := range s.forced {
		if forced != 0 {
			t.Errorf("%s: %d faults in force after Play", name, forced)
		}
	}
	if left := n.List(); len(left) > 0 {
		t.Errorf("faults listed after Play: %v", left)
	}
	return tape, err
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const s1 = time.Second

func TestPlayFiresMeasuresHealsAndVerifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		tape, err := play(t, s, t.Context(), plan.Fault{ID: "f1", Kind: "disk.delay", On: "leader", Start: 2 * s1, End: 5 * s1})
		if err != nil {
			t.Error(err)
		}
		same(t, "events", tape.words(""), []string{
			"2s fired n2", "3.03s measured early yes", "4.99s measured yes", "5s healed", "5s verified yes",
		})
		same(t, "actions", s.log, []string{"baseline n2", "inject n2", "heal n2"})
	})
}

func TestAFaultHitsWhoHasTheRoleWhenItFires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		time.AfterFunc(1900*time.Millisecond, func() { s.lead("n4", 8) }) // after the baseline
		tape, _ := play(t, s, t.Context(), plan.Fault{ID: "f1", Kind: "disk.delay", On: "leader", Start: 2 * s1, End: 3 * s1})
		same(t, "actions", s.log, []string{"baseline n2", "baseline n4", "inject n4", "heal n4"})
		if e := tape.words("")[0]; e != "2.3s fired n4" {
			t.Errorf("first event = %q", e)
		}
	})
}

func TestARoleThatMovesIsToldOnceAndOnlyFollowedIfAsked(t *testing.T) {
	for _, tt := range []struct {
		follow string
		want   []string
	}{
		{"", []string{"baseline n2", "inject n2", "heal n2"}},
		{"role", []string{"baseline n2", "inject n2", "heal n2", "baseline n4", "inject n4", "heal n4"}},
	} {
		t.Run("follow "+tt.follow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				time.AfterFunc(2*s1, func() { s.lead("n4", 8) })
				tape, _ := play(t, s, t.Context(), plan.Fault{ID: "f1", Kind: "disk.delay", On: "leader", Follow: tt.follow, Start: s1, End: 6 * s1})
				same(t, "actions", s.log, tt.want)
				moves := 0
				for _, w := range tape.words("") {
					if strings.HasSuffix(w, " role") {
						moves++
					}
				}
				if text := tape.text(run.RoleMoved); moves != 1 || !strings.Contains(text, "n4") {
					t.Errorf("role moved %d times, %q", moves, text)
				}
				if words := tape.words(""); words[len(words)-1] != "6s verified yes" {
					t.Errorf("events = %q", words)
				}
			})
		})
	}
}

func TestAnInterruptHealsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*s1, cancel)
		tape, err := play(t, s, ctx,
			plan.Fault{ID: "f1", Kind: "disk.delay", On: "n1", Start: s1, End: 60 * s1},
			plan.Fault{ID: "f2", Kind: "disk.delay", On: "n2", Start: 30 * s1, End: 60 * s1})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Play = %v", err)
		}
		same(t, "events of f1", tape.words("f1"), []string{"1s fired n1", "2s measured yes", "2s healed", "2s verified yes"})
		same(t, "events of f2", tape.words("f2"), nil)
	})
}

func TestWhatCannotBeInjectedIsAnEventAndTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.refuse = errors.New("no room")
		tape, err := play(t, s, t.Context(),
			plan.Fault{ID: "f1", Kind: "disk.delay", On: "n1", Start: s1, End: 3 * s1},
			plan.Fault{ID: "f2", Kind: "disk.delay", On: "n9", Start: s1, End: 3 * s1})
		if err != nil {
			t.Error(err)
		}
		same(t, "events of f1", tape.words("f1"), []string{"0s failed"})
		if text := tape.text(run.FaultFailed); !strings.HasPrefix(text, "not applied: ") {
			t.Errorf("text = %q", text)
		}
		if w := tape.words("f2"); len(w) != 1 {
			t.Errorf("events of a selector that means nobody = %q", w)
		}
	})
}

func TestWhatCannotBeHealedIsTriedAgainThenTold(t *testing.T) {
	for _, tt := range []struct {
		name  string
		stuck int
		fails bool
	}{{"twice stuck", 2, false}, {"stuck for good", 1000, true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				s.stuck = tt.stuck
				tape := &tape{}
				n := newNemesis(t.Context(), s, clock.At(clock.Raw()), 1, tape.emit)
				err := n.Play(t.Context(), []plan.Fault{{ID: "f1", Kind: "disk.delay", On: "n1", Start: s1, End: 2 * s1}})
				if (err != nil) != tt.fails || (n.Close(t.Context()) != nil) != tt.fails {
					t.Errorf("Play = %v", err)
				}
				if got := tape.text(run.FaultFailed); (got != "") != tt.fails {
					t.Errorf("failed event = %q", got)
				}
			})
		})
	}
}

func TestOverlappingFaultsAreMeasuredBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		var spans sync.Map
		s.meterOf = func(kind string) Meter { return &spanMeter{stageMeter{s, Site{Nodes: []string{"n1"}}}, kind, &spans} }
		// f2 begins and ends within f1, on the same disk.
		tape, err := play(t, s, t.Context(),
			plan.Fault{ID: "f1", Kind: "disk.delay", On: "n1", Start: s1, End: 10 * s1},
			plan.Fault{ID: "f2", Kind: "disk.delay", On: "n1", Start: 4 * s1, End: 6 * s1, Params: plan.Params{"second": true}})
		if err != nil {
			t.Error(err)
		}
		measured, _ := spans.Load("first")
		// f1 is measured in [1.03, 4] and [6, 9.99], f2 in [4.03, 5.99].
		if got := measured.(time.Duration).Round(50 * time.Millisecond); got != 6950*time.Millisecond {
			t.Errorf("f1 was measured for %v, want 6.95s", got)
		}
		measured, _ = spans.Load("second")
		if got := measured.(time.Duration).Round(50 * time.Millisecond); got != 1950*time.Millisecond {
			t.Errorf("f2 was measured for %v, want 1.95s", got)
		}
		var why string
		for _, e := range tape.events {
			if e.Fault == "f2" && e.Type == run.FaultMeasured {
				why = e.Text
			}
		}
		if !strings.Contains(why, "beyond f1 disk.delay") {
			t.Errorf("why of f2 = %q", why)
		}
	})
}

func TestFaultsThatEndAcrossEachOtherAreVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		var spans sync.Map
		s.meterOf = func(kind string) Meter { return &spanMeter{stageMeter{s, Site{Nodes: []string{"n1"}}}, kind, &spans} }
		// When f2 could be looked at, what its baseline was taken beside is gone; f3
		// begins as f1 ends.
		tape, err := play(t, s, t.Context(),
			plan.Fault{ID: "f1", Kind: "disk.delay", On: "n1", Start: s1, End: 6 * s1},
			plan.Fault{ID: "f2", Kind: "disk.delay", On: "n1", Start: 2 * s1, End: 5 * s1, Params: plan.Params{"second": true}},
			plan.Fault{ID: "f3", Kind: "disk.delay", On: "n1", Start: 4 * s1, End: 8 * s1},
			plan.Fault{ID: "f4", Kind: "disk.delay", On: "n1", Start: 6 * s1, End: 7 * s1})
		if err != nil {
			t.Error(err)
		}
		for _, id := range []string{"f1", "f2", "f3", "f4"} {
			gone, bit := "", run.BitUnmeasured
			for _, e := range tape.events {
				if e.Fault == id && e.Type == run.FaultVerified {
					gone = fmt.Sprintf("%s: %s", e.Healed, e.Text)
				}
				if e.Fault == id && e.Type == run.FaultMeasured {
					bit = e.Bit
				}
			}
			if !strings.HasPrefix(gone, "yes: looked") || bit != run.BitYes {
				t.Errorf("%s: bit %s, gone %q", id, bit, gone)
			}
			if id == "f2" && !strings.Contains(gone, "changed between baseline (f1 disk.delay) and reading (none)") {
				t.Errorf("%s does not say that its baseline was another: %q", id, gone)
			}
		}
	})
}

func TestAFaultRemovedByHandDoesNotWaitForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		tape := new(tape)
		n := newNemesis(t.Context(), s, clock.At(clock.Raw()), 1, tape.emit)
		var ids []string
		for range 2 {
			id, err := n.Add(t.Context(), plan.Fault{Kind: "disk.delay", On: "n1"})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		began := time.Now()
		if err := n.Remove(t.Context(), ids[0]); err != nil || time.Since(began) > 3*time.Second {
			t.Errorf("removed after %v: %v", time.Since(began), err)
		}
		if last := tape.events[len(tape.events)-1]; last.Type != run.FaultVerified || !strings.Contains(last.Text, "in force here ("+ids[1]) {
			t.Errorf("last event %+v", last)
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A spanMeter adds up how long it was asked to look.
type spanMeter struct {
	stageMeter
	kind  string
	spans *sync.Map
}

func (m *spanMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	began := time.Now()
	<-ctx.Done()
	name := "first"
	if d.Bool("second") {
		name = "second"
	}
	was, _ := m.spans.LoadOrStore(name, time.Duration(0))
	m.spans.Store(name, was.(time.Duration)+time.Since(began))
	return Reading{Values: map[string]any{"n": 1}}, Answer{true, "as asked"}, nil
}

func (m *spanMeter) Healed(context.Context) (Reading, Answer, error) {
	return Reading{}, Answer{true, "looked"}, nil
}

func TestAFaultWithoutLengthEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.lasting = 500 * time.Millisecond
		tape, _ := play(t, s, t.Context(), plan.Fault{ID: "f1", Kind: "gc.pause", On: "n1", Start: s1, End: s1})
		same(t, "events", tape.words(""), []string{"1s fired n1", "1.5s measured yes", "1.5s healed", "1.5s verified yes"})
	})
}

func TestPrepareTellsAllThatIsMissing(t *testing.T) {
	s := newStage()
	s.probe = &Unsupported{What: "fake", Why: "it is not there", Cure: "none"}
	n := newNemesis(t.Context(), s, clock.At(clock.Raw()), 1, func(run.Event) {})
	_, err := n.Prepare(t.Context(), []plan.Fault{{ID: "f1", Kind: "disk.delay"}, {ID: "f2", Kind: "net.delay"}})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "f1: ") || !strings.Contains(err.Error(), "f2: ") {
		t.Errorf("Prepare = %v", err)
	}
	s.probe = nil
	n = newNemesis(t.Context(), s, clock.At(clock.Raw()), 1, func(run.Event) {})
	got, err := n.Prepare(t.Context(), []plan.Fault{{ID: "f1", Kind: "disk.delay"}})
	if diff := cmp.Diff(map[string]run.Provider{"f1": {Name: "fake", Refused: map[string]string{}}}, got); err != nil || diff != "" {
		t.Errorf("Prepare: %v\n%s", err, diff)
	}
}

func TestFaultsByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		tape := &tape{}
		n := newNemesis(t.Context(), s, clock.At(clock.Raw()), 1, tape.emit)
		a, err := n.Add(t.Context(), plan.Fault{Kind: "disk.delay", On: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		b, err := n.Add(t.Context(), plan.Fault{Kind: "disk.delay", On: "n2", End: 5 * s1})
		if err != nil || a == b {
			t.Fatal(a, b, err)
		}
		if _, err := n.Add(t.Context(), plan.Fault{Kind: "disk.delay", On: "n9"}); err == nil {
			t.Error("a fault on nobody was added")
		}
		time.Sleep(10 * s1)
		list := n.List()
		if len(list) != 1 || list[0].ID != a || list[0].Bit != run.BitYes || list[0].Nodes[0] != "n1" {
			t.Errorf("list = %+v", list)
		}
		if err := n.Remove(t.Context(), b); err == nil {
			t.Error("a fault that is over was removed")
		}
		if err := n.Remove(t.Context(), a); err != nil {
			t.Error(err)
		}
		words := tape.words(a)
		if !strings.HasSuffix(words[len(words)-1], "verified yes") {
			t.Errorf("events = %q", words)
		}
		if _, err := n.Add(t.Context(), plan.Fault{Kind: "disk.delay", On: "n3"}); err != nil {
			t.Error(err)
		}
		if err := n.Close(t.Context()); err != nil || len(n.List()) != 0 {
			t.Errorf("Close = %v, left %v", err, n.List())
		}
		for name, forced := range s.forced {
			if forced != 0 {
				t.Errorf("%s: %d faults in force after Close", name, forced)
			}
		}
	})
}
