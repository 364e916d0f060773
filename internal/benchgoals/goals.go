package main

import "fmt"

var goals = network()

// network are the goals of the network family.
func network() (all []goal) {
	for _, d := range []string{"1ms", "5ms", "10ms", "50ms", "100ms"} {
		for _, g := range []struct {
			q     string
			limit float64
		}{{"p50", 60}, {"p99", 250}} {
			all = append(all, goal{"delay of " + d + ", error " + g.q, "DelayError/" + d, g.q + "-µs", atMost, g.limit, "host-" + g.q + "-µs"})
		}
	}
	for _, share := range []string{"loss-5%", "gilbert-elliott-9.1%", "duplicate-2%", "reorder-25%"} {
		all = append(all,
			goal{share + ", off what was asked", "Shares/" + share, "off-sigmas", atMost, 3, ""},
			goal{share + ", packets with another fate by the same seed", "Shares/" + share, "differ-by-seed", atMost, 0, ""})
	}
	for _, mbit := range []int{1, 10, 100} {
		all = append(all, goal{fmt.Sprintf("rate of %d Mbit/s, UDP", mbit), fmt.Sprintf("UDPRate/%dMbit", mbit), "error-%", atMost, 1, ""})
	}
	for _, mbit := range []int{10, 100} {
		all = append(all, goal{fmt.Sprintf("rate of %d Mbit/s, TCP goodput", mbit), fmt.Sprintf("TCP/rate-%dMbit", mbit), "goodput-%", atLeast, 93, ""})
	}
	all = append(all,
		goal{"wire, small frames read and written singly", "WireFrames/single", "frames/s", atLeast, 300_000, "echo-frames/s"},
		goal{"wire, the same, ended at the receiver's device", "WireFrames/sunk", "frames/s", atLeast, 300_000, "echo-frames/s"},
		goal{"wire, the same, of a bare echo's for as much CPU time", "WireFrames/single", "of-echo-%", atLeast, 75, ""},
		goal{"wire, small frames of super-packets it splits", "WireFrames/split", "frames/s", atLeast, 300_000, "echo-frames/s"},
		goal{"wire, pure delay, one TCP flow", "TCP/delay-100µs", "Mbit/s", atLeast, 5000, ""},
		goal{"wire, per-packet faults, one TCP flow", "TCP/split-duplicate", "Mbit/s", atLeast, 1000, ""},
		goal{"clean pair, round trip added while another is impaired", "HealthyPair", "added-by-fault-µs", atMost, 1, ""},
		goal{"clean pair, round trip added to a bare bridge's", "HealthyPair", "added-by-switch-µs", atMost, 1, ""})
	for _, change := range []string{"delay", "delay-and-heal", "partition-and-heal", "loss", "rate"} {
		for _, q := range []string{"p50", "p99", "max"} {
			all = append(all, goal{"change of a fault (" + change + "), " + q, "Impair/" + change, q + "-µs", atMost, 1000, "host-" + q + "-µs"})
		}
	}
	return append(all,
		goal{"wire, CPU at 2000 frames/s", "WireCPU", "cpu-%", atMost, 15, ""},
		goal{"wire, CPU while no pair is impaired", "WireCPU", "healthy-cpu-%", atMost, 0.5, ""})
}
