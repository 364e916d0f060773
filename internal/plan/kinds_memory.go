package plan

// memoryKinds are the faults of memory.
var memoryKinds = []Kind{
	{
		Name: "memory.limit", Doc: "let a node hold no more memory than so much, page cache included and none of it in swap",
		Mechanism: "the memory controller of the node's cgroup (v2 memory.max or v1 limit_in_bytes)",
		Probe:     "a process in the same cgroup that reads a file of zeroes larger than the limit: what the group holds at most meanwhile, as the kernel counts it; and how often the node itself ran into the limit",
		Where:     OnNodes, Params: []Param{
			{Name: "limit", Type: ByteSize, Required: true, Min: "1MiB", Max: "64TiB", Worse: Lower, Doc: "at least what the node holds besides page cache; less is memory.oom"},
		},
	},
	{
		Name: "memory.pressure", Doc: "make a node reclaim memory all the time: a neighbour in its cgroup takes every page that gets free",
		Mechanism: "a limit of what the node holds besides page cache, and some room; a process of ours in the same cgroup that dirties the pages of a file larger than the room, again and again",
		Probe:     "how often the cgroup ran into its limit, and the memory stalls that the kernel counts of it (PSI), both against the time before",
		Where:     OnNodes, Params: []Param{
			{Name: "limit", Type: ByteSize, Default: "16MiB", Min: "1MiB", Max: "1TiB", Worse: Lower, Doc: "room beyond what the node holds at the start"},
			{Name: "rate", Type: ByteRate, Default: "64MiB/s", Min: "64KiB/s", Max: "16GiB/s", Worse: Higher, Doc: "dirtied by the neighbour"},
		},
	},
	{
		Name: "memory.oom", Doc: "have the kernel kill a node for want of memory",
		Mechanism: "a limit of what the node holds, and a process of ours in its cgroup that wants more; the node's processes are the preferred victims, and nobody outside of the cgroup can be one",
		Probe:     "the processes' pidfds, the time until the node has a new process, and the kernel's count of kills for memory in the node's cgroup",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "restart", Type: Duration, Max: "10m", Doc: "from the end of its last process to the start of the next, with the same data; at the end of the fault if absent"},
		},
	},
	{
		Name: "memory.stall", Doc: "let a node wait whenever it needs new memory",
		Mechanism: "a limit of what the node holds; who needs more waits: v1 by the OOM-control pause, exactly until the end, v2 by memory.high, which lets it sleep for two seconds at a time, so that only multiples of them can be given there. On v1 the kernel's own allocations fail meanwhile instead of waiting: a program that starts a thread then may die of it, which is told as its end",
		Probe:     "a process in the same cgroup that takes new pages all the time and tells when it had to wait; and from outside, whether the node stood still",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "length", Type: Duration, Required: true, Min: "10ms", Max: "10m", Worse: Higher, Doc: "of each stall"},
			{Name: "every", Type: Duration, Max: "10m", Doc: "from start to start while the fault lasts; once if absent"},
		},
	},
}
