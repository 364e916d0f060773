package kvserver

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"time"
)

// A lane is one connection to a peer, dialed when it is needed. Each peer has
// two: what is short and urgent does not wait behind entries. All groups share them.
type lane struct {
	l    *tcpLink
	addr string

	dialing sync.Mutex // held while a connection is made

	mu   sync.Mutex // guards what follows, and the connection's own
	conn *outbound
	next uint32
}

// An outbound connection. Nobody who sends ever waits for the network: what the
// kernel does not take at once is left to a goroutine.
type outbound struct {
	net.Conn
	try     func([]byte) (int, error) // writes what can be written without waiting
	waiting map[uint32]*exchange
	out     []byte
	spare   []byte
	busy    bool // drain is at work, and takes out
}

// An exchange is a request that waits for its answer.
type exchange struct {
	resp any
	sent time.Time
	done func(error) // called once
}

// send sends a request. Unless it returns an error, x.done will be called.
func (n *lane) send(group uint8, kind byte, req any, x *exchange) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.conn
	if c == nil {
		return net.ErrClosed
	}
	n.next++
	x.sent = time.Now()
	c.waiting[n.next] = x
	c.out = appendFrame(c.out, frame{id: n.next, group: group, kind: kind}, "", req)
	if c.busy {
		return nil
	}
	took, err := c.try(c.out)
	if err != nil {
		c.Close() // receive finds out, and tells x
		return nil
	}
	if c.out = c.out[:copy(c.out, c.out[took:])]; len(c.out) > 0 {
		c.busy = true
		n.l.wg.Go(func() { n.drain(c) })
	}
	c.trim()
	return nil
}

// trim lets go of the memory of large messages.
func (c *outbound) trim() {
	if len(c.out) == 0 && cap(c.out) > 1<<20 {
		c.out = nil
	}
}

// drain writes until nothing is left.
func (n *lane) drain(c *outbound) {
	for {
		n.mu.Lock()
		b := c.out
		if c.out, c.spare = c.spare[:0], nil; len(b) == 0 {
			c.out, c.busy = b, false
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		if _, err := c.Write(b); err != nil {
			c.Close()
			return
		}
		if cap(b) <= 1<<20 {
			n.mu.Lock()
			c.spare = b[:0]
			n.mu.Unlock()
		}
	}
}

// dial makes the connection, unless somebody else has meanwhile.
func (n *lane) dial() error {
	n.dialing.Lock()
	defer n.dialing.Unlock()
	n.mu.Lock()
	there := n.conn != nil
	n.mu.Unlock()
	if there {
		return nil
	}
	conn, err := n.l.dial(n.addr)
	if err != nil {
		return err
	}
	c := &outbound{Conn: conn, try: tryWriter(conn), waiting: map[uint32]*exchange{}, out: n.l.greeting()}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.l.start(func() { n.drop(c, n.receive(c)) }) {
		return net.ErrClosed
	}
	n.conn = c
	return nil
}

// receive reads answers until the connection ends.
func (n *lane) receive(c *outbound) error {
	r := bufio.NewReader(c)
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		n.mu.Lock()
		x := c.waiting[f.id]
		delete(c.waiting, f.id)
		n.mu.Unlock()
		if x == nil || f.kind&answerBit == 0 {
			return errFrame
		}
		text, err := f.answer(x.resp)
		switch {
		case err != nil:
			x.done(err)
			return err
		case text != "":
			x.done(errors.New(text))
		default:
			x.done(nil)
		}
	}
}

// drop forgets the connection and fails what waits on it.
func (n *lane) drop(c *outbound, err error) {
	n.l.forget(c.Conn)
	n.mu.Lock()
	if n.conn == c {
		n.conn = nil
	}
	left := c.waiting
	c.waiting = map[uint32]*exchange{}
	n.mu.Unlock()
	if n.l.ctx.Err() != nil {
		err = net.ErrClosed
	}
	for _, x := range left {
		x.done(err)
	}
}

// expire ends the connection if something has waited since before limit.
func (n *lane) expire(limit time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn == nil {
		return
	}
	for _, x := range n.conn.waiting {
		if x.sent.Before(limit) {
			n.conn.Close()
			return
		}
	}
}

// A roundTrip is an exchange that somebody waits for.
type roundTrip struct {
	exchange
	result chan error
}

var roundTrips = sync.Pool{New: func() any {
	t := &roundTrip{result: make(chan error, 1)}
	t.done = func(err error) { t.result <- err }
	return t
}}

// call sends a request and waits for its answer.
func (n *lane) call(group uint8, kind byte, req, resp any) error {
	t := roundTrips.Get().(*roundTrip)
	defer roundTrips.Put(t)
	t.resp = resp
	defer func() { t.resp = nil }()
	if err := n.dial(); err != nil {
		return err
	}
	if err := n.send(group, kind, req, &t.exchange); err != nil {
		return err
	}
	return <-t.result
}
