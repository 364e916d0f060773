package plan

// cpuKinds are the faults of processor time.
var cpuKinds = []Kind{
	{
		Name: "cpu.quota", Doc: "throttle a node's CPU time with the kernel's bandwidth controller",
		Mechanism: "the CPU bandwidth controller of the node's cgroup (v2 cpu.max or v1 cfs_quota)",
		Probe:     "a spinning process in the same cgroup for a few periods, and the kernel's count of periods in which the node itself was throttled",
		Where:     OnNodes, Params: []Param{
			{Name: "percent", Type: Percent, Required: true, Min: "1%", Max: "6400%", Worse: Lower, Doc: "of one CPU"},
			{Name: "period", Type: Duration, Default: "100ms", Min: "1ms", Max: "1s", Doc: "length of an enforcement period; the longest stall is about one period"},
		},
	},
}
