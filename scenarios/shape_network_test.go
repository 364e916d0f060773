package scenarios

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"brownout/internal/plan"
)

func TestHealthyLinks(t *testing.T) {
	const file = "version: 1\nname: x\nnetwork: %s\nworkload: {load: {rate: 1/s}}\ntimeline: {baseline: 1s}\nexpect: [linearizable]\n"
	for _, tt := range []struct {
		text string
		want plan.Network
		err  string // part of it
	}{
		{"lan", plan.Network{Profile: "lan", Delay: 120 * time.Microsecond}, ""},
		{"{profile: wan, delay: 50ms}", plan.Network{Profile: "wan", Delay: 50 * time.Millisecond, Jitter: 500 * time.Microsecond}, ""},
		{"{profile: wan, delay: 100us}", plan.Network{Profile: "wan", Delay: 100 * time.Microsecond, Jitter: 100 * time.Microsecond}, ""},
		{"{delay: 200us}", plan.Network{Delay: 200 * time.Microsecond}, ""},
		{"{limit: 50Mbit/s, queue: 256KiB, congestion: reno, mtu: 9000}", plan.Network{Rate: 50e6, Queue: 256 << 10, Congestion: "reno", MTU: 9000}, ""},
		{"man", plan.Network{}, "none of lan, az, wan"},
		{"{profile: man}", plan.Network{}, "none of lan, az, wan"},
		{"{delay: 2m}", plan.Network{}, "more than 1m"},
		{"{jitter: 1ms}", plan.Network{}, "more than the delay"},
		{"{queue: 64KiB}", plan.Network{}, "without a limit"},
		{"{limit: 1bit/s}", plan.Network{}, "is not in"},
		{"{limit: 1Mbit/s, queue: 1B}", plan.Network{}, "is not in"},
		{"{mtu: 100}", plan.Network{}, "is not in 1280..9000"},
		{"{congestion: ../x}", plan.Network{}, "no name of a congestion control"},
		{"{loss: 1%}", plan.Network{}, "unknown field"},
	} {
		s, err := Parse([]byte(fmt.Sprintf(file, tt.text)), "x.yaml")
		if err == nil {
			var p *plan.Plan
			if p, err = Resolve(s, 1, ""); err == nil && p.Network != tt.want {
				t.Errorf("%s: %+v, want %+v", tt.text, p.Network, tt.want)
			}
		}
		if (err == nil) != (tt.err == "") || err != nil && (!strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "x.yaml:3")) {
			t.Errorf("%s: %v, want %q", tt.text, err, tt.err)
		}
	}
	for _, p := range plan.NetworkProfiles {
		if p.Source == "" || p.Doc == "" || p.Delay <= 0 || p.Jitter > p.Delay {
			t.Errorf("profile %+v", p)
		}
	}
}
