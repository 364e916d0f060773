package kvserver

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fakeCache notes what it is asked, and answers as decide says: "" does it,
// "…" never answers.
type fakeCache struct {
	ln     net.Listener
	decide func(n int) string // of the n-th command

	mu    sync.Mutex
	asked []string
}

func newFakeCache(t *testing.T, decide func(n int) string) *fakeCache {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeCache{ln: ln, decide: decide}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return f
}

func (f *fakeCache) serve(conn net.Conn) {
	in := newRespReader(conn)
	for in.fill() == nil {
		for {
			args, err := in.next()
			if err != nil || args == nil {
				break
			}
			var words []string
			for _, a := range args {
				words = append(words, string(a))
			}
			f.mu.Lock()
			n := len(f.asked)
			f.asked = append(f.asked, strings.Join(words, " "))
			f.mu.Unlock()
			switch answer := f.decide(n); answer {
			case "…":
			case "":
				io.WriteString(conn, map[string]string{"SET": "+OK\r\n", "DEL": ":1\r\n"}[words[0]])
			default:
				io.WriteString(conn, answer)
			}
		}
	}
}

func (f *fakeCache) all() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, "; ")
}

func cached(t *testing.T, f *fakeCache, d Downstream, tune func(*Config)) *testCluster {
	t.Helper()
	d.Addr = f.ln.Addr().String()
	return startCluster(t, 1, func(c *Config) {
		c.Log, c.Downstream = "memory", &d
		if tune != nil {
			tune(c)
		}
	}, nil)
}

// TestWritesGoThrough: what each write made of its keys, and nothing else, goes
// downstream in order, before the client has its answer.
func TestWritesGoThrough(t *testing.T) {
	f := newFakeCache(t, func(int) string { return "" })
	k := cached(t, f, Downstream{}, nil)
	c := k.dial(0)
	c.must("(integer) 0", "SESSION", "s")
	for _, tt := range []struct {
		want string   // of the client
		then string   // what the cache heard
		do   []string // by whom
	}{
		{"OK", "SET a 1", []string{"SET", "a", "1"}},
		{"(integer) 2", "SET a 12", []string{"APPEND", "a", "2"}},
		{`[(integer) 1 "12"]`, "SET a 3", []string{"CAS", "a", "12", "3"}},
		{`[(integer) 0 "3"]`, "", []string{"CAS", "a", "12", "4"}},
		{"(nil)", "", []string{"SET", "a", "5", "NX"}},
		{"OK", "SET b 6; SET c 7", []string{"MSET", "b", "6", "c", "7"}},
		{"(integer) 1", "DEL b; DEL x", []string{"DEL", "b", "x"}},
		{`"3"`, "", []string{"GET", "a"}},
		{"OK", "SET d 8", []string{"ONCE", "s", "1", "SET", "d", "8"}},
	} {
		before := f.all()
		c.must(tt.want, tt.do...)
		if got := strings.TrimPrefix(strings.TrimPrefix(f.all(), before), "; "); got != tt.then {
			t.Errorf("after %v the cache has heard %q, want %q", tt.do, got, tt.then)
		}
	}
	var m Metrics
	k.admin(0, "GET", "/metrics", "", &m)
	if d := m.Downstream; d == nil || d.Writes != 8 || d.Failed+d.Dropped+d.Retried != 0 || d.Queued != 0 || d.Wait.Count != 6 {
		t.Errorf("%+v", d)
	}
}

// TestWhatACacheDoesToClients: who waits, for how long, and what they are told.
func TestWhatACacheDoesToClients(t *testing.T) {
	const slow = 60 * time.Millisecond
	refuse := func(int) string { return "-ERR out of order\r\n" }
	never := func(int) string { return "…" }
	late := func(int) string { time.Sleep(slow); return "" } // a slow cache
	second := func(n int) string {
		if n == 0 {
			return "-ERR not yet\r\n"
		}
		return ""
	}
	for _, tt := range []struct {
		name    string
		decide  func(int) string
		d       Downstream
		tune    func(*Config)
		want    string // prefix of the answer to a write
		least   time.Duration
		most    time.Duration // 0: any
		retried uint64
		failed  uint64
		late    uint64 // attempts that timed out
	}{
		{"slow", late, Downstream{Timeout: Duration(5 * time.Second)}, nil, "OK", slow, 0, 0, 0, 0},
		{"slow, and nobody waits", late, Downstream{Timeout: Duration(5 * time.Second), Mode: "async"}, nil, "OK", 0, slow, 0, 0, 0},
		{"refuses", refuse, Downstream{}, nil, "(error) UNKNOWN downstream 127.0.0.1:", 0, 0, 0, 1, 0},
		{"refuses, and nobody cares", refuse, Downstream{OnError: "ignore"}, nil, "OK", 0, 0, 0, 1, 0},
		{"refuses again and again", refuse, Downstream{Retries: 3, Backoff: Duration(5 * time.Millisecond)}, nil, "(error) UNKNOWN downstream", 35 * time.Millisecond, 0, 3, 1, 0},
		{"does it at the second attempt", second, Downstream{Retries: 3, Backoff: Duration(time.Millisecond)}, nil, "OK", 0, 0, 1, 0, 0},
		{"hangs", never, Downstream{Timeout: Duration(40 * time.Millisecond), Retries: 1, Backoff: Duration(time.Millisecond)}, nil, "(error) UNKNOWN downstream", 80 * time.Millisecond, 0, 1, 1, 2},
		{"hangs for longer than a command may take", never, Downstream{Timeout: Duration(time.Minute)}, func(c *Config) { c.Timeout = Duration(100 * time.Millisecond) }, "(error) UNKNOWN downstream", 100 * time.Millisecond, 0, 0, 0, 0},
		{"hangs, and nobody waits", never, Downstream{Timeout: Duration(time.Minute), Mode: "async"}, nil, "OK", 0, 10 * time.Second, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := cached(t, newFakeCache(t, tt.decide), tt.d, tt.tune)
			c := k.dial(0)
			start := time.Now()
			got := c.do("SET", "a", "1")
			took := time.Since(start)
			if !strings.HasPrefix(got, tt.want) || took < tt.least || tt.most > 0 && took >= tt.most {
				t.Errorf("%s after %v, want %s after %v to %v", got, took, tt.want, tt.least, tt.most)
			}
			c.must(`"1"`, "GET", "a") // it has been done, whatever the cache did
			var m Metrics
			eventually(t, "end of the delivery", func() bool {
				k.admin(0, "GET", "/metrics", "", &m)
				return m.Downstream.Failed == tt.failed && m.Downstream.Retried == tt.retried && m.Downstream.Late == tt.late
			})
		})
	}
}

// TestRaftDoesNotWaitForACache: many writes of many clients share what one
// pipeline takes, and what has no room is told so.
func TestRaftDoesNotWaitForACache(t *testing.T) {
	const delay, clients = 30 * time.Millisecond, 40
	f := newFakeCache(t, func(n int) string {
		if n == 0 {
			time.Sleep(delay) // only the first is slow: the others wait behind it
		}
		return ""
	})
	k := cached(t, f, Downstream{Timeout: Duration(5 * time.Second)}, nil)
	var wg sync.WaitGroup
	for i := range clients {
		c := k.dial(0)
		wg.Go(func() { c.must("OK", "SET", fmt.Sprint("k", i), "v") })
	}
	wg.Wait()
	var m Metrics
	k.admin(0, "GET", "/metrics", "", &m)
	if m.Downstream.Writes != clients || m.Downstream.Took.Count >= m.Downstream.Wait.Count && m.Entries > 3 {
		t.Errorf("%d entries, %+v", m.Entries, m.Downstream)
	}

	hung := cached(t, newFakeCache(t, func(int) string { return "…" }), Downstream{Timeout: Duration(time.Minute), OnError: "ignore"}, func(c *Config) { c.MaxQueue = 4 })
	first := hung.dial(0)
	if _, err := first.conn.Write(appendCommand(nil, "MSET", "a", "1", "b", "2", "c", "3")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "writes that wait", func() bool { return hung.nodes[0].s.groups[0].writes.through.behind() == 3 })
	hung.dial(0).must("OK", "MSET", "d", "1", "e", "2")
	if n := hung.nodes[0].s.down.dropped.Load(); n != 2 {
		t.Errorf("%d commands dropped, want 2", n)
	}
	hung.stop(0) // with a delivery under way
	if got, err := first.reply(); err != nil || !strings.HasPrefix(got, "(error) UNKNOWN server shut down before downstream") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestDownstreamIsChecked(t *testing.T) {
	for _, tt := range []struct{ d, want string }{
		{`{"addr":"10.0.0.9:6379"}`, ""},
		{`{"addr":"10.0.0.9"}`, "downstream.addr"},
		{`{"addr":"10.0.0.9:1","timeout":"1us"}`, "downstream.timeout"},
		{`{"addr":"10.0.0.9:1","retries":-1}`, "downstream.retries"},
		{`{"addr":"10.0.0.9:1","backoff":"-1s"}`, "downstream.backoff"},
		{`{"addr":"10.0.0.9:1","on_error":"panic"}`, `"panic" is none of fail, ignore`},
		{`{"addr":"10.0.0.9:1","mode":"later"}`, `"later" is none of sync, async`},
		{`{"addr":"10.0.0.9:1","tiemout":"1s"}`, `unknown field "tiemout"`},
	} {
		c, err := ParseConfig([]byte(strings.Replace(goodConfig, "{", `{"downstream":`+tt.d+",", 1)))
		switch {
		case tt.want == "" && (err != nil || c.Downstream.Mode != "sync" || c.Downstream.OnError != "fail" || c.Downstream.Timeout == 0):
			t.Errorf("%s: %v, %+v", tt.d, err, c.Downstream)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.d, err, tt.want)
		}
	}
}
