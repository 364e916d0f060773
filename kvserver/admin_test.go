package kvserver

import (
	"fmt"
	"testing"
	"time"
)

func TestAdmin(t *testing.T) {
	k := startCluster(t, 3, func(c *Config) { c.Log = "memory" }, nil)
	lead := k.leader()
	c := k.dial(lead)
	for i := range 20 {
		c.must("OK", "SET", fmt.Sprint(i), "v")
	}
	c.must(`"v"`, "GET", "7")

	t.Run("status names the leader on every node", func(t *testing.T) {
		for i := range k.nodes {
			eventually(t, "leader", func() bool {
				var st Status
				k.admin(i, "GET", "/status", "", &st)
				return st.Leader == k.conf[lead].ID && st.LeaderClient == k.conf[lead].Client && st.Term > 0 && st.UptimeNS > 0 && len(st.Peers) == 3
			})
		}
	})
	t.Run("state hashes agree", func(t *testing.T) {
		type hash struct {
			Applied uint64
			SHA256  string
		}
		var want hash
		k.admin(lead, "GET", "/statehash", "", &want)
		for i := range k.nodes {
			eventually(t, "equal hash", func() bool {
				var got hash
				k.admin(i, "GET", "/statehash", "", &got)
				return got == want && len(got.SHA256) == 64
			})
		}
	})
	t.Run("metrics count", func(t *testing.T) {
		var m Metrics
		k.admin(lead, "GET", "/metrics", "", &m)
		if m.EntryCommands < 20 || m.ReadsConfirmed < 1 || m.Store.Count < 20 || m.Commit.P50NS == 0 || m.Runtime.HeapBytes == 0 || m.PeerRTT.Count == 0 {
			t.Errorf("metrics = %+v, want at least 20 commands, a read, and what they cost", m)
		}
	})
	t.Run("a GC pause is as long as asked, and the runtime sees it", func(t *testing.T) {
		before := runtimeMetrics().GCPauses
		var p struct {
			PauseNS int64 `json:"pause_ns"`
		}
		code := k.admin(lead, "POST", "/fault/gcpause", `{"length_ns":50000000}`, &p)
		if code == 501 {
			t.Skip("needs Linux")
		}
		if d := time.Duration(p.PauseNS); code != 200 || d < 40*time.Millisecond {
			t.Errorf("gcpause = %d, %v; want 200 and about 50ms", code, d)
		}
		if underRace {
			return // the race detector's calls are preemption points: the world goes on
		}
		if after := runtimeMetrics().GCPauses; after.Count <= before.Count || after.MaxNS < int64(40*time.Millisecond) {
			t.Errorf("the runtime's GC pauses went from %+v to %+v, want one of about 50ms", before, after)
		}
	})
	t.Run("bad requests are told so", func(t *testing.T) {
		for _, tt := range []struct {
			path, body string
			want       int
		}{
			{"/fault/gcpause", "{", 400},
			{"/fault/gcpause", `{"length_ns":-1}`, 400},
			{"/fault/gcpause", `{"length_ns":99000000000}`, 400},
			{"/transfer", `{"to":"n7"}`, 400},
		} {
			var e struct{ Error string }
			if code := k.admin(lead, "POST", tt.path, tt.body, &e); code != tt.want || e.Error == "" {
				t.Errorf("POST %s %s = %d %q, want %d and a reason", tt.path, tt.body, code, e.Error, tt.want)
			}
		}
	})
	t.Run("a kicked follower takes over", func(t *testing.T) {
		heir := (lead + 1) % 3
		var ok struct{ OK bool }
		if code := k.admin(heir, "POST", "/kick", "", &ok); code != 200 {
			t.Errorf("POST /kick = %d", code)
		}
		eventually(t, "new leader", func() bool { return k.nodes[heir].s.status().Readable })
	})
	t.Run("a leader can step down", func(t *testing.T) {
		now := k.leader()
		var ok struct{ OK bool }
		if code := k.admin(now, "POST", "/stepdown", "", &ok); code != 200 {
			t.Errorf("POST /stepdown = %d", code)
		}
		eventually(t, "another leader", func() bool { return k.leader() != now })
	})
}

func TestReadModes(t *testing.T) {
	for _, mode := range []string{"lease", "local"} {
		t.Run(mode, func(t *testing.T) {
			k := startCluster(t, 3, func(c *Config) { c.Log, c.Reads = "memory", mode }, nil)
			lead := k.leader()
			c := k.dial(lead)
			c.must("OK", "SET", "k", "v")
			c.must(`"v"`, "GET", "k")
			if got, want := c.pipeline([]string{"GET", "k"}, []string{"SET", "k", "w"}, []string{"GET", "k"}), `["\"v\"" "OK" "\"w\""]`; fmt.Sprintf("%q", got) != want {
				t.Errorf("pipeline = %q, want %s", got, want)
			}
			follower := k.dial((lead + 1) % 3)
			if mode == "lease" {
				follower.must(movedReply("k", k.conf[lead].Client), "GET", "k")
				return
			}
			eventually(t, "local read on a follower", func() bool { return follower.do("GET", "k") == `"w"` })
		})
	}
}
