package plan

// netTCPKinds are the faults of single connections, and of those who share a link.
var netTCPKinds = []Kind{
	{
		Name: "net.reset", Doc: "reset the established TCP connections of a link",
		Mechanism: "the sending node's kernel destroys its sockets (SOCK_DESTROY of sock_diag): the other end gets RST, its own program an error",
		Probe:     "TCP connections of the meter's own between the very namespaces, which must end with ECONNRESET at the far end, or aborted where both directions are reset; and the list of the real ones, of which none may be left",
		Where:     Links, Instant: true, Params: []Param{
			{Name: "every", Type: Duration, Min: "10ms", Max: "10m", Doc: "from reset to reset while the fault lasts; once if absent"},
		},
	},
	{
		Name: "net.halfopen", Doc: "drop the packets of established TCP connections, so that neither end is told",
		Mechanism: "an eBPF program at the switch's ports drops the packets of just those connections that were established when it began, in both directions",
		Probe:     "TCP connections of the meter's own: those that were open fall silent and stay open, new ones and UDP pass as asked; and the list of the real ones",
		Where:     Links, Params: []Param{
			{Name: "one_way", Type: Flag, Default: "false", Doc: "drop only what goes from→to"},
			{Name: "new", Type: Word, Default: "pass", Words: []string{"pass", "drop"}, Doc: "what becomes of attempts to connect anew"},
		},
	},
	{
		Name: "net.flood", Doc: "compete for a link with real TCP and UDP flows",
		Mechanism: "a process in a cgroup of its own sends through sockets opened in the nodes' namespaces: so many TCP connections, paced, and a stream of UDP",
		Probe:     "bytes that come in at the receiver's device, and what the switch counts on the link, against the same before; UDP probes and the real connections' round trips for what it costs the victim",
		Where:     Links, Params: []Param{
			{Name: "limit", Type: BitRate, Required: true, Min: "64kbit/s", Max: "10Gbit/s", Worse: Higher, Doc: "what all flows of a link together send, if it lets them"},
			{Name: "flows", Type: Count, Default: "4", Min: "1", Max: "64", Doc: "TCP connections on each link"},
			{Name: "udp", Type: Percent, Default: "20%", Max: "100%", Doc: "share of the limit that is UDP, which does not yield"},
		},
	},
}
