package plan

// clockKinds are the faults of clocks.
var clockKinds = []Kind{
	{
		Name: "clock.offset", Doc: "restart a node with monotonic and boot time off, as after a reboot or a restored machine",
		Mechanism: "a time namespace (Linux 6.3), which is fixed when a process starts: so the node is killed and started again, at the begin and at the end. The kernel shifts neither the time of day nor clocks that run",
		Probe:     "the clocks that the program itself reads, against the host's, on its admin socket",
		Where:     OnNodes, Params: []Param{
			{Name: "add", Type: Duration, Required: true, Min: "1ms", Max: "876000h", Worse: Higher, Doc: "how much later the node's clocks are; back: at most the host's uptime"},
			{Name: "direction", Type: Word, Default: "forward", Words: []string{"forward", "back"}, Doc: "back makes them earlier"},
		},
	},
	{
		Name: "clock.skew", Doc: "set a node's wall clock wrong while it runs: off by a time, or running fast or slow",
		Mechanism: "the target's own hook: kvserver's wall clock, which its TIME and INFO commands and the leases of `reads: lease` go by. Raft's timers are monotonic and stay; so does what asks the kernel itself, whose time of day is the whole host's and is never touched",
		Probe:     "the TIME command, asked from the clients' namespace, against the host's clock, half a round trip allowed for",
		Where:     OnNodes, OneOf: []string{"add", "rate"}, Params: []Param{
			{Name: "add", Type: Duration, Min: "1ms", Max: "876000h", Worse: Higher, Doc: "a jump of so much"},
			{Name: "rate", Type: Percent, Min: "0.01%", Max: "1000%", Worse: Higher, Doc: "gained, or lost, of the time that passes; back: below 100%"},
			{Name: "direction", Type: Word, Default: "forward", Words: []string{"forward", "back"}, Doc: "back sets the clock back, or makes it slow"},
		},
	},
}
