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

// ErrDead is why requests fail once the wire's process has ended.
var ErrDead = errors.New("wire is dead")

// A Client commands a wire process. It is safe for concurrent use.
type Client struct {
	mu   sync.Mutex // one request at a time
	conn net.Conn
	in   *bufio.Reader

	pid  int
	stop func()        // ends the process; idempotent
	done chan struct{} // closed when the process has ended
	err  error         // why; valid after done
}

// limit bounds a request whose context does not: a wire that is alive answers in microseconds.
const limit = 5 * time.Second

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

func (c *Client) do(ctx context.Context, q request) (r reply, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.Err(); err != nil {
		return r, fmt.Errorf("%s: %w", q.Op, err)
	}
	deadline := time.Now().Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return r, fmt.Errorf("%s: %w", q.Op, err)
	}
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := json.Marshal(q)
	if err != nil {
		return r, fmt.Errorf("%s: %w", q.Op, err)
	}
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return r, c.broken(ctx, q.Op, err)
	}
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return r, c.broken(ctx, q.Op, err)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, c.broken(ctx, q.Op, err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("%s: wire says: %s", q.Op, r.Error)
	}
	return r, nil
}

// broken ends a wire whose conversation broke off: the reply to come would be
// taken for that of the next request.
func (c *Client) broken(ctx context.Context, q op, err error) error {
	if c.Err() == nil {
		c.stop()
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	}
	<-c.done
	return fmt.Errorf("%s: %w (%w)", q, err, c.err)
}
