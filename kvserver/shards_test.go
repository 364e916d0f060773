package kvserver

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"brownout/kvserver/slots"
)

// movedReply is the redirect for a key, as testClient gives it.
func movedReply(key, addr string) string {
	return fmt.Sprintf("(error) MOVED %d %s", slots.Of(key), addr)
}

// startSharded starts nodes with several shards, each led by the node it prefers.
func startSharded(t *testing.T, nodes, shards int, tune func(*Config)) *testCluster {
	t.Helper()
	k := startCluster(t, nodes, func(c *Config) {
		c.Shards, c.Kick = shards, true
		if tune != nil {
			tune(c)
		}
	}, nil)
	for shard := range shards {
		lead := k.leaderOf(shard)
		eventually(t, "nodes that know the leader", func() bool {
			for _, n := range k.nodes {
				if n.s.groups[shard].leader() != lead {
					return false
				}
			}
			return true
		})
	}
	return k
}

// leaderOf waits for a node that leads a shard and can serve its reads.
func (k *testCluster) leaderOf(shard int) (node int) {
	k.tb.Helper()
	eventually(k.tb, fmt.Sprint("leader of shard ", shard), func() bool {
		for i, n := range k.nodes {
			if n != nil && n.s.groups[shard].status().Readable {
				node = i
				return true
			}
		}
		return false
	})
	return node
}

// keyOf returns the i-th key of a shard.
func keyOf(shard, shards, i int) string {
	for n := 0; ; n++ {
		key := fmt.Sprint("k", n)
		if slots.ShardOf(key, shards) == shard {
			if i--; i < 0 {
				return key
			}
		}
	}
}

func TestShards(t *testing.T) {
	const shards = 4
	k := startSharded(t, 3, shards, nil)
	var at [shards]int
	t.Run("leaders are spread over the nodes", func(t *testing.T) {
		for shard := range shards {
			if at[shard] = k.leaderOf(shard); at[shard] != shard%3 {
				t.Errorf("shard %d is led by node %d, want %d", shard, at[shard], shard%3)
			}
		}
	})
	clients := []*testClient{k.dial(0), k.dial(1), k.dial(2)}
	t.Run("each node serves the keys of its shards, and says where the others are", func(t *testing.T) {
		for i := range 60 {
			key := fmt.Sprint("k", i)
			lead := at[slots.ShardOf(key, shards)]
			for node, c := range clients {
				want := "OK"
				if node != lead {
					want = movedReply(key, k.conf[lead].Client)
				}
				c.must(want, "SET", key, "v"+key)
			}
			clients[lead].must(fmt.Sprintf("%q", "v"+key), "GET", key)
		}
	})
	t.Run("a pipeline over shards is answered in order", func(t *testing.T) {
		mine, second, foreign := keyOf(0, shards, 0), keyOf(3, shards, 0), keyOf(1, shards, 0)
		got := clients[0].pipeline([]string{"SET", mine, "1"}, []string{"SET", second, "2"}, []string{"GET", mine}, []string{"GET", foreign},
			[]string{"PING"}, []string{"GET", second}, []string{"SET", mine, "3"}, []string{"GET", second}, []string{"GET", mine})
		want := []string{"OK", "OK", `"1"`, movedReply(foreign, k.conf[1].Client), "PONG", `"2"`, "OK", `"2"`, `"3"`}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("pipeline = %v, want %v", got, want)
		}
	})
	t.Run("any pipeline over shards is answered as if command by command", func(t *testing.T) {
		seed := time.Now().UnixNano()
		rng := rand.New(rand.NewPCG(uint64(seed), 0))
		keys := []string{keyOf(0, shards, 50), keyOf(0, shards, 51), keyOf(3, shards, 50), keyOf(3, shards, 51)}
		state := map[string]string{}
		show := func(key string) string {
			if v, ok := state[key]; ok {
				return fmt.Sprintf("%q", v)
			}
			return "(nil)"
		}
		for range 100 {
			var commands [][]string
			var want []string
			for range 1 + rng.IntN(30) {
				key, value := keys[rng.IntN(len(keys))], fmt.Sprint(rng.IntN(1000))
				switch rng.IntN(7) {
				case 0:
					commands, want = append(commands, []string{"SET", key, value}), append(want, "OK")
					state[key] = value
				case 1:
					state[key] += value
					commands, want = append(commands, []string{"APPEND", key, value}), append(want, fmt.Sprintf("(integer) %d", len(state[key])))
				case 2:
					_, there := state[key]
					commands, want = append(commands, []string{"DEL", key}), append(want, map[bool]string{true: "(integer) 1", false: "(integer) 0"}[there])
					delete(state, key)
				case 3:
					commands, want = append(commands, []string{"PING", value}), append(want, fmt.Sprintf("%q", value))
				default:
					commands, want = append(commands, []string{"GET", key}), append(want, show(key))
				}
			}
			if got := clients[0].pipeline(commands...); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("seed %d: pipeline %q\n = %v\nwant %v", seed, commands, got, want)
			}
		}
		for _, key := range keys {
			clients[0].do("DEL", key)
		}
	})
	t.Run("commands with several keys", func(t *testing.T) {
		a, b, other := keyOf(0, shards, 0), keyOf(0, shards, 1), keyOf(3, shards, 0)
		clients[0].must("OK", "MSET", a, "1", b, "2")
		clients[0].must(`["1" "2"]`, "MGET", a, b)
		for _, cmd := range [][]string{{"MSET", a, "1", other, "2"}, {"MGET", a, other}, {"DEL", a, other}, {"EXISTS", other, a}, {"ONCE", a, "1", "SET", other, "v"}} {
			clients[0].must("(error) "+crossed, cmd...)
		}
		clients[0].must("(integer) 0", "SESSION", "{"+a+"}s")
		clients[0].must("OK", "ONCE", "{"+a+"}s", "1", "SET", a, "once")
	})
	t.Run("DBSIZE is of the shards that a node leads", func(t *testing.T) {
		want := [3]int{}
		for i := range 60 {
			want[at[slots.ShardOf(fmt.Sprint("k", i), shards)]]++
		}
		for node, c := range clients {
			c.must(fmt.Sprint("(integer) ", want[node]), "DBSIZE")
		}
	})
	t.Run("replicas agree shard by shard", func(t *testing.T) {
		eventually(t, "equal state", func() bool {
			var all [3]StateHash
			for i := range all {
				k.admin(i, "GET", "/statehash", "", &all[i])
			}
			return len(all[0].Shards) == shards && fmt.Sprint(all[0]) == fmt.Sprint(all[1]) && fmt.Sprint(all[1]) == fmt.Sprint(all[2])
		})
	})
	t.Run("one connection to a peer carries the messages of all shards", func(t *testing.T) {
		l := k.nodes[0].s.groups[0].trans.link.(*groupLink).tcpLink
		l.mu.Lock()
		defer l.mu.Unlock()
		// Each peer's two lanes there and back, and the two to itself, of which kick needs one.
		if n := len(l.conns); n > 2*2*2+2 {
			t.Errorf("%d connections, want at most 10", n)
		}
	})
}

// TestShardsGoOn stops a node: its shards find other leaders, and the others' leaders stay.
func TestShardsGoOn(t *testing.T) {
	const shards = 4
	k := startSharded(t, 3, shards, func(c *Config) {
		c.Heartbeat, c.SnapshotThreshold, c.SnapshotInterval, c.TrailingLogs = Duration(2*time.Second), 50, Duration(50*time.Millisecond), 10
	})
	for shard := range shards {
		c := k.dial(k.leaderOf(shard))
		for i := range 20 {
			c.must("OK", "SET", keyOf(shard, shards, i), "before")
		}
	}
	terms := map[int]uint64{1: k.nodes[1].s.groups[1].raft.CurrentTerm(), 2: k.nodes[2].s.groups[2].raft.CurrentTerm()}
	k.stop(0)
	write := func(value string) {
		t.Helper()
		for shard := range shards {
			lead := k.leaderOf(shard)
			c := k.dial(lead)
			for i := range 40 {
				c.must("OK", "SET", keyOf(shard, shards, i), value)
			}
			for range 100 { // enough for a snapshot
				c.must("(integer) 1", "DEL", keyOf(shard, shards, 0))
				c.must("OK", "SET", keyOf(shard, shards, 0), value)
			}
		}
	}
	write("meanwhile")
	for shard, term := range terms {
		if lead := k.leaderOf(shard); lead != shard || k.nodes[lead].s.groups[shard].raft.CurrentTerm() != term {
			t.Errorf("shard %d has another leader or term since a node that did not lead it stopped", shard)
		}
	}
	eventually(t, "snapshot of each shard", func() bool {
		for shard := range shards {
			if k.nodes[1].s.groups[shard].status().Snapshot == 0 {
				return false
			}
		}
		return true
	})

	k.start(0, nil)
	eventually(t, "node that caught up", func() bool {
		var a, b StateHash
		k.admin(0, "GET", "/statehash", "", &a)
		k.admin(1, "GET", "/statehash", "", &b)
		return fmt.Sprint(a) == fmt.Sprint(b)
	})
	for i := range 3 {
		k.stop(i)
	}
	for i := range 3 {
		k.start(i, nil)
	}
	for shard := range shards {
		c := k.dial(k.leaderOf(shard))
		for i := range 40 {
			c.must(`"meanwhile"`, "GET", keyOf(shard, shards, i))
		}
	}
}

// TestShardsDoNotWaitForEachOther holds the disk of one shard on one follower,
// and of that shard on the other: the writes of the other shards go on.
func TestShardsDoNotWaitForEachOther(t *testing.T) {
	k := startClusterOn(t, 3, func(c *Config) { steady(c); c.Shards, c.Kick = 2, true }, nil, underHeld)
	if k.leaderOf(0) != 0 || k.leaderOf(1) != 1 {
		t.Fatal("leaders are not where they should be")
	}
	var release []func()
	for _, n := range []int{1, 2} {
		h := k.nodes[n].s.groups[0].store.meter.LogStore.(*heldStore)
		h.mu.Lock()
		gate := make(chan struct{})
		h.gate = gate
		h.mu.Unlock()
		release = append(release, func() {
			h.mu.Lock()
			h.gate = nil
			h.mu.Unlock()
			close(gate)
		})
	}
	done := make(chan string, 1)
	blocked := k.dial(0)
	go func() { done <- blocked.do("SET", keyOf(0, 2, 0), "v") }()
	c := k.dial(1)
	for i := range 50 {
		c.must("OK", "SET", keyOf(1, 2, i), "v")
		c.must(`"v"`, "GET", keyOf(1, 2, i))
	}
	select {
	case got := <-done:
		t.Errorf("write of a shard whose followers' disks are held was answered %s", got)
	default:
	}
	for _, r := range release {
		r()
	}
	if got := <-done; got != "OK" {
		t.Errorf("write after the disks were released = %s, want OK", got)
	}
}

// TestPeersMustHaveTheSameShards: a node that is configured otherwise is told so, and takes no part.
func TestPeersMustHaveTheSameShards(t *testing.T) {
	conf := testConfigs(t, 1, func(c *Config) { c.Shards, c.Log = 2, "memory" })[0]
	conf, err := conf.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLink(conf, hclog.NewNullLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct{ greeting, want string }{
		{peerMagic + "\x03", "the peer is configured with 3 shards, this node with 2"},
		{"brk1\x02", errFrame.Error()},
	} {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			io.WriteString(theirs, tt.greeting)
		}()
		if err := l.serveConn(ours); err == nil || err.Error() != tt.want {
			t.Errorf("a connection that begins with %q: %v, want %s", tt.greeting, err, tt.want)
		}
	}
}

func TestShardCountIsForLife(t *testing.T) {
	for _, tt := range []struct{ before, after int }{{1, 2}, {2, 1}, {3, 4}} {
		conf := testConfigs(t, 1, func(c *Config) { c.Shards = tt.before })[0]
		run := func(shards int) error {
			c := conf
			c.Shards, c.SegmentBytes = shards, 0
			c, err := c.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			s, err := open(c, os.Stderr, seams{})
			if err != nil {
				return err
			}
			ctx, stop := context.WithCancel(t.Context())
			stop()
			return s.run(ctx)
		}
		if err := run(tt.before); err != nil {
			t.Fatal(err)
		}
		if err := run(tt.after); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("shards: configured are %d, but", tt.after)) {
			t.Errorf("start with %d shards after %d = %v, want a refusal", tt.after, tt.before, err)
		}
		if err := run(tt.before); err != nil {
			t.Errorf("start with %d shards as before = %v", tt.before, err)
		}
		if tt.before > 1 {
			if _, err := os.Stat(filepath.Join(conf.Dir, fmt.Sprint("shards-", tt.before), "0", "wal")); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestClusterCommands(t *testing.T) {
	k := startSharded(t, 3, 2, func(c *Config) { c.Log = "memory" })
	host := func(i int) string { h, _, _ := strings.Cut(k.conf[i].Client, ":"); return h }
	member := func(i int) string { return fmt.Sprintf("[%q (integer) 6379 %q]", host(i), nodeID(k.conf[i].ID)) }
	c := k.dial(2)
	eventually(t, "node that knows all leaders", func() bool { return strings.Contains(c.do("CLUSTER", "INFO"), "cluster_state:ok") })
	c.must(fmt.Sprintf("[[(integer) 0 (integer) 8191 %s %s %s] [(integer) 8192 (integer) 16383 %s %s %s]]",
		member(0), member(1), member(2), member(1), member(0), member(2)), "CLUSTER", "SLOTS")
	c.must("(integer) 12182", "CLUSTER", "KEYSLOT", "foo")
	c.must(fmt.Sprintf("%q", nodeID("n3")), "CLUSTER", "MYID")
	c.must("(error) ERR unknown subcommand or wrong number of arguments for 'cluster' command", "CLUSTER", "MEET")
	var lines []string
	for i, rest := range []string{"master - 0 0 1 connected 0-8191", "master - 0 0 2 connected 8192-16383", "myself,slave " + nodeID("n1") + " 0 0 3 connected"} {
		lines = append(lines, fmt.Sprintf("%s %s:6379@7000 %s\n", nodeID(k.conf[i].ID), host(i), rest))
	}
	c.must(fmt.Sprintf("%q", strings.Join(lines, "")), "CLUSTER", "NODES")
	commands := c.do("COMMAND")
	for _, want := range []string{
		`["mset" (integer) -3 [write] (integer) 1 (integer) -1 (integer) 2]`, `["get" (integer) 2 [readonly] (integer) 1 (integer) 1 (integer) 1]`,
		`["set" (integer) -3 [write] (integer) 1 (integer) 1 (integer) 1]`, `["del" (integer) -2 [write] (integer) 1 (integer) -1 (integer) 1]`,
		`["ping" (integer) -1 [] (integer) 0 (integer) 0 (integer) 0]`,
	} {
		if !strings.Contains(commands, want) {
			t.Errorf("COMMAND = %s, want %s in it", commands, want)
		}
	}
	got := c.do("CLUSTER", "SHARDS")
	for _, want := range []string{`["slots" [(integer) 8192 (integer) 16383] "nodes"`, `"role" "master"`, `"health" "online"`} {
		if !strings.Contains(got, want) {
			t.Errorf("CLUSTER SHARDS = %s, want %s in it", got, want)
		}
	}
}
