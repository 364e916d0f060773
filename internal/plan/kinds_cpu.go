package plan

// cpuKinds are the faults of processor time.
var cpuKinds = []Kind{
	{
		Name: "cpu.quota", Doc: "throttle a node's CPU time: it stalls for the rest of each period in which it used its share up",
		Mechanism: "the CPU bandwidth controller of the node's cgroup (v2 cpu.max or v1 cfs_quota); where there is none, a freezer that stops the node for the rest of a period once it has had its share",
		Probe:     "a spinning process in the same cgroup for a few periods, and the kernel's count of periods in which the node itself was throttled",
		Where:     OnNodes, OneOf: []string{"percent", "of_demand"}, Params: []Param{
			{Name: "percent", Type: Percent, Min: "1%", Max: "6400%", Worse: Lower, Doc: "of one CPU"},
			{Name: "of_demand", Type: Percent, Min: "1%", Max: "1000%", Worse: Lower, Doc: "of the CPU time that the node used in the baseline; where a quota is most telling is near 100%"},
			{Name: "period", Type: Duration, Default: "100ms", Min: "1ms", Max: "1s", Doc: "length of an enforcement period; the longest stall is about one period"},
			{Name: "burst", Type: Duration, Max: "1s", Doc: "unused share that may be saved up and spent at once; at most the share of one period"},
		},
	},
	{
		Name: "cpu.contend", Doc: "let other processes want the node's CPU, too",
		Mechanism: "processes that spin in a cgroup of ours beside the node's, on CPUs that both are pinned to",
		Probe:     "a spinning process in the node's cgroup: its share is what the weights say, and nothing throttles it",
		Where:     OnNodes, Params: []Param{
			{Name: "burners", Type: Count, Default: "4", Min: "1", Max: "256", Worse: Higher, Doc: "threads that spin"},
			{Name: "weight", Type: Count, Default: "1024", Min: "2", Max: "262144", Worse: Higher, Doc: "of all of them together; a node weighs 1024. The share is one of the long run: the kernel takes some 0.4 s to settle on it, and again whenever somebody begins to want the CPU"},
			{Name: "cpus", Type: CPUs, Doc: "that the node and the burners share; without it, one of its own for each node, as far as there are"},
		},
	},
	{
		Name: "cpu.steal", Doc: "take CPU time away from under a node, as a hypervisor does: it waits to run, and nothing throttles it",
		Mechanism: "a process that spins in a cgroup of the highest weight with a quota of its own, on CPUs that the node is pinned to",
		Probe:     "what a spinning process in the node's cgroup no longer gets, and that the kernel counts no throttling of it",
		Where:     OnNodes, Params: []Param{
			{Name: "percent", Type: Percent, Required: true, Min: "1%", Max: "95%", Worse: Higher, Doc: "of each of the node's CPUs"},
			{Name: "burst", Type: Duration, Default: "10ms", Min: "1ms", Max: "500ms", Doc: "taken at once; the period is burst / percent, at most 1s"},
			{Name: "cpus", Type: CPUs, Doc: "that the node is pinned to; without it, one of its own for each node, as far as there are"},
		},
	},
	{
		Name: "cpu.pin", Doc: "let a node run on some CPUs only",
		Mechanism: "the cpuset of the node's cgroup (v2 or v1); where there is none, the affinity of each of its threads",
		Probe:     "where the threads of a spinning process in the node's cgroup, and of the node itself, were seen running, and how much they got",
		Where:     OnNodes, Params: []Param{
			{Name: "cpus", Type: CPUs, Required: true, Doc: "numbers as in /proc/cpuinfo; some must be left out"},
		},
	},
}
