package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// Why requests fail once the wire's process has ended.
var (
	ErrDead = errors.New("wire is dead")
	ErrHung = fmt.Errorf("%w: it hung and was ended", ErrDead) // by us: it gave no answer
)

// A Client commands a wire process. It is safe for concurrent use.
type Client struct {
	turn     chan struct{} // one request at a time; holds a token while nobody has it
	conn     net.Conn
	in       *bufio.Reader
	patience time.Duration

	pid  int
	stop func()        // ends the process; idempotent
	done chan struct{} // closed when the process has ended
	err  error         // why; valid after done

	mu   sync.Mutex
	hung error // why we ended it, if we did
}

// patience is how long a wire may take to answer. One that is alive needs
// microseconds; a host that is starved for so long has spoilt the run anyway.
const patience = 5 * time.Second

// Set tells the impairment of a directed pair of ports from now on; the zero
// Impairment clears it. See [Engine.Set] for what happens to frames on their way.
func (c *Client) Set(ctx context.Context, src, dst int, imp Impairment) error {
	if src < 0 || src >= MaxPorts || dst < 0 || dst >= MaxPorts {
		return fmt.Errorf("set %d to %d: port is not in 0..%d", src, dst, MaxPorts-1)
	}
	if err := imp.Validate(); err != nil {
		return err
	}
	_, err := c.do(ctx, request{Op: opSet, Src: src, Dst: dst, Impairment: imp})
	return err
}

// Stats reads the wire's account of itself; reset starts its spreads anew.
func (c *Client) Stats(ctx context.Context, reset bool) (Stats, error) {
	r, err := c.do(ctx, request{Op: opStats, Reset: reset})
	if err != nil {
		return Stats{}, err
	}
	if r.Stats == nil {
		return Stats{}, errors.New("stats: wire sent none")
	}
	return *r.Stats, nil
}

// Ping returns when the wire answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.do(ctx, request{Op: opPing})
	return err
}

// Done is closed when the wire's process has ended, for whatever reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the wire has ended, or nil while it lives.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Pid is the host's pid of the wire's process.
func (c *Client) Pid() int { return c.pid }

// Kill ends the wire's process without waiting, as an accident would.
func (c *Client) Kill() { c.stop() }

// Close ends the wire's process and waits for its end. Frames on their way are lost.
func (c *Client) Close() error {
	c.stop()
	<-c.done
	return c.conn.Close()
}

// do is one request. The end of ctx ends the wait and not the wire: a request
// that was sent is carried out, and its answer is taken in before the next one.
func (c *Client) do(ctx context.Context, q request) (reply, error) {
	if err := context.Cause(ctx); err != nil {
		return reply{}, fmt.Errorf("%s: %w", q.Op, err)
	}
	select {
	case <-c.turn:
	case <-c.done:
	case <-ctx.Done():
		return reply{}, fmt.Errorf("%s: %w", q.Op, context.Cause(ctx))
	}
	if err := c.Err(); err != nil { // the turn, if we have it, is nobody's any more
		return reply{}, fmt.Errorf("%s: %w", q.Op, err)
	}
	type outcome struct {
		reply
		err error
	}
	answered := make(chan outcome, 1)
	go func() {
		r, err := c.exchange(q)
		c.turn <- struct{}{}
		answered <- outcome{r, err}
	}()
	select {
	case o := <-answered:
		if o.err != nil {
			return o.reply, fmt.Errorf("%s: %w", q.Op, o.err)
		}
		return o.reply, nil
	case <-ctx.Done():
		return reply{}, fmt.Errorf("%s: %w", q.Op, context.Cause(ctx))
	}
}

// exchange sends a request and reads its answer. A wire with which that fails is
// ended: what it holds back, or lets through, nobody could say.
func (c *Client) exchange(q request) (r reply, err error) {
	b, err := json.Marshal(q)
	if err != nil {
		return r, err
	}
	err = c.conn.SetDeadline(time.Now().Add(c.patience))
	if err == nil {
		_, err = c.conn.Write(append(b, '\n'))
	}
	var line []byte
	if err == nil {
		line, err = c.in.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) && c.Err() == nil {
			c.mu.Lock()
			c.hung = fmt.Errorf("%w: no answer to %s in %v", ErrHung, q.Op, c.patience)
			c.mu.Unlock()
		}
		c.stop()
		<-c.done
		return r, c.err
	}
	if r.Error != "" {
		return r, fmt.Errorf("wire says: %s", r.Error)
	}
	return r, nil
}

// ended returns why a process is no more.
func (c *Client) ended(state, said string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.hung
	if err == nil {
		err = fmt.Errorf("%w: %s", ErrDead, state)
	}
	if said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return err
}
