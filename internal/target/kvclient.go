package target

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"brownout/internal/history"
	"brownout/internal/workload"
	"brownout/kvserver/slots"
)

func init() { workload.Register("kvserver", &KVDialer{}) }

// maxRedirects bounds how often one operation follows a redirect without a
// pause in between: during an election two nodes may point at each other.
const maxRedirects = 3

// Bounds of the pause before an operation that certainly did not happen is tried again.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = 100 * time.Millisecond
)

// KVDialer makes clients of kvserver.
type KVDialer struct {
	clients atomic.Int64
	mu      sync.Mutex
	nearest map[string]int // by the endpoints' addresses
}

// Dial implements [workload.Dialer]. It connects to nobody, except to find the
// nearest node. A client of "leader" begins anywhere, follows redirects and
// remembers each shard's leader; one of "any" stays with a node of its own as long as
// that answers, one of a node's name for good, and both ask it first every
// time, for it may have become the leader.
func (d *KVDialer) Dial(ctx context.Context, to workload.Cluster) (workload.Client, error) {
	endpoints, prefer := to.Endpoints, to.Prefer
	if len(endpoints) == 0 {
		return nil, errors.New("dial kvserver: no endpoints")
	}
	c := &kvClient{endpoints: endpoints, leaders: make([]string, max(1, to.Shards)), conns: map[string]*kvConn{}}
	switch prefer {
	case "leader", "":
		c.sticky = true
	case "any":
		c.home = int(d.clients.Add(1)-1) % len(endpoints)
	case "nearest":
		c.home = d.findNearest(ctx, endpoints)
	default:
		c.home = -1
		for i, e := range endpoints {
			if e.Node == prefer {
				c.home, c.fixed = i, true
			}
		}
		if c.home < 0 {
			return nil, fmt.Errorf("dial kvserver: endpoints: %q is not leader, any, nearest or a node", prefer)
		}
	}
	return c, nil
}

// findNearest connects to all and returns whose handshake was fastest, once for all clients.
func (d *KVDialer) findNearest(ctx context.Context, endpoints []workload.Endpoint) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	var id strings.Builder
	for _, e := range endpoints {
		id.WriteString(e.Addr + " ")
	}
	if i, ok := d.nearest[id.String()]; ok {
		return i
	}
	best, least := 0, time.Hour
	for range 3 {
		for i, e := range endpoints {
			began := time.Now()
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", e.Addr)
			if err != nil {
				continue
			}
			if took := time.Since(began); took < least {
				best, least = i, took
			}
			conn.Close()
		}
	}
	if d.nearest == nil {
		d.nearest = map[string]int{}
	}
	d.nearest[id.String()] = best
	return best
}

// A kvClient is one client with at most one connection to each node.
type kvClient struct {
	endpoints []workload.Endpoint
	home      int      // endpoint to ask first
	sticky    bool     // remember where redirects lead to
	fixed     bool     // never leave home but by redirect
	leaders   []string // address remembered of each shard's, "" for none
	conns     map[string]*kvConn
	out       []byte
}

type kvConn struct {
	net.Conn
	in   *bufio.Reader
	used time.Time
}

// Close implements [workload.Client].
func (c *kvClient) Close() error {
	var errs []error
	for addr, conn := range c.conns {
		errs = append(errs, conn.Close())
		delete(c.conns, addr)
	}
	return errors.Join(errs...)
}

// certain is what one attempt says of its operation.
type certain int

const (
	answered certain = iota
	never            // it did not happen and will not
	moved            // the same, and another node is named
	refused          // the same, and trying again is of no use
	maybe
)

// Do implements [workload.Client]. It tries again for as long as ctx allows,
// but only while it is certain that no earlier attempt happened.
func (c *kvClient) Do(ctx context.Context, req history.Request) history.Reply {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	c.out = appendRequest(c.out[:0], req)
	shard := slots.ShardOf(req.Key, len(c.leaders))
	addr := c.start(shard)
	redirects, pause := 0, minBackoff
	for {
		r, cert, err := c.attempt(ctx, addr, deadline)
		node := c.node(addr)
		if cert == answered {
			rep, err := decode(req, r)
			if err == nil {
				if c.sticky {
					c.leaders[shard] = addr
				}
				rep.Node = node
				return rep
			}
			cert = errorOf(r)
			if cert == maybe && r.kind != '-' { // an answer that is none: who knows what it was to
				c.drop(addr)
			}
			if cert == moved {
				if to, ok := c.redirect(r.text); ok && redirects < maxRedirects {
					redirects++
					addr = to
					if c.sticky {
						c.leaders[shard] = to
					}
					continue
				}
				cert = never
			}
			if cert != never {
				return failed(cert, node, err)
			}
			// Nobody leads yet, or everybody says that another does: ask somebody else, later.
			if c.wait(ctx, deadline, &pause) {
				redirects = 0
				addr = c.next(shard, addr, false)
				continue
			}
			return failed(never, node, err)
		}
		next := c.next(shard, addr, true)
		if cert != never || !c.wait(ctx, deadline, &pause) {
			return failed(cert, node, err)
		}
		addr, redirects = next, 0
	}
}

func failed(cert certain, node string, err error) history.Reply {
	outcome := history.Fail
	if cert == maybe {
		outcome = history.Unknown
	}
	return history.Reply{Outcome: outcome, Node: node, Err: err}
}

// start returns whom to ask first about a shard.
func (c *kvClient) start(shard int) string {
	if c.sticky && c.leaders[shard] != "" {
		return c.leaders[shard]
	}
	return c.endpoints[c.home].Addr
}

// next returns whom to ask after addr. broken says that addr did not answer at all.
func (c *kvClient) next(shard int, addr string, broken bool) string {
	if broken && c.leaders[shard] == addr {
		c.leaders[shard] = ""
	}
	switch {
	case c.fixed:
	case c.sticky:
		for i, e := range c.endpoints {
			if e.Addr == addr {
				c.home = i
			}
		}
		c.home = (c.home + 1) % len(c.endpoints)
		c.leaders[shard] = ""
	case broken && addr == c.endpoints[c.home].Addr:
		c.home = (c.home + 1) % len(c.endpoints)
	}
	return c.endpoints[c.home].Addr
}

// redirect finds where "MOVED slot host:port" points. Only known nodes are
// followed: anything else would be a damaged answer.
func (c *kvClient) redirect(text string) (addr string, ok bool) {
	f := strings.Fields(text)
	if len(f) != 3 {
		return "", false
	}
	for _, e := range c.endpoints {
		if e.Addr == f[2] {
			return e.Addr, true
		}
	}
	return "", false
}

func (c *kvClient) node(addr string) string {
	for _, e := range c.endpoints {
		if e.Addr == addr {
			return e.Node
		}
	}
	return ""
}

// wait pauses before the next try; it reports whether there is time for one.
func (c *kvClient) wait(ctx context.Context, deadline time.Time, pause *time.Duration) bool {
	if time.Until(deadline) <= *pause {
		return false
	}
	t := time.NewTimer(*pause)
	defer t.Stop()
	*pause = min(2**pause, maxBackoff)
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// attempt sends the operation once and reads the answer.
func (c *kvClient) attempt(ctx context.Context, addr string, deadline time.Time) (reply, certain, error) {
	conn := c.conns[addr]
	if conn != nil && time.Since(conn.used) > idleCheck && stale(conn.Conn) {
		// Closed by the other side while nothing was asked: better found now than after sending.
		c.drop(addr)
		conn = nil
	}
	if conn == nil {
		// Half of the time left: a node that does not answer must leave some for the others.
		d := net.Dialer{Timeout: max(time.Until(deadline)/2, minDial)}
		ctx, cancel := context.WithDeadline(ctx, deadline)
		raw, err := d.DialContext(ctx, "tcp", addr)
		cancel()
		if err != nil {
			return reply{}, never, err
		}
		conn = &kvConn{Conn: raw, in: bufio.NewReader(raw)}
		c.conns[addr] = conn
	}
	if err := conn.SetDeadline(deadline); err != nil {
		c.drop(addr)
		return reply{}, never, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // cancelled before the deadline
	defer stop()
	if n, err := conn.Write(c.out); err != nil {
		c.drop(addr)
		if n == 0 {
			return reply{}, never, err
		}
		return reply{}, maybe, err
	}
	r, err := readReply(conn.in, 0)
	if err != nil {
		c.drop(addr)
		return reply{}, maybe, fmt.Errorf("no answer from %s: %w", c.node(addr), err)
	}
	if conn.in.Buffered() > 0 { // more answers than questions
		c.drop(addr)
	}
	conn.used = time.Now()
	return r, answered, nil
}

const (
	idleCheck = 20 * time.Millisecond // connections unused for longer are looked at before they are used
	minDial   = 20 * time.Millisecond
)

func (c *kvClient) drop(addr string) {
	if conn := c.conns[addr]; conn != nil {
		_ = conn.Close()
		delete(c.conns, addr)
	}
}

// appendRequest encodes an operation.
func appendRequest(b []byte, req history.Request) []byte {
	switch req.Kind {
	case history.Put:
		return appendCommand(b, "SET", req.Key, req.Value)
	case history.CAS:
		return appendCommand(b, "CAS", req.Key, req.Expect, req.Value)
	case history.Append:
		return appendCommand(b, "APPEND", req.Key, req.Value)
	case history.Delete:
		if req.Value != "" { // a tombstone is a value like others, so that reads can name the delete they saw
			return appendCommand(b, "SET", req.Key, req.Value)
		}
		return appendCommand(b, "DEL", req.Key)
	}
	return appendCommand(b, "GET", req.Key)
}

// decode turns an answer into what it says, or into an error if it is not an
// answer to that question.
func decode(req history.Request, r reply) (history.Reply, error) {
	rep := history.Reply{Outcome: history.OK}
	found := func(r reply) {
		if !r.null {
			rep.Found = &r.text
		}
	}
	switch {
	case r.kind == '-':
		return rep, errors.New(r.text)
	case req.Kind == history.Get && r.kind == '$':
		found(r)
	case req.Kind == history.Put && r.kind == '+' && r.text == "OK":
	case req.Kind == history.Append && r.kind == ':':
	case req.Kind == history.Delete && req.Value != "" && r.kind == '+' && r.text == "OK":
	case req.Kind == history.Delete && req.Value == "" && r.kind == ':':
	case req.Kind == history.CAS && r.kind == '*' && len(r.list) == 2 && r.list[0].kind == ':' && r.list[1].kind == '$':
		rep.Swapped = r.list[0].n == 1
		found(r.list[1])
	default:
		return rep, fmt.Errorf("an answer of kind %q to a %s", r.kind, req.Kind)
	}
	return rep, nil
}

// errorOf says what an answer that is none means for its operation; see
// package kvserver for the meaning of the words.
func errorOf(r reply) certain {
	if r.kind != '-' {
		return maybe
	}
	switch word, _, _ := strings.Cut(r.text, " "); word {
	case "MOVED":
		return moved
	case "UNAVAIL":
		return never
	case "ERR", "NOSESSION", "NOPROTO":
		return refused
	}
	return maybe // UNKNOWN, and words that we do not know
}
