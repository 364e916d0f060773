package scenarios

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"brownout/internal/clock"
	"brownout/internal/run"
)

// An eventLog writes events.jsonl, each event as one write at once, so that a
// killed run keeps what it knew, and passes it on to whoever watches.
//
// The run's zero is the start of the warm-up, which is known only once the
// cluster is up; events before it have negative times. They are held until
// then, so that the file's times are of one line throughout.
type eventLog struct {
	mu      sync.Mutex
	f       *os.File
	clock   clock.Clock
	started bool
	sealed  bool
	held    []run.Event // T is a raw clock reading
	watch   func(run.Event)
	err     error
}

func newEventLog(path string, watch func(run.Event)) (*eventLog, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	if watch == nil {
		watch = func(run.Event) {}
	}
	return &eventLog{f: f, watch: watch}, nil
}

// emit records e, and stamps it if its time is 0.
func (l *eventLog) emit(e run.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started {
		l.watch(e)
		e.T = clock.Raw()
		l.held = append(l.held, e)
		return
	}
	if e.T == 0 {
		e.T = int64(l.clock.Now())
	}
	l.watch(e)
	if !l.sealed {
		l.write(e)
	}
}

// seal ends the record: what happens from now on is only told to whoever watches.
func (l *eventLog) seal() {
	l.start(clock.At(clock.Raw())) // a run that never started still says why
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sealed = true
}

// start fixes the run's zero and writes what was held.
func (l *eventLog) start(c clock.Clock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.started {
		return
	}
	l.clock, l.started = c, true
	for _, e := range l.held {
		e.T -= c.Zero()
		l.write(e)
	}
	l.held = nil
}

func (l *eventLog) write(e run.Event) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a link is "n1>n2"
	err := enc.Encode(e)
	if err == nil {
		_, err = l.f.Write(b.Bytes())
	}
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("write %s: %w", run.EventsFile, err)
	}
}

// close flushes to disk and returns the first error of the log's life.
func (l *eventLog) close() error {
	l.seal()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.f.Sync(); err != nil && l.err == nil {
		l.err = fmt.Errorf("sync %s: %w", run.EventsFile, err)
	}
	if err := l.f.Close(); err != nil && l.err == nil {
		l.err = err
	}
	return l.err
}
