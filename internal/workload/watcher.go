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

// A watcher looks at every operation as it returns, and ends the load with the
// first that contradicts the others.
type watcher struct {
	mu     sync.Mutex
	online Checker
	stop   func()
	text   string // of the first contradiction
	at     time.Duration
	took   time.Duration
}

func (w *watcher) look(op *history.Op, now func() time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.text != "" {
		return
	}
	text, bad := w.online.Add(op)
	if !bad {
		return
	}
	w.text, w.at = text, time.Duration(op.Return)
	w.took = now() - w.at
	w.stop()
}
