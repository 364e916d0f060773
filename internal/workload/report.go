package workload

import (
	"encoding/json"
	"sync"
	"time"

	"brownout/internal/stats"
)

// A Report says how a load went, and whether the generator itself kept time.
type Report struct {
	Offered     int64   `json:"offered"`       // operations that were due (open loop) or begun (closed loop)
	OfferedPerS float64 `json:"offered_per_s"` // by their due times
	Sent        int64   `json:"sent"`
	OK          int64   `json:"ok"`
	Fail        int64   `json:"fail"`
	Unknown     int64   `json:"unknown"`
	// Dropped operations were due while the queue to the clients was full. They
	// are in no history: a run that dropped any did not offer the load it promised.
	Dropped int64 `json:"dropped"`
	// Unsent operations still waited for a free client when the load had ended.
	// The history holds them as failed: they certainly did not happen.
	Unsent int64 `json:"unsent"`
	// Lateness is the testbed's own delay before an operation was sent: from due
	// to call if a client was free, else from due until it was queued. Waiting
	// for a free client is not in it; that is the target's slowness.
	Lateness    Lateness `json:"lateness"`
	MaxInFlight int64    `json:"max_in_flight"` // operations sent and unanswered
	MaxQueued   int64    `json:"max_queued"`    // operations waiting for a free client
	SpoolBytes  int64    `json:"spool_bytes"`
	// Still are the times in which the generator itself stood still, in order. In
	// a closed loop nothing is due, so that there are none.
	Still []Still `json:"still"`
}

// A Still is a time, in ns of the run, in which something was due, could have
// been done, and was not.
type Still struct {
	Start int64 `json:"start_ns"`
	End   int64 `json:"end_ns"`
}

const (
	stillLeast = 100 * time.Millisecond // far more than a garbage collection or a tick
	stillMost  = 1000                   // are kept: a generator that often starved is no witness anyway
)

// Lateness of the pacer.
type Lateness struct {
	P50  int64 `json:"p50_ns"`
	P90  int64 `json:"p90_ns"`
	P99  int64 `json:"p99_ns"`
	P999 int64 `json:"p999_ns"`
	Max  int64 `json:"max_ns"`
	N    int64 `json:"n"`
}

// Data is the report as an event's data.
func (r Report) Data() map[string]any {
	d := map[string]any{
		"lateness_p50_ns": r.Lateness.P50, "lateness_p90_ns": r.Lateness.P90, "lateness_p99_ns": r.Lateness.P99,
		"lateness_p999_ns": r.Lateness.P999, "lateness_max_ns": r.Lateness.Max, "lateness_n": r.Lateness.N,
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil {
		return map[string]any{"error": err.Error()} // cannot happen: the report is plain numbers
	}
	delete(d, "lateness")
	return d
}

// A Progress is the load of the last second, for people who watch.
type Progress struct {
	OKPerS   float64       `json:"ok_per_s"`
	P50      time.Duration `json:"p50_ns"` // response times
	P99      time.Duration `json:"p99_ns"`
	InFlight int64         `json:"in_flight"`
	Queued   int64         `json:"queued"` // waiting for a free client
}

// News is what a load tells of while it goes on: one of them.
type News struct {
	Progress  *Progress  `json:"progress,omitempty"`
	Violation *Violation `json:"violation,omitempty"` // the first, which ends the load
}

// A meter keeps the response times of the current and the last half second.
type meter struct {
	mu   sync.Mutex
	now  window
	last window
}

type window struct {
	ok   int64
	hist stats.Hist
}

func (m *meter) add(ok bool, response int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ok {
		m.now.ok++
	}
	m.now.hist.Record(response)
}

// turn ends a half second and returns the numbers of the last two.
func (m *meter) turn() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all stats.Hist
	all.Merge(&m.last.hist)
	all.Merge(&m.now.hist)
	p := Progress{
		OKPerS: float64(m.last.ok + m.now.ok),
		P50:    time.Duration(all.Quantile(0.5)), P99: time.Duration(all.Quantile(0.99)),
	}
	m.last, m.now = m.now, window{}
	return p
}
