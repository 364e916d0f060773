package scenarios

import (
	"time"

	"brownout/internal/plan"
)

// A Scenario is what a scenario file says: what to break, when, and what must
// hold. A file and a literal have the same power; the zero value of a field
// means the default written beside it, and whatever else is wrong with a
// literal is told by [Resolve].
type Scenario struct {
	Name     string // required; [a-z0-9][a-z0-9._-]*
	Target   Target
	Network  plan.Network // of healthy links; default: the bare bridge
	Workload Workload
	Timeline Timeline
	Expect   []Expectation
	Seed     uint64 // of all that is drawn; default 0

	File string // as the user named it, builtin:NAME, or empty for a literal
	Hash string // sha256 of the file's bytes; of the literal itself if empty
}

// Target is what runs on the nodes.
type Target struct {
	Kind   string            // default kvserver
	Nodes  int               // default 3
	Config map[string]string // see the target's fields in the schema

	Downstream map[string]string // a cache that nodes write through to, and how; nil: none
}

// Workload is what clients do.
type Workload struct {
	Keys      Keys
	Value     int64         // bytes of a written value; default 256
	Mix       []plan.Share  // shares that sum to 1; default half gets, half puts
	Load      Offer         // default 500 operations a second
	Endpoints string        // leader (default), any, nearest, or a node: which node a client talks to
	Timeout   time.Duration // of one operation; default 1s
}

// Keys are what operations are spread over.
type Keys struct {
	Count int64   // default 100
	Dist  string  // uniform (default), zipf, sequential
	Zipf  float64 // exponent of zipf; default 0.99
}

// Offer is how many operations are offered. Rate, OfMax and Closed exclude each other.
type Offer struct {
	Rate    float64 // a second, open loop
	OfMax   float64 // percent of the maximum that a calibration finds, open loop
	Closed  bool    // each client waits for its answer before it asks again
	Clients int     // connections; default 16
}

// Timeline is what happens when. Phases of zero length do not happen.
type Timeline struct {
	Warmup   time.Duration // measured, but compared with nothing
	Baseline time.Duration // what faults are compared with
	Faults   []Fault
	Recovery time.Duration // after the last fault
}

// Fault is one entry of the timeline.
type Fault struct {
	At       time.Duration // from the end of the baseline
	For      time.Duration // required unless the kind ends by itself
	Kind     string        // a name of [plan.Kinds]
	On       string        // selectors; see the kind's Where
	From, To string
	Split    string
	Plane    string        // of network faults: peer (default), client, both
	Follow   string        // "role": move with the role; else stay with the node that had it
	Provider string        // pins a mechanism; else chosen by probing
	Profile  *plan.Profile // how severe over its time; nil: the full dose all the time
	Params   plan.Params
	Line     int // in the file
}

// Expectation is one sentence; see package expect.
type Expectation struct {
	Text string
	Line int
	Col  int
}

// withDefaults returns s with defaults for zero values.
func (s Scenario) withDefaults() Scenario {
	orWord := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	s.Network = s.Network.WithProfile()
	orWord(&s.Target.Kind, kvserver)
	orWord(&s.Workload.Keys.Dist, "uniform")
	orWord(&s.Workload.Endpoints, "leader")
	if s.Target.Nodes == 0 {
		s.Target.Nodes = 3
	}
	w := &s.Workload
	if w.Keys.Count == 0 {
		w.Keys.Count = 100
	}
	if w.Keys.Zipf == 0 && w.Keys.Dist == "zipf" {
		w.Keys.Zipf = 0.99
	}
	if w.Value == 0 {
		w.Value = 256
	}
	if len(w.Mix) == 0 {
		w.Mix = []plan.Share{{Kind: "get", P: 0.5}, {Kind: "put", P: 0.5}}
	}
	if w.Load.Rate == 0 && w.Load.OfMax == 0 && !w.Load.Closed {
		w.Load.Rate = 500
	}
	if w.Load.Clients == 0 {
		w.Load.Clients = 16
	}
	if w.Timeout == 0 {
		w.Timeout = time.Second
	}
	return s
}
