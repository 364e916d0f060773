package kvserver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/hashicorp/raft"

	"brownout/kvserver/stages"
)

// serve accepts connections from peers until the link is closed.
func (l *tcpLink) serve() {
	for {
		conn, err := accept(l.ctx, l.ln)
		if err != nil {
			if l.ctx.Err() == nil {
				l.log.Error("accept peer", "error", err)
				l.end()
			}
			return
		}
		if !l.keep(conn) {
			conn.Close()
			return
		}
		l.wg.Go(func() {
			defer l.forget(conn)
			if err := l.serveConn(conn); err != nil && l.ctx.Err() == nil && !errors.Is(err, io.EOF) {
				l.log.Warn("peer connection", "from", conn.RemoteAddr(), "error", err)
			}
		})
	}
}

// An inbound connection. Requests of a group are handed to Raft in the order in
// which they come, each when the one before has been answered: entries build on
// each other. Only votes and the like do not wait, so that heartbeats which share
// the connection are not held up by a main loop that waits for its disk.
//
// Where there are several groups, each has a goroutine, so that none waits for
// another one's disk; a single group is served by the one that reads.
type inbound struct {
	l    *tcpLink
	r    *bufio.Reader
	conn net.Conn
	wg   sync.WaitGroup
	work []chan incoming // by group, nil before its first; none if there is one group

	mu  sync.Mutex
	out []byte
}

// An incoming message waits for its group.
type incoming struct {
	f              frame
	m              any
	begun, decoded int64 // for notes
}

// maxWaiting bounds the requests of a group that wait for the one before.
const maxWaiting = 16

func (l *tcpLink) serveConn(conn net.Conn) error {
	in := &inbound{l: l, r: bufio.NewReaderSize(conn, firstReadSize), conn: conn}
	defer in.wg.Wait()
	defer conn.Close()
	magic := make([]byte, len(peerMagic)+1)
	if _, err := io.ReadFull(in.r, magic); err != nil {
		return err
	}
	switch groups := int(magic[len(peerMagic)]); {
	case string(magic[:len(peerMagic)]) != peerMagic:
		return errFrame
	case groups != len(l.groups):
		return fmt.Errorf("the peer is configured with %d shards, this node with %d", groups, len(l.groups))
	}
	if len(l.groups) > 1 {
		in.work = make([]chan incoming, len(l.groups))
		defer in.dismiss()
	}
	respond := make(chan raft.RPCResponse, 1)
	for {
		if _, err := in.r.Peek(1); err != nil {
			return err
		}
		begun := l.notes.Now()
		f, err := readFrame(in.r)
		if err != nil {
			return err
		}
		if int(f.group) >= len(l.groups) {
			return fmt.Errorf("%w: group %d of %d", errFrame, f.group, len(l.groups))
		}
		m, err := f.request()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *raft.AppendEntriesRequest:
			q := incoming{f, m, begun, l.notes.Now()}
			if in.work == nil {
				err = in.append(q, respond)
			} else {
				in.enqueue(q)
			}
		case *raft.InstallSnapshotRequest:
			if m.Size < 0 {
				return errFrame
			}
			data := &io.LimitedReader{R: in.r, N: m.Size}
			if err = in.handle(f, raft.RPC{Command: m, RespChan: respond, Reader: data}, respond, false); err == nil && data.N > 0 {
				return nil // refused before all was read: nothing else can follow
			}
		default:
			in.wg.Go(func() {
				respond := make(chan raft.RPCResponse, 1)
				if in.handle(f, raft.RPC{Command: m, RespChan: respond}, respond, false) != nil {
					conn.Close()
				}
			})
		}
		if err != nil {
			return err
		}
	}
}

// enqueue leaves a request to its group's goroutine. It waits while too many do:
// a leader has no more than maxInFlight under way.
func (in *inbound) enqueue(q incoming) {
	queue := in.work[q.f.group]
	if queue == nil {
		queue = make(chan incoming, maxWaiting)
		in.work[q.f.group] = queue
		in.wg.Go(func() {
			var err error
			respond := make(chan raft.RPCResponse, 1)
			for q := range queue {
				if err != nil {
					continue
				}
				if err = in.append(q, respond); err != nil {
					in.conn.Close() // the reader finds out
				}
			}
		})
	}
	queue <- q
}

// dismiss lets the groups' goroutines end.
func (in *inbound) dismiss() {
	for _, queue := range in.work {
		if queue != nil {
			close(queue)
		}
	}
}

// append has Raft answer a request with entries, or a heartbeat.
func (in *inbound) append(q incoming, respond chan raft.RPCResponse) error {
	m := q.m.(*raft.AppendEntriesRequest)
	err := in.handle(q.f, raft.RPC{Command: m, RespChan: respond}, respond, isHeartbeat(m))
	if n := len(m.Entries); n > 0 && err == nil {
		in.l.notes.Note(&stages.Record{
			Kind: stages.Receive, Group: q.f.group, Peer: in.l.members[string(m.Addr)], A: m.Entries[0].Index, B: m.Entries[n-1].Index,
			T: [9]int64{stages.ReceiveBegun: q.begun, stages.ReceiveDecoded: q.decoded, stages.ReceiveAnswered: in.l.notes.Now()},
		})
	}
	return err
}

// handle has Raft answer a request, and sends the answer.
func (in *inbound) handle(f frame, rpc raft.RPC, respond <-chan raft.RPCResponse, heartbeat bool) error {
	g := in.l.groups[f.group]
	beat := g.heartbeat.Load()
	if heartbeat && beat != nil {
		(*beat)(rpc)
		select {
		case resp := <-respond:
			return in.send(f, resp)
		default:
			return raft.ErrTransportShutdown // Raft has ended
		}
	}
	select {
	case g.consume <- rpc:
	case <-in.l.ctx.Done():
		return raft.ErrTransportShutdown
	}
	select {
	case resp := <-respond:
		return in.send(f, resp)
	case <-in.l.ctx.Done():
		return raft.ErrTransportShutdown
	}
}

func (in *inbound) send(f frame, resp raft.RPCResponse) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	text := ""
	if resp.Error != nil {
		text = resp.Error.Error()
	}
	m := resp.Response
	if m == nil && text == "" {
		return errors.New("no answer to a request")
	}
	f.kind |= answerBit
	in.out = appendFrame(in.out[:0], f, text, m)
	_, err := in.conn.Write(in.out)
	return err
}
