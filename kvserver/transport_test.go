package kvserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

var testHeader = raft.RPCHeader{ProtocolVersion: 3, ID: []byte("n1"), Addr: []byte("127.0.0.1:7000")}

// messages holds one of each kind, with no field empty that is sent.
func messages() map[byte][2]any {
	return map[byte][2]any{
		kindAppend: {
			&raft.AppendEntriesRequest{
				RPCHeader: testHeader, Term: 3, PrevLogEntry: 1 << 40, PrevLogTerm: 2, LeaderCommitIndex: 9,
				Entries: []*raft.Log{
					{Index: 1<<40 + 1, Term: 3, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("x"), AppendedAt: time.Unix(1, 2)},
					{Index: 1<<40 + 2, Term: 3, Type: raft.LogBarrier},
				},
			},
			&raft.AppendEntriesResponse{RPCHeader: testHeader, Term: 4, LastLog: 5, Success: true, NoRetryBackoff: true},
		},
		kindVote: {
			&raft.RequestVoteRequest{RPCHeader: testHeader, Term: 1, LastLogIndex: 2, LastLogTerm: 3, LeadershipTransfer: true},
			&raft.RequestVoteResponse{RPCHeader: testHeader, Term: 1, Granted: true},
		},
		kindPreVote: {
			&raft.RequestPreVoteRequest{RPCHeader: testHeader, Term: 1, LastLogIndex: 2, LastLogTerm: 3},
			&raft.RequestPreVoteResponse{RPCHeader: testHeader, Term: 1, Granted: true},
		},
		kindTimeout: {&raft.TimeoutNowRequest{RPCHeader: testHeader}, &raft.TimeoutNowResponse{RPCHeader: testHeader}},
		kindSnapshot: {
			&raft.InstallSnapshotRequest{
				RPCHeader: testHeader, SnapshotVersion: 1, Term: 2, LastLogIndex: 3, LastLogTerm: 4,
				Configuration: []byte("conf"), ConfigurationIndex: 5, Size: 6,
			},
			&raft.InstallSnapshotResponse{RPCHeader: testHeader, Term: 1, Success: true},
		},
	}
}

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	for kind, two := range messages() {
		f, err := readFrame(bytes.NewReader(appendFrame(nil, frame{id: 7, group: 5, kind: kind}, "", two[0])))
		if err != nil {
			t.Fatalf("%T: %v", two[0], err)
		}
		got, err := f.request()
		if diff := cmp.Diff(two[0], got); err != nil || f.id != 7 || f.group != 5 || diff != "" {
			t.Errorf("%T: %v; id %d (-sent +received):\n%s", two[0], err, f.id, diff)
		}
		for _, text := range []string{"", "some error"} {
			f, err := readFrame(bytes.NewReader(appendFrame(nil, frame{id: 8, group: 5, kind: kind | answerBit}, text, two[1])))
			if err != nil {
				t.Fatalf("%T: %v", two[1], err)
			}
			m := newAnswer(kind)
			gotText, err := f.answer(m)
			if diff := cmp.Diff(two[1], m); err != nil || gotText != text || diff != "" {
				t.Errorf("%T: %v; error text %q, want %q (-sent +received):\n%s", two[1], err, gotText, text, diff)
			}
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	for kind, two := range messages() {
		f.Add(appendFrame(nil, frame{id: 1, group: 5, kind: kind}, "", two[0]))
		f.Add(appendFrame(nil, frame{id: 1, group: 5, kind: kind | answerBit}, "text", two[1]))
	}
	f.Add(binary.LittleEndian.AppendUint32(nil, maxFrame))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := &counted{r: bytes.NewReader(in)}
		fr, err := readFrame(c)
		if cap(fr.body) > 4*c.n+2*firstReadSize {
			t.Fatalf("holds %d bytes after %d", cap(fr.body), c.n)
		}
		if err != nil {
			return
		}
		if m, err := fr.request(); err == nil {
			again, err := readFrame(bytes.NewReader(appendFrame(nil, fr, "", m)))
			if err != nil {
				t.Fatal(err)
			}
			m2, err := again.request()
			if diff := cmp.Diff(m, m2); err != nil || diff != "" {
				t.Errorf("%v; a message changed when it was sent again:\n%s", err, diff)
			}
		}
		if m := newAnswer(fr.kind &^ answerBit); m != nil {
			fr.answer(m)
		}
	})
}

// A peer is a link whose requests a test answers.
type peer struct {
	*groupLink
	addr raft.ServerAddress
}

func newPeer(t *testing.T, timeout time.Duration) peer {
	t.Helper()
	c, err := Config{
		ID: "n", Log: "memory", Client: "127.0.0.1:1", Raft: "127.0.0.1:0", RPCTimeout: Duration(timeout),
		Peers: []Peer{{ID: "n", Raft: "127.0.0.1:0", Client: "127.0.0.1:1"}},
	}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLink(c, hclog.NewNullLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return peer{l.groups[0], raft.ServerAddress(l.ln.Addr().String())}
}

// answer takes one request and answers it.
func (p peer) answer(t *testing.T, resp any, err error) any {
	t.Helper()
	select {
	case rpc := <-p.Consumer():
		rpc.Respond(resp, err)
		return rpc.Command
	case <-time.After(patience):
		t.Error("no request came")
		return nil
	}
}

func entry(term uint64, index ...uint64) (logs []*raft.Log) {
	for _, i := range index {
		logs = append(logs, &raft.Log{Index: i, Term: term, Data: fmt.Append(nil, "entry ", i)})
	}
	return logs
}

func request(term, prev, prevTerm uint64, logs ...*raft.Log) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: testHeader, Term: term, PrevLogEntry: prev, PrevLogTerm: prevTerm, LeaderCommitIndex: 1, Entries: logs}
}

var accepted = &raft.AppendEntriesResponse{RPCHeader: testHeader, Term: 2, Success: true}

func TestErrorsOfAPeerComeBack(t *testing.T) {
	a, b := newPeer(t, 0), newPeer(t, 0)
	go b.answer(t, &raft.RequestVoteResponse{}, errors.New("no vote for you"))
	var resp raft.RequestVoteResponse
	if err := a.RequestVote("b", b.addr, messages()[kindVote][0].(*raft.RequestVoteRequest), &resp); err == nil || err.Error() != "no vote for you" {
		t.Errorf("RequestVote = %v, want the peer's error", err)
	}
}

func TestHeartbeatsDoNotWaitForEntries(t *testing.T) {
	a, b := newPeer(t, 0), newPeer(t, 0)
	b.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(accepted, nil) })
	p, err := a.AppendEntriesPipeline("b", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.AppendEntries(request(2, 4, 1, entry(2, 5)...), nil); err != nil {
		t.Fatal(err)
	}
	// Nobody takes the entries, but the heartbeat is answered.
	var resp raft.AppendEntriesResponse
	if err := a.AppendEntries("b", b.addr, &raft.AppendEntriesRequest{RPCHeader: testHeader, Term: 2}, &resp); err != nil || !resp.Success {
		t.Errorf("heartbeat = %v %+v, want accepted", err, resp)
	}
}

func TestPeerThatDoesNotAnswer(t *testing.T) {
	a, b := newPeer(t, 50*time.Millisecond), newPeer(t, 0)
	var resp raft.AppendEntriesResponse
	if err := a.AppendEntries("b", b.addr, request(2, 4, 1), &resp); err == nil {
		t.Error("a request that was never answered had no error")
	}
	go b.answer(t, accepted, nil) // that of the old connection
	go b.answer(t, accepted, nil)
	eventually(t, "new connection", func() bool { return a.AppendEntries("b", b.addr, request(2, 4, 1), &resp) == nil })
}

func TestManyBytesToAPeerThatDoesNotRead(t *testing.T) {
	a := newPeer(t, 0)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p, err := a.AppendEntriesPipeline("b", raft.ServerAddress(ln.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Three messages of 16 MiB fit into no socket, yet sending them waits for nobody.
	var sent []*raft.AppendEntriesRequest
	for i := range uint64(3) {
		req := request(2, 4+i, 2, &raft.Log{Index: 5 + i, Term: 2, Data: bytes.Repeat([]byte{byte(i)}, 16<<20)})
		if _, err := p.AppendEntries(req, nil); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, req)
	}
	magic := make([]byte, len(peerMagic)+1)
	if _, err := io.ReadFull(conn, magic); err != nil || string(magic) != peerMagic+"\x01" {
		t.Fatalf("connection begins with %q, %v", magic, err)
	}
	for i, want := range sent {
		f, err := readFrame(conn)
		if err != nil {
			t.Fatal(err)
		}
		m, err := f.request()
		if err != nil {
			t.Fatal(err)
		}
		if got := m.(*raft.AppendEntriesRequest); got.PrevLogEntry != want.PrevLogEntry || !bytes.Equal(got.Entries[0].Data, want.Entries[0].Data) {
			t.Errorf("message %d arrived otherwise than it was sent", i)
		}
	}
}

// TestAhead: entries sent ahead are sent once, and answered when Raft asks for them.
func TestAhead(t *testing.T) {
	a, b := newPeer(t, 0), newPeer(t, 0)
	pl, err := a.AppendEntriesPipeline("b", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer pl.Close()
	ask := func(req *raft.AppendEntriesRequest) raft.AppendFuture {
		t.Helper()
		f, err := pl.AppendEntries(req, nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	ready := func(want raft.AppendFuture) {
		t.Helper()
		select {
		case got := <-pl.Consumer():
			if got != want || got.Error() != nil {
				t.Errorf("%v is ready (%v), want %v", got.Request(), got.Error(), want.Request())
			}
		case <-time.After(patience):
			t.Fatal("nothing is ready")
		}
	}

	a.ahead(entry(2, 5), 4) // before the first request nothing is known of the follower
	first := ask(request(2, 4, 1))
	b.answer(t, accepted, nil)
	ready(first)
	a.ahead(entry(2, 6), 4) // there is a gap
	a.ahead(entry(3, 5), 4) // another term
	if n := a.early.Load(); n != 0 {
		t.Fatalf("%d messages were sent ahead, want none", n)
	}

	a.ahead(entry(2, 5, 6), 4)
	want := request(2, 4, 1, entry(2, 5, 6)...)
	want.LeaderCommitIndex = 4
	if diff := cmp.Diff(any(want), b.answer(t, accepted, nil)); diff != "" {
		t.Errorf("message sent ahead (-want +got):\n%s", diff)
	}
	empty := ask(request(2, 4, 1))
	b.answer(t, accepted, nil)
	ready(empty) // although the other has been answered before
	claimed := ask(request(2, 4, 1, entry(2, 5, 6)...))
	ready(claimed)
	// Raft may ask at once for what was sent in two.
	a.ahead(entry(2, 7), 6)
	a.ahead(entry(2, 8), 6)
	both := ask(request(2, 6, 2, entry(2, 7, 8)...))
	b.answer(t, accepted, nil)
	if n := len(pl.Consumer()); n != 0 {
		t.Errorf("%d requests are ready before the follower has all of them", n)
	}
	b.answer(t, accepted, nil)
	ready(both)
	if n := len(both.Request().Entries); n != 2 {
		t.Errorf("what is ready has %d entries, want both", n)
	}
	if e, c := a.early.Load(), a.claimed.Load(); e != 3 || c != 3 {
		t.Errorf("sent ahead %d, asked for %d; want 3 and 3", e, c)
	}

	// What Raft asks for otherwise than it was sent ahead is sent.
	a.ahead(entry(2, 9), 6)
	b.answer(t, accepted, nil)
	longer := ask(request(2, 8, 2, entry(2, 9, 10)...))
	if got := b.answer(t, accepted, nil).(*raft.AppendEntriesRequest); len(got.Entries) != 2 {
		t.Errorf("sent %d entries, want 2", len(got.Entries))
	}
	ready(longer)

	// A refusal is the answer, too.
	a.ahead(entry(2, 11), 6)
	b.answer(t, &raft.AppendEntriesResponse{RPCHeader: testHeader, Term: 3}, nil)
	refused := ask(request(2, 10, 2, entry(2, 11)...))
	ready(refused)
	if resp := refused.Response(); resp.Success || resp.Term != 3 {
		t.Errorf("answer %+v, want the follower's refusal", resp)
	}

	// So is the end of the connection.
	a.ahead(entry(2, 12), 6)
	b.Close()
	lost := ask(request(2, 11, 2, entry(2, 12)...))
	select {
	case <-pl.Consumer():
	case <-time.After(patience):
		t.Fatal("nothing is ready")
	}
	if lost.Error() == nil || lost.Response().Success {
		t.Error("a message whose answer was lost was accepted")
	}
	if _, err := pl.AppendEntries(request(2, 12, 2), nil); err == nil {
		t.Error("a broken pipeline took a request")
	}
}

// A heldStore lets a test decide when a node's log is written.
type heldStore struct {
	raft.LogStore
	mu   sync.Mutex
	gate chan struct{} // not nil: writes wait until it is closed
	err  error         // and then fail with this
	held atomic.Int64
}

func underHeld(s raft.LogStore) raft.LogStore { return &heldStore{LogStore: s} }

func (h *heldStore) StoreLogs(logs []*raft.Log) error {
	h.mu.Lock()
	gate, err := h.gate, h.err
	h.mu.Unlock()
	if gate != nil {
		h.held.Add(1)
		<-gate
		if err != nil {
			return err
		}
	}
	return h.LogStore.StoreLogs(logs)
}

// hold makes a running node's writes wait. The release may make them fail.
func hold(s *server, err error) (h *heldStore, release func()) {
	h = s.groups[0].store.meter.LogStore.(*heldStore)
	gate := make(chan struct{})
	h.mu.Lock()
	h.gate, h.err = gate, err
	h.mu.Unlock()
	return h, sync.OnceFunc(func() {
		h.mu.Lock()
		h.gate = nil
		h.mu.Unlock()
		close(gate)
	})
}

// TestLeaderWriteIsParallel holds the leader's own disk: its followers get the
// entry all the same, but nobody is told that it is done before the leader has it.
func TestLeaderWriteIsParallel(t *testing.T) {
	t.Parallel()
	k := startClusterOn(t, 3, steady, nil, underHeld)
	lead := k.leader()
	c := k.dial(lead)
	l := k.nodes[lead].s.groups[0].trans.link.(*groupLink)
	eventually(t, "write sent ahead to both followers", func() bool {
		before := l.early.Load()
		c.must("OK", "SET", "k", "1")
		return l.early.Load() == before+2
	})

	h, release := hold(k.nodes[lead].s, nil)
	defer release()
	last := k.nodes[lead].s.groups[0].raft.LastIndex()
	done := make(chan string, 1)
	go func() { done <- c.do("SET", "k", "3") }()
	eventually(t, "held write", func() bool { return h.held.Load() == 1 })
	eventually(t, "entry in the followers' logs", func() bool {
		for i, n := range k.nodes {
			if i != lead && n.s.groups[0].raft.LastIndex() <= last {
				return false
			}
		}
		return true
	})
	if got := k.nodes[lead].s.groups[0].raft.LastIndex(); got != last {
		t.Errorf("leader's last index is %d, want %d as long as its disk has not answered", got, last)
	}
	select {
	case got := <-done:
		t.Errorf("write was answered %s before the leader had stored it", got)
	case <-time.After(30 * time.Millisecond):
	}
	release()
	if got := <-done; got != "OK" {
		t.Errorf("SET = %s, want OK", got)
	}
	if l.claimed.Load() == 0 {
		t.Errorf("%d messages were sent ahead, none of them was asked for", l.early.Load())
	}
}

// TestLeaderWriteFails lets the leader's disk fail when its followers have the entry already.
func TestLeaderWriteFails(t *testing.T) {
	t.Parallel()
	k := startClusterOn(t, 3, func(c *Config) { c.Log = "memory" }, nil, underHeld)
	lead := k.leader()
	c := k.dial(lead)
	c.must("OK", "SET", "k", "1")

	h, release := hold(k.nodes[lead].s, errors.New("no space left"))
	defer release()
	done := make(chan string, 1)
	go func() { done <- c.do("SET", "k", "2") }()
	eventually(t, "held write", func() bool { return h.held.Load() == 1 })
	release()
	if got := <-done; !strings.HasPrefix(got, "(error) UNKNOWN") {
		t.Errorf("SET = %s, want UNKNOWN: the followers have it", got)
	}
	// Whatever the next leader made of it, all agree, and go on.
	next := k.leader()
	nc := k.dial(next)
	if got := nc.do("GET", "k"); got != `"1"` && got != `"2"` {
		t.Errorf("GET = %s, want the old value or the new one", got)
	}
	eventually(t, "write", func() bool { return k.dial(k.leader()).do("SET", "k", "3") == "OK" })
	eventually(t, "equal state", func() bool {
		var all []string
		for _, n := range k.nodes {
			v := n.s.groups[0].fsm.view()
			all = append(all, fmt.Sprintf("%d %x", v.applied, v.hash()))
			v.release()
		}
		return all[0] == all[1] && all[1] == all[2]
	})
}
