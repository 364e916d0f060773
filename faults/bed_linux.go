package faults

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"brownout/cluster"
	"brownout/internal/clock"
	"brownout/internal/faultfs"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/internal/sys/cgroup"
	"brownout/internal/wire"
	"brownout/kvserver"
)

// A Bed is where a [Nemesis] plays.
type Bed struct {
	Cluster *cluster.Cluster
	Clock   clock.Clock     // the run's time line: when faults are due, and the time of events; see [Nemesis.Start]
	Seed    uint64          // of the draws of selectors
	Emit    func(run.Event) // told what happens, from one goroutine at a time
	Network plan.Network    // healthy links; in force from the start
	Exe     string          // this binary, for helper processes; default /proc/self/exe

	// Baseline is the phase whose demand a quota may be a share of; without it,
	// what was used lately.
	Baseline plan.Phase
}

// NewNemesis returns a nemesis for a cluster that is up, with the healthy
// state of its links in force. Faults added by hand end with ctx; [Nemesis.Close]
// must be called in any case.
func NewNemesis(ctx context.Context, bed Bed) (*Nemesis, error) {
	b := newBench(bed)
	if err := b.applyProfile(ctx); err != nil {
		return nil, fmt.Errorf("apply the healthy links' profile: %w", err)
	}
	n := newNemesis(ctx, b, bed.Clock, bed.Seed, bed.Emit)
	n.wg.Go(func() { b.watchDemand(n.ctx) })
	return n, nil
}

// A bench is what providers and meters have in common: the cluster, and the
// ledgers of what is asked for where.
type bench struct {
	Bed
	links     ledger[Link, wire.Impairment]
	netems    ledger[Link, wire.Impairment]
	blocks    ledger[string, cluster.BlockFault]
	quotas    ledger[string, quota]
	throttles ledger[string, cgroup.IOLimit]
	disks     ledger[string, faultfs.Rules]
	frozen    map[string]*ledger[string, bool] // by provider; what is asked for is always true
	downs     ledger[string, syscall.Signal]
	pins      ledger[string, pin]
	memory    ledger[string, memoryAsk]
	clocks    ledger[string, time.Duration]
	skews     ledger[string, kvserver.ClockRequest]
	demand    demand

	hammers hammers // processes of disk.contend
	traps   ledger[string, faultfs.Rules]

	stuck sync.Map // by node: the threads that its latest freeze did not reach, in words

	started atomic.Pointer[clock.Clock] // the run's time line

	noisy   neighbours
	besides bystanders
	weights ledger[string, bool] // of the whole run, under no name
	weight  int                  // the run's own, while it has another
	flows   ledger[portFlow, bool]
	locks   ledger[string, kvserver.LockRequest]
	codecs  ledger[string, kvserver.CodecRequest]
	ups     atomic.Int64 // nanoseconds in which programs that were started were waited for
	idle    bool         // nobody else is on the cluster: meters may send as much as they like
}

func newBench(bed Bed) *bench {
	if bed.Exe == "" {
		bed.Exe = "/proc/self/exe"
	}
	b := &bench{Bed: bed, frozen: map[string]*ledger[string, bool]{}}
	b.links.apply = b.impair
	b.netems.apply = b.emulate
	b.blocks.apply = b.setBlock
	b.quotas.apply = b.setQuota
	b.throttles.apply = b.setThrottle
	b.disks.apply = b.setDisk
	b.traps.apply = b.setTrap
	b.downs.apply = b.setDown
	b.pins.apply = b.setPin
	b.memory.apply = b.setMemory
	b.clocks.apply = b.setClock
	b.skews.apply = b.setSkew
	b.weights.apply = b.setWeight
	b.flows.apply = b.setFlow
	b.locks.apply = b.setLocks
	b.codecs.apply = b.setCodec
	for _, how := range pauseNames {
		b.frozen[how] = &ledger[string, bool]{apply: func(ctx context.Context, node string, asked []bool) error {
			return b.setFrozen(ctx, how, node, len(asked) > 0)
		}}
	}
	return b
}

// start learns the run's time line.
func (b *bench) start(c clock.Clock) { b.started.Store(&c) }

func (b *bench) statuses(ctx context.Context) []cluster.Status { return b.Cluster.Statuses(ctx) }

func (b *bench) candidates(kind string) []candidate {
	var out []candidate
	for _, row := range table {
		if row.kind == kind {
			for _, s := range row.sources {
				out = append(out, candidate{s.name, s.new(b)})
			}
		}
	}
	return out
}

func (b *bench) meter(kind string, site Site, d Dose) (Meter, error) {
	for _, row := range table {
		if row.kind != kind {
			continue
		}
		m, err := row.meter(b, site, d)
		if err != nil || !strings.HasPrefix(kind, "disk.") {
			return m, err
		}
		nodes, err := b.nodes(site.Nodes)
		return &mountMeter{Meter: m, nodes: nodes}, err
	}
	return nil, fmt.Errorf("no meter for %s", kind)
}

func (b *bench) node(name string) (*cluster.Node, error) {
	n, ok := b.Cluster.Node(name)
	if !ok {
		return nil, fmt.Errorf("no node %q", name)
	}
	return n, nil
}

// waitReady waits for a program that was started, and counts the time.
func (b *bench) waitReady(ctx context.Context, n *cluster.Node) error {
	begun := time.Now()
	defer func() { b.ups.Add(int64(time.Since(begun))) }()
	return n.WaitReady(ctx)
}

func (b *bench) nodes(names []string) ([]*cluster.Node, error) {
	out := make([]*cluster.Node, len(names))
	for i, name := range names {
		n, err := b.node(name)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

// endpoint returns the port on the switch and the network namespace of a node
// or of the client.
func (b *bench) endpoint(name string) (index int, ns *os.File, err error) {
	index, ok := b.Cluster.Index(name)
	if !ok {
		return 0, nil, fmt.Errorf("no place %q on the switch", name)
	}
	if name == cluster.ClientName {
		return index, b.Cluster.ClientNetNS(), nil
	}
	n, err := b.node(name)
	if err != nil {
		return 0, nil, err
	}
	return index, n.NetNS(), nil
}
