package run

import "encoding/json"

// ResultSchema is the version of result.json.
const ResultSchema = "brownout.result/1"

// A Result is all that was judged of a run. Verdicts are words, never booleans.
type Result struct {
	Schema        string        `json:"schema"`
	Run           string        `json:"run"`
	Scenario      string        `json:"scenario"`
	Seed          uint64        `json:"seed"`
	Verdict       Verdict       `json:"verdict"`
	ExitCode      int           `json:"exit_code"`
	Why           string        `json:"why"`
	Target        Target        `json:"target"`
	Phases        []Phase       `json:"phases"`
	Faults        []Fault       `json:"faults"`
	Expectations  []Expectation `json:"expectations"`
	Consistency   Consistency   `json:"consistency"`
	Durability    Durability    `json:"durability"`
	Replicas      Replicas      `json:"replicas"`
	Progress      Progress      `json:"progress"`
	Diagnosis     Diagnosis     `json:"diagnosis"`
	Load          Load          `json:"load"`
	Host          Noise         `json:"host"`
	Wire          Wire          `json:"wire"`
	Downstream    *Downstream   `json:"downstream,omitempty"` // if the target writes through to a cache
	LeaderChanges int           `json:"leader_changes"`
	Cleanup       Cleanup       `json:"cleanup"`
	Interrupted   bool          `json:"interrupted,omitempty"` // a fact, not a verdict
	Stopped       *Stopped      `json:"stopped,omitempty"`     // before its time, by a violation
}

// Stopped says how soon a violation that was seen while the run went on ended it.
type Stopped struct {
	Why       string `json:"why"`
	Op        int64  `json:"op"`               // with which it could be seen
	Returned  int64  `json:"op_returned_ns"`   // that operation, by the history
	Found     int64  `json:"found_after_ns"`   // from then on
	StoppedIn int64  `json:"stopped_after_ns"` // no operation and no fault began any more
}

// Target is what ran.
type Target struct {
	Kind  string `json:"kind"`
	Nodes int    `json:"nodes"`
}

// Phase holds the numbers of one interval of the run.
type Phase struct {
	Name  string         `json:"name"`
	Start int64          `json:"start_ns"`
	End   int64          `json:"end_ns"`
	Ops   map[string]Ops `json:"ops"` // by kind of operation, and "all"
	// Shards are those on the keys of each shard, where there are several.
	Shards []Ops `json:"shards,omitempty"`
}

// Ops counts and times the operations that were due in an interval.
type Ops struct {
	OK       int64     `json:"ok"`
	Fail     int64     `json:"fail"`
	Unknown  int64     `json:"unknown"`
	Rate     float64   `json:"rate_per_s"` // completed ok
	Response Quantiles `json:"response"`   // from due to return; failed and unknown count with the time they took
	Service  Quantiles `json:"service"`    // from call to return
}

// Quantiles of a merged histogram; never of other quantiles.
type Quantiles struct {
	P50  int64 `json:"p50_ns"`
	P90  int64 `json:"p90_ns"`
	P99  int64 `json:"p99_ns"`
	P999 int64 `json:"p999_ns"`
	Max  int64 `json:"max_ns"`
	N    int64 `json:"n"`
}

// Fault is what was asked of one fault and what it did.
type Fault struct {
	ID        string         `json:"id"`
	Kind      string         `json:"kind"`
	Nodes     []string       `json:"nodes"`
	Provider  string         `json:"provider"`
	Requested map[string]any `json:"requested"`
	Measured  map[string]any `json:"measured"`
	Bit       Bit            `json:"bit"`
	Why       string         `json:"why,omitempty"`
	Start     int64          `json:"start_ns"`
	End       int64          `json:"end_ns"`
	Healed    Healed         `json:"healed"`
	Recovery  int64          `json:"recovery_ns"` // from heal until back in the baseline's band; -1 if never in this run
	RoleMoved string         `json:"role_moved,omitempty"`
	Overlap   int            `json:"operations"` // that were open while the fault was in force
	Answered  int            `json:"answered"`   // of these, that completed before it was healed
}

// Expectation is the judgement of one sentence.
type Expectation struct {
	Text     string   `json:"text"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Verdict  Verdict  `json:"verdict"`
	Observed *float64 `json:"observed,omitempty"`
	Limit    *float64 `json:"limit,omitempty"`
	Unit     string   `json:"unit,omitempty"` // x, %, ns, per_s, count
	Why      string   `json:"why"`
}

// Consistency is the checker's answer.
type Consistency struct {
	File       string     `json:"file,omitempty"`    // of a history on its own
	Format     string     `json:"format,omitempty"`  // of that file
	Untimed    bool       `json:"untimed,omitempty"` // that file has no times: lines stand for them
	Model      string     `json:"model"`
	Verdict    string     `json:"verdict"` // ok, illegal, unknown
	Engine     string     `json:"engine"`  // porcupine, blocks
	Ops        int        `json:"ops"`
	Keys       int        `json:"keys"`
	CPU        int64      `json:"cpu_ns"`
	Why        string     `json:"why,omitempty"` // of unknown
	Violations []Conflict `json:"violations"`
	Levels     []Level    `json:"levels,omitempty"` // of a history that is not linearizable; else all of them hold
	Counts     Counts     `json:"counts"`
}

// Counts say how telling a history is.
type Counts struct {
	Reads         int     `json:"reads"`  // that completed
	Writes        int     `json:"writes"` // that were acknowledged
	Unknown       int     `json:"unknown"`
	Failed        int     `json:"failed"`
	ReadsPerWrite float64 `json:"reads_per_write"`
	UnknownShare  float64 `json:"unknown_share"` // 0..1
}

// Level is what reads of one mode kept of what is weaker than linearizability.
// All numbers are lower bounds.
type Level struct {
	Mode              string    `json:"mode"`
	Reads             int       `json:"reads"`
	Stale             int       `json:"stale"`
	StaleMax          int64     `json:"stale_max_ns"`
	StaleP99          int64     `json:"stale_p99_ns"`
	VersionsMax       int       `json:"versions_max"`
	ReadYourWrites    Guarantee `json:"read_your_writes"`
	MonotonicReads    Guarantee `json:"monotonic_reads"`
	MonotonicWrites   Guarantee `json:"monotonic_writes"`
	WritesFollowReads Guarantee `json:"writes_follow_reads"`
}

// Guarantee says whether a session guarantee held.
type Guarantee struct {
	Verdict string `json:"verdict"` // ok, no, unknown: it was never put to the test
	Checked int    `json:"checked"`
	Broken  int    `json:"broken"`
	First   int64  `json:"first_op,omitempty"` // that broke it
}

// Conflict explains one conflict on one key.
type Conflict struct {
	Key   string  `json:"key"`
	Label string  `json:"label"` // stale read, lost update, ...
	Ops   []int64 `json:"ops"`
	Text  string  `json:"text"`

	At      int64             `json:"at_ns"`             // when it could be known
	Untimed bool              `json:"untimed,omitempty"` // all times are lines of the file: it has none
	Arrows  []string          `json:"arrows,omitempty"`  // the steps of the contradiction, with raw times
	Context []string          `json:"context,omitempty"` // faults in force then, and who led
	Again   string            `json:"again,omitempty"`   // the command that repeats the run
	Core    []json.RawMessage `json:"core,omitempty"`    // Ops, and who wrote what they found, as in history.jsonl
}

// Durability compares acknowledged writes with the final reads.
type Durability struct {
	Verdict      string      `json:"verdict"` // ok, lost, unknown
	Acknowledged int         `json:"acknowledged"`
	Lost         []LostWrite `json:"lost"`
	Why          string      `json:"why,omitempty"`
}

// LostWrite is an acknowledged write that the final read cannot explain.
type LostWrite struct {
	Op   int64  `json:"op"`
	Key  string `json:"key"`
	Text string `json:"text"`
}

// Replicas compares the nodes' states after the run.
type Replicas struct {
	Verdict string    `json:"verdict"` // ok, diverged, unknown
	Why     string    `json:"why,omitempty"`
	States  []Replica `json:"states"`
}

// Replica is one node's state: its digest once the log was applied up to an index.
type Replica struct {
	Node    string `json:"node"`
	Shard   int    `json:"shard,omitempty"`
	Applied int64  `json:"applied"`
	SHA256  string `json:"sha256"`
}

// Progress says whether the target went on answering.
type Progress struct {
	Verdict string `json:"verdict"` // ok, stalled (a fault was in force), hang (none was), unknown
	Why     string `json:"why,omitempty"`
	Start   int64  `json:"start_ns"` // of the longest time without an acknowledged write while some were tried
	End     int64  `json:"end_ns"`
	Tried   int    `json:"tried"`           // writes that were called in it
	Shard   int    `json:"shard,omitempty"` // whose keys they were of
}

// Diagnosis is the ranking of suspects; empty until an engine has run.
type Diagnosis struct {
	Suspects []Suspect `json:"suspects"`
}

// Suspect is one hypothesis about what was slow.
type Suspect struct {
	Culprit    string   `json:"culprit"`
	Node       string   `json:"node"`
	Role       string   `json:"role"`
	Confidence float64  `json:"confidence"`
	Onset      int64    `json:"onset_ns"`
	Evidence   []string `json:"evidence"`
}

// Load says whether the generator itself can be trusted.
type Load struct {
	OfferedPerS float64   `json:"offered_per_s"`
	MaxPerS     float64   `json:"max_per_s,omitempty"` // calibrated
	Lateness    Quantiles `json:"lateness"`            // the generator's own delay, without waiting for a free client
	Dropped     int64     `json:"dropped"`             // due operations that were never sent
	Verdict     string    `json:"verdict"`             // ok, starved
	Why         string    `json:"why,omitempty"`
}

// Noise is what the host did beside the run.
type Noise struct {
	Noise       string  `json:"noise"` // quiet, noisy
	CPUPressure float64 `json:"cpu_pressure"`
	ForeignCPU  float64 `json:"foreign_cpu"` // share of all CPU time used by others during the run, 0..1
	FsyncP50    int64   `json:"fsync_p50_ns"`
	Why         string  `json:"why,omitempty"`
}

// Downstream says how writing through to the cache went, on all nodes together,
// of each since its program started.
type Downstream struct {
	Writes   int64 `json:"writes"`       // done
	Failed   int64 `json:"failed"`       // not done in time, or nobody knows
	Dropped  int64 `json:"dropped"`      // of these, for want of room in the queue
	Retried  int64 `json:"retried"`      // attempts after the first
	Late     int64 `json:"late"`         // attempts that were given up at the end of their timeout
	WaitMean int64 `json:"wait_mean_ns"` // from applied to done or failed
	WaitMax  int64 `json:"wait_max_ns"`
}

// Wire says how late the wire was with the packets it held.
type Wire struct {
	LatenessP50 int64  `json:"lateness_p50_ns"`
	LatenessP99 int64  `json:"lateness_p99_ns"`
	LatenessMax int64  `json:"lateness_max_ns"`
	Frames      int64  `json:"frames"`
	Lost        int64  `json:"lost,omitempty"`       // packets that it could not keep up with
	Scheduling  string `json:"scheduling,omitempty"` // fifo, nice, other
}

// Cleanup lists what could not be undone.
type Cleanup struct {
	Residue []string `json:"residue"`
}
