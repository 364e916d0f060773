package plan

// orNetem is the other mechanism of what the wire does.
const orNetem = "; or `provider: netem`, the kernel's own emulator on a device of each link's own: by no seed before Linux 6.7, and while it does more than delay, the sender sends no super-packets"

// netKinds are the faults of the network.
var netKinds = []Kind{
	{
		Name: "net.delay", Doc: "hold every packet of a directed link back",
		Mechanism: "frames of the link are steered by an eBPF program into a user-space wire that holds each until its due time" + orNetem,
		Probe:     "UDP probes between the very namespaces, one way, with the kernel's receive time stamps, against the same before the fault",
		Where:     Links, OneOf: []string{"add", "trace"}, Params: []Param{
			{Name: "add", Type: Duration, Min: "10us", Max: "60s", Worse: Higher, Doc: "one-way delay added"},
			{Name: "jitter", With: []string{"add"}, Type: Duration, Max: "60s", Worse: Higher, Doc: "spread around add, see dist"},
			{Name: "dist", With: []string{"jitter"}, Type: Word, Default: "uniform", Words: []string{"uniform", "normal", "pareto"}, Doc: "distribution of the jitter"},
			{Name: "corr", With: []string{"jitter"}, Type: Percent, Max: "99%", Doc: "correlation of a packet's jitter with the next one's"},
			{Name: "order", Type: Word, Default: "free", Words: []string{"free", "keep"}, Doc: "whether jitter lets packets overtake each other; keep makes them wait"},
			{Name: "trace", Type: Durations, Max: "60s", Doc: "recorded delays in place of add, one packet after the other, over and over; @FILE reads them"},
		},
	},
	{
		Name: "net.loss", Doc: "lose packets of a directed link",
		Mechanism: "the wire drops them, segment by segment, by a stream of random numbers of the link's own" + orNetem,
		Probe:     "bursts of UDP probes between the very namespaces: the share that does not arrive",
		Where:     Links, OneOf: []string{"percent", "to_bad", "every", "first"}, Params: []Param{
			{Name: "percent", Type: Percent, Min: "0.01%", Max: "100%", Worse: Higher, Doc: "mean share of packets lost, each by itself or in bursts"},
			{Name: "burst", With: []string{"percent"}, Type: Count, Min: "2", Max: "10k", Doc: "mean length of a burst of losses, beside percent: a Gilbert model"},
			{Name: "to_bad", Needs: "to_good", Type: Percent, Min: "0.001%", Max: "100%", Worse: Higher, Doc: "Gilbert-Elliott: probability of good to bad before a packet"},
			{Name: "to_good", With: []string{"to_bad"}, Type: Percent, Min: "0.001%", Max: "100%", Doc: "of bad to good"},
			{Name: "bad", With: []string{"to_bad"}, Type: Percent, Max: "100%", Doc: "share lost while bad; 100% if absent"},
			{Name: "good", With: []string{"to_bad"}, Type: Percent, Max: "100%", Doc: "share lost while good; 0% if absent"},
			{Name: "every", Type: Count, Min: "2", Max: "1M", Doc: "every so many-th packet"},
			{Name: "first", Type: Count, Min: "1", Max: "1M", Doc: "the first so many packets of each link, and no more"},
		},
	},
	{
		Name: "net.duplicate", Doc: "deliver packets of a directed link twice",
		Mechanism: "the wire sends a copy right behind the packet" + orNetem,
		Probe:     "bursts of UDP probes between the very namespaces: the share that arrives more than once",
		Where:     Links, Params: []Param{
			{Name: "percent", Type: Percent, Required: true, Min: "0.01%", Max: "100%", Worse: Higher, Doc: "share of packets duplicated"},
		},
	},
	{
		Name: "net.reorder", Doc: "let packets of a directed link overtake others",
		Mechanism: "the wire holds packets back by add, and lets a share of them pass at once" + orNetem,
		Probe:     "bursts of UDP probes between the very namespaces: the share that overtakes an earlier one",
		Where:     Links, Params: []Param{
			{Name: "percent", Type: Percent, Required: true, Min: "0.1%", Max: "90%", Worse: Higher, Doc: "share of packets that pass at once"},
			{Name: "add", Type: Duration, Required: true, Min: "100us", Max: "10s", Doc: "delay of the others: how far a packet can get ahead"},
		},
	},
	{
		Name: "net.corrupt", Doc: "damage packets of a directed link",
		Mechanism: "the wire completes a packet's checksums and then flips one bit of it; what receives it throws it away" + orNetem,
		Probe:     "bursts of UDP probes between the very namespaces: the share that does not arrive, and what the receivers' kernels counted as bad checksums",
		Where:     Links, Params: []Param{
			{Name: "percent", Type: Percent, Required: true, Min: "0.01%", Max: "100%", Worse: Higher, Doc: "share of packets damaged"},
		},
	},
	{
		Name: "net.rate", Doc: "cap a directed link's bandwidth behind a finite queue",
		Mechanism: "the wire's virtual queue: a finite number of bytes, drained at the limit, tail drop" + orNetem + "; its queue is counted in full packets",
		Probe:     "trains of UDP packets: their dispersion at the receiver",
		Where:     Links, Params: []Param{
			{Name: "limit", Type: BitRate, Required: true, Min: "8kbit/s", Max: "10Gbit/s", Worse: Lower, Doc: "bits on the link per second"},
			{Name: "queue", Type: ByteSize, Default: "256KiB", Min: "3000B", Max: "64MiB", Doc: "bytes that may wait; what exceeds it is dropped"},
			{Name: "queue_time", Type: Duration, Min: "1ms", Max: "60s", Doc: "room for what the link carries in this time, in place of queue: bufferbloat"},
		},
	},
	{
		Name: "net.partition", Doc: "cut links: nothing passes",
		Mechanism: "an eBPF program at the switch's port drops every frame of the link",
		Probe:     "UDP probes: all lost where it is cut, all through where it is not",
		Where:     Cut, Params: []Param{
			{Name: "one_way", Type: Flag, Default: "false", Doc: "cut only from→to"},
			{Name: "isolate", Type: Selector, Doc: "in place of split: these nodes on one side, all others on the other"},
			{Name: "bridge", Type: Selector, Doc: "nodes that keep their links to all groups of a split; without one, the others are cut into two halves"},
		},
	},
}
