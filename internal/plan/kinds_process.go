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
			{Name: "dist", Type: Word, Default: "constant", Words: []string{"constant", "pareto"}, Doc: "of the lengths: all the same, or heavy-tailed with length as their median (Pareto, shape 1.5, cut off at 20 times the median)"},
		},
	},
	{
		Name: "process.pause", Doc: "freeze a node's processes",
		Mechanism: "the freezer of the node's cgroup (v2 first, then SIGSTOP, then v1). A thread that waits in the kernel where nothing may interrupt it, as for a disk that hangs, is named: it runs nothing before it is frozen",
		Probe:     "gaps between answers to pings from the clients' namespace; the runtime must not know of a GC pause",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "length", Type: Duration, Required: true, Min: "1ms", Max: "10m", Doc: "of each pause"},
			{Name: "every", Type: Duration, Max: "10m", Doc: "from start to start while the fault lasts; once if absent"},
			{Name: "dist", Type: Word, Default: "constant", Words: []string{"constant", "pareto"}, Doc: "of the lengths: all the same, or heavy-tailed with length as their median (Pareto, shape 1.5, cut off at 20 times the median)"},
		},
	},
	{
		Name: "gc.storm", Doc: "keep a target's Go collector at work: a large heap of pointers, a low GOGC, and garbage all the time",
		Mechanism: "the target allocates ballast that the collector has to follow pointer by pointer, sets GOGC and GOMEMLIMIT, and makes garbage at a rate; who allocates has to help marking",
		Probe:     "the process's resident memory as the kernel counts it, what its collector follows for pointers and how often by the runtime's own count, and gaps between answers to pings",
		Where:     OnNodes, Params: []Param{
			{Name: "heap", Type: ByteSize, Default: "64MiB", Min: "1MiB", Max: "8GiB", Worse: Higher, Doc: "of ballast; at most half of the memory that is available"},
			{Name: "gogc", Type: Count, Default: "10", Min: "1", Max: "1000", Worse: Lower, Doc: "percent that the heap may grow by before the next cycle"},
			{Name: "alloc", Type: ByteRate, Default: "64MiB/s", Min: "64KiB/s", Max: "4GiB/s", Worse: Higher, Doc: "garbage made; asked for, and less if the CPU does not suffice"},
			{Name: "limit", Type: ByteSize, Max: "64GiB", Doc: "GOMEMLIMIT; below the live heap the collector never rests"},
		},
	},
	{
		Name: "process.kill", Doc: "kill -9 a node's processes",
		Mechanism: "SIGKILL; started again with the same data",
		Probe:     "the processes' pidfds, the time until the node has a new process, and the time until it answers again",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "restart", Type: Duration, Max: "10m", Doc: "from the end of its last process to the start of the next, with the same data; at the end of the fault if absent"},
		},
	},
	{
		Name: "process.term", Doc: "ask a node's program to end",
		Mechanism: "SIGTERM to the node's first process; started again with the same data",
		Probe:     "the processes' pidfds, the time until the node has a new process, and the time until it answers again",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "restart", Type: Duration, Max: "10m", Doc: "from the end of its last process to the start of the next, with the same data; at the end of the fault if absent"},
		},
	},
	{
		Name: "process.restart", Doc: "kill -9 nodes and start them again, one after the other, each when the one before is ready",
		Mechanism: "SIGKILL; the data is left, removed, or put back to a copy that was taken while the node stood still for a moment",
		Probe:     "pidfds of the old processes, the time until there is a new one, pings, and marks in the data that must be there, or gone, afterwards",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "data", Type: Word, Default: "same", Words: []string{"same", "lost", "older"}, Doc: "what the node finds: all, nothing, or what it had earlier (a restored backup)"},
			{Name: "down", Type: Duration, Max: "10m", Worse: Higher, Doc: "from the end of a node's last process to the start of the next; not at all if absent"},
			{Name: "age", Type: Duration, Default: "2s", Min: "10ms", Max: "10m", Doc: "of older data: the copy is taken at the start of the fault, the first node restarted so much later"},
		},
	},
	{
		Name: "process.crashloop", Doc: "kill -9 a node's program again and again, started anew each time",
		Mechanism: "SIGKILL at the start of each turn, ready or not; started again at once",
		Probe:     "pidfds of all processes that were seen, and how many of them ended",
		Where:     OnNodes, Params: []Param{
			{Name: "every", Type: Duration, Default: "1s", Min: "50ms", Max: "10m", Doc: "from kill to kill"},
		},
	},
}
