package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestProfileCourse(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name    string
		profile *Profile
		want    string // severities and when they begin, in the first 4 s
		peak    float64
		onOff   bool
	}{
		{"none", nil, "0s 1.00", 1, false},
		{"step", &Profile{Step: 4, Every: s}, "0s 0.25, 1s 0.50, 2s 0.75, 3s 1.00", 1, false},
		{"flap", &Profile{Flap: 2 * s, Duty: 0.25}, "0s 1.00, 500ms 0.00, 2s 1.00, 2.5s 0.00, 4s 1.00", 1, true},
		{"trace", &Profile{Trace: []Point{{s, 0.5}, {2 * s, 0.8}, {3 * s, 0}}}, "0s 0.00, 1s 0.50, 2s 0.80, 3s 0.00", 0.8, false},
		{"trace of all or nothing", &Profile{Trace: []Point{{0, 1}, {2 * s, 0}}}, "0s 1.00, 2s 0.00", 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for at := time.Duration(0); at <= 4*s; {
				severity, until := tt.profile.At(at)
				got = append(got, fmt.Sprintf("%s %.2f", at, severity))
				if until == 0 {
					break
				}
				if until <= at {
					t.Fatalf("At(%s) is until %s", at, until)
				}
				at = until
			}
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), tt.want)
			}
			if tt.profile.Peak() != tt.peak {
				t.Errorf("peak %v, want %v", tt.profile.Peak(), tt.peak)
			}
			if tt.profile != nil && tt.profile.OnOff() != tt.onOff {
				t.Errorf("OnOff() = %v", tt.profile.OnOff())
			}
		})
	}
}

func TestRampAndSineReachTheirPeakByLevels(t *testing.T) {
	ramp := &Profile{Ramp: 2 * time.Second}
	last := 0.0
	changes := 0
	for at := time.Duration(0); ; changes++ {
		severity, until := ramp.At(at)
		if severity <= last {
			t.Fatalf("at %s the ramp goes from %v to %v", at, last, severity)
		}
		last = severity
		if until == 0 {
			break
		}
		at = until
	}
	if last != 1 || changes != grain-1 {
		t.Errorf("the ramp ends at %v after %d changes", last, changes)
	}
	sine := &Profile{Sine: 4 * time.Second}
	var mean float64
	top := time.Duration(0)
	for at := time.Duration(0); at < sine.Sine; {
		severity, until := sine.At(at)
		mean += severity * float64(until-at) / float64(sine.Sine)
		if severity == 1 {
			top += until - at
		}
		at = until
	}
	if mean < 0.49 || mean > 0.51 || top < 300*time.Millisecond || top > 600*time.Millisecond {
		t.Errorf("a sine's mean is %v, and it is at its top for %s of 4s", mean, top)
	}
}

func TestKindAtSeverity(t *testing.T) {
	k := Kind{Params: []Param{
		{Name: "add", Type: Duration, Worse: Higher},
		{Name: "limit", Type: BitRate, Worse: Lower},
		{Name: "percent", Type: Percent, Worse: Lower},
		{Name: "op", Type: Word},
		{Name: "absent", Type: Duration, Worse: Higher},
	}}
	full := Params{"add_ns": int64(10e6), "limit_bits_per_s": int64(1e6), "percent": 20.0, "op": "fsync"}
	got := k.At(full, 0.25)
	want := Params{"add_ns": int64(2.5e6), "limit_bits_per_s": int64(4e6), "percent": 80.0, "op": "fsync"}
	if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
		t.Errorf("At(0.25) = %v, want %v", got, want)
	}
	if full.Float("add_ns") != 10e6 {
		t.Error("the full dose was changed")
	}
}
