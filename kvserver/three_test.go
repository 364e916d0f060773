package kvserver

import (
	"fmt"
	"testing"
)

func TestThreeNodes(t *testing.T) {
	for _, log := range []string{"wal", "bolt", "memory"} {
		t.Run("writes are replicated with log "+log, func(t *testing.T) {
			k := startCluster(t, 3, func(c *Config) { c.Log = log }, nil)
			lead := k.leader()
			c := k.dial(lead)
			for i := range 100 {
				c.must("OK", "SET", fmt.Sprint("k", i), fmt.Sprint("v", i))
			}
			c.must(`"v42"`, "GET", "k42")

			other := k.dial((lead + 1) % 3)
			moved := movedReply("k42", k.conf[lead].Client)
			other.must(moved, "GET", "k42")
			other.must(moved, "SET", "k42", "x")
			other.must("OK", "READONLY")
			eventually(t, "follower that caught up", func() bool { return other.do("GET", "k99") == `"v99"` })
			if got := other.do("SET", "k42", "b"); got != moved {
				t.Errorf("write to a follower = %s, want %s", got, moved)
			}
		})
	}
}
