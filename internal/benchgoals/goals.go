package main

import (
	"fmt"
	"slices"
	"strings"
)

var goals = slices.Concat(network(), disk(), checking())

// disk are the goals of what stands between a node and its disk.
func disk() (all []goal) {
	for _, idle := range []string{"slowfs", "passthrough"} {
		all = append(all,
			goal{idle + " without rules, append and fdatasync, of native", "Idle/append+fdatasync", idle + "-ratio", atMost, 1.4, ""},
			goal{idle + " without rules, append of raft-wal, of native", "Idle/raft-wal_append", idle + "-ratio", atMost, 1.7, ""})
	}
	for _, d := range []string{"1ms", "5ms", "20ms"} {
		all = append(all,
			goal{"disk delay of " + d + ", error p50", "Accuracy/" + d, "error-p50-us", atMost, 300, ""},
			goal{"disk delay of " + d + ", error p99", "Accuracy/" + d, "error-p99-us", atMost, 1500, ""})
	}
	return append(all, goal{"a trapped call that nothing is done to, p50", "Trap", "trap-p50-ns", atMost, 20_000, ""})
}

// checking are the goals of the checker, in CPU time of one core.
func checking() (all []goal) {
	for _, of := range []string{"50 clients, 5% unknown", "50 clients, all known", "50 clients, 10% unknown", "5 clients, 5% unknown", "500 clients, 5% unknown"} {
		all = append(all, goal{"check a million operations, " + of, bench("Check/1M operations, 1 key, " + of), "cpu-ms", atMost, 300, ""})
	}
	all = append(all, goal{"the same with a stale read, and that explained", bench("Check/1M operations, 1 key, 50 clients, 5% unknown, a stale read"), "cpu-ms", atMost, 300 + 1000, ""})
	ten := bench("Check/10M operations, 1 key, 50 clients, 5% unknown")
	all = append(all,
		goal{"check ten million", ten, "cpu-ms", atMost, 3000, ""},
		goal{"the same, memory beside the history", ten, "MB-more", atMost, 1200, ""},
		goal{"a million from history.jsonl", "CheckFiles/history.jsonl", "cpu-ms", atMost, 3000, ""},
		goal{"a million from history.bin", "CheckFiles/history.bin", "cpu-ms", atMost, 1000, ""})
	for _, keys := range []string{"1 keys", "1000 keys", "30000 keys"} {
		all = append(all,
			goal{"check while it runs, 20 000 operations/s, " + keys, bench("Online/" + keys), "core-%", atMost, 5, ""},
			goal{"the same, memory", bench("Online/" + keys), "MB-held", atMost, 64, ""})
	}
	return all
}

// bench is the name that go test gives to one of this name.
func bench(name string) string { return strings.ReplaceAll(name, " ", "_") }

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
