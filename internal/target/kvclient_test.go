package target

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/history"
	"brownout/internal/workload"
	"brownout/kvserver/slots"
)

// A fakeKV answers commands as kvserver does, out of a map. decide may answer
// first; the answer "" hangs up, "…" stays silent.
type fakeKV struct {
	ln     net.Listener
	decide func(args []string) (string, bool)

	mu     sync.Mutex
	values map[string]string
	asked  []string
	conns  []net.Conn
	wg     sync.WaitGroup
}

func serveFake(t *testing.T, ln net.Listener) *fakeKV {
	t.Helper()
	s := &fakeKV{ln: ln, values: map[string]string{}}
	s.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(s.close)
	return s
}

func newFake(t *testing.T) *fakeKV {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveFake(t, ln)
}

func (s *fakeKV) addr() string { return s.ln.Addr().String() }

func (s *fakeKV) close() {
	s.ln.Close()
	s.hangUp()
	s.wg.Wait()
}

func (s *fakeKV) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *fakeKV) commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

func (s *fakeKV) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		r, err := readReply(in, 0) // a command is an array of strings, as replies may be
		if err != nil {
			return
		}
		args := make([]string, len(r.list))
		for i, a := range r.list {
			args[i] = a.text
		}
		out := s.answer(args)
		switch out {
		case "":
			return
		case "…":
			continue
		}
		if _, err := conn.Write([]byte(out)); err != nil {
			return
		}
	}
}

func bulk(v string, there bool) string {
	if !there {
		return "$-1\r\n"
	}
	return fmt.Sprintf("$%d\r\n%s\r\n", len(v), v)
}

func (s *fakeKV) answer(args []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, strings.Join(args, " "))
	if s.decide != nil {
		if out, ok := s.decide(args); ok {
			return out
		}
	}
	old, there := s.values[args[1]]
	switch args[0] {
	case "GET":
		return bulk(old, there)
	case "SET":
		s.values[args[1]] = args[2]
		return "+OK\r\n"
	case "APPEND":
		s.values[args[1]] = old + args[2]
		return ":" + strconv.Itoa(len(old)+len(args[2])) + "\r\n"
	case "DEL":
		delete(s.values, args[1])
		return ":1\r\n"
	case "CAS":
		if there && old == args[2] {
			s.values[args[1]] = args[3]
			return "*2\r\n:1\r\n" + bulk(old, there)
		}
		return "*2\r\n:0\r\n" + bulk(old, there)
	}
	return "-ERR unknown command\r\n"
}

func dialTo(t *testing.T, prefer string, servers ...*fakeKV) workload.Client {
	t.Helper()
	var endpoints []workload.Endpoint
	for i, s := range servers {
		endpoints = append(endpoints, workload.Endpoint{Node: "n" + strconv.Itoa(i+1), Addr: s.addr()})
	}
	c, err := new(KVDialer).Dial(t.Context(), workload.Cluster{Endpoints: endpoints, Prefer: prefer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func do(t *testing.T, c workload.Client, within time.Duration, req history.Request) history.Reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	began := time.Now()
	rep := c.Do(ctx, req)
	if late := time.Since(began) - within; late > 2*time.Second {
		t.Errorf("%s returned %v after its deadline", req.Kind, late)
	}
	if (rep.Outcome == history.OK) != (rep.Err == nil) {
		t.Errorf("%s: outcome %s with error %v", req.Kind, rep.Outcome, rep.Err)
	}
	return rep
}

func text(s string) *string { return &s }

var put = history.Request{Kind: history.Put, Key: "k", Value: "v"}

func TestOperationsMeanWhatTheySay(t *testing.T) {
	s := newFake(t)
	c := dialTo(t, "leader", s)
	ok := history.Reply{Outcome: history.OK, Node: "n1"}
	for _, step := range []struct {
		name string
		req  history.Request
		want history.Reply
	}{
		{"a get of nothing", history.Request{Kind: history.Get, Key: "k"}, ok},
		{"a put", history.Request{Kind: history.Put, Key: "k", Value: "v1\r\n"}, ok},
		{"a get finds it", history.Request{Kind: history.Get, Key: "k"}, history.Reply{Outcome: "ok", Node: "n1", Found: text("v1\r\n")}},
		{"a cas of another value", history.Request{Kind: history.CAS, Key: "k", Expect: "x", Value: "y"}, history.Reply{Outcome: "ok", Node: "n1", Found: text("v1\r\n")}},
		{"a cas of this value", history.Request{Kind: history.CAS, Key: "k", Expect: "v1\r\n", Value: "v2"}, history.Reply{Outcome: "ok", Node: "n1", Found: text("v1\r\n"), Swapped: true}},
		{"an append", history.Request{Kind: history.Append, Key: "k", Value: "+a3"}, ok},
		{"a get finds both", history.Request{Kind: history.Get, Key: "k"}, history.Reply{Outcome: "ok", Node: "n1", Found: text("v2+a3")}},
		{"a delete with a tombstone", history.Request{Kind: history.Delete, Key: "k", Value: "x4"}, ok},
		{"a get finds the tombstone", history.Request{Kind: history.Get, Key: "k"}, history.Reply{Outcome: "ok", Node: "n1", Found: text("x4")}},
		{"a delete without", history.Request{Kind: history.Delete, Key: "k"}, ok},
		{"a cas of nothing", history.Request{Kind: history.CAS, Key: "k", Expect: "x", Value: "y"}, ok},
	} {
		if diff := cmp.Diff(step.want, do(t, c, 5*time.Second, step.req)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

func TestErrorsBecomeTheRightOutcome(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string
		want   history.Outcome
		asked  string // how often: 1, or "more"
	}{
		{"certainly not done: tried again, then failed", "-UNAVAIL no leader is known\r\n", history.Fail, "more"},
		{"perhaps done: unknown, and never tried again", "-UNKNOWN no answer from a quorum\r\n", history.Unknown, "1"},
		{"refused: failed, and never tried again", "-ERR string exceeds maximum allowed size\r\n", history.Fail, "1"},
		{"a word that we do not know: unknown", "-LOADING the data set\r\n", history.Unknown, "1"},
		{"an answer to another question: unknown", ":7\r\n", history.Unknown, "1"},
		{"no protocol at all: unknown", "HTTP/1.1 400 Bad Request\r\n", history.Unknown, "1"},
		{"a connection that ends: unknown", "", history.Unknown, "1"},
		{"silence: unknown", "…", history.Unknown, "1"},
		{"a redirect to itself without end: failed", "self", history.Fail, "more"},
		{"a redirect to a stranger: failed", "-MOVED 0 192.0.2.1:6379\r\n", history.Fail, "more"},
		{"a redirect that says nothing: failed", "-MOVED\r\n", history.Fail, "more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newFake(t)
			answer := tt.answer
			if answer == "self" {
				answer = "-MOVED 0 " + s.addr() + "\r\n"
			}
			s.decide = func([]string) (string, bool) { return answer, true }
			rep := do(t, dialTo(t, "leader", s), 200*time.Millisecond, put)
			n := len(s.commands())
			if rep.Outcome != tt.want || rep.Node != "n1" || (n == 1) != (tt.asked == "1") || n > 60 {
				t.Errorf("outcome %s of %s after %d tries (%v), want %s after %s", rep.Outcome, rep.Node, n, rep.Err, tt.want, tt.asked)
			}
		})
	}
}

func TestNobodyListeningIsAFailure(t *testing.T) {
	s := newFake(t)
	s.close()
	if rep := do(t, dialTo(t, "leader", s), 100*time.Millisecond, put); rep.Outcome != history.Fail {
		t.Errorf("outcome %s (%v), want fail: nothing was sent", rep.Outcome, rep.Err)
	}
}

// TestEachShardHasItsLeader: a redirect for one key is remembered for its shard, and for no other.
func TestEachShardHasItsLeader(t *testing.T) {
	const shards = 2
	servers := []*fakeKV{newFake(t), newFake(t)}
	for i, s := range servers {
		s.decide = func(args []string) (string, bool) {
			if to := slots.ShardOf(args[1], shards); to != i {
				return fmt.Sprintf("-MOVED %d %s\r\n", slots.Of(args[1]), servers[to].addr()), true
			}
			return "", false
		}
	}
	var endpoints []workload.Endpoint
	for i, s := range servers {
		endpoints = append(endpoints, workload.Endpoint{Node: "n" + strconv.Itoa(i+1), Addr: s.addr()})
	}
	c, err := new(KVDialer).Dial(t.Context(), workload.Cluster{Endpoints: endpoints, Shards: shards, Prefer: "leader"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 20 {
		key := "k" + strconv.Itoa(i)
		want := endpoints[slots.ShardOf(key, shards)].Node
		if rep := do(t, c, 5*time.Second, history.Request{Kind: history.Put, Key: key, Value: "v"}); rep.Outcome != history.OK || rep.Node != want {
			t.Errorf("put %s: %s by %s (%v), want ok by %s", key, rep.Outcome, rep.Node, rep.Err, want)
		}
	}
	if n := len(servers[0].commands()) + len(servers[1].commands()); n != 21 {
		t.Errorf("%d commands for 20 operations, want one redirect", n)
	}
}

func TestRedirectsLeadToTheLeaderAndAreRemembered(t *testing.T) {
	a, b, leader := newFake(t), newFake(t), newFake(t)
	point := func([]string) (string, bool) { return "-MOVED 0 " + leader.addr() + "\r\n", true }
	a.decide, b.decide = point, point
	for _, tt := range []struct {
		prefer        string
		wantA, wantB  int
		wantLeaderGot int
	}{
		{"leader", 1, 0, 4}, // once, then never again
		{"n2", 0, 4, 4},     // asked every time
		{"any", 4, 0, 4},
		{"n3", 0, 0, 4},
	} {
		a.asked, b.asked, leader.asked = nil, nil, nil
		c := dialTo(t, tt.prefer, a, b, leader)
		for range 4 {
			if rep := do(t, c, 5*time.Second, put); rep.Outcome != history.OK || rep.Node != "n3" {
				t.Fatalf("%s: %+v", tt.prefer, rep)
			}
		}
		got := []int{len(a.commands()), len(b.commands()), len(leader.commands())}
		if want := []int{tt.wantA, tt.wantB, tt.wantLeaderGot}; !cmp.Equal(got, want) {
			t.Errorf("%s: nodes were asked %v times, want %v", tt.prefer, got, want)
		}
	}
}

func TestLeaderThatDiesIsReplaced(t *testing.T) {
	a, b := newFake(t), newFake(t)
	c := dialTo(t, "leader", a, b)
	if rep := do(t, c, 5*time.Second, put); rep.Node != "n1" {
		t.Fatalf("first operation: %+v", rep)
	}
	a.close()
	time.Sleep(2 * idleCheck) // the end of the connection is noticed before anything is sent
	if rep := do(t, c, 5*time.Second, put); rep.Outcome != history.OK || rep.Node != "n2" {
		t.Errorf("after the leader's end: %+v", rep)
	}
	if rep := do(t, c, 5*time.Second, put); rep.Outcome != history.OK || rep.Node != "n2" {
		t.Errorf("once more: %+v", rep)
	}
}

func TestClientIsUsableAfterUnknown(t *testing.T) {
	s := newFake(t)
	n := 0
	s.decide = func([]string) (string, bool) {
		n++
		return "…", n == 1
	}
	c := dialTo(t, "leader", s)
	if rep := do(t, c, 50*time.Millisecond, put); rep.Outcome != history.Unknown {
		t.Fatalf("silence: %+v", rep)
	}
	// Were the first answer to come now, it must not be taken for the second's.
	if rep := do(t, c, 5*time.Second, history.Request{Kind: history.Get, Key: "k"}); rep.Outcome != history.OK || rep.Found != nil {
		t.Errorf("after it: %+v", rep)
	}
}

func TestDialKnowsItsWords(t *testing.T) {
	e := []workload.Endpoint{{Node: "n1", Addr: "127.0.0.1:1"}}
	for _, tt := range []struct {
		prefer string
		bad    bool
	}{{"leader", false}, {"any", false}, {"nearest", false}, {"n1", false}, {"", false}, {"n9", true}, {"follower", true}} {
		if _, err := new(KVDialer).Dial(t.Context(), workload.Cluster{Endpoints: e, Prefer: tt.prefer}); (err != nil) != tt.bad {
			t.Errorf("Dial %q: %v", tt.prefer, err)
		}
	}
	if _, err := new(KVDialer).Dial(t.Context(), workload.Cluster{Endpoints: nil, Prefer: "leader"}); err == nil {
		t.Error("Dial without endpoints succeeded")
	}
}

func BenchmarkPut(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	s := &fakeKV{ln: ln, values: map[string]string{}}
	go func() {
		if conn, err := ln.Accept(); err == nil {
			s.serve(conn)
		}
	}()
	c, err := new(KVDialer).Dial(b.Context(), workload.Cluster{Endpoints: []workload.Endpoint{{Node: "n1", Addr: s.addr()}}, Prefer: "leader"})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if rep := c.Do(ctx, put); rep.Err != nil {
			b.Fatal(rep.Err)
		}
	}
}
