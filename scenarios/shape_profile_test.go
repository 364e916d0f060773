package scenarios

import (
	"strings"
	"testing"
	"time"

	"brownout/internal/plan"

	"github.com/google/go-cmp/cmp"
)

func TestProfiles(t *testing.T) {
	for _, tt := range []struct {
		fault string
		want  *plan.Profile
		err   string
	}{
		{"for: 9s, profile: {ramp: 5s}, disk.delay: {on: leader, add: 20ms}", &plan.Profile{Ramp: 5 * time.Second}, ""},
		{"for: 9s, profile: {step: 4, every: 2s}, disk.delay: {on: leader, add: 20ms}", &plan.Profile{Step: 4, Every: 2 * time.Second}, ""},
		{"for: 9s, profile: {sine: 3s}, net.rate: {from: leader, to: followers, limit: 1Mbit/s}", &plan.Profile{Sine: 3 * time.Second}, ""},
		{"for: 9s, profile: {flap: 2s}, net.partition: {from: leader, to: followers}", &plan.Profile{Flap: 2 * time.Second, Duty: 0.5}, ""},
		{"for: 9s, profile: {flap: 2s, duty: 10%}, net.partition: {from: leader, to: followers}", &plan.Profile{Flap: 2 * time.Second, Duty: 0.1}, ""},
		{
			`for: 9s, profile: {trace: "0s 10%, 1.5s 100%,3s 0%"}, disk.delay: {on: leader, add: 20ms}`,
			&plan.Profile{Trace: []plan.Point{{At: 0, Severity: 0.1}, {At: 1500 * time.Millisecond, Severity: 1}, {At: 3 * time.Second}}}, "",
		},
		{"for: 9s, profile: {ramp: 5s}, net.partition: {from: leader, to: followers}", nil, "net.partition has no degrees"},
		{"for: 9s, profile: {ramp: 10s}, disk.delay: {on: leader, add: 20ms}", nil, "for 9s ends before the profile's 10s"},
		{"for: 9s, profile: {ramp: 5s, sine: 2s}, disk.delay: {on: leader, add: 20ms}", nil, "one entry is one profile"},
		{"for: 9s, profile: {}, disk.delay: {on: leader, add: 20ms}", nil, "no profile in this entry"},
		{"for: 9s, profile: {step: 4}, disk.delay: {on: leader, add: 20ms}", nil, "step and every belong together"},
		{"for: 9s, profile: {step: 1, every: 2s}, disk.delay: {on: leader, add: 20ms}", nil, "1 steps; 2 to 100"},
		{"for: 9s, profile: {flap: 10ms}, disk.delay: {on: leader, add: 20ms}", nil, "10ms is less than 100ms"},
		{"for: 9s, profile: {flap: 1s, duty: 100%}, disk.delay: {on: leader, add: 20ms}", nil, "duty 100%"},
		{"for: 9s, profile: {ramp: 5s, duty: 10%}, disk.delay: {on: leader, add: 20ms}", nil, "duty is of a flap"},
		{`for: 9s, profile: {trace: "0s 10%, 0s 20%"}, disk.delay: {on: leader, add: 20ms}`, nil, "point 2: 0s is not after 0s"},
		{`for: 9s, profile: {trace: "0s 0%"}, disk.delay: {on: leader, add: 20ms}`, nil, "never leaves 0%"},
		{`for: 9s, profile: {trace: "0s 110%"}, disk.delay: {on: leader, add: 20ms}`, nil, "0% to 100%"},
		{`for: 9s, profile: {trace: "0s 10%, 9s 50%"}, disk.delay: {on: leader, add: 20ms}`, nil, "ends before the trace's last point"},
		{`for: 9s, profile: {trace: "soon 10%"}, disk.delay: {on: leader, add: 20ms}`, nil, "point 1:"},
		{`profile: {flap: 2s}, process.pause: {on: leader, length: 20ms}`, nil, "process.pause is over by itself"},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			src := strings.Replace(small, "- {at: 0s, for: 3s, disk.delay: {on: leader, op: fsync, add: 20ms}}", "- {at: 0s, "+tt.fault+"}", 1)
			s, err := Parse([]byte(src), "x.yaml")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "x.yaml:11:") {
					t.Fatalf("error %v, want line 11 and %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p, err := Resolve(s, 1, "")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, p.Faults[0].Profile); d != "" {
				t.Error(d)
			}
		})
	}
}
