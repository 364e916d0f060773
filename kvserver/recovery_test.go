package kvserver

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKillLosesNothing kills all nodes, or always the leader, with kill -9 under
// load, again and again, and looks for every write that was acknowledged. A
// killed leader's followers may have entries that were not in its own log.
func TestKillLosesNothing(t *testing.T) {
	for _, tt := range []struct {
		log    string
		leader bool // only it is killed
	}{{"wal", false}, {"wal", true}, {"bolt", false}, {"bolt", true}} {
		name := "log " + tt.log + ", all nodes"
		if tt.leader {
			name = "log " + tt.log + ", the leader"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := startProcesses(t, 3, func(c *Config) {
				c.Log = tt.log
				c.Heartbeat, c.Election = Duration(300*time.Millisecond), Duration(300*time.Millisecond)
				c.SnapshotThreshold, c.SnapshotInterval, c.TrailingLogs = 200, Duration(50*time.Millisecond), 50
			})
			rng := rand.New(rand.NewPCG(1, 2))
			acked := map[string]string{}
			for round := range 4 {
				for key, value := range k.writeUntilKilled(round, time.Duration(50+rng.IntN(200))*time.Millisecond, tt.leader) {
					acked[key] = value
				}
				for i, cmd := range k.procs {
					if cmd == nil {
						k.spawn(i)
					}
				}
				k.checkAcked(k.procLeader(), acked)
			}
			for i := range k.procs {
				k.checkAcked(i, acked)
			}
			if len(acked) < 100 {
				t.Errorf("only %d writes were acknowledged: the test has not tried hard", len(acked))
			}
			t.Logf("%d acknowledged writes survived 4 kills", len(acked))
		})
	}
}

// checkAcked reads everything from node i: linearizable where it leads, else as soon as the node has caught up.
func (k *testCluster) checkAcked(i int, acked map[string]string) {
	k.tb.Helper()
	c := k.dial(i)
	for _, key := range sortedKeys(acked) {
		got, want := "", fmt.Sprintf("%q", acked[key])
		eventually(k.tb, "leader that answers, or follower that has caught up", func() bool { // on a busy host the leader may change again
			if got = c.do("GET", key); isError(got, "UNAVAIL", "MOVED") {
				c.must("OK", "READONLY")
				return false
			}
			return got == want || got != "(nil)"
		})
		if got != want {
			k.tb.Fatalf("GET %s = %s, want %s", key, got, want)
		}
	}
}

// writeUntilKilled writes by several clients, kills all nodes or the leader
// after d, and returns what was acknowledged.
func (k *testCluster) writeUntilKilled(round int, d time.Duration, leader bool) map[string]string {
	lead := k.procLeader()
	acked := map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		c := k.dial(lead)
		wg.Go(func() {
			for i := 0; ; i++ {
				key, value := fmt.Sprintf("r%d-w%d-%d", round, w, i), fmt.Sprint(i)
				if _, err := c.conn.Write(appendCommand(nil, "SET", key, value)); err != nil {
					return
				}
				if reply, err := c.reply(); err != nil {
					return
				} else if reply == "OK" {
					mu.Lock()
					acked[key] = value
					mu.Unlock()
				}
			}
		})
	}
	time.Sleep(d)
	k.kill(lead)
	for i := 1; i < len(k.procs) && !leader; i++ {
		k.kill((lead + i) % len(k.procs))
	}
	wg.Wait()
	return acked
}

func TestLaggingFollowerGetsASnapshot(t *testing.T) {
	for _, log := range []string{"wal", "bolt"} {
		t.Run("log "+log, func(t *testing.T) {
			// The wal forgets whole segments only, so the entries must fill some.
			k := startCluster(t, 3, func(c *Config) { c.Log, c.TrailingLogs, c.SegmentBytes = log, 10, 1<<20 }, nil)
			padding := strings.Repeat("x", 20_000)
			lead := k.leader()
			behind := (lead + 1) % 3
			k.stop(behind)
			c := k.dial(lead)
			c.must("(integer) 0", "SESSION", "s")
			for i := range 200 {
				c.must("OK", "SET", fmt.Sprint("k", i%50), fmt.Sprint(i, " ", padding))
			}
			c.must("(integer) 1", "ONCE", "s", "1", "APPEND", "once", "x")
			var ok struct{ OK bool }
			if code := k.admin(lead, "POST", "/snapshot", "", &ok); code != 200 || !ok.OK {
				t.Fatalf("POST /snapshot = %d %+v", code, ok)
			}
			c.must("OK", "SET", "after", "snapshot")

			k.start(behind, nil)
			eventually(t, "equal state", func() bool {
				a, b := k.nodes[lead].s.groups[0].fsm.view(), k.nodes[behind].s.groups[0].fsm.view()
				defer a.release()
				defer b.release()
				return a.applied == b.applied && a.hash() == b.hash()
			})
			if st := k.nodes[behind].s.status(); st.Snapshot == 0 {
				t.Errorf("follower caught up without a snapshot, want one installed")
			}
			// What the snapshot carried of sessions still counts.
			if code := k.admin(lead, "POST", "/transfer", fmt.Sprintf(`{"to":%q}`, k.conf[behind].ID), &ok); code != 200 {
				t.Fatalf("POST /transfer = %d", code)
			}
			eventually(t, "transfer", func() bool { return k.nodes[behind].s.status().Readable })
			c = k.dial(behind)
			c.must("(integer) 1", "ONCE", "s", "1", "APPEND", "once", "x")
			c.must(`"x"`, "GET", "once")
			c.must(fmt.Sprintf("%q", "199 "+padding), "GET", "k49")
		})
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	for _, log := range []string{"wal", "bolt"} {
		t.Run("log "+log, func(t *testing.T) {
			k := startCluster(t, 3, func(c *Config) { c.Log, c.Heartbeat = log, Duration(200*time.Millisecond) }, nil)
			c := k.dial(k.leader())
			c.must("OK", "SET", "a", "1")
			c.must("(integer) 0", "SESSION", "s")
			c.must("(integer) 2", "ONCE", "s", "7", "APPEND", "a", "2")
			for i := range k.nodes {
				k.stop(i)
			}
			for i := range k.conf {
				k.start(i, nil)
			}
			for words, want := range map[string]string{"ONCE s 7 APPEND a 2": "(integer) 2", "GET a": `"12"`} {
				got := ""
				eventually(t, "leader that answers", func() bool { // with so little patience it may change on a busy host
					got = k.dial(k.leader()).do(strings.Fields(words)...)
					return !isError(got, "UNKNOWN", "UNAVAIL", "MOVED")
				})
				if got != want {
					t.Errorf("%s = %s, want %s", words, got, want)
				}
			}
		})
	}
}

func TestStartRefusesOtherPeers(t *testing.T) {
	k := startCluster(t, 1, nil, nil)
	k.stop(0)
	c := k.conf[0]
	c.Peers = append(c.Peers, Peer{ID: "n9", Raft: "127.9.9.9:7000", Client: "127.9.9.9:6379"})
	if err := Run(t.Context(), c, t.Output()); err == nil {
		t.Error("a node started with other peers than its cluster has")
	}
}
