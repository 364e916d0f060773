package plan

// neighbourKinds are the faults of tenants beside the node.
var neighbourKinds = []Kind{
	{
		Name: "neighbour.noisy", Doc: "put a noisy tenant beside a node: it wants CPU, disk, network and memory of the same host",
		Mechanism: "processes of ours in cgroups of their own, with an ordinary weight, and in a namespace with a port on the switch: they spin up to a quota, write and fsync, send datagrams to the node, and keep touching memory",
		Probe:     "what the kernel counts of the tenant's cgroups and processes, the switch's count of its packets, and how long the node's threads waited to run",
		Where:     OnNodes, AnyOf: []string{"cpu", "disk", "net", "memory"}, Params: []Param{
			{Name: "cpu", Type: Percent, Min: "1%", Max: "6400%", Worse: Higher, Doc: "of one CPU, wherever the scheduler puts it"},
			{Name: "disk", Type: ByteRate, Min: "64KiB/s", Max: "4GiB/s", Worse: Higher, Doc: "written to the disk that the nodes are on, made durable each MiB"},
			{Name: "net", Type: BitRate, Min: "64kbit/s", Max: "10Gbit/s", Worse: Higher, Doc: "sent to each of the nodes, in full frames"},
			{Name: "memory", Type: ByteSize, Min: "1MiB", Max: "1TiB", Worse: Higher, Doc: "held and touched twice a second; at most half of what is available"},
		},
	},
}
