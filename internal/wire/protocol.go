package wire

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Supervisor and wire talk in lines of JSON over a socket pair, one request and
// its reply at a time.

type op string

const (
	opSet   op = "set"   // a pair's impairment; the zero one clears it
	opStats op = "stats" // read, with Reset also start the histograms anew
	opPing  op = "ping"
	opQuit  op = "quit"
)

type request struct {
	Op         op         `json:"op"`
	Src        int        `json:"src"`
	Dst        int        `json:"dst"`
	Impairment Impairment `json:"impairment,omitzero"`
	Reset      bool       `json:"reset,omitzero"`
}

type reply struct {
	Error string `json:"error,omitempty"`
	Stats *Stats `json:"stats,omitempty"`
}

// Stats is what a wire says of itself. Counts are since its start, the two
// spreads since the last reset.
type Stats struct {
	// Lateness is how long after their due time held frames had been written to
	// the TAP: the error of the emulation, measured by itself.
	Lateness Spread `json:"lateness"`
	// Transit is the same for frames that were not held, since they came in at
	// the switch: what going through the wire costs.
	Transit Spread `json:"transit"`

	Sched   Sched         `json:"sched"`
	CPU     time.Duration `json:"cpu_ns"`    // of the whole process
	Uptime  time.Duration `json:"uptime_ns"` // of the whole process
	Spun    time.Duration `json:"spun_ns"`   // of the CPU time, spent waiting for a due time
	Wakeups uint64        `json:"wakeups"`
	Yields  uint64        `json:"yields"` // rests that were taken only so as not to keep a core for too long
	Reads   uint64        `json:"reads"`
	Writes  uint64        `json:"writes"`
	// Strays are frames without a mark; WriteErrors are frames that the TAP refused.
	Strays      uint64 `json:"strays"`
	WriteErrors uint64 `json:"write_errors"`
	Held        int    `json:"held"` // frames on their way now
	// Overruns are frames that the wire was too slow to read. The supervisor fills it in.
	Overruns uint64 `json:"overruns"`

	Pairs []PairStats `json:"pairs,omitempty"` // of pairs that were ever impaired or seen
}

// PairStats is what a wire did to one directed pair.
type PairStats struct {
	Src        int        `json:"src"`
	Dst        int        `json:"dst"`
	Impairment Impairment `json:"impairment,omitzero"`
	Counters
}

// A Spread is a distribution in few numbers.
type Spread struct {
	N   int64         `json:"n"`
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	Max time.Duration `json:"max_ns"`
}

func spreadOf(h *hdrhistogram.Histogram) Spread {
	if h.TotalCount() == 0 {
		return Spread{}
	}
	return Spread{
		N:   h.TotalCount(),
		P50: time.Duration(h.ValueAtQuantile(50)),
		P99: time.Duration(h.ValueAtQuantile(99)),
		Max: time.Duration(h.Max()),
	}
}

// Sched is how the system schedules the wire.
type Sched string

// Schedulings from best to worst.
const (
	SchedFIFO   Sched = "fifo"   // real-time
	SchedNice   Sched = "nice"   // most favoured of the ordinary
	SchedNormal Sched = "normal" // no privilege: expect late frames
)
