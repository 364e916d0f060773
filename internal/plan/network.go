package plan

import "time"

// Network is the healthy state of every link; the zero value is the bare bridge.
// Faults come on top of it, and a baseline is measured with it.
type Network struct {
	Profile    string        `json:"profile,omitempty"`  // of Profiles, which gives what is not said
	Delay      time.Duration `json:"delay_ns,omitempty"` // one way, added on every directed pair
	Jitter     time.Duration `json:"jitter_ns,omitempty"`
	Rate       int64         `json:"rate_bits_per_s,omitempty"`
	Queue      int64         `json:"queue_bytes,omitempty"`
	Congestion string        `json:"congestion,omitempty"` // TCP's congestion control; default cubic
	MTU        int           `json:"mtu,omitempty"`        // default 1500
}

// A NetworkProfile is a kind of healthy network that has a name.
type NetworkProfile struct {
	Name, Doc, Source string
	Delay, Jitter     time.Duration // one way
}

// NetworkProfiles are those that a scenario can name. Half of a published median
// round trip is the delay of one way.
var NetworkProfiles = []NetworkProfile{
	{
		Name: "lan", Doc: "nodes in one data centre", Delay: 120 * time.Microsecond,
		Source: "median round trips of 216 and 268 µs within and between pods: C. Guo et al., Pingmesh, SIGCOMM 2015",
	},
	{
		Name: "az", Doc: "nodes in three availability zones of a region", Delay: 500 * time.Microsecond, Jitter: 50 * time.Microsecond,
		Source: "round trips of 0.3 to 1.5 ms between zones: measured for all pairs of AWS zones by bitsand.cloud (2023) and FlashGrid (2023)",
	},
	{
		Name: "wan", Doc: "nodes on two coasts of a continent", Delay: 33 * time.Millisecond, Jitter: 500 * time.Microsecond,
		Source: "round trips of 60 to 70 ms between US East and US West: the latency tables that cloud providers publish",
	},
}

// WithProfile returns n with what it does not say taken from its profile.
func (n Network) WithProfile() Network {
	for _, p := range NetworkProfiles {
		if p.Name == n.Profile {
			if n.Delay == 0 {
				n.Delay = p.Delay
			}
			if n.Jitter == 0 {
				n.Jitter = min(p.Jitter, n.Delay)
			}
		}
	}
	return n
}
