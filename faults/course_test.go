package faults

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"brownout/internal/plan"
	"brownout/internal/run"
)

func delayed(p plan.Profile) plan.Fault {
	return plan.Fault{
		ID: "f1", Kind: "disk.delay", On: "n1", Start: 2 * s1, End: 10 * s1,
		Profile: &p, Params: plan.Params{"add_ns": int64(20e6), "op": "fsync"},
	}
}

func TestAProfileSetsItsSeveritiesAndIsMeasuredAtItsPeak(t *testing.T) {
	for _, tt := range []struct {
		name    string
		profile plan.Profile
		actions []string
		events  []string
	}{
		{
			"steps",
			plan.Profile{Step: 4, Every: s1},
			[]string{"baseline n1", "inject n1", "set n1 10ms", "set n1 15ms", "set n1 20ms", "heal n1"},
			[]string{"2s fired n1", "3s changed", "4s changed", "5s changed", "6.03s measured early yes", "9.99s measured yes", "10s healed", "10s verified yes"},
		},
		{
			"flapping",
			plan.Profile{Flap: 4 * s1, Duty: 0.5},
			[]string{"baseline n1", "inject n1", "heal n1", "inject n1", "heal n1"},
			[]string{"2s fired n1", "3.06s measured early yes", "4s changed", "6s changed", "8s changed", "9.99s measured yes", "10s healed", "10s verified yes"},
		},
		{
			"a trace that begins healthy",
			plan.Profile{Trace: []plan.Point{{At: s1, Severity: 0.5}, {At: 3 * s1, Severity: 0}}},
			[]string{"baseline n1", "inject n1", "heal n1"},
			[]string{"2s fired n1", "3s changed", "4.03s measured early yes", "5s changed", "9.99s measured yes", "10s healed", "10s verified yes"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				tape, err := play(t, s, t.Context(), delayed(tt.profile))
				if err != nil {
					t.Error(err)
				}
				same(t, "actions", s.log, tt.actions)
				same(t, "events", tape.words(""), tt.events)
			})
		})
	}
}

// stubborn is a fault that stays in force between its turns.
type stubborn struct{ *stageMeter }

func (m stubborn) Healed(context.Context) (Reading, Answer, error) {
	return Reading{}, Answer{false, "slow as ever"}, nil
}

func TestAFlappingFaultThatDoesNotGoAwayDidNotBiteAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		s.meterOf = func(string) Meter { return stubborn{&stageMeter{s, Site{Nodes: []string{"n1"}}}} }
		tape, _ := play(t, s, t.Context(), delayed(plan.Profile{Flap: 2 * s1, Duty: 0.5}))
		words := tape.words("")
		if !slices.Contains(words, "9.99s measured no") || !strings.Contains(tape.text(run.FaultMeasured), "still there, 4 of 4 times") {
			t.Errorf("events = %q, %q", words, tape.text(run.FaultMeasured))
		}
	})
}

func TestAProfileEndsWithAnInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		ctx, cancel := context.WithTimeout(t.Context(), 3*s1+s1/2)
		defer cancel()
		_, _ = play(t, s, ctx, delayed(plan.Profile{Step: 4, Every: s1}))
		same(t, "actions", s.log, []string{"baseline n1", "inject n1", "set n1 10ms", "heal n1"})
	})
}

func TestAProfileThatCannotBeFollowedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		synctest.Wait()
		f := delayed(plan.Profile{Flap: 2 * s1, Duty: 0.5})
		go func() {
			sleep(t.Context(), 3*s1+s1/2) // healthy then
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refuse = context.DeadlineExceeded
		}()
		tape, _ := play(t, s, t.Context(), f)
		if text := tape.text(run.FaultFailed); !strings.Contains(text, "its profile stopped: severity 100%") {
			t.Errorf("failed event = %q", text)
		}
	})
}
