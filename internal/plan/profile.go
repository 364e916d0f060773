package plan

import (
	"fmt"
	"math"
	"time"
)

// A Profile is how severe a fault is over its time: 1 is its dose as written, 0
// is healthy. One of Ramp, Step, Sine, Flap and Trace is set.
type Profile struct {
	Ramp  time.Duration `json:"ramp_ns,omitempty"`  // from nothing to the full dose in this time, then on
	Step  int           `json:"step,omitempty"`     // so many equal steps up to the full dose,
	Every time.Duration `json:"every_ns,omitempty"` // each of this length
	Sine  time.Duration `json:"sine_ns,omitempty"`  // from nothing to the full dose and back, once in this time
	Flap  time.Duration `json:"flap_ns,omitempty"`  // the full dose and nothing by turns, both once in this time,
	Duty  float64       `json:"duty,omitempty"`     // on for this share of it, 0..1
	Trace []Point       `json:"trace,omitempty"`    // a recorded course; the last point lasts
}

// A Point of a trace: so severe from this time on, counted from the fault's start.
type Point struct {
	At       time.Duration `json:"at_ns"`
	Severity float64       `json:"severity"`
}

// String writes a profile as a scenario does, without braces.
func (p *Profile) String() string {
	switch {
	case p.Ramp > 0:
		return fmt.Sprintf("ramp: %s", p.Ramp)
	case p.Step > 0:
		return fmt.Sprintf("step: %d, every: %s", p.Step, p.Every)
	case p.Sine > 0:
		return fmt.Sprintf("sine: %s", p.Sine)
	case p.Flap > 0:
		return fmt.Sprintf("flap: %s, duty: %g%%", p.Flap, p.Duty*100)
	}
	return fmt.Sprintf("trace of %d points", len(p.Trace))
}

// grain is how finely what changes without a break is cut: a ramp has so many
// levels, half a sine too.
const grain = 20

// At returns the severity at a time from the fault's start, and when it is to
// be asked again; 0 says never.
func (p *Profile) At(t time.Duration) (severity float64, until time.Duration) {
	switch {
	case p == nil:
		return 1, 0
	case p.Ramp > 0:
		return climb(t, p.Ramp/grain, grain)
	case p.Step > 0:
		return climb(t, p.Every, p.Step)
	case p.Sine > 0:
		cell := max(p.Sine/(2*grain), 1)
		i := t / cell
		mid := float64(i*cell+cell/2) / float64(p.Sine)
		level := (1 - math.Cos(2*math.Pi*mid)) / 2
		return math.Round(level*grain) / grain, (i + 1) * cell
	case p.Flap > 0:
		begun := t / p.Flap * p.Flap
		on := time.Duration(p.Duty * float64(p.Flap))
		if t < begun+on {
			return 1, begun + on
		}
		return 0, begun + p.Flap
	}
	for _, point := range p.Trace {
		if point.At > t {
			return severity, point.At
		}
		severity = point.Severity
	}
	return severity, 0
}

func climb(t, level time.Duration, levels int) (float64, time.Duration) {
	i := int(t/max(level, 1)) + 1
	if i >= levels {
		return 1, 0
	}
	return float64(i) / float64(levels), time.Duration(i) * level
}

// Peak is the highest severity, at which the dose is measured.
func (p *Profile) Peak() float64 {
	if p == nil || p.Trace == nil {
		return 1
	}
	peak := 0.0
	for _, point := range p.Trace {
		peak = max(peak, point.Severity)
	}
	return peak
}

// OnOff reports whether the profile knows only nothing and the full dose, which
// any fault can give.
func (p *Profile) OnOff() bool {
	for _, point := range p.Trace {
		if point.Severity != 0 && point.Severity != 1 {
			return false
		}
	}
	return p.Flap > 0 || p.Trace != nil
}

// Scales reports whether a fault of this kind has degrees.
func (k Kind) Scales() bool {
	for _, p := range k.Params {
		if p.Worse != "" {
			return true
		}
	}
	return false
}

// At returns the dose d at a severity above 0.
func (k Kind) At(d Params, severity float64) Params {
	if severity == 1 {
		return d
	}
	out := d.Clone()
	for _, p := range k.Params {
		key := p.Key()
		if !d.Has(key) || p.Worse == "" {
			continue
		}
		v := d.Float(key) * severity
		if p.Worse == Lower {
			v = d.Float(key) / severity
		}
		if _, fraction := d[key].(float64); !fraction {
			out[key] = int64(math.Round(v))
		} else {
			out[key] = v
		}
	}
	return out
}

// Key is the name under which [Params] hold a parameter: with its unit.
func (p Param) Key() string {
	switch p.Type {
	case Duration:
		return p.Name + "_ns"
	case BitRate:
		return p.Name + "_bits_per_s"
	case ByteSize:
		return p.Name + "_bytes"
	case ByteRate:
		return p.Name + "_bytes_per_s"
	}
	return p.Name
}
