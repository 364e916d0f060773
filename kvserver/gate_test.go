package kvserver

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A gate stands between one node and the network. It can refuse what the node
// sends to some, and hold back the answers to what it has already sent.
type gate struct {
	link
	mu   sync.Mutex
	cut  map[raft.ServerID]bool
	hold chan struct{} // answers wait until it is closed
	held int
}

type gates map[string]*gate

func (g gates) under(id string, l link) link {
	g[id] = &gate{link: l, cut: map[raft.ServerID]bool{}}
	return g[id]
}

// isolate cuts id off from all others, both ways.
func (g gates) isolate(id string) {
	for _, from := range sortedKeys(g) {
		for _, to := range sortedKeys(g) {
			if from != to && (from == id || to == id) {
				g[from].set(raft.ServerID(to), true)
			}
		}
	}
}

func (g gates) heal() {
	for from := range g {
		for to := range g {
			g[from].set(raft.ServerID(to), false)
		}
	}
}

func (g *gate) set(to raft.ServerID, cut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut[to] = cut
}

// holdAnswers makes the answers to all that is sent from now on wait for release.
func (g *gate) holdAnswers() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = make(chan struct{})
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		close(g.hold)
		g.hold = nil
	})
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

var errCut = errors.New("cut")

func (g *gate) pass(to raft.ServerID, send func() error) error {
	g.mu.Lock()
	cut, hold := g.cut[to], g.hold
	g.mu.Unlock()
	if cut {
		return errCut
	}
	err := send()
	if hold != nil {
		g.mu.Lock()
		g.held++
		g.mu.Unlock()
		<-hold
	}
	return err
}

func (g *gate) AppendEntries(id raft.ServerID, a raft.ServerAddress, q *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	return g.pass(id, func() error { return g.link.AppendEntries(id, a, q, r) })
}

func (g *gate) RequestVote(id raft.ServerID, a raft.ServerAddress, q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return g.pass(id, func() error { return g.link.RequestVote(id, a, q, r) })
}

func (g *gate) RequestPreVote(id raft.ServerID, a raft.ServerAddress, q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return g.pass(id, func() error { return g.link.RequestPreVote(id, a, q, r) })
}

func (g *gate) InstallSnapshot(id raft.ServerID, a raft.ServerAddress, q *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	return g.pass(id, func() error { return g.link.InstallSnapshot(id, a, q, r, data) })
}

// AppendEntriesPipeline sends everything through AppendEntries.
func (g *gate) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// steady makes leaders stay leaders although they hear nothing, for long enough.
func steady(c *Config) {
	c.Log = "memory"
	c.Heartbeat, c.Election, c.Lease = Duration(4*time.Second), Duration(4*time.Second), Duration(4*time.Second)
	c.Timeout = Duration(700 * time.Millisecond)
}

// TestReadIsNotServedByAnOldHeartbeat deposes a leader that does not notice,
// while answers to messages which it sent before are still on their way. When
// they arrive, Raft's own VerifyLeader takes them for a proof of leadership.
func TestReadIsNotServedByAnOldHeartbeat(t *testing.T) {
	g := gates{}
	k := startCluster(t, 3, steady, g.under)
	old := k.leader()
	oldID := k.conf[old].ID
	k.dial(old).must("OK", "SET", "k", "old")

	// A read begins while the leader still leads; its heartbeats are answered, but the answers wait.
	release := g[oldID].holdAnswers()
	defer release()
	early := make(chan string, 1)
	earlyClient := k.dial(old)
	go func() { early <- earlyClient.do("GET", "k") }()
	eventually(t, "held answer from both peers, to reads and to Raft's own messages", func() bool { return g[oldID].waiting() >= 4 })

	// Then the others elect a new leader, which acknowledges a write.
	g.isolate(oldID)
	heir := (old + 1) % 3
	if err := k.nodes[heir].s.groups[0].kick(); err != nil {
		t.Fatal(err)
	}
	if got := k.leader(old); got != heir {
		t.Fatalf("node %d leads, want %d", got, heir)
	}
	k.dial(heir).must("OK", "SET", "k", "new")
	if st := k.nodes[old].s.status(); st.Role != "leader" {
		t.Fatalf("the deposed node is %s, want one that believes to lead", st.Role)
	}

	// A read that begins now must not see the old value.
	late := make(chan string, 1)
	lateClient := k.dial(old)
	go func() { late <- lateClient.do("GET", "k") }()
	naive := k.nodes[old].s.groups[0].raft.VerifyLeader()
	eventually(t, "waiting read", func() bool {
		f := k.nodes[old].s.groups[0].reads
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.waiting) == 2
	})
	time.Sleep(20 * time.Millisecond) // lets Raft's main loop register the naive future
	release()

	if err := naive.Error(); err != nil {
		t.Logf("VerifyLeader = %v: this time the naive way would not have been wrong", err)
	} else {
		t.Log("VerifyLeader = nil on the deposed leader: the naive way would have served the old value")
	}
	if got := <-early; got != `"old"` && !isError(got, "UNAVAIL", "MOVED") {
		t.Errorf("read that began before the write = %s, want the old value or a refusal", got)
	}
	if got := <-late; !isError(got, "UNAVAIL", "MOVED") {
		t.Errorf("read that began after the write = %s, want a refusal", got)
	}
}

func isError(reply string, words ...string) bool {
	for _, w := range words {
		if strings.HasPrefix(reply, "(error) "+w) {
			return true
		}
	}
	return false
}

// TestOutcomes follows writes into all the ways in which they can go wrong.
func TestOutcomes(t *testing.T) {
	g := gates{}
	k := startCluster(t, 3, func(c *Config) {
		c.Log = "memory"
		c.Heartbeat, c.Election, c.Lease = Duration(600*time.Millisecond), Duration(600*time.Millisecond), Duration(300*time.Millisecond)
	}, g.under)
	old := k.leader()
	c := k.dial(old)
	c.must("OK", "SET", "k", "1")

	g.isolate(k.conf[old].ID)
	if got := c.do("SET", "k", "2"); !isError(got, "UNKNOWN leadership lost") {
		t.Errorf("write whose leader lost its quorum = %s, want UNKNOWN", got)
	}
	if got := c.do("SET", "k", "3"); !isError(got, "UNAVAIL no leader is known") {
		t.Errorf("write to a node that knows no leader = %s, want UNAVAIL", got)
	}
	if got := c.do("GET", "k"); !isError(got, "UNAVAIL no leader is known") {
		t.Errorf("read from a node that knows no leader = %s, want UNAVAIL", got)
	}
	heir := k.leader(old)
	c2 := k.dial(heir)
	c2.must(`"1"`, "GET", "k")
	c2.must("OK", "SET", "k", "4")

	g.heal()
	want := movedReply("k", k.conf[heir].Client)
	eventually(t, "redirect from the deposed leader", func() bool { return c.do("SET", "k", "5") == want || k.leader() != heir })
	k.dial(k.leader()).must(`"4"`, "GET", "k")
}

// TestExpiredWrites holds a leader's entry until the client's patience is over.
func TestExpiredWrites(t *testing.T) {
	g := gates{}
	k := startCluster(t, 3, steady, g.under)
	lead := k.leader()
	g.isolate(k.conf[lead].ID)
	first, second := make(chan string, 1), make(chan string, 1)
	c1, c2 := k.dial(lead), k.dial(lead)
	go func() { first <- c1.do("SET", "a", "1") }()
	eventually(t, "entry in flight", func() bool {
		p := k.nodes[lead].s.groups[0].writes
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.inflight) == 1
	})
	go func() { second <- c2.do("SET", "b", "1") }()
	if got := <-first; !isError(got, "UNKNOWN no answer from a quorum") {
		t.Errorf("write in flight = %s, want UNKNOWN", got)
	}
	if got := <-second; !isError(got, "UNAVAIL waited") {
		t.Errorf("write in the queue = %s, want UNAVAIL", got)
	}
	g.heal()
	// The one that was in flight may be done now; the one withdrawn is not, ever.
	c := k.dial(k.leader())
	eventually(t, "first write", func() bool { return c.do("GET", "a") == `"1"` })
	c.must("(nil)", "GET", "b")
	// The connections whose commands expired are still in order.
	for i := range 20 {
		c1.must("OK", "SET", "c", fmt.Sprint(i))
		c1.must(fmt.Sprintf("%q", fmt.Sprint(i)), "GET", "c")
	}
}
