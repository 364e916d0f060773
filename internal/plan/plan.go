// Package plan is a scenario resolved with a seed: what shall happen, and when.
//
// The types are plain JSON without behaviour. Same scenario, seed and version
// give the same bytes; nothing in here depends on the host.
package plan

import (
	"strconv"
	"time"
)

// Schema is the version of plan.json.
const Schema = "brownout.plan/1"

// A Plan is everything that a run will do. Times count from the run's zero,
// which is the start of the warm-up, unless a field says otherwise.
type Plan struct {
	Schema   string        `json:"schema"`
	Scenario string        `json:"scenario"`
	File     string        `json:"file"`          // as the user named it; "builtin:NAME" for embedded ones
	SHA256   string        `json:"scenario_hash"` // of the scenario file's bytes after --set
	Seed     uint64        `json:"seed"`
	Version  string        `json:"version"` // of brownout
	Target   Target        `json:"target"`
	Network  Network       `json:"network"`
	Load     Load          `json:"load"`
	Phases   []Phase       `json:"phases"` // warmup, baseline, fault, recovery, in order, without gaps
	Faults   []Fault       `json:"faults"`
	Expect   []Expectation `json:"expect"`
	Ops      Ops           `json:"ops"`
}

// Target is what runs on the nodes.
type Target struct {
	Kind   string            `json:"kind"` // kvserver
	Nodes  int               `json:"nodes"`
	Config map[string]string `json:"config,omitempty"` // the target's own words: log, reads, ...

	// Downstream are the settings by which nodes write through to a cache, which
	// has a box beside them; nil: there is none.
	Downstream map[string]string `json:"downstream,omitzero"`
}

// Shards is how many Raft groups the target has: 1 unless its configuration says more.
func (t Target) Shards() int {
	n, err := strconv.Atoi(t.Config["shards"])
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// Load is the operation stream and how it is offered.
type Load struct {
	Keys      int           `json:"keys"`
	Dist      string        `json:"dist"` // uniform, zipf, sequential
	Zipf      float64       `json:"zipf,omitempty"`
	ValueSize int           `json:"value_bytes"`
	Mix       []Share       `json:"mix"` // sums to 1
	Closed    bool          `json:"closed,omitempty"`
	Rate      float64       `json:"rate_per_s,omitempty"`  // open loop, absolute
	OfMax     float64       `json:"rate_of_max,omitempty"` // open loop, share of the calibrated maximum, 0..1
	Clients   int           `json:"clients"`               // connections (open loop) or concurrent callers (closed loop)
	Endpoints string        `json:"endpoints"`             // leader, any, nearest, or a node's name
	Timeout   time.Duration `json:"timeout_ns"`            // of one operation, from its call
}

// Share is one kind of operation and its probability.
type Share struct {
	Kind string  `json:"kind"` // put, get, cas, append, delete
	P    float64 `json:"p"`
}

// Phase is an interval of the run.
type Phase struct {
	Name  string        `json:"name"` // warmup, baseline, fault, recovery
	Start time.Duration `json:"start_ns"`
	End   time.Duration `json:"end_ns"`
}

// Fault is one entry of the timeline.
type Fault struct {
	ID       string        `json:"id"` // f1, f2, ... in the file's order
	Kind     string        `json:"kind"`
	Start    time.Duration `json:"start_ns"`
	End      time.Duration `json:"end_ns"`
	On       string        `json:"on,omitempty"` // selector; resolved when the fault fires
	From     string        `json:"from,omitempty"`
	To       string        `json:"to,omitempty"`
	Split    string        `json:"split,omitempty"` // "n1 | n2,n3"
	Plane    string        `json:"plane,omitempty"` // peer, client, both
	Follow   string        `json:"follow,omitempty"`
	Provider string        `json:"provider,omitempty"` // pins one; empty means chosen by probing
	Profile  *Profile      `json:"profile,omitempty"`  // nil: the full dose all the time
	Params   Params        `json:"params"`
	Line     int           `json:"line"` // in the scenario file
}

// Expectation is one sentence of expect, kept as text; package expect parses it.
type Expectation struct {
	Text string `json:"text"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
}

// Ops describes the operation stream. The stream is a pure function of Load
// and Seed, without end; Rows is its beginning, SHA256 covers the first Hashed
// operations (one JSON row a line), so that two plans can be compared.
type Ops struct {
	Unit   string `json:"unit"` // "ns", or "gaps": due times in units of the mean gap, where the rate comes from calibration
	Hashed int    `json:"hashed"`
	SHA256 string `json:"sha256"`
	Rows   []Row  `json:"rows"`
}

// Row is one planned operation.
type Row struct {
	Op    int64   `json:"op"`
	Due   float64 `json:"due"` // in Ops.Unit; 0 for a closed loop
	Kind  string  `json:"kind"`
	Key   string  `json:"key"`
	Value string  `json:"value,omitempty"` // of put, append and delete (its tombstone), and cas's new value
}
