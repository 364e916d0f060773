package scenarios

import (
	"strings"
	"testing"
)

func TestNetworkFaultsThatCannotBe(t *testing.T) {
	for _, tt := range []struct{ fault, err string }{
		{"net.delay: {from: leader, add: 5ms, jitter: 1ms, dist: pareto, corr: 30%, order: keep}", ""},
		{`net.delay: {from: leader, trace: "5ms, 20ms, 1ms"}`, ""},
		{"net.loss: {from: leader, percent: 5%}", ""},
		{"net.loss: {from: leader, percent: 5%, burst: 8}", ""},
		{"net.loss: {from: leader, to_bad: 1%, to_good: 20%, bad: 50%, good: 0.1%}", ""},
		{"net.loss: {from: leader, every: 10, plane: both}", ""},
		{"net.loss: {from: leader, first: 100}", ""},
		{"net.duplicate: {from: leader, percent: 2%}", ""},
		{"net.reorder: {from: leader, percent: 25%, add: 5ms}", ""},
		{"net.corrupt: {from: leader, percent: 10%}", ""},
		{"net.rate: {from: leader, limit: 10Mbit/s, queue_time: 200ms}", ""},
		{"net.delay: {from: leader}", "none of add, trace"},
		{`net.delay: {from: leader, add: 5ms, trace: "5ms"}`, "two ways to say one thing"},
		{"net.delay: {from: leader, add: 5ms, corr: 30%}", "corr says nothing without jitter"},
		{"net.delay: {from: leader, add: 5ms, dist: normal}", "dist says nothing without jitter"},
		{"net.delay: {from: leader, add: 5ms, provider: frog}", "wire, netem"},
		{"net.partition: {isolate: leader, provider: netem}", "ebpf"},
		{"net.rate: {from: leader, limit: 1Mbit/s, queue: 64KiB, queue_time: 1s}", "two ways to say one thing"},
		{"net.delay: {from: leader, add: 60s}", "nobody could see it"},
		{"net.loss: {from: leader}", "none of percent"},
		{"net.loss: {from: leader, percent: 101%}", "101%"},
		{"net.loss: {from: leader, percent: 5%, every: 3}", "two ways"},
		{"net.loss: {from: leader, to_bad: 5%}", "to_bad needs to_good"},
		{"net.loss: {from: leader, every: 5, burst: 3}", "burst says nothing without percent"},
		{"net.loss: {from: leader, percent: 5%, good: 3%}", "good says nothing without to_bad"},
		{"net.reorder: {from: leader, percent: 25%}", "add"},
		{"net.corrupt: {from: n1, to: n1, percent: 25%}", "no link from n1 to itself"},
		{"net.duplicate: {from: leader, percent: 0%}", "less than 0.01%"},
		{"net.corrupt: {from: leader, percent: 25%, plane: peers}", "peer, client, both"},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			_, err := Parse([]byte(strings.Replace(small, "disk.delay: {on: leader, op: fsync, add: 20ms}", tt.fault, 1)), "x.yaml")
			if tt.err == "" && err != nil && !strings.Contains(err.Error(), "during") || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "x.yaml:11:")) {
				t.Errorf("%v; want %q", err, tt.err)
			}
		})
	}
}
