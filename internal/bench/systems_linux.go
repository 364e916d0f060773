package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"brownout/kvserver"
	"brownout/kvserver/kvload"
)

// errAbsent says that a system is not on this machine.
var errAbsent = errors.New("not installed")

var value = strings.Repeat("v", valueSize)

func key(i int64) string { return "key:" + strconv.FormatInt(i*7919%keys, 10) }

// A resp is a system that speaks the Redis protocol.
type resp struct {
	n      *network
	title  string
	procs  []int
	leader func(ctx context.Context) (addr string, err error)
}

func (s *resp) name() string { return s.title }
func (s *resp) pids() []int  { return s.procs }

func (s *resp) load(ctx context.Context, p point, warm, d time.Duration) (kvload.Result, error) {
	addr, err := s.leader(ctx)
	if err != nil {
		return kvload.Result{}, err
	}
	n := min(p.clients, maxConns)
	if p.own {
		n = p.clients
	}
	conns, err := kvload.Dial(n, func() (net.Conn, error) { return s.n.dial(ctx, addr) })
	if err != nil {
		return kvload.Result{}, err
	}
	defer kvload.Close(conns)
	spec := kvload.Spec{
		Conns: conns, Clients: p.clients, Warm: warm, Time: d, Want: "+OK",
		Command: func(b []byte, i int64) []byte { return kvload.Append(b, "SET", key(i), value) },
	}
	if p.read {
		spec.Want = "$" + strconv.Itoa(valueSize)
		spec.Command = func(b []byte, i int64) []byte { return kvload.Append(b, "GET", key(i)) }
	}
	return kvload.Run(spec)
}

// fill sets all keys.
func (s *resp) fill(ctx context.Context) error {
	addr, err := s.leader(ctx)
	if err != nil {
		return err
	}
	conn, err := s.n.dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = kvload.Run(kvload.Spec{
		Conns: []net.Conn{conn}, Clients: 64, Count: keys, Want: "+OK",
		Command: func(b []byte, i int64) []byte { return kvload.Append(b, "SET", key(i), value) },
	})
	return err
}

// ask sends one command and returns the first line of the answer.
func (s *resp) ask(ctx context.Context, addr string, words ...string) (string, error) {
	conn, err := s.n.dial(ctx, addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(kvload.Append(nil, words...)); err != nil {
		return "", err
	}
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	return line, err
}

// startBrownout starts a cluster under a name, with its ports so far above the usual ones.
func startBrownout(ctx context.Context, n *network, name, binary, dir string, above int) (system, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	s := &resp{n: n, title: name}
	var peers []kvserver.Peer
	for i, a := range n.addrs {
		peers = append(peers, kvserver.Peer{ID: fmt.Sprint("n", i+1), Raft: fmt.Sprint(a, ":", 7000+above), Client: fmt.Sprint(a, ":", 6379+above)})
	}
	for i, p := range peers {
		home := filepath.Join(dir, name, p.ID)
		config, err := json.Marshal(kvserver.Config{
			ID: p.ID, Dir: filepath.Join(home, "data"), Client: p.Client, Raft: p.Raft, Peers: peers, Kick: i == 0, LogLevel: "warn",
		})
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(home, 0o755); err != nil {
			return nil, err
		}
		file := filepath.Join(home, "config.json")
		if err := os.WriteFile(file, config, 0o644); err != nil {
			return nil, err
		}
		pid, err := n.start(i, home, binary, "brownout", "kvserver", "--config", file)
		if err != nil {
			return nil, err
		}
		s.procs = append(s.procs, pid)
	}
	at := peers[0].Client
	s.leader = func(ctx context.Context) (string, error) {
		err := eventually(ctx, "find brownout's leader", func() error {
			line, err := s.ask(ctx, at, "EXISTS", "x")
			if f := strings.Fields(line); len(f) == 3 && f[0] == "-MOVED" { // MOVED slot host:port
				at = f[2]
			}
			if err == nil && !strings.HasPrefix(line, ":") {
				err = errors.New(line)
			}
			return err
		})
		return at, err
	}
	return s, s.fill(ctx)
}

func startRedis(ctx context.Context, n *network, dir string) (system, error) {
	// Debian's redis-tools brings the server too, under the name of its checker.
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		if binary, err = exec.LookPath("redis-check-rdb"); err != nil {
			return nil, fmt.Errorf("redis: %w (apt install redis-server)", errAbsent)
		}
	}
	addr := n.addrs[0].String()
	home := filepath.Join(dir, "redis")
	pid, err := n.start(0, home, binary, "redis-server", "--port", "6390", "--bind", addr, "--dir", home,
		"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--protected-mode", "no")
	if err != nil {
		return nil, err
	}
	s := &resp{n: n, title: "redis", procs: []int{pid}}
	s.leader = func(ctx context.Context) (string, error) {
		return addr + ":6390", eventually(ctx, "wait for redis", func() error {
			line, err := s.ask(ctx, addr+":6390", "PING")
			if err == nil && line != "+PONG" {
				err = errors.New(line)
			}
			return err
		})
	}
	return s, s.fill(ctx)
}

// etcd, driven by its own client library.
type etcd struct {
	n     *network
	procs []int
	addrs []string
}

func (e *etcd) name() string { return "etcd" }
func (e *etcd) pids() []int  { return e.procs }

func startEtcd(ctx context.Context, n *network, dir string) (system, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e := &etcd{n: n}
	var members []string
	for i, a := range n.addrs {
		members = append(members, fmt.Sprintf("n%d=http://%s:2380", i+1, a))
	}
	for i, a := range n.addrs {
		name := fmt.Sprint("n", i+1)
		home := filepath.Join(dir, "etcd", name)
		client := fmt.Sprintf("http://%s:2379", a)
		pid, err := n.start(i, home, self, "etcd", "--name", name, "--data-dir", filepath.Join(home, "data"), "--log-level", "error",
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", fmt.Sprintf("http://%s:2380", a), "--initial-advertise-peer-urls", fmt.Sprintf("http://%s:2380", a),
			"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new")
		if err != nil {
			return nil, err
		}
		e.procs, e.addrs = append(e.procs, pid), append(e.addrs, a.String()+":2379")
	}
	// Fill it: fewer at once than it would refuse.
	return e, eventually(ctx, "wait for etcd", func() error {
		ask, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		clients, err := e.clients(ask, maxConns)
		if err != nil {
			return err
		}
		defer closeClients(clients)
		var next atomic.Int64
		var wg sync.WaitGroup
		errs := make([]error, 64)
		for w := range errs {
			wg.Go(func() {
				for i := next.Add(1) - 1; i < keys && errs[w] == nil; i = next.Add(1) - 1 {
					_, errs[w] = clients[w%len(clients)].Put(ask, key(i), value)
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	})
}

// clients connects n clients with the leader.
func (e *etcd) clients(ctx context.Context, n int) (all []*clientv3.Client, err error) {
	at := ""
	for _, a := range e.addrs {
		c, err := e.client(a)
		if err != nil {
			return nil, err
		}
		st, err := c.Status(ctx, a)
		c.Close()
		if err == nil && st.Leader == st.Header.MemberId {
			at = a
		}
	}
	if at == "" {
		return nil, errors.New("nobody leads")
	}
	for range n {
		c, err := e.client(at)
		if err != nil {
			closeClients(all)
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (e *etcd) client(addr string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{addr}, DialTimeout: 5 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return e.n.dial(ctx, addr) })},
	})
}

func closeClients(all []*clientv3.Client) {
	for _, c := range all {
		c.Close()
	}
}

func (e *etcd) load(ctx context.Context, p point, warm, d time.Duration) (kvload.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, warm+d+20*time.Second)
	defer cancel()
	clients, err := e.clients(ctx, min(p.clients, maxConns))
	if err != nil {
		return kvload.Result{}, err
	}
	defer closeClients(clients)
	var next atomic.Int64
	var wg sync.WaitGroup
	took := make([][]time.Duration, p.clients)
	errs := make([]error, p.clients)
	from := time.Now().Add(warm)
	to := from.Add(d)
	for w := range p.clients {
		wg.Go(func() {
			c := clients[w%len(clients)]
			for {
				start := time.Now()
				if start.After(to) {
					return
				}
				var err error
				if k := key(next.Add(1) - 1); p.read {
					var got *clientv3.GetResponse
					if got, err = c.Get(ctx, k); err == nil && len(got.Kvs) != 1 {
						err = fmt.Errorf("%s has %d values", k, len(got.Kvs))
					}
				} else {
					_, err = c.Put(ctx, k, value)
				}
				if err != nil {
					errs[w] = err
					return
				}
				if now := time.Now(); !now.Before(from) && now.Before(to) {
					took[w] = append(took[w], now.Sub(start))
				}
			}
		})
	}
	wg.Wait()
	return kvload.NewResult(d, took...), errors.Join(errs...)
}
