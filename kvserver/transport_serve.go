package kvserver

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/hashicorp/raft"

	"brownout/kvserver/stages"
)

// serve accepts connections from peers until the link is closed.
func (l *tcpLink) serve() {
	for {
		conn, err := l.ln.Accept()
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

// An inbound connection. Requests are handed to Raft in the order in which they
// come, each when the one before has been answered: entries build on each
// other. Only votes and the like do not wait, so that heartbeats which share
// the connection are not held up by a main loop that waits for its disk.
type inbound struct {
	l    *tcpLink
	r    *bufio.Reader
	conn net.Conn
	wg   sync.WaitGroup

	mu  sync.Mutex
	out []byte
}

func (l *tcpLink) serveConn(conn net.Conn) error {
	in := &inbound{l: l, r: bufio.NewReaderSize(conn, firstReadSize), conn: conn}
	defer in.wg.Wait()
	defer conn.Close()
	magic := make([]byte, len(peerMagic))
	if _, err := io.ReadFull(in.r, magic); err != nil {
		return err
	}
	if string(magic) != peerMagic {
		return errFrame
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
		m, err := f.request()
		if err != nil {
			return err
		}
		rpc := raft.RPC{Command: m, RespChan: respond}
		switch m := m.(type) {
		case *raft.AppendEntriesRequest:
			decoded := l.notes.Now()
			err = in.handle(f, rpc, respond, isHeartbeat(m))
			if n := len(m.Entries); n > 0 && err == nil {
				l.notes.Note(&stages.Record{
					Kind: stages.Receive, Peer: l.members[string(m.Addr)], A: m.Entries[0].Index, B: m.Entries[n-1].Index,
					T: [9]int64{stages.ReceiveBegun: begun, stages.ReceiveDecoded: decoded, stages.ReceiveAnswered: l.notes.Now()},
				})
			}
		case *raft.InstallSnapshotRequest:
			if m.Size < 0 {
				return errFrame
			}
			data := &io.LimitedReader{R: in.r, N: m.Size}
			rpc.Reader = data
			if err = in.handle(f, rpc, respond, false); err == nil && data.N > 0 {
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

// handle has Raft answer a request, and sends the answer.
func (in *inbound) handle(f frame, rpc raft.RPC, respond <-chan raft.RPCResponse, heartbeat bool) error {
	beat := in.l.heartbeat.Load()
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
	case in.l.consume <- rpc:
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
	in.out = appendFrame(in.out[:0], f.id, f.kind|answerBit, text, m)
	_, err := in.conn.Write(in.out)
	return err
}
