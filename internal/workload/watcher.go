package workload

import (
	"sync"
	"time"

	"brownout/internal/history"
)

// A Checker looks at operations as they return, one at a time, and says when
// they contradict each other.
type Checker interface {
	Add(op *history.Op) (text string, bad bool)
}

// NewChecker makes the checker of a load that is watched. The load generator's
// process sets it; nil watches nothing.
var NewChecker func() Checker

// A Violation is a contradiction that was seen while the load went on. Times are
// of the run.
type Violation struct {
	Text     string        `json:"text"`
	Op       int64         `json:"op"`          // with which it could be seen
	Returned time.Duration `json:"returned_ns"` // that operation
	Found    time.Duration `json:"found_ns"`
}

// A watcher looks at every operation as it returns, and tells of the first that
// contradicts the others.
type watcher struct {
	mu     sync.Mutex
	online Checker
	tell   func(Violation)
	told   bool
}

func (w *watcher) look(op *history.Op, now func() time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told {
		return
	}
	text, bad := w.online.Add(op)
	if !bad {
		return
	}
	w.told = true
	w.tell(Violation{Text: text, Op: op.ID, Returned: time.Duration(op.Return), Found: now()})
}
