package faults

import (
	"context"
	"net"
	"strconv"
	"sync"

	"brownout/cluster"
	"brownout/internal/sys/netns"
)

// What a node must want for faults that are felt only by those who want more.

// keepHungry has a node's cgroup want page cache without end, until stop is called.
func (b *bench) keepHungry(ctx context.Context, n *cluster.Node) (stop func()) {
	const size = 256 << 20
	f, err := b.scratchFile(n, size)
	if err != nil {
		return func() {} // nobody is hungry, and the meter says that the limit never bound
	}
	t, err := b.startTenant(n.Group(), appetite{churn: size, pace: size}, nil, f)
	if err != nil || t.begin() != nil {
		f.Close()
		return func() {}
	}
	end := context.AfterFunc(ctx, t.end)
	return func() { // whoever was first has ended it
		if end() {
			t.end()
		}
		f.Close()
	}
}

// keepGrowing has a node need new memory all the time, until stop is called: its
// runtime is told to hold as little as it can, so that it gives memory back and
// takes it anew.
func (b *bench) keepGrowing(ctx context.Context, n *cluster.Node) (stop func()) {
	s := &storm{nodes: []*cluster.Node{n}}
	if s.Set(ctx, Dose{"heap_bytes": int64(4 << 20), "gogc": int64(50), "alloc_bytes_per_s": int64(64 << 20), "limit_bytes": int64(1 << 20)}) != nil {
		return func() {} // it needs none, and the meter says so
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyWithin)
		defer cancel()
		_ = s.Heal(ctx) // it ends with the cluster at the latest
	}
}

// keepBusy has clients ping a node as fast as they can until stop is called.
func (b *bench) keepBusy(n *cluster.Node) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			addr := net.JoinHostPort(n.IP4().String(), strconv.Itoa(clientPort))
			conn, err := netns.Dial(ctx, b.Cluster.ClientNetNS(), "tcp", addr)
			if err != nil {
				return // the node stays idle, and the meter says that the quota never bound
			}
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			for buf := make([]byte, 64); ; {
				if _, err := conn.Write([]byte(ping)); err != nil {
					return
				}
				if _, err := conn.Read(buf); err != nil {
					return
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}
