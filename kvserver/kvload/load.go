// Package kvload drives a server of the Redis protocol as hard as it can with
// little CPU of its own, since both often share a machine. Its clients are a
// closed loop: each sends its next command when it has the reply to the last.
// That measures the most that a server can do, and says little about how long
// clients of the world would wait; for that there is internal/workload.
package kvload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Spec says what to do.
type Spec struct {
	Conns   []net.Conn                       // the clients are spread over them; a connection carries the commands of its clients as a pipeline
	Clients int                              // at least one on each connection
	Command func(buf []byte, i int64) []byte // appends command i to buf
	Want    string                           // how every reply must begin, as in "+OK" or "$256"; if empty, with anything but an error
	Count   int64                            // commands; 0: until Warm and Time have gone by
	Warm    time.Duration                    // not counted
	Time    time.Duration
}

// A Result is what came of it.
type Result struct {
	Ops     int64
	Elapsed time.Duration
	took    []time.Duration // ascending
}

// PerSecond is the throughput.
func (r Result) PerSecond() float64 { return float64(r.Ops) / r.Elapsed.Seconds() }

// Quantile returns a latency, with q in 0..1.
func (r Result) Quantile(q float64) time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	return r.took[int(q*float64(len(r.took)-1))]
}

// NewResult is for loads that are made otherwise.
func NewResult(elapsed time.Duration, took ...[]time.Duration) Result {
	all := slices.Concat(took...)
	slices.Sort(all)
	return Result{Ops: int64(len(all)), Elapsed: elapsed, took: all}
}

// Dial makes n connections.
func Dial(n int, dial func() (net.Conn, error)) (conns []net.Conn, err error) {
	for range n {
		c, err := dial()
		if err != nil {
			Close(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// Close closes connections.
func Close(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// Append appends a command in the protocol's form.
func Append(b []byte, words ...string) []byte {
	b = append(strconv.AppendInt(append(b, '*'), int64(len(words)), 10), "\r\n"...)
	for _, w := range words {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(w)), 10), "\r\n"...)
		b = append(append(b, w...), "\r\n"...)
	}
	return b
}

// Run drives the server.
func Run(s Spec) (Result, error) {
	lines := make([]line, len(s.Conns))
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i := range lines {
		l := &lines[i]
		*l = line{Spec: &s, conn: s.Conns[i], next: &next, from: began.Add(s.Warm), to: began.Add(s.Warm + s.Time)}
		l.clients = s.Clients / len(lines)
		if i < s.Clients%len(lines) {
			l.clients++
		}
		wg.Go(l.run)
	}
	wg.Wait()
	elapsed := time.Since(began)
	if s.Count == 0 {
		elapsed = s.Time
	}
	var errs []error
	var took [][]time.Duration
	for i := range lines {
		errs = append(errs, lines[i].err)
		took = append(took, lines[i].took)
	}
	return NewResult(elapsed, took...), errors.Join(errs...)
}

// A line is one connection.
type line struct {
	*Spec
	conn     net.Conn
	next     *atomic.Int64
	clients  int
	from, to time.Time
	took     []time.Duration
	err      error
}

func (l *line) run() {
	var out []byte
	sent := make([]time.Time, 0, 2*l.clients) // of what waits for its reply, in order
	in, have := make([]byte, 64<<10), 0
	send := func(now time.Time) bool {
		i := l.next.Add(1) - 1
		if l.Count > 0 && i >= l.Count || l.Count == 0 && now.After(l.to) {
			return false
		}
		out = l.Command(out, i)
		sent = append(sent, now)
		return true
	}
	now := time.Now()
	for range l.clients {
		send(now)
	}
	for len(sent) > 0 {
		if len(out) > 0 {
			if _, l.err = l.conn.Write(out); l.err != nil {
				return
			}
			out = out[:0]
		}
		n, err := l.conn.Read(in[have:])
		if have += n; n == 0 {
			l.err = fmt.Errorf("read replies: %w", err)
			return
		}
		now, rest, done := time.Now(), in[:have], 0
		for len(rest) > 0 {
			size, err := l.reply(rest)
			if l.err = err; err != nil {
				return
			}
			if size == 0 {
				break
			}
			rest = rest[size:]
			if l.Count > 0 || !now.Before(l.from) && now.Before(l.to) {
				l.took = append(l.took, now.Sub(sent[done]))
			}
			done++
		}
		have = copy(in, rest)
		sent = sent[:copy(sent, sent[done:])]
		for range done {
			send(now)
		}
	}
}

// reply returns the size of the reply at the front of b, 0 if it is not all there.
func (l *line) reply(b []byte) (int, error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return 0, nil
	}
	head := b[:max(0, end-1)]
	if !bytes.HasPrefix(head, []byte(l.Want)) || l.Want == "" && (len(head) == 0 || head[0] == '-') {
		return 0, fmt.Errorf("reply %q, want %q", head, l.Want)
	}
	size := end + 1
	if len(head) > 0 && head[0] == '$' {
		n, err := strconv.Atoi(string(head[1:]))
		if err != nil {
			return 0, fmt.Errorf("reply %q: %w", head, err)
		}
		if n >= 0 {
			size += n + 2
		}
	}
	if size > len(b) {
		if size > 32<<10 {
			return 0, io.ErrShortBuffer
		}
		return 0, nil
	}
	return size, nil
}
