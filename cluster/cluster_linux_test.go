package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"brownout/internal/faultfs"
	"brownout/internal/needs"
	"brownout/internal/run"
	"brownout/internal/sys/netns"
	"brownout/internal/undo"
)

var ids atomic.Int64

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func inspect(t *testing.T, ctx context.Context, n *Node, foreign ...string) insight {
	t.Helper()
	answer, err := ask(ctx, n, "inspect "+strings.Join(foreign, " "))
	if err != nil {
		t.Fatalf("%s: %v", n.Name(), err)
	}
	var in insight
	if err := json.Unmarshal([]byte(answer), &in); err != nil {
		t.Fatalf("%s: %v", n.Name(), err)
	}
	return in
}

func TestEachNodeHasAWorldOfItsOwn(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	cfg, ev := testConfig(t, 3, testTarget{})
	c := up(t, cfg)
	own := map[string]string{}
	for _, ns := range []string{"net", "mnt", "pid", "uts", "ipc"} {
		own[ns], _ = os.Readlink("/proc/self/ns/" + ns)
	}
	seen := map[string]string{}
	for _, n := range c.Nodes() {
		if got, err := ask(ctx, n, "write secret of-"+n.Name()); err != nil || got != "<nil>" {
			t.Fatalf("%s writes to its disk: %s, %v", n.Name(), got, err)
		}
	}
	for i, n := range c.Nodes() {
		other := c.Nodes()[(i+1)%3]
		in := inspect(t, ctx, n, filepath.Join(other.Dir(), "data/secret"), private+"/disk/secret", "/proc/1/environ", cfg.Dir+"/cleanup.json")
		if in.UID != uidBase+i || in.GID != uidBase+i {
			t.Errorf("%s runs as %d:%d, want its own user %d", n.Name(), in.UID, in.GID, uidBase+i)
		}
		if in.Host != n.Name() {
			t.Errorf("%s calls itself %q", n.Name(), in.Host)
		}
		if in.Caps != "0000000000000000" || in.Bounding != "0000000000000000" || in.NoNewPrivs != "1" {
			t.Errorf("%s has capabilities %s, bounding %s, no_new_privs %s", n.Name(), in.Caps, in.Bounding, in.NoNewPrivs)
		}
		if want := []int{1, in.PID}; !slices.Equal(in.Pids, want) {
			t.Errorf("%s sees processes %v, want its init and itself: %v", n.Name(), in.Pids, want)
		}
		for ns, inode := range in.Namespaces {
			if inode == "" || inode == own[ns] || seen[inode] != "" {
				t.Errorf("%s has the %s namespace %s of %q", n.Name(), ns, inode, seen[inode]+" or the host")
			}
			seen[inode] = n.Name()
		}
		if len(in.OwnedByOthers) > 0 {
			t.Errorf("%s can read %v", n.Name(), in.OwnedByOthers)
		}
		for _, fd := range in.Fds {
			if strings.Contains(fd, "cgroup") || strings.Contains(fd, "tasks") || strings.HasSuffix(fd, "box.log") {
				t.Errorf("%s inherited %s", n.Name(), fd)
			}
		}
		if in.Conf != n.Name() {
			t.Errorf("%s has the file %q of its command", n.Name(), in.Conf)
		}
		if !in.UsrIsReadOnly {
			t.Errorf("%s may write to the host's /usr", n.Name())
		}
		for _, line := range []string{"10.77.0.1 n1\n", "fd77::3 n3\n", "10.77.0.4 client\n"} {
			if !strings.Contains(in.Hosts, line) {
				t.Errorf("%s: /etc/hosts lacks %q: %q", n.Name(), line, in.Hosts)
			}
		}
		if b, err := os.ReadFile(n.Data() + "/secret"); err != nil || string(b) != "of-"+n.Name() {
			t.Errorf("%s's disk seen from the host: %q, %v", n.Name(), b, err)
		}
		if b, err := os.ReadFile(filepath.Join(n.Dir(), "data/secret")); err != nil || string(b) != "of-"+n.Name() {
			t.Errorf("%s's backing: %q, %v", n.Name(), b, err)
		}
		if in.DataFS == "" || cfg.Disk != DiskPlain && !strings.HasPrefix(in.DataFS, "fuse") {
			t.Errorf("%s has %q at /data, want the slow file system", n.Name(), in.DataFS)
		}
		pids, err := n.Pids()
		if err != nil || len(pids) != 1 {
			t.Fatalf("pids of %s = %v, %v; want the target alone in its cgroup", n.Name(), pids, err)
		}
		if cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pids[0])); !strings.Contains(string(cmd), "_target") {
			t.Errorf("pid %d of %s is %q", pids[0], n.Name(), cmd)
		}
	}
	for _, from := range c.Nodes() {
		for _, to := range c.Nodes() {
			for _, addr := range []string{to.Name() + ":7000", "[" + to.IP6().String() + "]:7000"} {
				if got, err := ask(ctx, from, "dial "+addr); err != nil || got != "hello from "+to.Name() {
					t.Errorf("%s dials %s: %q, %v", from.Name(), addr, got, err)
				}
			}
		}
	}
	if got, err := ask(ctx, c.Nodes()[0], "dial 1.1.1.1:53"); err != nil || !strings.Contains(got, "unreachable") {
		t.Errorf("n1 reaches the world: %q, %v", got, err)
	}
	conn, err := netns.Dial(ctx, c.ClientNetNS(), "tcp", c.Nodes()[2].IP4().String()+":7000")
	if err != nil {
		t.Errorf("the client dials n3: %v", err)
	} else {
		conn.Close()
	}
	for name, want := range map[string]int{"n1": 0, "n3": 2, ClientName: 3} {
		if got, ok := c.Index(name); got != want || !ok {
			t.Errorf("index of %s = %d, %v; want %d", name, got, ok, want)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), cfg.Dir) || strings.Contains(string(mounts), "slowfs") {
		t.Errorf("the host sees a mount of ours (%v):\n%s", err, mounts)
	}
	if got := len(ev.of(run.NodeReady)); got != 3 {
		t.Errorf("%d nodes told that they are ready, want 3", got)
	}
	if got := ev.of(run.LeaderChanged); len(got) != 1 || got[0].Node != "n1" || c.Leaders()[0] != "n1" {
		t.Errorf("leader events = %v, leader %q; want n1 once", got, c.Leaders()[0])
	}
}

func TestKilledNodeKeepsItsDataAndCanBeRestarted(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	cfg, ev := testConfig(t, 1, testTarget{})
	c := up(t, cfg)
	n, _ := c.Node("n1")
	if got, err := ask(ctx, n, "write k v1"); err != nil || got != "<nil>" {
		t.Fatalf("write: %s, %v", got, err)
	}
	if got, err := ask(ctx, n, "child"); err != nil || !strings.HasSuffix(got, "<nil>") {
		t.Fatalf("child: %s, %v", got, err)
	}
	if pids, err := n.Pids(); err != nil || len(pids) != 2 {
		t.Fatalf("pids = %v, %v; want the target and its child", pids, err)
	}
	if err := n.Start(ctx); err == nil {
		t.Error("a running node was started again")
	}
	for _, end := range []struct {
		name string
		do   func() error
		data map[string]any
	}{
		{"kill -9", func() error { return n.Kill(ctx, syscall.SIGKILL) }, map[string]any{"expected": true, "code": 0, "signal": "SIGKILL"}},
		{"stop", func() error { return n.Stop(ctx) }, map[string]any{"expected": true, "code": 2, "signal": "SIGTERM"}},
	} {
		if err := end.do(); err != nil {
			t.Fatalf("%s: %v", end.name, err)
		}
		if n.Running() {
			t.Errorf("%s: it still runs", end.name)
		}
		pids, err := n.Pids()
		for until := time.Now().Add(5 * time.Second); len(pids) != 0 && time.Now().Before(until); pids, err = n.Pids() {
			time.Sleep(time.Millisecond) // its child was killed with it, and init is about to bury it
		}
		if err != nil || len(pids) != 0 {
			t.Errorf("%s: pids = %v, %v; want the child gone, too", end.name, pids, err)
		}
		exits := ev.of(run.NodeExited)
		last := exits[len(exits)-1]
		if last.Node != "n1" || last.Data["expected"] != true || last.Data["signal"] != end.data["signal"] {
			t.Errorf("%s: event %+v", end.name, last)
		}
		if st := c.Statuses(ctx); st[0].Err == nil {
			t.Errorf("%s: status %+v of a node that does not run", end.name, st[0])
		}
		if err := n.Start(ctx); err != nil {
			t.Fatalf("start after %s: %v", end.name, err)
		}
		if err := n.WaitReady(ctx); err != nil {
			t.Fatalf("start after %s: %v", end.name, err)
		}
		if got, err := ask(ctx, n, "read k"); err != nil || got != "v1 <nil>" {
			t.Errorf("after %s it reads %q, %v", end.name, got, err)
		}
	}
	if n.LogTail(1) != "listening" {
		t.Errorf("log ends with %q", n.LogTail(1))
	}
}

func TestUnexpectedExitIsReportedWithItsCause(t *testing.T) {
	needs.Host(t, needs.Root)
	for _, tt := range []struct{ name, words, want, log string }{
		{"an exit code", "exit 7", "exit code 7", "listening"},
		{"a panic", "panic", "exit code 2", "panic: as asked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := deadline(t)
			cfg, ev := testConfig(t, 1, testTarget{})
			c := up(t, cfg)
			_, _ = ask(ctx, c.Nodes()[0], tt.words)
			await(t, ctx, "the event", func() bool { return len(ev.of(run.NodeExited)) > 0 })
			e := ev.of(run.NodeExited)[0]
			if !strings.HasPrefix(e.Text, tt.want) || e.Data["expected"] != false || e.Node != "n1" {
				t.Errorf("event = %+v, want %q, not expected", e, tt.want)
			}
			if b, _ := os.ReadFile(filepath.Join(c.Nodes()[0].Dir(), "stderr.log")); tt.words == "panic" && !strings.Contains(string(b), tt.log) {
				t.Errorf("stderr.log = %q, want %q", b, tt.log)
			}
			if err := c.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("WaitReady = %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// await polls for what has no event to wait for.
func await(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("no %s: %v", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func TestUpThatFailsSaysWhyAndLeavesNothing(t *testing.T) {
	needs.Host(t, needs.Root)
	for _, tt := range []struct {
		name   string
		target Target
		want   []string
	}{
		{"a target that crashes", testTarget{args: []string{"crash"}}, []string{"ended before it was ready: exit code 3", "bad configuration: no such thing"}},
		{"a target that never gets ready", testTarget{args: []string{"sulk"}}, []string{"n1 is not ready", "not within 700ms", "waiting for a quorum that never comes"}},
		{"a program that is not there", missing{}, []string{"start n", "execute /usr/bin/no-such-program", "no such file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := testConfig(t, 2, tt.target)
			cfg.Ready = 700 * time.Millisecond
			c, err := Up(t.Context(), cfg)
			if c != nil || err == nil {
				t.Fatalf("Up = %v, %v; want an error", c, err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("err = %v\nwant it to say %q", err, part)
				}
			}
			for _, r := range leftovers(t, cfg.ID) {
				t.Errorf("left behind: %+v", r)
			}
		})
	}
}

type missing struct{ testTarget }

func (missing) Command(*Node) Command { return Command{Argv: []string{"/usr/bin/no-such-program"}} }

// leftovers are the things of run id, of live runs as of dead ones.
func leftovers(t *testing.T, id string) []undo.Record {
	t.Helper()
	found, err := undo.Find(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(found, func(r undo.Record) bool {
		o, ok := undo.ParseOwner(r.Run)
		return !ok || o.ID != id
	})
}

func TestNodeKilledForMemoryIsReportedAsSuch(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	cfg, ev := testConfig(t, 1, testTarget{})
	c := up(t, cfg)
	n := c.Nodes()[0]
	dir, version, err := n.Group().Dir("memory")
	if err != nil {
		t.Skip(err)
	}
	file := map[int]string{1: "memory.limit_in_bytes", 2: "memory.max"}[version]
	if err := os.WriteFile(filepath.Join(dir, file), []byte("67108864"), 0); err != nil {
		t.Fatal(err)
	}
	_, _ = ask(ctx, n, "eat")
	await(t, ctx, "exit", func() bool { return len(ev.of(run.NodeExited)) > 0 })
	e := ev.of(run.NodeExited)[0]
	if !strings.HasPrefix(e.Text, "killed by SIGKILL (out of memory)") || e.Data["expected"] != false {
		t.Errorf("event = %+v", e)
	}
}

func TestDiskObeysRules(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	cfg, _ := testConfig(t, 2, testTarget{})
	c := up(t, cfg)
	n := c.Nodes()[0]
	write := func(n *Node) time.Duration {
		began := time.Now()
		if got, err := ask(ctx, n, "write k v"); err != nil || got != "<nil>" {
			t.Fatalf("write: %s, %v", got, err)
		}
		return time.Since(began)
	}
	write(n)
	const add = 150 * time.Millisecond
	if err := n.SetDisk(ctx, faultfs.Rules{Delay: map[faultfs.Op][]faultfs.Delay{faultfs.Fsync: {{Add: add}}}}); err != nil {
		t.Fatal(err)
	}
	if d := write(n); d < add {
		t.Errorf("a synced write took %v under a delay of %v", d, add)
	}
	st, err := n.DiskStats(ctx)
	if op := st.Ops[faultfs.Fsync]; err != nil || op.Delayed != 1 || op.Delay < add || op.N < 2 {
		t.Errorf("statistics of fsync = %+v, %v; want one delayed by %v", op, err, add)
	}
	if st, err := c.Nodes()[1].DiskStats(ctx); err != nil || st.Ops[faultfs.Fsync].Delayed != 0 {
		t.Errorf("the other node's disk: %+v, %v", st, err)
	}
	if err := n.SetDisk(ctx, faultfs.Rules{Delay: map[faultfs.Op][]faultfs.Delay{"seek": {{}}}}); err == nil {
		t.Error("rules that are wrong were taken")
	}
	if err := n.SetDisk(ctx, faultfs.Rules{Delay: map[faultfs.Op][]faultfs.Delay{faultfs.Fsync: {{Add: time.Minute}}}}); err != nil {
		t.Fatal(err)
	}
	stuck, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if got, err := ask(stuck, n, "write k v"); err == nil {
		t.Errorf("a write under a delay of a minute came back: %s", got)
	}
	if err := n.Kill(ctx, syscall.SIGKILL); err != nil { // a process that waits for a slow disk can be killed
		t.Error(err)
	}
	if err := n.SetDisk(ctx, faultfs.Rules{}); err != nil {
		t.Error(err)
	}
	if err := errors.Join(n.Start(ctx), n.WaitReady(ctx)); err != nil {
		t.Error(err)
	}
	write(n)
	if err := n.SetDisk(ctx, faultfs.Rules{Delay: map[faultfs.Op][]faultfs.Delay{faultfs.Fsync: {{Add: time.Minute}}}}); err != nil {
		t.Fatal(err)
	}
	stuck, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, _ = ask(stuck, n, "write k v")
	down(t, c) // also with an operation under way
}

func TestPlainDiskCannotBeHurt(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	cfg, _ := testConfig(t, 1, testTarget{})
	cfg.Disk = DiskPlain
	c := up(t, cfg)
	if in := inspect(t, ctx, c.Nodes()[0]); strings.HasPrefix(in.DataFS, "fuse") {
		t.Errorf("/data is %s", in.DataFS)
	}
	if err := c.Nodes()[0].SetDisk(ctx, faultfs.Rules{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SetDisk = %v", err)
	}
	if _, err := c.Nodes()[0].DiskStats(ctx); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("DiskStats = %v", err)
	}
}

func TestFrozenNodesGoDown(t *testing.T) {
	needs.Host(t, needs.Root)
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("by cgroup v%d", version), func(t *testing.T) {
			ctx := deadline(t)
			cfg, _ := testConfig(t, 2, testTarget{})
			c := up(t, cfg)
			f, err := c.Nodes()[1].Group().Freezer(version)
			if err != nil {
				t.Skip(err)
			}
			if err := f.Freeze(ctx); err != nil {
				t.Fatal(err)
			}
			st := c.Statuses(ctx)
			if st[0].Err != nil || st[1].Err == nil {
				t.Errorf("statuses = %+v; want only the frozen one not to answer", st)
			}
			down(t, c)
			if got := leftovers(t, cfg.ID); len(got) > 0 {
				t.Errorf("left behind: %+v", got)
			}
		})
	}
}

func TestRootWithoutPowersWhereThereAreNoUsers(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	cfg, _ := testConfig(t, 1, testTarget{})
	cfg.noUsers = true
	c := up(t, cfg)
	in := inspect(t, ctx, c.Nodes()[0], private+"/disk/x", "/etc/shadow")
	if in.UID != 0 || in.Caps != "0000000000000000" || in.Bounding != "0000000000000000" || in.NoNewPrivs != "1" {
		t.Errorf("uid %d has capabilities %s, bounding %s, no_new_privs %s", in.UID, in.Caps, in.Bounding, in.NoNewPrivs)
	}
	if got := c.Mechanisms()["uid"]; !strings.HasPrefix(got, "root without capabilities") {
		t.Errorf("mechanism = %q", got)
	}
	if got, err := ask(ctx, c.Nodes()[0], "write k v"); err != nil || got != "<nil>" {
		t.Errorf("write: %s, %v", got, err)
	}
}

func TestWatchTellsEveryChangeOfLeader(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	says := new(atomic.Pointer[Status])
	says.Store(&Status{Leader: "n1", Term: 1})
	cfg, ev := testConfig(t, 3, testTarget{leader: says})
	c := up(t, cfg)
	watch, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Watch(watch) }()
	for i, st := range []Status{{Leader: "n3", Term: 2}, {Leader: "n3", Term: 4}, {Leader: "", Term: 4}} {
		says.Store(&st)
		await(t, ctx, "leader event", func() bool { return len(ev.of(run.LeaderChanged)) == i+2 })
		e := ev.of(run.LeaderChanged)[i+1]
		if e.Node != st.Leader || c.Leaders()[0] != st.Leader || st.Leader != "" && e.Data["term"] != st.Term {
			t.Errorf("event %+v, leader %q; want %+v", e, c.Leaders()[0], st)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Watch = %v", err)
	}
}

func TestTwoClustersAtOnce(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx := deadline(t)
	one, _ := testConfig(t, 2, testTarget{})
	two, _ := testConfig(t, 2, testTarget{})
	a, b := up(t, one), up(t, two)
	for _, c := range []*Cluster{a, b} {
		for _, n := range c.Nodes() {
			if got, err := ask(ctx, n, "write k "+c.cfg.ID); err != nil || got != "<nil>" {
				t.Errorf("%s of %s: %s, %v", n.Name(), c.cfg.ID, got, err)
			}
		}
	}
	down(t, a)
	if got := leftovers(t, one.ID); len(got) > 0 {
		t.Errorf("left behind by the first: %+v", got)
	}
	for _, n := range b.Nodes() {
		if got, err := ask(ctx, n, "read k"); err != nil || got != two.ID+" <nil>" {
			t.Errorf("after the first went down, %s of the second reads %q, %v", n.Name(), got, err)
		}
	}
	if _, err := Up(ctx, two); err == nil {
		t.Error("a second cluster of the same run id came up")
	} else if got, err := ask(ctx, b.Nodes()[0], "status"); err != nil || got != "ready" {
		t.Errorf("after that the first one is %q, %v", got, err)
	}
}
