package kvserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// patience is how long a test waits for something that should happen soon.
const patience = 20 * time.Second

// clusters numbers the test clusters, so that each has addresses of its own: 127.x.y.n.
var clusters atomic.Uint32

// A testCluster runs nodes, inside the test process or as processes of their own.
type testCluster struct {
	tb    testing.TB
	conf  []Config
	nodes []*testNode
	procs []*exec.Cmd                       // instead of nodes
	store func(raft.LogStore) raft.LogStore // around the nodes' logs
}

type testNode struct {
	s    *server
	stop context.CancelFunc
	done chan error
}

// startCluster starts n nodes and waits for a leader whose reads are ready.
func startCluster(tb testing.TB, n int, tune func(*Config), under func(id string, l link) link) *testCluster {
	tb.Helper()
	return startClusterOn(tb, n, tune, under, nil)
}

// startClusterOn is startCluster with something put around the nodes' logs.
func startClusterOn(tb testing.TB, n int, tune func(*Config), under func(string, link) link, store func(raft.LogStore) raft.LogStore) *testCluster {
	tb.Helper()
	k := &testCluster{tb: tb, conf: testConfigs(tb, n, tune), nodes: make([]*testNode, n), store: store}
	tb.Cleanup(func() {
		for i := range k.nodes {
			k.stop(i)
		}
	})
	for i := range k.conf {
		k.start(i, under)
	}
	k.leader()
	return k
}

func testConfigs(tb testing.TB, n int, tune func(*Config)) []Config {
	dir := tb.TempDir()
	net := fmt.Sprintf("127.%d.%d", 64+os.Getpid()%128, clusters.Add(1)%256)
	var peers []Peer
	for i := range n {
		ip := fmt.Sprintf("%s.%d", net, i+1)
		peers = append(peers, Peer{ID: fmt.Sprintf("n%d", i+1), Raft: ip + ":7000", Client: ip + ":6379"})
	}
	var conf []Config
	for i, p := range peers {
		c := Config{
			ID: p.ID, Dir: filepath.Join(dir, p.ID), Client: p.Client, Raft: p.Raft, Peers: peers, Kick: i == 0,
			Admin: filepath.Join(dir, p.ID+".sock"), LogLevel: "error", SegmentBytes: 4 << 20,
		}
		if testing.Verbose() && os.Getenv("KVSERVER_LOG") != "" {
			c.LogLevel = os.Getenv("KVSERVER_LOG")
		}
		if tune != nil {
			tune(&c)
		}
		conf = append(conf, c)
	}
	return conf
}

func (k *testCluster) start(i int, under func(id string, l link) link) {
	k.tb.Helper()
	c, err := k.conf[i].withDefaults()
	if err != nil {
		k.tb.Fatal(err)
	}
	between := seams{store: k.store}
	if under != nil {
		between.link = func(l link) link { return under(c.ID, l) }
	}
	var logTo io.Writer = io.Discard
	if os.Getenv("KVSERVER_LOG") != "" {
		logTo = os.Stderr
	}
	s, err := open(c, logTo, between)
	if err != nil {
		k.tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &testNode{s: s, stop: stop, done: make(chan error, 1)}
	go func() { n.done <- s.run(ctx) }()
	k.nodes[i] = n
}

// stop stops node i as SIGTERM would.
func (k *testCluster) stop(i int) {
	n := k.nodes[i]
	if n == nil {
		return
	}
	n.stop()
	select {
	case err := <-n.done:
		if err != nil {
			k.tb.Errorf("%s: %v", k.conf[i].ID, err)
		}
	case <-time.After(patience):
		k.tb.Errorf("%s did not stop", k.conf[i].ID)
	}
	k.nodes[i] = nil
}

// leader waits for a node that leads and can serve reads.
func (k *testCluster) leader(except ...int) int {
	k.tb.Helper()
	skip := map[int]bool{}
	for _, i := range except {
		skip[i] = true
	}
	found := -1
	eventually(k.tb, "a leader", func() bool {
		for i, n := range k.nodes {
			if n != nil && !skip[i] && n.s.status().Readable {
				found = i
			}
		}
		return found >= 0
	})
	return found
}

func (k *testCluster) dial(i int) *testClient { return dialClient(k.tb, k.conf[i].Peers[i].Client) }

// admin calls the admin endpoint of node i.
func (k *testCluster) admin(i int, method, path, body string, out any) (status int) {
	k.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := k.request(ctx, i, method, path, body)
	if err != nil {
		k.tb.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		k.tb.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode
}

func (k *testCluster) request(ctx context.Context, i int, method, path, body string) (*http.Response, error) {
	cl := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", k.conf[i].Admin)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return cl.Do(req)
}

func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if holds() {
			return
		}
	}
	tb.Fatalf("no %s within %v", what, patience)
}

// A testClient speaks the Redis protocol, and nothing of this package.
type testClient struct {
	tb   testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func dialClient(tb testing.TB, addr string) *testClient {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		tb.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(3 * patience))
	tb.Cleanup(func() { conn.Close() })
	return &testClient{tb, conn, bufio.NewReader(conn)}
}

func appendCommand(b []byte, words ...string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b
}

// do sends one command and returns its reply as redis-cli would print it, in short:
// OK, (nil), (integer) 3, "text", [a b], (error) ...
func (c *testClient) do(words ...string) string {
	c.tb.Helper()
	return c.pipeline(words)[0]
}

func (c *testClient) pipeline(commands ...[]string) []string {
	c.tb.Helper()
	var b []byte
	for _, w := range commands {
		b = appendCommand(b, w...)
	}
	if _, err := c.conn.Write(b); err != nil {
		c.tb.Fatalf("%q: %v", commands, err)
	}
	var replies []string
	for range commands {
		r, err := c.reply()
		if err != nil {
			c.tb.Fatalf("%q: %v", commands, err)
		}
		replies = append(replies, r)
	}
	return replies
}

func (c *testClient) reply() (string, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	n, _ := strconv.Atoi(line[1:])
	switch line[0] {
	case '+':
		return line[1:], nil
	case '-':
		return "(error) " + line[1:], nil
	case ':':
		return "(integer) " + line[1:], nil
	case '$':
		if n < 0 {
			return "(nil)", nil
		}
		buf := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, buf); err != nil {
			return "", err
		}
		return strconv.Quote(string(buf[:n])), nil
	case '*':
		var all []string
		for range n {
			e, err := c.reply()
			if err != nil {
				return "", err
			}
			all = append(all, e)
		}
		return "[" + strings.Join(all, " ") + "]", nil
	}
	return "", fmt.Errorf("reply begins with %q", line)
}

// must fails the test unless the reply is want.
func (c *testClient) must(want string, words ...string) {
	c.tb.Helper()
	if got := c.do(words...); got != want {
		c.tb.Fatalf("%q = %s, want %s", words, bytes.TrimSpace([]byte(got)), want)
	}
}
