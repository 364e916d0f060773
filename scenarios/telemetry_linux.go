package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"brownout/cluster"
	"brownout/internal/run"
	systems "brownout/internal/target"
	"brownout/internal/telemetry"
)

// noiseFor is how long the host is watched before a run: long enough for the
// ticks of 10 ms that the kernel counts CPU time in.
const noiseFor = 500 * time.Millisecond

// ownCPU is the CPU time that the testbed and its nodes have used so far. What
// the host did beyond it, somebody else did.
func (s *session) ownCPU() time.Duration {
	pids := []int{0}
	for _, n := range s.cluster.Boxes() {
		pids = append(pids, n.InitPid())
	}
	if s.load != nil {
		pids = append(pids, s.load.PID())
	}
	if pid := s.cluster.Switch().WirePID(); pid > 0 {
		pids = append(pids, pid)
	}
	sum := telemetry.CPUTime(pids...)
	if st, err := s.cluster.Group().Stat(); err == nil { // else the targets count as foreign, which errs on the safe side
		sum += st.Usage
	}
	return sum
}

// measureNoise records what the host does beside us, and how fast its disk is.
func (s *session) measureNoise(ctx context.Context) error {
	n, err := telemetry.Noise(ctx, s.Dir, noiseFor, s.ownCPU)
	if err != nil {
		return fmt.Errorf("measure host noise: %w", err)
	}
	s.emitNoise("before", n)
	return nil
}

func (s *session) emitNoise(when string, n run.Noise) {
	s.events.emit(run.Event{Type: run.HostNoise, Phase: when, Data: map[string]any{
		"cpu_pressure": n.CPUPressure, "foreign_cpu": n.ForeignCPU, "fsync_p50_ns": n.FsyncP50,
	}})
}

// sample writes telemetry until ctx ends.
func (s *session) sample(ctx context.Context) (err error) {
	log, err := telemetry.Create(s.path(run.TelemetryFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	host, err := telemetry.NewHost(s.ownCPU)
	if err != nil {
		return err
	}
	h := host.Source()
	h.Skip = 4 // twice a second is enough for what the kernel counts in ticks
	sources := []telemetry.Source{h}
	peers := map[netip.Addr]string{}
	for _, n := range s.cluster.Nodes() {
		peers[n.IP4()], peers[n.IP6()] = n.Name(), n.Name()
	}
	for _, n := range s.cluster.Boxes() {
		src, closing, err := telemetry.NodeSources(s.nodeNumbers(n, peers))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closing()) }()
		sources = append(sources, src...)
	}
	sampler := telemetry.Sampler{Clock: s.clock}
	return sampler.Run(ctx, sources, log.Write)
}

// announce emits each phase as it begins, and what the host did beside us in
// each as it ends: noise in one phase alone would drown in the sum of all.
func (s *session) announce(ctx context.Context) error {
	for _, p := range s.Plan.Phases {
		timer := time.NewTimer(time.Until(s.clock.Time(p.Start)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		s.events.emit(run.Event{T: max(int64(p.Start), 1), Type: run.PhaseStarted, Phase: p.Name})
		host, err := telemetry.NewHost(s.ownCPU)
		if err != nil {
			return err
		}
		end := time.NewTimer(time.Until(s.clock.Time(p.End)))
		select {
		case <-ctx.Done():
		case <-end.C:
		}
		end.Stop()
		n, err := host.Noise()
		if err != nil {
			return err
		}
		s.emitNoise(p.Name, n)
	}
	return nil
}

// nodeNumbers says where the numbers of a node come from.
func (s *session) nodeNumbers(n *cluster.Node, peers map[netip.Addr]string) telemetry.Node {
	t := telemetry.Node{
		Name: n.Name(), Group: n.Group(), Pids: n.Pids, NetNS: n.NetNS(), Peers: peers,
		Disk: func(ctx context.Context) (map[string]float64, error) { return diskNumbers(ctx, n) },
	}
	if m, ok := s.target.(*systems.KVServer); ok {
		t.Admin = func(ctx context.Context) (map[string]float64, error) { return m.Metrics(ctx, n.Admin()) }
	}
	return t
}

// diskNumbers is slowfs' own account of a node's file operations.
func diskNumbers(ctx context.Context, n *cluster.Node) (map[string]float64, error) {
	st, err := n.DiskStats(ctx)
	if err != nil {
		return nil, err
	}
	v := map[string]float64{"waiting": float64(st.Waiting)}
	for op, o := range st.Ops {
		name := string(op)
		v[name+"_count"], v[name+"_bytes"], v[name+"_errors"] = float64(o.N), float64(o.Bytes), float64(o.Errors)
		v[name+"_backing_ns"], v[name+"_delay_ns"] = float64(o.Backing), float64(o.Delay)
		v[name+"_delayed_count"] = float64(o.Delayed)
	}
	return v, nil
}
