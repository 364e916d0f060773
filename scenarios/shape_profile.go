package scenarios

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"brownout/internal/plan"
	"brownout/internal/quantity"
)

// Bounds of a profile. What changes faster than shortestTurn is not measured.
const (
	shortestTurn = 100 * time.Millisecond
	mostSteps    = 100
	mostPoints   = 10_000
)

// profileShape is how severe a fault is over its time.
func profileShape(profile **plan.Profile) *spec {
	p := &plan.Profile{}
	sp := &spec{doc: "how severe the fault is over its time; without it, the full dose all the time", noun: "profile", oneOf: []string{"ramp", "step", "sine", "flap", "trace"}}
	sp.begin = func(*node) { *profile = p }
	turn := func(doc, example string, v *time.Duration) *spec {
		return parsed(doc, example, durationPattern, v, func(t string) (time.Duration, error) {
			d, err := quantity.ParseDuration(t)
			if err == nil && d < shortestTurn {
				err = fmt.Errorf("%s is less than %s", t, quantity.Duration(shortestTurn))
			}
			return d, err
		})
	}
	sp.fields = []field{
		{"ramp", false, turn("from nothing to the full dose in this time, then on", "5s", &p.Ramp)},
		{"step", false, integer("so many equal steps up to the full dose; beside every", "5", 2, mostSteps, func(v int64) error {
			if v < 2 || v > mostSteps {
				return fmt.Errorf("%d steps; 2 to %d", v, mostSteps)
			}
			p.Step = int(v)
			return nil
		})},
		{"every", false, turn("length of a step", "2s", &p.Every)},
		{"sine", false, turn("from nothing to the full dose and back, once in this time", "4s", &p.Sine)},
		{"flap", false, turn("the full dose and nothing by turns, both once in this time", "2s", &p.Flap)},
		{"duty", false, parsed("share of a flap with the full dose; 50% if absent", "50%", percentPattern, &p.Duty, func(t string) (float64, error) {
			v, err := quantity.ParsePercent(t)
			if err == nil && !(v > 0 && v < 100) {
				err = fmt.Errorf("duty %s; above 0%% and below 100%%", t)
			}
			return v / 100, err
		})},
		{"trace", false, parsed("a recorded course: TIME SEVERITY, TIME SEVERITY, ... from the fault's start; the last lasts", "0s 10%, 2s 100%, 4s 0%", "", &p.Trace, parseTrace)},
	}
	return sp
}

func parseTrace(text string) ([]plan.Point, error) {
	var out []plan.Point
	for i, item := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		at, severity, ok := strings.Cut(strings.TrimSpace(item), " ")
		if !ok {
			return nil, fmt.Errorf("point %d: %q is not TIME SEVERITY, as in 2s 50%%", i+1, strings.TrimSpace(item))
		}
		t, err := quantity.ParseDuration(at)
		if err != nil {
			return nil, fmt.Errorf("point %d: %w", i+1, err)
		}
		v, err := quantity.ParsePercent(strings.TrimSpace(severity))
		switch {
		case err != nil:
			return nil, fmt.Errorf("point %d: %w", i+1, err)
		case v > 100:
			return nil, fmt.Errorf("point %d: a severity of %s; 0%% to 100%% of the dose", i+1, quantity.Percent(v))
		case i > 0 && t <= out[i-1].At:
			return nil, fmt.Errorf("point %d: %s is not after %s", i+1, quantity.Duration(t), quantity.Duration(out[i-1].At))
		case i == mostPoints:
			return nil, fmt.Errorf("more than %d points", mostPoints)
		}
		out = append(out, plan.Point{At: t, Severity: v / 100})
	}
	if (&plan.Profile{Trace: out}).Peak() == 0 {
		return nil, errors.New("the trace never leaves 0%")
	}
	return out, nil
}

// checkProfile says what is wrong with a fault's profile, and fills in its defaults.
func (f *Fault) checkProfile(k plan.Kind) (out []problem) {
	p := f.Profile
	if p == nil {
		return nil
	}
	bad := func(field, msg, hint string) {
		out = append(out, problem{path: join("profile", field), msg: msg, hint: hint, needs: []string{"profile"}})
	}
	switch {
	case k.Instant:
		bad("", fmt.Sprintf("%s is over by itself and has no profile", k.Name), "")
	case !p.OnOff() && !k.Scales():
		bad("", fmt.Sprintf("%s has no degrees", k.Name), "write profile: {flap: 2s}")
	}
	if (p.Step > 0) != (p.Every > 0) {
		bad("", "step and every belong together", "write profile: {step: 5, every: 2s}")
	}
	if p.Duty != 0 && p.Flap == 0 {
		bad("duty", "duty is of a flap", "write profile: {flap: 2s, duty: 50%}")
	}
	if f.For > 0 {
		if longest := max(p.Ramp, p.Sine, p.Flap, time.Duration(p.Step)*p.Every); longest > f.For {
			bad("", fmt.Sprintf("for %s ends before the profile's %s: its full dose would hardly be seen", quantity.Duration(f.For), quantity.Duration(longest)), "")
		}
		if n := len(p.Trace); n > 0 && p.Trace[n-1].At >= f.For {
			bad("trace", fmt.Sprintf("for %s ends before the trace's last point at %s", quantity.Duration(f.For), quantity.Duration(p.Trace[n-1].At)), "")
		}
	}
	return out
}
