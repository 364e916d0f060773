package plan

// A Type says how a parameter is written in a scenario and stored in [Params].
type Type string

// Parameter types. A stored key is the parameter's name plus the type's suffix.
const (
	Duration Type = "duration" // "20ms"        → name_ns, int64
	Percent  Type = "percent"  // "30%"         → name, float64, 30 means 30 %
	BitRate  Type = "bitrate"  // "10Mbit/s"    → name_bits_per_s, int64
	ByteSize Type = "bytes"    // "64KiB"       → name_bytes, int64
	Word     Type = "word"     // one of Words  → name, string
	Flag     Type = "flag"     // true or false → name, bool
)

// A Param is one parameter of a fault kind.
type Param struct {
	Name     string
	Type     Type
	Required bool
	Default  string   // as written in a scenario; "" for none
	Words    []string // of a Word; nil means any
	Min, Max string   // inclusive bounds as written; "" for none
	Doc      string
}

// Where says which selectors a kind takes.
type Where string

// Places of a fault.
const (
	OnNodes Where = "on"      // on: SELECTOR
	Links   Where = "from,to" // from: SELECTOR, to: SELECTOR
	Cut     Where = "cut"     // from/to, or split: "n1 | n2,n3"
)

// A Kind is a fault that a scenario can name: its vocabulary, without mechanism.
// The mechanisms are in package faults, whose table has one row for each Kind.
type Kind struct {
	Name      string
	Doc       string
	Mechanism string // how it is done; for the docs
	Probe     string // how its dose is measured, independently of that; for the docs
	Where     Where
	Params    []Param
	Instant   bool // needs no `for`
}

// Kinds is the vocabulary of faults. Parser, schema, docs and doctor are loops over it.
var Kinds = []Kind{
	{
		Name: "net.delay", Doc: "hold every packet of a directed link back",
		Mechanism: "frames of the link are steered by an eBPF program into a user-space wire that holds each until its due time",
		Probe:     "UDP probes between the very namespaces, one way, with the kernel's receive time stamps, against the same before the fault",
		Where:     Links, Params: []Param{
			{Name: "add", Type: Duration, Required: true, Min: "10us", Max: "60s", Doc: "one-way delay added"},
			{Name: "jitter", Type: Duration, Max: "60s", Doc: "spread around add, see dist"},
			{Name: "dist", Type: Word, Default: "uniform", Words: []string{"uniform", "normal", "pareto"}, Doc: "distribution of the jitter"},
		},
	},
	{
		Name: "net.rate", Doc: "cap a directed link's bandwidth behind a finite queue",
		Mechanism: "the wire's virtual queue: a finite number of bytes, drained at the limit, tail drop",
		Probe:     "trains of UDP packets: their dispersion at the receiver",
		Where:     Links, Params: []Param{
			{Name: "limit", Type: BitRate, Required: true, Min: "8kbit/s", Max: "10Gbit/s", Doc: "bits on the link per second"},
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
	{
		Name: "cpu.quota", Doc: "throttle a node's CPU time with the kernel's bandwidth controller",
		Mechanism: "the CPU bandwidth controller of the node's cgroup (v2 cpu.max or v1 cfs_quota)",
		Probe:     "a spinning process in the same cgroup for a few periods, and the kernel's count of periods in which the node itself was throttled",
		Where:     OnNodes, Params: []Param{
			{Name: "percent", Type: Percent, Required: true, Min: "1%", Max: "6400%", Doc: "of one CPU"},
			{Name: "period", Type: Duration, Default: "100ms", Min: "1ms", Max: "1s", Doc: "length of an enforcement period; the longest stall is about one period"},
		},
	},
	{
		Name: "disk.delay", Doc: "make a node's file operations slow",
		Mechanism: "slowfs, a FUSE file system over the node's data, served inside the node's mount namespace",
		Probe:     "the same operation on a small file beside the node's data, from outside the node's program",
		Where:     OnNodes, Params: []Param{
			{Name: "op", Type: Word, Default: "fsync", Words: []string{"fsync", "write", "read", "open", "rename", "all"}, Doc: "class of operation; fsync includes fdatasync"},
			{Name: "add", Type: Duration, Required: true, Min: "100us", Max: "60s", Doc: "added to each operation"},
		},
	},
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

// KindNamed returns the kind called name.
func KindNamed(name string) (Kind, bool) {
	for _, k := range Kinds {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}
