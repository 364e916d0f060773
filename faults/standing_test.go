package faults

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"brownout/internal/plan"
	"brownout/internal/run"
)

// dosed looks once for the dose, early, and then only whether the fault stands.
type dosed struct {
	*stageMeter
	gone func(at time.Duration) bool
	from time.Time
}

func (m *dosed) Measure(context.Context, Dose) (Reading, Answer, error) {
	return Reading{Values: map[string]any{"n": 1}}, Answer{true, "as asked"}, nil
}

func (m *dosed) Undone(context.Context, Dose) string {
	if m.gone(time.Since(m.from)) {
		return "it is away"
	}
	return ""
}

func TestAFaultThatIsUndoneAfterItWasMeasuredDidNotBite(t *testing.T) {
	between := func(from, to time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at >= from && at < to }
	}
	for _, tt := range []struct {
		name    string
		gone    func(time.Duration) bool
		profile *plan.Profile
		bit     string
		why     string
	}{
		{"stands", between(0, 0), nil, "measured yes", "as asked"},
		{"undone for good", between(4*s1, time.Hour), nil, "measured no", "undone 2.1s after it began, by somebody else: it is away; before that: as asked"},
		{"undone and done again", between(4*s1, 4*s1+300*time.Millisecond), nil, "measured no", "undone 2.1s"},
		{"a change in steps", between(4*s1, 4*s1+40*time.Millisecond), nil, "measured yes", "as asked"},
		{"away where its profile has it away", between(4*s1, 6*s1), &plan.Profile{Flap: 4 * s1, Duty: 0.5}, "measured yes", "as asked"},
		{"away where its profile has it in force", between(4*s1, 5*s1), &plan.Profile{Flap: 8 * s1, Duty: 0.5}, "measured no", "undone 2.1s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				from := time.Now()
				s.meterOf = func(string) Meter { return &dosed{&stageMeter{s, Site{Nodes: []string{"n1"}}}, tt.gone, from} }
				f := plan.Fault{ID: "f1", Kind: "cpu.quota", On: "n1", Start: 2 * s1, End: 10 * s1, Params: plan.Params{"percent": 5.0}, Profile: tt.profile}
				tape, err := play(t, s, t.Context(), f)
				if err != nil {
					t.Error(err)
				}
				last := slices.IndexFunc(tape.words(""), func(w string) bool { return strings.HasSuffix(w, tt.bit) })
				if got := tape.text(run.FaultMeasured); last < 0 || !strings.HasPrefix(got, tt.why) {
					t.Errorf("%q, events %q; want %s, %q", got, tape.words(""), tt.bit, tt.why)
				}
			})
		})
	}
}
