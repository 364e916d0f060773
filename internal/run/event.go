package run

// An EventType says what happened.
type EventType string

// Event types. Events are facts of the live half; the judging half reads them
// and never asks anybody else.
const (
	PhaseStarted  EventType = "phase"          // Phase, T = its start
	LoadStarted   EventType = "load.started"   // Data: rate_per_s offered, max_per_s calibrated (0 if none), clients, zero_monotonic_ns: the host's clock at the run's zero
	LoadEnded     EventType = "load.ended"     // Data: LoadReport's fields
	Violated      EventType = "violation"      // Text: found while the load went on, Data: op with which it could be seen, returned_ns (that operation), found_ns; T = when the run began to stop
	FaultFired    EventType = "fault.fired"    // Fault, Kind, Nodes, Provider, Requested: the selectors were resolved and the fault is in force
	FaultMeasured EventType = "fault.measured" // Fault, Measured, Bit, Text = why
	FaultHealed   EventType = "fault.healed"   // Fault: the mechanism was taken away
	FaultVerified EventType = "fault.verified" // Fault, Healed yes/no, Measured, Text: the meter saw it gone
	FaultFailed   EventType = "fault.failed"   // Fault, Text: could not be applied or healed
	FaultChanged  EventType = "fault.changed"  // Fault, Data: severity, 0..1 of the dose requested, by the fault's profile
	RoleMoved     EventType = "fault.role"     // Fault, Text: the node no longer has the role that selected it
	LeaderChanged EventType = "leader"         // Node = new leader ("" for none), Data: term, shard (where there are several)
	NodeStarted   EventType = "node.started"   // Node
	NodeReady     EventType = "node.ready"     // Node
	NodeExited    EventType = "node.exited"    // Node, Text = cause, Data: expected true|false, code, signal
	TestbedFailed EventType = "testbed.failed" // Text: a part of brownout itself failed (wire died, slowfs died, ...)
	ReplicaState  EventType = "replica.state"  // Node, Data: applied index, sha256 of the state then, shard (where there are several), after the nodes have settled; Text = why it is not known
	HostNoise     EventType = "host.noise"     // Data: cpu_pressure, foreign_cpu, fsync_p50_ns; Phase when it was measured
	CacheReport   EventType = "cache.report"   // Data: writes, failed, dropped, retried, late, wait_mean_ns, wait_max_ns; all nodes together, of each since its program started
	WireReport    EventType = "wire.report"    // Data: lateness_p50_ns, lateness_p99_ns, lateness_max_ns, frames, scheduling, lost (packets it could not keep up with), links (its counters by "n1>n2")
	Interrupted   EventType = "interrupted"    // Text: by what
	RunEnded      EventType = "run.ended"      // Text: "" or why early
	Note          EventType = "note"           // Text
)

// An Event is one line of events.jsonl.
type Event struct {
	T         int64          `json:"t_ns"`
	Type      EventType      `json:"type"`
	Phase     string         `json:"phase,omitempty"`
	Node      string         `json:"node,omitempty"`
	Nodes     []string       `json:"nodes,omitempty"` // for links: "n1>n2"
	Fault     string         `json:"fault,omitempty"`
	Kind      string         `json:"kind,omitempty"`
	Provider  string         `json:"provider,omitempty"`
	Requested map[string]any `json:"requested,omitempty"`
	Measured  map[string]any `json:"measured,omitempty"`
	Bit       Bit            `json:"bit,omitempty"`
	Healed    Healed         `json:"healed,omitempty"`
	Text      string         `json:"text,omitempty"`
	Data      map[string]any `json:"data,omitempty"`
}

// Bit says whether an independent probe saw a fault.
type Bit string

// Answers of a dose probe.
const (
	BitYes        Bit = "yes"
	BitNo         Bit = "no"
	BitUnmeasured Bit = "unmeasured"
)

// Healed says whether the probe saw a fault gone after it was healed.
type Healed string

// Answers of a heal probe.
const (
	HealedYes Healed = "yes"
	HealedNo  Healed = "no"
)

// A Sample is one line of telemetry.jsonl: what one source said of one node at one time.
type Sample struct {
	T      int64              `json:"t_ns"`
	Node   string             `json:"node"`   // or "host", "client"
	Source string             `json:"source"` // cgroup, io, sched, tcp, runtime, disk, host
	Values map[string]float64 `json:"values"` // units in the name; counters are totals, not rates
}
