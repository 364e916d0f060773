package kvserver

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"brownout/kvserver/stages"
)

// Downstream is a cache, a server of the Redis protocol, that the node that leads
// writes through to: what a write has made of its keys goes there once it is
// committed and applied, before (sync) or after (async) its client has the answer.
//
// It is no part of the replicated state: replicas apply alike whatever the cache
// does, and Raft does not wait for it. The next entries are proposed meanwhile,
// what they change goes there together, in the order of the log and in one pipeline
// at a time. Keys are set to their values, so that trying again does no harm. A leader
// that is deposed in the middle may write after its successor has: a cache, not a copy.
type Downstream struct {
	Addr    string   `json:"addr"`               // host:port
	Timeout Duration `json:"timeout,omitempty"`  // of one attempt, connecting included; default 200ms
	Retries int      `json:"retries,omitempty"`  // attempts after the first; default none
	Backoff Duration `json:"backoff,omitempty"`  // before the first of them, then twice as long each time; default 20ms
	OnError string   `json:"on_error,omitempty"` // "fail" (default): the client is told -UNKNOWN downstream ...; "ignore": that all is well
	Mode    string   `json:"mode,omitempty"`     // "sync" (default) or "async", which ignores errors
}

func (d Downstream) withDefaults() Downstream {
	d.Timeout = cmp.Or(d.Timeout, Duration(200*time.Millisecond))
	d.Backoff = cmp.Or(d.Backoff, Duration(20*time.Millisecond))
	d.OnError = cmp.Or(d.OnError, "fail")
	d.Mode = cmp.Or(d.Mode, "sync")
	return d
}

func (d Downstream) check() (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("downstream."+format, args...))
	}
	if _, _, err := net.SplitHostPort(d.Addr); err != nil {
		bad("addr: %w", err)
	}
	if d.Timeout < Duration(time.Millisecond) {
		bad("timeout: %s is less than 1ms", d.Timeout)
	}
	if d.Retries < 0 || d.Retries > 100 {
		bad("retries: %d is not in 0..100", d.Retries)
	}
	if d.Backoff < 0 {
		bad("backoff: %s is negative", d.Backoff)
	}
	if d.OnError != "fail" && d.OnError != "ignore" {
		bad("on_error: %q is none of fail, ignore", d.OnError)
	}
	if d.Mode != "sync" && d.Mode != "async" {
		bad("mode: %q is none of sync, async", d.Mode)
	}
	return errs
}

// A downMeter counts what all of a node's groups wrote through.
type downMeter struct {
	writes, failed, retried, dropped, late atomic.Uint64
	took, wait                             histogram
}

// A through is what one group writes through.
type through struct {
	Downstream
	most  int           // commands that may wait
	limit time.Duration // for an answer
	read  func(ops []op, res []result)
	meter *downMeter
	notes *stages.Recorder
	group uint8
	wake  chan struct{}
	ctx   context.Context // ends with abandon
	end   context.CancelFunc

	mu      sync.Mutex
	waiting []delivery // those under way first
	queued  int        // commands of them

	// The worker's own.
	conn net.Conn // nil: none; closes with ctx
	in   *bufio.Reader
	stop func() bool
}

// A delivery is what one entry changed.
type delivery struct {
	commands []byte // encoded
	n        int
	applied  time.Time
	slots    []slot // that wait for it
	res      []result
	at       passage
}

func newThrough(c Config, read func([]op, []result), meter *downMeter) *through {
	t := &through{
		Downstream: *c.Downstream, most: c.MaxQueue, limit: time.Duration(c.Timeout),
		read: read, meter: meter, wake: make(chan struct{}, 1),
	}
	t.ctx, t.end = context.WithCancel(context.Background())
	return t
}

// deliver takes over a batch of commands that have been applied, and answers
// those that nobody needs to wait for. It keeps nothing of what it is given.
func (t *through) deliver(batch []slot, ops []op, res []result, at passage) {
	d := delivery{applied: time.Now(), at: at}
	var gets []op
	var free []int // who need not wait
	for i := range ops {
		keys := changed(&ops[i], &res[i])
		for _, k := range keys {
			gets = append(gets, op{kind: opGet, args: [][]byte{k}})
		}
		if len(keys) == 0 || t.Mode == "async" {
			free = append(free, i)
			continue
		}
		d.slots, d.res = append(d.slots, batch[i]), append(d.res, res[i])
	}
	defer func() { // with its answer, a client's command may be overwritten
		for _, i := range free {
			batch[i].pass(res[i], at)
		}
	}()
	if d.n = len(gets); d.n == 0 {
		return
	}
	// What else this entry, or a later one of another leader, made of a key is as good.
	values := make([]result, len(gets))
	t.read(gets, values)
	for i := range gets {
		if key := gets[i].args[0]; values[i].code == resBulk {
			d.commands = appendRequest(d.commands, []byte("SET"), key, []byte(values[i].s))
		} else {
			d.commands = appendRequest(d.commands, []byte("DEL"), key)
		}
	}
	t.mu.Lock()
	full := t.queued+d.n > t.most && t.queued > 0
	if !full {
		t.waiting = append(t.waiting, d)
		t.queued += d.n
	}
	t.mu.Unlock()
	if full {
		t.meter.dropped.Add(uint64(d.n))
		t.answer(&d, errors.New("too many writes wait for it (max_queue)"))
		return
	}
	nudge(t.wake)
}

// changed returns the keys that a command has changed.
func changed(o *op, r *result) (keys [][]byte) {
	switch {
	case r.code == resFail || r.code == resNil:
		return nil
	case o.kind == opSet || o.kind == opSetNX || o.kind == opSetXX || o.kind == opAppend:
		return o.args[:1]
	case o.kind == opCAS && r.code == resList && r.list[0].n == 1:
		return o.args[:1]
	case o.kind == opDel:
		return o.args
	case o.kind == opMSet:
		for i := 0; i < len(o.args); i += 2 {
			keys = append(keys, o.args[i])
		}
	}
	return keys
}

// appendRequest encodes a command as an array of bulk strings.
func appendRequest(b []byte, words ...[]byte) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(words))
	for _, w := range words {
		b = append(append(fmt.Appendf(b, "$%d\r\n", len(w)), w...), "\r\n"...)
	}
	return b
}

// answer tells the clients of a delivery what came of it.
func (t *through) answer(d *delivery, err error) {
	t.meter.wait.record(time.Since(d.applied))
	if err != nil {
		t.meter.failed.Add(uint64(d.n))
	} else {
		t.meter.writes.Add(uint64(d.n))
	}
	for i, s := range d.slots {
		if err != nil && t.OnError == "fail" {
			s.pass(failure("UNKNOWN downstream "+t.Addr+": "+err.Error()), d.at)
		} else {
			s.pass(d.res[i], d.at)
		}
	}
}

// run delivers until abandon.
func (t *through) run() error {
	defer t.hangUp()
	for {
		select {
		case <-t.ctx.Done():
			return nil
		case <-t.wake:
		}
		for {
			ds := t.take()
			if len(ds) == 0 {
				break
			}
			begun := t.notes.Now()
			err := t.tryHard(ds)
			if t.ctx.Err() != nil {
				return nil // abandon answers
			}
			t.notes.Note(&stages.Record{
				Kind: stages.Through, Group: t.group, Peer: stages.NoPeer, A: ds[0].at.index, B: ds[len(ds)-1].at.index,
				T: [9]int64{stages.ThroughBegun: begun, stages.ThroughDone: t.notes.Now()},
			})
			for i := range ds {
				t.answer(&ds[i], err)
			}
			t.mu.Lock()
			for i := range ds {
				t.queued -= ds[i].n
			}
			rest := copy(t.waiting, t.waiting[len(ds):])
			clear(t.waiting[rest:])
			t.waiting = t.waiting[:rest]
			t.mu.Unlock()
		}
	}
}

// together is how many commands go downstream at once, unless one delivery is larger.
const together = 1 << 12

// take returns the deliveries at the head of the queue, and leaves them there.
func (t *through) take() (ds []delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for i := range t.waiting {
		if n += t.waiting[i].n; n > together && i > 0 {
			break
		}
		ds = append(ds, t.waiting[i])
	}
	return ds
}

// tryHard delivers, and tries again as often as it may.
func (t *through) tryHard(ds []delivery) error {
	pause := time.Duration(t.Backoff)
	for try := 0; ; try++ {
		began := time.Now()
		err := t.try(ds, began.Add(time.Duration(t.Timeout)))
		t.meter.took.record(time.Since(began))
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() { // of dialing, too
			t.meter.late.Add(1)
		}
		if err == nil || try == t.Retries || t.ctx.Err() != nil {
			return err
		}
		t.meter.retried.Add(1)
		timer := time.NewTimer(pause)
		select {
		case <-t.ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause *= 2
	}
}

// try writes all commands and reads their answers. After an error the connection is of no use.
func (t *through) try(ds []delivery, until time.Time) (err error) {
	defer func() {
		if err != nil {
			t.hangUp()
		}
	}()
	if t.conn == nil {
		dialer := net.Dialer{Deadline: until}
		conn, err := dialer.DialContext(t.ctx, "tcp", t.Addr)
		if err != nil {
			return err
		}
		t.conn, t.in, t.stop = conn, bufio.NewReader(conn), context.AfterFunc(t.ctx, func() { conn.Close() })
	}
	if err := t.conn.SetDeadline(until); err != nil {
		return err
	}
	n := 0
	var out net.Buffers
	for i := range ds {
		out = append(out, ds[i].commands)
		n += ds[i].n
	}
	if _, err := out.WriteTo(t.conn); err != nil {
		return err
	}
	for range n {
		line, err := t.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line[0] != '+' && line[0] != ':' {
			return fmt.Errorf("answered %.80q", bytes.TrimSpace(line))
		}
	}
	return nil
}

func (t *through) hangUp() {
	if t.conn != nil {
		t.stop()
		t.conn.Close()
		t.conn = nil
	}
}

// expire answers commands that have waited too long; they go on downstream.
func (t *through) expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	limit := now.Add(-t.limit)
	for i := range t.waiting {
		for _, s := range t.waiting[i].slots {
			if s.at.Before(limit) {
				s.answer(failure("UNKNOWN downstream " + t.Addr + ": no answer within " + t.limit.String()))
			}
		}
	}
}

// abandon ends the work and answers what is left.
func (t *through) abandon() {
	t.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.waiting {
		for _, s := range t.waiting[i].slots {
			s.answer(failure("UNKNOWN server shut down before downstream " + t.Addr + " answered"))
		}
	}
}

// behind is how many commands wait.
func (t *through) behind() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.queued
}
