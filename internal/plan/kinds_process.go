package plan

// processKinds are the faults of processes and the runtime inside them.
var processKinds = []Kind{
	{
		Name: "gc.pause", Doc: "a real stop-the-world of given length inside the target's Go runtime",
		Mechanism: "a goroutine that cannot be preempted holds its P while another starts a collection: the runtime waits, and accounts for it as a GC pause",
		Probe:     "gaps between answers to pings from the clients' namespace, and the runtime's own count of pauses; both must agree",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "length", Type: Duration, Required: true, Min: "1ms", Max: "30s", Doc: "of each pause"},
			{Name: "every", Type: Duration, Max: "10m", Doc: "from start to start while the fault lasts; once if absent"},
		},
	},
	{
		Name: "process.pause", Doc: "freeze a node's processes",
		Mechanism: "the freezer of the node's cgroup (v2 first, then SIGSTOP, then v1)",
		Probe:     "gaps between answers to pings from the clients' namespace; the runtime must not know of a GC pause",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "length", Type: Duration, Required: true, Min: "1ms", Max: "10m", Doc: "of each pause"},
			{Name: "every", Type: Duration, Max: "10m", Doc: "from start to start while the fault lasts; once if absent"},
		},
	},
	{
		Name: "process.kill", Doc: "kill -9 a node's processes",
		Mechanism: "SIGKILL; started again with the same data",
		Probe:     "the process's pidfd, and the time until the node answers again",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "restart", Type: Duration, Max: "10m", Doc: "after this time with the same data; at the end of the fault if absent"},
		},
	},
}
