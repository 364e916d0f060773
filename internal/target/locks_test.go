package target

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"brownout/checker"
	"brownout/internal/history"
	"brownout/internal/workload"
	"brownout/kvserver"
)

// TestEveryLockModeIsLinearizable has clients at work on three nodes of each
// mode, with snapshots on the way, and judges their history.
func TestEveryLockModeIsLinearizable(t *testing.T) {
	for i, mode := range []string{"global", "rw", "sharded", "lockfree-read"} {
		t.Run(mode, func(t *testing.T) {
			net := fmt.Sprintf("127.%d.%d", 32+os.Getpid()%32, 1+i)
			var peers []kvserver.Peer
			var ends []workload.Endpoint
			for n := range 3 {
				ip := fmt.Sprintf("%s.%d", net, n+1)
				peers = append(peers, kvserver.Peer{ID: fmt.Sprint("n", n+1), Raft: ip + ":7000", Client: ip + ":6379"})
				ends = append(ends, workload.Endpoint{Node: peers[n].ID, Addr: peers[n].Client})
			}
			ctx, stop := context.WithCancel(t.Context())
			dir := t.TempDir()
			var nodes sync.WaitGroup
			defer nodes.Wait()
			defer stop()
			for n, p := range peers {
				c := kvserver.Config{
					ID: p.ID, Log: "memory", Client: p.Client, Raft: p.Raft, Peers: peers, Kick: n == 0, Lock: mode,
					Admin: filepath.Join(dir, p.ID), SnapshotThreshold: 200, SnapshotInterval: kvserver.Duration(20 * time.Millisecond), LogLevel: "off",
				}
				nodes.Go(func() {
					if err := kvserver.Run(ctx, c, io.Discard); err != nil {
						t.Error(err)
					}
				})
			}
			ops := work(t, ends)
			res, err := checker.Check(t.Context(), ops, checker.Options{})
			if err != nil {
				t.Fatal(err)
			}
			ok := 0
			for _, o := range ops {
				if o.Outcome == history.OK {
					ok++
				}
			}
			t.Logf("%d operations, %d done: %s by %s", len(ops), ok, res.Verdict, res.Engine)
			if res.Verdict != checker.OK || ok < len(ops)/2 {
				t.Errorf("%+v", res)
			}
		})
	}
}

// work has clients do operations on few keys.
func work(t *testing.T, ends []workload.Endpoint) (ops []history.Op) {
	const clients, each, keys = 8, 400, 5
	var mu sync.Mutex
	var wg sync.WaitGroup
	d := &KVDialer{}
	start := time.Now()
	for n := range clients {
		wg.Go(func() {
			c, err := d.Dial(t.Context(), workload.Cluster{Endpoints: ends, Prefer: "leader"})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			rng := rand.New(rand.NewPCG(uint64(n), 1))
			last, id := map[string]*string{}, n
			for i := range each {
				o := history.Op{Client: id, Key: fmt.Sprint("k", rng.IntN(keys)), Kind: history.Get}
				value := fmt.Sprintf("%d.%d", n, i)
				switch r := rng.IntN(10); {
				case r < 4:
					o.Kind, o.Value = history.Put, &value
				case r < 6 && last[o.Key] != nil:
					o.Kind, o.Value, o.Expect = history.CAS, &value, last[o.Key]
				}
				req := history.Request{Kind: o.Kind, Key: o.Key, Value: value}
				if o.Expect != nil {
					req.Expect = *o.Expect
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				o.Due = int64(time.Since(start))
				o.Call = o.Due
				r := c.Do(ctx, req)
				o.Return = int64(time.Since(start))
				cancel()
				o.Outcome, o.Result, o.Swapped, o.Node = r.Outcome, r.Found, r.Swapped, r.Node
				if o.Outcome == history.OK && o.Kind != history.Put {
					last[o.Key] = o.Result
				}
				if o.Outcome == history.Unknown {
					id += clients
				}
				mu.Lock()
				o.ID = int64(len(ops))
				ops = append(ops, o)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ops
}
