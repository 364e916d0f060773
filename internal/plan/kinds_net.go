package plan

// netKinds are the faults of the network.
var netKinds = []Kind{
	{
		Name: "net.delay", Doc: "hold every packet of a directed link back",
		Mechanism: "frames of the link are steered by an eBPF program into a user-space wire that holds each until its due time",
		Probe:     "UDP probes between the very namespaces, one way, with the kernel's receive time stamps, against the same before the fault",
		Where:     Links, Params: []Param{
			{Name: "add", Type: Duration, Required: true, Min: "10us", Max: "60s", Worse: Higher, Doc: "one-way delay added"},
			{Name: "jitter", Type: Duration, Max: "60s", Worse: Higher, Doc: "spread around add, see dist"},
			{Name: "dist", Type: Word, Default: "uniform", Words: []string{"uniform", "normal", "pareto"}, Doc: "distribution of the jitter"},
		},
	},
	{
		Name: "net.rate", Doc: "cap a directed link's bandwidth behind a finite queue",
		Mechanism: "the wire's virtual queue: a finite number of bytes, drained at the limit, tail drop",
		Probe:     "trains of UDP packets: their dispersion at the receiver",
		Where:     Links, Params: []Param{
			{Name: "limit", Type: BitRate, Required: true, Min: "8kbit/s", Max: "10Gbit/s", Worse: Lower, Doc: "bits on the link per second"},
			{Name: "queue", Type: ByteSize, Default: "256KiB", Min: "3000B", Max: "64MiB", Doc: "bytes that may wait; what exceeds it is dropped"},
		},
	},
	{
		Name: "net.partition", Doc: "cut links: nothing passes",
		Mechanism: "an eBPF program at the switch's port drops every frame of the link",
		Probe:     "UDP probes: all lost where it is cut, all through where it is not",
		Where:     Cut, Params: []Param{
			{Name: "one_way", Type: Flag, Default: "false", Doc: "cut only from→to"},
		},
	},
}
