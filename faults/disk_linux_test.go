package faults_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"brownout/cluster"
	"brownout/faults"
	"brownout/faults/faultstest"
	"brownout/internal/faultfs"
	"brownout/internal/sys/netns"
)

// diskDoses are a dose of each kind, and what its meter says of a fault that
// does nothing.
var diskDoses = []struct {
	kind    string
	dose    faults.Dose
	changed faults.Dose
	nothing string
}{
	{"disk.delay", faults.Dose{"op": "write", "add_ns": 5 * ms, "jitter_ns": 2 * ms, "dist": "normal"}, nil, "tolerance"},
	{"disk.delay", faults.Dose{"op": "fsync", "trace": "2ms, 2ms, 2ms, 40ms"}, nil, "tolerance"},
	{"disk.hang", faults.Dose{"op": "fsync"}, nil, "returned"},
	{"disk.hang", faults.Dose{"op": "all"}, nil, "returned"},
	{"disk.hang", faults.Dose{"op": "write", "each_ns": 50 * ms}, nil, "tolerance"},
	{"disk.rate", faults.Dose{"op": "write", "limit_bytes_per_s": int64(1 << 20)}, nil, "more than the limit"},
	{"disk.iops", faults.Dose{"op": "all", "limit": int64(100)}, nil, "more than the limit"},
	{"disk.error", faults.Dose{"op": "fsync", "errno": "EIO", "percent": 20.0}, nil, "none of"},
	{"disk.error", faults.Dose{"op": "open", "errno": "EROFS", "after": int64(3)}, nil, "none of"},
	{"disk.full", faults.Dose{"free_bytes": int64(8192)}, nil, "none of"},
	{"disk.torn", faults.Dose{"prefix": 50.0, "restart_ns": 100 * ms}, nil, "lives"},
	{"disk.corrupt", faults.Dose{"percent": 30.0, "bits": int64(3)}, nil, "none of"},
	{"power.loss", faults.Dose{"restart_ns": 100 * ms}, nil, "lives"},
	{"disk.contend", faults.Dose{"rate": int64(100), "size_bytes": int64(16 << 10), "workers": int64(2)}, nil, "nobody writes"},
}

func TestDiskProvidersConform(t *testing.T) {
	c := up(t, 3)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	for _, d := range diskDoses {
		t.Run(fmt.Sprint(d.kind, " ", d.dose), func(t *testing.T) {
			provider := "fuse"
			if d.kind == "disk.contend" {
				provider = "tenant"
			}
			faultstest.Conform(t, faultstest.Subject{
				Provider: bench.Source(d.kind, provider), Site: faults.Site{Nodes: []string{"n3"}}, Nowhere: faults.Site{Nodes: []string{"n9"}},
				Dose: d.dose, Changed: d.changed, Hold: time.Second, Residue: func() string { return "" },
				Meter: func(site faults.Site, dose faults.Dose) (faults.Meter, error) { return bench.Meter(d.kind, site, dose) },
			})
		})
	}
}

// TestTrapsConform: faults at the targets' own calls, on their plain disk.
func TestTrapsConform(t *testing.T) {
	c := upWith(t, 3, nil, func(cfg *cluster.Config) {
		cfg.Disk, cfg.Trap = cluster.DiskPlain, []faultfs.Op{faultfs.All}
	})
	bench := faults.NewBench(faults.Bed{Cluster: c})
	for _, d := range []struct {
		kind          string
		dose, changed faults.Dose
	}{
		{"disk.delay", faults.Dose{"op": "fsync", "add_ns": 20 * ms}, faults.Dose{"op": "fsync", "add_ns": 5 * ms}},
		{"disk.delay", faults.Dose{"op": "write", "add_ns": 5 * ms}, nil},
		{"disk.delay", faults.Dose{"op": "read", "add_ns": 5 * ms}, nil},
		{"disk.delay", faults.Dose{"op": "open", "add_ns": 5 * ms}, nil},
		{"disk.delay", faults.Dose{"op": "rename", "add_ns": 5 * ms}, nil},
		{"disk.hang", faults.Dose{"op": "fsync"}, nil},
		{"disk.hang", faults.Dose{"op": "all"}, nil},
		{"disk.error", faults.Dose{"op": "fsync", "errno": "EIO", "percent": 30.0}, nil},
		{"disk.error", faults.Dose{"op": "write", "errno": "ENOSPC", "after": int64(5)}, nil},
	} {
		t.Run(fmt.Sprint(d.kind, " ", d.dose), func(t *testing.T) {
			p := bench.Source(d.kind, "seccomp")
			if err := p.Probe(t.Context()); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			faultstest.Conform(t, faultstest.Subject{
				Provider: p, Site: faults.Site{Nodes: []string{"n3"}}, Nowhere: faults.Site{Nodes: []string{"n9"}},
				Dose: d.dose, Changed: d.changed, Hold: time.Second, Residue: func() string { return "" },
				Meter: func(site faults.Site, dose faults.Dose) (faults.Meter, error) { return bench.Meter(d.kind, site, dose) },
			})
		})
	}
	node, _ := c.Node("n3")
	if ok, err := write(t.Context(), c, node, "after", "all"); err != nil {
		t.Errorf("write afterwards = %v, %v", ok, err)
	}
}

// TestDiskMetersSeeThroughFaultsThatDoNothing: no fault is in force, and every
// meter says so.
func TestDiskMetersSeeThroughFaultsThatDoNothing(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	for _, d := range diskDoses {
		t.Run(fmt.Sprint(d.kind, " ", d.dose), func(t *testing.T) {
			t.Parallel()
			notFooled(t, bench, d.kind, faults.Site{Nodes: []string{"n1"}}, d.dose, time.Second, d.nothing)
		})
	}
}

// TestOwnDiskConforms: a power loss by the shutdown of a node's own file system.
func TestOwnDiskConforms(t *testing.T) {
	if err := cluster.ProbeLoop(); err != nil {
		t.Skip(err)
	}
	c := upWith(t, 1, nil, func(cfg *cluster.Config) { cfg.Disk, cfg.Loop = cluster.DiskPlain, true })
	bench := faults.NewBench(faults.Bed{Cluster: c})
	faultstest.Conform(t, faultstest.Subject{
		Provider: bench.Source("power.loss", "ext4"), Site: faults.Site{Nodes: []string{"n1"}}, Nowhere: faults.Site{Nodes: []string{"n9"}},
		Dose: faults.Dose{"restart_ns": 100 * ms}, Hold: time.Second, Residue: func() string { return "" },
		Meter: func(site faults.Site, dose faults.Dose) (faults.Meter, error) {
			return bench.Meter("power.loss", site, dose)
		},
	})
}

// TestAHungNodeDies: a node whose every operation hangs is killed, its disk
// healed, and it serves again.
func TestAHungNodeDies(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	site := faults.Site{Nodes: []string{"n1"}}
	n, _ := c.Node("n1")
	hang, err := bench.Source("disk.hang", "fuse").Inject(t.Context(), site, faults.Dose{"op": "all"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { _, _ = write(ctx, c, n, "k", "v") }() // returns when the node is dead
	awaitWaiting(ctx, t, n)
	dead, err := bench.Source("process.kill", "signal").Inject(ctx, site, faults.Dose{})
	if err != nil {
		t.Fatalf("kill a node that hangs: %v", err)
	}
	if err := hang.Heal(ctx); err != nil {
		t.Error(err)
	}
	if err := dead.Heal(ctx); err != nil {
		t.Error(err)
	}
}

// awaitWaiting returns once an operation of a node's disk waits for a fault of it.
func awaitWaiting(ctx context.Context, t *testing.T, n *cluster.Node) {
	t.Helper()
	for {
		st, err := n.DiskStats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if st.Waiting > 0 {
			return
		}
	}
}

// write sets a key and says whether that was acknowledged.
func write(ctx context.Context, c *cluster.Cluster, n *cluster.Node, key, value string) (bool, error) {
	reply, err := command(ctx, c, n, "SET", key, value)
	return err == nil && strings.HasPrefix(reply, "+"), err
}

func command(ctx context.Context, c *cluster.Cluster, n *cluster.Node, words ...string) (string, error) {
	conn, err := netns.Dial(ctx, c.ClientNetNS(), "tcp", net.JoinHostPort(n.IP4().String(), "6379"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return ask(conn, bufio.NewReader(conn), words...)
}

func ask(conn net.Conn, r *bufio.Reader, words ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return "", err
	}
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "$") || strings.HasPrefix(line, "$-1") {
		return line, err
	}
	return r.ReadString('\n')
}

// TestPowerLossOfAStore cuts the power of a node that is written to, and looks
// for every write that it acknowledged. A store that keeps nothing, and one
// whose fsync lies, must be found out.
func TestPowerLossOfAStore(t *testing.T) {
	for _, tt := range []struct {
		log, provider string
		lie           bool
		lose          bool
	}{
		{"wal", "fuse", false, false},
		{"bolt", "fuse", false, false},
		{"memory", "fuse", false, true},
		{"wal", "fuse", true, true},
		{"bolt", "fuse", true, true},
		{"wal", "ext4", false, false},
		{"memory", "ext4", false, true},
	} {
		t.Run(fmt.Sprintf("%s by %s, fsync lies %v", tt.log, tt.provider, tt.lie), func(t *testing.T) {
			if err := cluster.ProbeLoop(); tt.provider == "ext4" && err != nil {
				t.Skip(err)
			}
			c := upWith(t, 1, map[string]string{"log": tt.log}, func(cfg *cluster.Config) {
				if cfg.Loop = tt.provider == "ext4"; cfg.Loop {
					cfg.Disk = cluster.DiskPlain
				}
			})
			n, _ := c.Node("n1")
			p := faults.NewBench(faults.Bed{Cluster: c}).Source("power.loss", tt.provider)
			if err := p.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
			if tt.lie {
				if err := n.SetDisk(t.Context(), faultfs.Rules{Lie: true}); err != nil {
					t.Fatal(err)
				}
			}
			acked := map[string]string{}
			lost := 0
			for round := range 3 {
				maps.Copy(acked, writeUntilCut(t, c, n, p, round))
				lost += missing(t, c, n, acked)
			}
			if len(acked) < 50 {
				t.Errorf("only %d writes were acknowledged: the test has not tried hard", len(acked))
			}
			t.Logf("%d of %d acknowledged writes lost", lost, len(acked))
			if (lost > 0) != tt.lose {
				t.Errorf("%d of %d acknowledged writes lost, want some: %v", lost, len(acked), tt.lose)
			}
		})
	}
}

// writeUntilCut writes by several clients until the power is cut, and returns
// when the node is back.
func writeUntilCut(t *testing.T, c *cluster.Cluster, n *cluster.Node, p faults.Provider, round int) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	acked := map[string]string{}
	enough := make(chan struct{})
	for w := range 4 {
		conn, err := netns.Dial(ctx, c.ClientNetNS(), "tcp", net.JoinHostPort(n.IP4().String(), "6379"))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close()
			r := bufio.NewReader(conn)
			for i := 0; ; i++ {
				key, value := fmt.Sprintf("k%d.%d.%d", round, w, i), fmt.Sprint(i)
				reply, err := ask(conn, r, "SET", key, value)
				if err != nil || !strings.HasPrefix(reply, "+") {
					return
				}
				mu.Lock()
				acked[key] = value
				if len(acked) == 40+17*round {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-ctx.Done():
		t.Fatal("no writes")
	}
	inj, err := p.Inject(ctx, faults.Site{Nodes: []string{n.Name()}}, faults.Dose{})
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := inj.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	return acked
}

func missing(t *testing.T, c *cluster.Cluster, n *cluster.Node, acked map[string]string) (lost int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := netns.Dial(ctx, c.ClientNetNS(), "tcp", net.JoinHostPort(n.IP4().String(), "6379"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r := bufio.NewReader(conn)
	for _, key := range slices.Sorted(maps.Keys(acked)) {
		got, err := ask(conn, r, "GET", key)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(got) != acked[key] {
			lost++
		}
	}
	return lost
}

// TestDosesOutOfRangeAreRefused: also where no scenario's parser stands before.
func TestDosesOutOfRangeAreRefused(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	for _, tt := range []struct {
		kind string
		dose faults.Dose
		want string
	}{
		{"disk.delay", faults.Dose{"op": "fsync"}, "nothing to add"},
		{"disk.delay", faults.Dose{"op": "fsync", "add_ns": 61_000 * ms}, "0s..1m0s"},
		{"disk.delay", faults.Dose{"op": "fsync", "trace": "5ms, 2h"}, "0s..1m0s"},
		{"disk.delay", faults.Dose{"op": "seek", "add_ns": 5 * ms}, "no such class"},
		{"disk.rate", faults.Dose{"op": "all", "limit_bytes_per_s": int64(0)}, "above 0"},
		{"disk.iops", faults.Dose{"op": "all", "limit": int64(-1)}, "above 0"},
		{"disk.error", faults.Dose{"op": "fsync", "errno": "EPERM", "percent": 5.0}, "none of EIO"},
		{"disk.error", faults.Dose{"op": "fsync", "errno": "EIO"}, "one of percent and after"},
		{"disk.error", faults.Dose{"op": "fsync", "errno": "EIO", "percent": 120.0}, "share of 1.2"},
		{"disk.full", faults.Dose{"free_bytes": int64(-5)}, "-5 bytes"},
	} {
		inj, err := bench.Source(tt.kind, "fuse").Inject(t.Context(), faults.Site{Nodes: []string{"n1"}}, tt.dose)
		if err == nil {
			err = errors.Join(errors.New("it was injected"), inj.Heal(t.Context()))
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v: %v; want %q in it", tt.kind, tt.dose, err, tt.want)
		}
	}
}

// TestAFaultOfADiskOutlivesAPowerLoss: the disk is mounted again by us, with the
// fault in force, which is not somebody else who undid it.
func TestAFaultOfADiskOutlivesAPowerLoss(t *testing.T) {
	c := up(t, 1)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	site := faults.Site{Nodes: []string{"n1"}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	power := bench.Source("power.loss", "fuse")
	if err := power.Probe(ctx); err != nil {
		t.Fatal(err)
	}
	dose := faults.Dose{"op": "fsync", "add_ns": 20 * ms}
	m := readyMeter(ctx, t, bench, "disk.delay", site, dose)
	slow, err := bench.Source("disk.delay", "fuse").Inject(ctx, site, dose)
	if err != nil {
		t.Fatal(err)
	}
	watch, ok := m.(interface {
		Undone(context.Context, faults.Dose) string
	})
	if !ok {
		t.Fatal("nobody watches the disk")
	}
	for range 2 {
		if why := watch.Undone(ctx, dose); why != "" {
			t.Errorf("undone: %s", why)
		}
		lost, err := power.Inject(ctx, site, faults.Dose{"restart_ns": 50 * ms})
		if err != nil {
			t.Fatal(err)
		}
		if why := watch.Undone(ctx, dose); why != "" {
			t.Errorf("after a power loss: undone: %s", why)
		}
		if err := lost.Heal(ctx); err != nil {
			t.Fatal(err)
		}
		look, over := context.WithTimeout(ctx, time.Second)
		_, answer, err := m.Measure(look, dose)
		over()
		if err != nil || !answer.Yes {
			t.Errorf("Measure = %v, %q, %v", answer.Yes, answer.Why, err)
		}
	}
	if err := slow.Heal(ctx); err != nil {
		t.Error(err)
	}
	if _, answer, err := m.Healed(ctx); err != nil || !answer.Yes {
		t.Errorf("Healed = %v, %q, %v", answer.Yes, answer.Why, err)
	}
}
