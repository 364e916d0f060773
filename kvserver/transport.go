package kvserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"brownout/kvserver/stages"
)

// A link is what Raft's network transport can do, and a little more.
type link interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
	// ahead sends a leader's new entries before they are in its own log, where that is of use.
	ahead(logs []*raft.Log, commit uint64)
	// aheads counts the messages sent that way, and those whose answers Raft has asked for since.
	aheads() (sent, claimed uint64)
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

// A tcpLink connects a node with its peers, for all of its groups: each has a
// [groupLink], and their messages share the connections. Which way a message
// goes: [lane] to a peer, [inbound] from one, [pipeline] for a leader's entries;
// how it is written: see peerMagic.
//
// A peer whose kernel acknowledges nothing for the given patience is given up,
// so that after a partition the nodes do not wait for the end of TCP's
// exponential backoff. A slow link is not affected: there, bytes are
// acknowledged, if slowly.
type tcpLink struct {
	addr     string // told to peers, unresolved as it was configured
	ln       net.Listener
	log      hclog.Logger
	timeout  time.Duration
	patience time.Duration
	groups   []*groupLink

	notes   *stages.Recorder
	members map[string]uint8 // places in the header of notes, by address

	ctx  context.Context // ends with the link
	shut context.CancelFunc
	wg   sync.WaitGroup // all its goroutines

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	lanes map[raft.ServerAddress]*[2]*lane
}

// A groupLink is the link of one group.
type groupLink struct {
	*tcpLink
	group     uint8
	consume   chan raft.RPC
	heartbeat atomic.Pointer[func(raft.RPC)]

	early, claimed atomic.Uint64 // requests sent ahead, and of these asked for by Raft

	pmu       sync.Mutex
	pipelines map[*pipeline]struct{}
}

var _ link = (*groupLink)(nil)

// The lanes to a peer.
const (
	urgent = iota
	entries
)

// newLink starts listening for peers.
func newLink(c Config, log hclog.Logger, notes *stages.Recorder) (*tcpLink, error) {
	ln, err := net.Listen("tcp", c.Raft)
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	l := &tcpLink{
		addr: c.Raft, ln: ln, log: log, timeout: time.Duration(c.RPCTimeout), patience: time.Duration(c.PeerTimeout),
		conns: map[net.Conn]struct{}{}, lanes: map[raft.ServerAddress]*[2]*lane{},
		notes: notes, members: map[string]uint8{},
	}
	for i := range c.Shards {
		l.groups = append(l.groups, &groupLink{
			tcpLink: l, group: uint8(i), consume: make(chan raft.RPC), pipelines: map[*pipeline]struct{}{},
		})
	}
	for i, p := range c.Peers {
		l.members[p.Raft] = uint8(i)
	}
	l.ctx, l.shut = context.WithCancel(context.Background())
	l.wg.Go(l.serve)
	l.wg.Go(l.expire)
	return l, nil
}

// Close implements [raft.WithClose]. It also ends the messages under way, those
// of the other groups too: the groups of a node end together.
func (l *tcpLink) Close() error {
	l.end()
	l.wg.Wait()
	return nil
}

func (l *tcpLink) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut()
	l.ln.Close()
	for conn := range l.conns {
		conn.Close()
	}
}

// keep has conn closed with the link. It reports whether that is still to come.
func (l *tcpLink) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.conns[conn] = struct{}{}
	return true
}

// start runs f in a goroutine, unless the link has ended.
func (l *tcpLink) start(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.wg.Go(f)
	return true
}

func (l *tcpLink) forget(conn net.Conn) {
	conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

func (l *tcpLink) dial(addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: min(l.timeout, l.patience), ControlContext: giveUpAfter(l.patience)}
	conn, err := d.DialContext(l.ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if !l.keep(conn) {
		conn.Close()
		return nil, net.ErrClosed
	}
	return conn, nil
}

// greeting is what a connection to a peer begins with.
func (l *tcpLink) greeting() []byte { return append([]byte(peerMagic), byte(len(l.groups))) }

// expire looks for peers that do not answer.
func (l *tcpLink) expire() {
	tick := time.NewTicker(max(l.timeout/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case now := <-tick.C:
			l.mu.Lock()
			var all []*lane
			for _, two := range l.lanes {
				all = append(all, two[:]...)
			}
			l.mu.Unlock()
			for _, n := range all {
				n.expire(now.Add(-l.timeout))
			}
		}
	}
}

func (l *tcpLink) lane(addr raft.ServerAddress, which int) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	two := l.lanes[addr]
	if two == nil {
		two = &[2]*lane{{l: l, addr: string(addr)}, {l: l, addr: string(addr)}}
		l.lanes[addr] = two
	}
	return two[which]
}

// Consumer implements [raft.Transport].
func (l *groupLink) Consumer() <-chan raft.RPC { return l.consume }

// LocalAddr implements [raft.Transport].
func (l *groupLink) LocalAddr() raft.ServerAddress { return raft.ServerAddress(l.addr) }

// EncodePeer implements [raft.Transport].
func (l *groupLink) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements [raft.Transport].
func (l *groupLink) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements [raft.Transport].
func (l *groupLink) SetHeartbeatHandler(f func(raft.RPC)) { l.heartbeat.Store(&f) }

// AppendEntries implements [raft.Transport].
func (l *groupLink) AppendEntries(_ raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	which := entries
	if isHeartbeat(req) {
		which = urgent
	}
	if len(req.Entries) == 0 {
		return l.lane(addr, which).call(l.group, kindAppend, req, resp)
	}
	rec := l.sending(string(addr), req)
	err := l.lane(addr, which).call(l.group, kindAppend, req, resp)
	if err == nil {
		// The call does not tell when its bytes were gone: they count as on their way.
		rec.T[stages.SendDone], rec.T[stages.SendAcked] = rec.T[stages.SendBegun], l.notes.Now()
		l.notes.Note(&rec)
	}
	return err
}

// sending begins a note about entries for a peer.
func (l *groupLink) sending(addr string, req *raft.AppendEntriesRequest) stages.Record {
	return stages.Record{
		Kind: stages.Send, Group: l.group, Peer: l.members[addr], A: req.Entries[0].Index, B: req.Entries[len(req.Entries)-1].Index,
		T: [9]int64{stages.SendBegun: l.notes.Now()},
	}
}

// AppendEntriesPipeline implements [raft.Transport].
func (l *groupLink) AppendEntriesPipeline(_ raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	n := l.lane(addr, entries)
	if err := n.dial(); err != nil {
		return nil, err
	}
	return newPipeline(l, n), nil
}

// ahead implements [link].
func (l *groupLink) ahead(logs []*raft.Log, commit uint64) {
	l.pmu.Lock()
	var few [8]*pipeline
	all := few[:0]
	for p := range l.pipelines {
		all = append(all, p)
	}
	l.pmu.Unlock()
	for _, p := range all {
		p.ahead(logs, commit)
	}
}

// aheads implements [link].
func (l *groupLink) aheads() (sent, claimed uint64) { return l.early.Load(), l.claimed.Load() }

// RequestVote implements [raft.Transport].
func (l *groupLink) RequestVote(_ raft.ServerID, addr raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return l.lane(addr, urgent).call(l.group, kindVote, req, resp)
}

// RequestPreVote implements [raft.WithPreVote].
func (l *groupLink) RequestPreVote(_ raft.ServerID, addr raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return l.lane(addr, urgent).call(l.group, kindPreVote, req, resp)
}

// TimeoutNow implements [raft.Transport].
func (l *groupLink) TimeoutNow(_ raft.ServerID, addr raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return l.lane(addr, urgent).call(l.group, kindTimeout, req, resp)
}

// InstallSnapshot implements [raft.Transport]. It has a connection of its own.
func (l *groupLink) InstallSnapshot(_ raft.ServerID, addr raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	conn, err := l.dial(string(addr))
	if err != nil {
		return err
	}
	defer l.forget(conn)
	const scale = 256 << 10 // bytes for which the timeout is meant
	conn.SetDeadline(time.Now().Add(l.timeout * time.Duration(max(1, req.Size/scale))))
	if _, err := conn.Write(appendFrame(l.greeting(), frame{id: 1, group: l.group, kind: kindSnapshot}, "", req)); err != nil {
		return err
	}
	if _, err := io.CopyN(conn, data, req.Size); err != nil {
		return err
	}
	f, err := readFrame(bufio.NewReader(conn))
	if err != nil {
		return err
	}
	text, err := f.answer(resp)
	if err == nil && text != "" {
		err = errors.New(text)
	}
	return err
}
