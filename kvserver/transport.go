package kvserver

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A link is what Raft's network transport can do.
type link interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// A transport is the link to the peers, seen from outside: it counts, and it
// reports when a message was sent that a peer has accepted since.
type transport struct {
	link
	accepted func(peer raft.ServerID, term uint64, sent time.Time) // set before Raft starts

	rpcs, failed atomic.Uint64
	rtt          histogram
}

// AppendEntries implements [raft.Transport].
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := time.Now()
	err := t.link.AppendEntries(id, addr, req, resp)
	t.rpcs.Add(1)
	if err != nil {
		t.failed.Add(1)
		return err
	}
	t.rtt.record(time.Since(sent))
	if resp.Success && resp.Term == req.Term {
		t.accepted(id, req.Term, sent)
	}
	return nil
}

// newLink starts listening for peers on addr.
func newLink(c Config, log hclog.Logger) (link, error) {
	ln, err := net.Listen("tcp", c.Raft)
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	st := &stream{Listener: ln, addr: c.Raft, patience: time.Duration(c.PeerTimeout), conns: map[net.Conn]struct{}{}}
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                  st,
		MaxPool:                 4, // heartbeats, entries, reads, and one to spare
		Timeout:                 time.Duration(c.RPCTimeout),
		Logger:                  log,
		MsgpackUseNewTimeFormat: true,
	}), nil
}

// A stream makes the connections between nodes. A peer whose kernel
// acknowledges nothing for the given patience is given up, so that after a
// partition the nodes do not wait for the end of TCP's exponential backoff.
// A slow link is not affected: there, bytes are acknowledged, if slowly.
type stream struct {
	net.Listener
	addr     string
	patience time.Duration

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{} // dialed and open
}

// Addr returns the address told to peers, unresolved as it was configured.
func (s *stream) Addr() net.Addr { return peerAddr(s.addr) }

// Dial implements [raft.StreamLayer].
func (s *stream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: min(timeout, s.patience), ControlContext: giveUpAfter(s.patience)}
	conn, err := d.Dial("tcp", string(addr))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	s.conns[conn] = struct{}{}
	return &dialed{conn, s}, nil
}

// Close implements [net.Listener]. It also ends the messages under way.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for conn := range s.conns {
		conn.Close()
	}
	clear(s.conns)
	return s.Listener.Close()
}

type dialed struct {
	net.Conn
	s *stream
}

// Close implements [net.Conn].
func (d *dialed) Close() error {
	d.s.mu.Lock()
	delete(d.s.conns, d.Conn)
	d.s.mu.Unlock()
	return d.Conn.Close()
}

type peerAddr string

func (peerAddr) Network() string  { return "tcp" }
func (a peerAddr) String() string { return string(a) }
