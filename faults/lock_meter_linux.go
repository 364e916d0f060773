package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/kvserver"
)

// A lockMeter looks at locks from both sides: what one client's requests take
// (outside), and what the target's turns waited for locks and held them, by its
// own account (inside). Requests may be slow for many reasons, and an account may
// say anything: only both together are a lock that is held.
//
// It disturbs each node with up to some hundred requests a second.
type lockMeter struct {
	b     *bench
	names []string
	pause time.Duration
	judge lockJudge

	nodes  []*cluster.Node
	probes []*lockProbe
	before []lockLook
	inside []kvserver.Locks // when Measure began
	begun  time.Time
}

// A lockLook is what was seen of a node in some time.
type lockLook struct {
	reads, writes []time.Duration
	locks         kvserver.Locks // at its end: all since the process began
	looked        time.Duration
}

// A lockJudge compares what was seen with a healthy node. It says what is not
// as it was asked for, "" for nothing.
type lockJudge interface {
	judge(was, is lockLook, values map[string]any) (why, bad string)
	healed(was, is lockLook) (bad string)
}

// Times that nodes are looked at before a fault and after it.
const (
	lockBase   = 400 * time.Millisecond
	lockHealed = 300 * time.Millisecond
	lockLeast  = 5 // requests
)

func newLockMeter(b *bench, site Site, pause time.Duration, j lockJudge) (Meter, error) {
	if len(site.Nodes) == 0 {
		return nil, errors.New("no nodes")
	}
	return &lockMeter{b: b, names: site.Nodes, pause: pause, judge: j}, nil
}

func (m *lockMeter) Baseline(ctx context.Context) (_ Reading, err error) {
	if m.nodes, err = m.b.nodes(m.names); err != nil {
		return Reading{}, err
	}
	for _, n := range m.nodes {
		var all []netip.Addr
		for _, p := range n.Peers() {
			all = append(all, p.IP4())
		}
		m.probes = append(m.probes, startLockProbe(m.b.Cluster.ClientNetNS(), n.IP4(), all, m.pause))
	}
	from, locks, err := m.locks(ctx)
	for end := time.Now().Add(lockBase); err == nil; {
		if !sleep(ctx, lockBase/4) {
			err = ctx.Err()
			break
		}
		if m.before, err = m.look(ctx, from, locks); err != nil || !time.Now().Before(end) && m.enough() {
			break
		}
		if time.Since(end) > 10*lockBase {
			err = errors.New("no node serves writes and reads")
		}
	}
	if err != nil {
		m.Close()
		return Reading{}, err
	}
	w, r := m.before[0].writes, m.before[0].reads
	return Reading{map[string]any{"write_p50_ns": int64(quantile(w, 0.5)), "read_p50_ns": int64(quantile(r, 0.5)), "n": len(w)}}, nil
}

// enough reports whether what is usual is known of all nodes.
func (m *lockMeter) enough() bool {
	return !slices.ContainsFunc(m.before, func(l lockLook) bool { return min(len(l.reads), len(l.writes)) < lockLeast })
}

// locks asks all nodes for their accounts.
func (m *lockMeter) locks(ctx context.Context) (at time.Time, all []kvserver.Locks, err error) {
	at = time.Now()
	for _, n := range m.nodes {
		var got kvserver.Metrics
		a := adminOf(n)
		err := a.call(ctx, http.MethodGet, "/metrics", nil, &got)
		a.close()
		if err != nil {
			return at, nil, fmt.Errorf("ask %s what it waited for locks: %w", n.Name(), err)
		}
		all = append(all, got.Locks)
	}
	return at, all, nil
}

// look returns what was seen since a time.
func (m *lockMeter) look(ctx context.Context, from time.Time, was []kvserver.Locks) ([]lockLook, error) {
	to, locks, err := m.locks(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]lockLook, len(m.nodes))
	for i, p := range m.probes {
		l := &all[i]
		l.locks, l.looked = since(locks[i], was[i]), to.Sub(from)
		var rerr, werr error
		l.reads, rerr = p.took(&p.reads, from, to)
		l.writes, werr = p.took(&p.writes, from, to)
		if errors.Join(rerr, werr) != nil && m.begun.IsZero() && to.Sub(from) > 2*lockBase {
			return nil, fmt.Errorf("probe %s: %w", p.node, errors.Join(rerr, werr))
		}
	}
	return all, nil
}

// since is what an account has grown by; that of a new process is all new.
func since(now, was kvserver.Locks) kvserver.Locks {
	less := func(a *kvserver.Latency, b kvserver.Latency) {
		if b.Count <= a.Count {
			a.Count, a.SumNS = a.Count-b.Count, a.SumNS-b.SumNS
		}
	}
	less(&now.ApplyWait, was.ApplyWait)
	less(&now.ApplyHold, was.ApplyHold)
	less(&now.ReadWait, was.ReadWait)
	less(&now.ReadHold, was.ReadHold)
	return now
}

func mean(l kvserver.Latency) time.Duration { return time.Duration(l.SumNS / max(l.Count, 1)) }

func (m *lockMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if m.begun.IsZero() {
		var err error
		if m.begun, m.inside, err = m.locks(short); err != nil {
			return Reading{}, Answer{}, err
		}
	}
	<-ctx.Done()
	all, err := m.look(short, m.begun, m.inside)
	if err != nil {
		return Reading{}, Answer{}, err
	}
	values := map[string]any{}
	var whys, bad []string
	for i, n := range m.nodes {
		why, wrong := m.judge.judge(m.before[i], all[i], values)
		whys = append(whys, n.Name()+": "+why)
		if wrong != "" {
			bad = append(bad, n.Name()+": "+wrong)
		}
	}
	why := strings.Join(whys, "; ")
	if bad != nil {
		return Reading{values}, Answer{false, strings.Join(bad, "; ") + " (" + why + ")"}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

func (m *lockMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	from, locks, err := m.locks(ctx)
	if err != nil {
		return Reading{}, Answer{}, err
	}
	var all []lockLook
	for try := 0; ; try++ { // it may take a while until somebody leads and serves again
		sleep(ctx, lockHealed)
		if all, err = m.look(ctx, from, locks); err != nil {
			return Reading{}, Answer{}, err
		}
		few := slices.ContainsFunc(all, func(l lockLook) bool { return min(len(l.writes), len(l.reads)) < lockLeast })
		if !few || try == 4 {
			break
		}
	}
	values := map[string]any{}
	for i, n := range m.nodes {
		values["write_p50_ns"], values["hold_ns"], values["wait_ns"] = int64(quantile(all[i].writes, 0.5)), int64(mean(all[i].locks.ApplyHold)), int64(mean(all[i].locks.ApplyWait))
		values["n"] = len(all[i].writes)
		bad := "no write or no read came through"
		if len(all[i].writes) > 0 && len(all[i].reads) > 0 {
			bad = m.judge.healed(m.before[i], all[i])
		}
		if bad != "" {
			return Reading{values}, Answer{false, n.Name() + ": " + bad}, nil
		}
	}
	return Reading{values}, Answer{true, fmt.Sprintf("requests are as quick as before, locks held for %s (mean)", short(time.Duration(values["hold_ns"].(int64))))}, nil
}

func (m *lockMeter) Close() error {
	for _, p := range m.probes {
		p.close()
	}
	m.probes = nil
	return nil
}
