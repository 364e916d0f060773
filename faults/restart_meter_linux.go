package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"brownout/internal/sys/proc"
)

// Marks in a node's data: one made before the fault, one right after its
// begin. What becomes of them tells which data a node was given.
const (
	markBefore = ".brownout-before"
	markAfter  = ".brownout-after"
)

// A restartMeter is a killMeter that also looks at the data.
type restartMeter struct {
	*killMeter
	data   string
	marked bool
}

func meterRestart(b *bench, site Site, d Dose) (Meter, error) {
	m, err := meterKill(b, site, Dose{"restart_ns": d.Float("down_ns")})
	if err != nil {
		return nil, err
	}
	return &restartMeter{killMeter: m.(*killMeter), data: d.String("data")}, nil
}

func (m *restartMeter) Baseline(ctx context.Context) (Reading, error) {
	r, err := m.killMeter.Baseline(ctx)
	if err == nil {
		err = m.mark(markBefore)
	}
	return r, err
}

func (m *restartMeter) mark(name string) error {
	for _, n := range m.pingers.nodes {
		if err := os.WriteFile(filepath.Join(n.Data(), name), nil, 0o600); err != nil {
			return fmt.Errorf("mark the data of %s: %w", n.Name(), err)
		}
	}
	return nil
}

func (m *restartMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	if !m.marked && m.data == dataOlder { // the copy was taken before; what follows is younger
		m.marked = true
		if err := m.mark(markAfter); err != nil {
			return Reading{}, Answer{}, err
		}
	}
	r, a, err := m.killMeter.Measure(ctx, d)
	if err != nil || !a.Yes {
		return r, a, err
	}
	why, err := m.wrongData()
	if err != nil {
		return r, Answer{}, err
	}
	if why != "" {
		return r, Answer{false, why}, nil
	}
	a.Why += "; the data are " + m.data
	return r, a, nil
}

// wrongData says on which node the data are not what was asked for.
func (m *restartMeter) wrongData() (string, error) {
	var bad []string
	for _, n := range m.pingers.nodes {
		there := map[string]bool{}
		for _, name := range []string{markBefore, markAfter} {
			_, err := os.Stat(filepath.Join(n.Data(), name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return "", err
			}
			there[name] = err == nil
		}
		switch {
		case there[markBefore] != (m.data != dataLost):
			bad = append(bad, fmt.Sprintf("%s: what was written before the restart is there: %t; asked were data that are %s", n.Name(), there[markBefore], m.data))
		case m.data == dataOlder && there[markAfter]:
			bad = append(bad, n.Name()+": what was written after the copy was taken is still there")
		}
	}
	return strings.Join(bad, "; "), nil
}

func (m *restartMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	for _, n := range m.pingers.nodes {
		for _, name := range []string{markBefore, markAfter} {
			if err := os.Remove(filepath.Join(n.Data(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return Reading{}, Answer{}, err
			}
		}
	}
	return m.killMeter.Healed(ctx)
}

// A crashMeter counts how many processes of a node came and went.
type crashMeter struct {
	b     *bench
	names []string
	every time.Duration

	pingers
	cancel context.CancelFunc
	wg     sync.WaitGroup
	begun  time.Time

	mu    sync.Mutex
	seen  map[int]*proc.Pidfd // alive when they were last looked at
	ended int
}

func meterCrashloop(b *bench, site Site, d Dose) (Meter, error) {
	if len(site.Nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	return &crashMeter{b: b, names: site.Nodes, every: d.Duration("every"), seen: map[int]*proc.Pidfd{}}, nil
}

const crashPoll = 5 * time.Millisecond

func (m *crashMeter) Baseline(ctx context.Context) (Reading, error) {
	if err := m.start(ctx, m.b, m.names, killPing, 10*killPing); err != nil {
		m.Close()
		return Reading{}, err
	}
	m.look()
	if m.ended = 0; len(m.seen) == 0 {
		m.Close()
		return Reading{}, errors.New("the nodes have no processes")
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.cancel, m.begun = cancel, time.Now()
	m.wg.Go(func() {
		for sleep(own, crashPoll) {
			m.look()
		}
	})
	return Reading{map[string]any{"n": len(m.seen)}}, nil
}

// look opens processes that are new and counts those that ended.
func (m *crashMeter) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for pid, fd := range m.seen {
		if fd.Ended() {
			m.ended++
			fd.Close()
			delete(m.seen, pid)
		}
	}
	for _, n := range m.pingers.nodes {
		pids, err := n.Pids()
		if err != nil {
			continue // it is being killed
		}
		for _, pid := range pids {
			if m.seen[pid] != nil {
				continue
			}
			if fd, err := proc.Open(pid); err == nil {
				m.seen[pid] = fd
			}
		}
	}
}

func (m *crashMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	<-ctx.Done()
	m.look()
	m.mu.Lock()
	got := m.ended
	m.mu.Unlock()
	every := d.Duration("every")
	looked := time.Since(m.begun)
	// The first is at once; the last may be under way.
	most := len(m.pingers.nodes) * (1 + int(looked/every))
	least := max(most*9/10-len(m.pingers.nodes), len(m.pingers.nodes))
	values := Reading{map[string]any{"n": got, "asked": most, "every_ns": int64(looked) * int64(len(m.pingers.nodes)) / int64(max(got, 1))}}
	why := fmt.Sprintf("%d of at most %d processes ended in %s, one each %s asked", got, most, short(looked), short(every))
	return values, Answer{got >= least && got <= most, why}, nil
}

func (m *crashMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	m.mu.Lock()
	before := m.ended
	m.mu.Unlock()
	r, a, err := m.alive(ctx, 25*killPing)
	m.look()
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.Yes && m.ended > before {
		a = Answer{false, fmt.Sprintf("%d more processes ended", m.ended-before)}
	}
	return r, a, err
}

func (m *crashMeter) Close() error {
	if m.cancel != nil {
		m.cancel()
		m.wg.Wait()
	}
	m.close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for pid, fd := range m.seen {
		fd.Close()
		delete(m.seen, pid)
	}
	return nil
}
