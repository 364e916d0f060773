package workload

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"brownout/internal/clock"
	"brownout/internal/history"
	"brownout/internal/plan"
	"brownout/internal/stats"
)

// queueSize bounds the operations that wait for a free client. It is large
// because a full queue turns the open loop into a closed one: 64 Ki operations
// are half a minute of standstill at 2000/s.
const queueSize = 64 << 10

// flushEvery is how old the newest operations in a killed run's spool may be.
const flushEvery = 200 * time.Millisecond

// neverWritten is what a cas expects of a key that no client has seen a value
// of: no operation has number 0, so it does not swap, and tells what is there.
const neverWritten = "v0"

// An item is a planned operation on its way to a client.
type item struct {
	row    plan.Row
	due    time.Duration
	queued time.Duration // lateness when it was queued
	idle   bool          // a client was free then
}

// A pool is the clients of a load. Their number is the scenario's choice, and
// the one limit of the open loop: with all of them waiting for answers, due
// operations wait too. Their response time counts from when they were due, so
// that the wait is not hidden; but a stalled target meets at most that many
// operations at once.
type pool struct {
	spec    Spec
	clock   clock.Clock
	clients []Client
	numbers atomic.Int64 // next client number
	op      atomic.Int64 // highest operation number so far
	rec     *history.Recorder
	logs    []*history.Log
	names   []int64 // client numbers, by slot
	seen    seen
}

// seen is the value of each key that a client saw last. What a cas expects
// depends on answers, so it is the one part of the stream that is not planned.
type seen struct{ values sync.Map } // key → *string, as on the wire

func (s *seen) get(key string) (string, bool) {
	if v, ok := s.values.Load(key); ok {
		if p := v.(*string); p != nil {
			return *p, true
		}
	}
	return "", false
}

func (s *seen) put(key string, value *string) { s.values.Store(key, value) }

// newPool dials the clients of a load.
func newPool(ctx context.Context, spec Spec, d Dialer, rec *history.Recorder) (*pool, error) {
	p := &pool{spec: spec, clock: clock.At(spec.Zero), rec: rec}
	for i := range spec.Load.Clients {
		c, err := d.Dial(ctx, Cluster{spec.Endpoints, spec.Shards, spec.Load.Endpoints})
		if err != nil {
			p.close()
			return nil, fmt.Errorf("make client %d: %w", i, err)
		}
		p.clients = append(p.clients, c)
		p.logs = append(p.logs, rec.Log())
		p.names = append(p.names, int64(i))
	}
	p.numbers.Store(int64(spec.Load.Clients))
	return p, nil
}

// adopt takes on the times and the rate of a later spec, whose clients are the same.
func (p *pool) adopt(spec Spec) {
	p.spec = spec
	p.clock = clock.At(spec.Zero)
}

func (p *pool) close() {
	for _, c := range p.clients {
		_ = c.Close() // a connection that does not close well is closed all the same
	}
	p.clients = nil
}

// A load is one run of a pool.
type load struct {
	*pool
	stream *Stream
	mu     sync.Mutex // of stream in a closed loop
	queue  chan item
	free   atomic.Int64 // clients that wait for work, less the work on its way to them
	sleep  func(ctx context.Context, until time.Time) error

	watcher                          *watcher // nil: nobody looks
	meter                            meter
	inFlight, maxInFlight, maxQueued atomic.Int64
	ok, fail, unknown, sent, unsent  atomic.Int64
	offered, dropped                 int64 // the pacer's
	lateMu                           sync.Mutex
	late                             stats.Hist
	still                            []Still
}

// run offers the load until spec.End, ctx's end or a failing recorder. It
// returns when no operation is in flight any more, at most twice the
// operations' timeout later.
func (p *pool) run(ctx context.Context, sleep func(context.Context, time.Time) error, news func(News)) (Report, error) {
	l := &load{pool: p, stream: NewStream(p.spec.Load, p.spec.Seed), queue: make(chan item, queueSize), sleep: sleep}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if p.spec.Watch && NewChecker != nil {
		l.watcher = &watcher{online: NewChecker(), tell: func(v Violation) {
			stop()
			if news != nil {
				news(News{Violation: &v})
			}
		}}
	}

	var flusher sync.WaitGroup
	ended := make(chan struct{})
	flusher.Go(func() { l.watch(ended, stop, news) })

	// Beginning ends with ctx, what is in flight goes on: its answers are wanted.
	begin, cut := context.WithCancel(ctx)
	defer cut()
	var workers sync.WaitGroup
	for i := range l.clients {
		workers.Go(func() { l.work(begin, i) })
	}
	if !l.spec.Load.Closed {
		l.pace(ctx)
		// What waits in the queue gets as long as an operation that was sent at the end.
		grace := time.AfterFunc(l.spec.Load.Timeout, cut)
		defer grace.Stop()
	}
	close(l.queue)
	workers.Wait()
	close(ended)
	flusher.Wait()

	return l.report(), l.rec.Flush() // which repeats what went wrong before
}

// watch flushes the record and tells of progress until ended is closed.
func (l *load) watch(ended chan struct{}, stop context.CancelFunc, news func(News)) {
	flush := time.NewTicker(flushEvery)
	defer flush.Stop()
	turn := time.NewTicker(500 * time.Millisecond)
	defer turn.Stop()
	for {
		select {
		case <-ended:
			return
		case <-flush.C:
			if err := l.rec.Flush(); err != nil {
				stop()
			}
		case <-turn.C:
			p := l.meter.turn()
			p.InFlight, p.Queued = l.inFlight.Load(), int64(len(l.queue))
			if news != nil {
				news(News{Progress: &p})
			}
		}
	}
}

// due returns when a planned operation of an open loop is due.
func (s Spec) due(row plan.Row) time.Duration {
	if s.Load.Rate > 0 {
		return s.Start + time.Duration(row.Due)
	}
	return s.Start + time.Duration(math.Round(row.Due*1e9/s.Rate))
}

// pace queues every operation when it is due, late ones at once, until the end.
func (l *load) pace(ctx context.Context) {
	row := l.stream.Next()
	due := l.spec.due(row)
	for due < l.spec.End {
		if l.sleep(ctx, l.clock.Time(due)) != nil {
			return
		}
		now := l.clock.Now()
		l.stood(due, now)
		for due <= now && due < l.spec.End {
			l.offered++
			it := item{row: row, due: due, queued: now - due}
			if l.free.Load() > 0 && len(l.queue) == 0 {
				it.idle = true
				l.free.Add(-1)
			}
			select {
			case l.queue <- it:
				l.maxQueued.Store(max(l.maxQueued.Load(), int64(len(l.queue))))
			default:
				l.dropped++
			}
			row = l.stream.Next()
			due = l.spec.due(row)
			if due > now {
				now = l.clock.Now() // a burst takes time itself
			}
		}
	}
}

// stood notes that what was due at from was done at to only, for no fault of the target's.
func (l *load) stood(from, to time.Duration) {
	if to-from < stillLeast {
		return
	}
	l.lateMu.Lock()
	defer l.lateMu.Unlock()
	// They come in the order of their ends, nearly: those of clients overlap.
	if n := len(l.still); n > 0 && int64(from) <= l.still[n-1].End {
		last := &l.still[n-1]
		last.Start, last.End = min(last.Start, int64(from)), max(last.End, int64(to))
		return
	}
	if len(l.still) < stillMost {
		l.still = append(l.still, Still{int64(from), int64(to)})
	}
}

// take returns the next operation for a client.
func (l *load) take(ctx context.Context) (it item, ok bool) {
	if l.spec.Load.Closed {
		if ctx.Err() != nil || l.clock.Now() >= l.spec.End {
			return item{}, false
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.offered++
		return item{row: l.stream.Next()}, true
	}
	select {
	case it, ok = <-l.queue:
		return it, ok
	default:
	}
	l.free.Add(1)
	if it, ok = <-l.queue; ok && !it.idle {
		l.free.Add(-1)
	}
	return it, ok
}

// work is one client. It begins nothing after ctx's end.
func (l *load) work(ctx context.Context, slot int) {
	if l.spec.Load.Closed && sleepUntil(ctx, l.clock.Time(l.spec.Start)) != nil {
		return
	}
	var op history.Op
	var value, expect, result string
	for {
		it, more := l.take(ctx)
		if !more {
			return
		}
		op = history.Op{ID: it.row.Op, Client: int(l.names[slot]), Key: it.row.Key, Kind: history.Kind(it.row.Kind)}
		l.raise(it.row.Op)
		if it.row.Value != "" {
			value = it.row.Value
			op.Value = &value
		}
		req := history.Request{Kind: op.Kind, Key: op.Key}
		if op.Value != nil {
			req.Value = history.OnWire(op.Kind, value, l.spec.Load.ValueSize)
		}
		if op.Kind == history.CAS {
			var there bool
			if req.Expect, there = l.seen.get(op.Key); !there {
				req.Expect = history.Pad(neverWritten, l.spec.Load.ValueSize)
				expect = neverWritten
			} else {
				expect = history.Short(req.Expect, l.spec.Load.ValueSize)
			}
			op.Expect = &expect
		}
		op.Due = int64(it.due)
		call := l.clock.Now()
		op.Call = int64(call)
		if l.spec.Load.Closed {
			op.Due = op.Call
		} else if ctx.Err() != nil {
			op.Return, op.Outcome, op.Error = op.Call, history.Fail, "not sent: the load ended before a client was free"
			l.unsent.Add(1)
			l.logs[slot].Add(&op)
			continue
		} else {
			l.lateBy(it, call)
		}
		l.do(slot, &op, req, &result)
	}
}

func (l *load) lateBy(it item, call time.Duration) {
	late := it.queued
	if it.idle {
		late = call - it.due
		l.stood(it.due, call)
	}
	l.lateMu.Lock()
	l.late.Record(int64(late))
	l.lateMu.Unlock()
}

// raise keeps the highest operation number, for the final reads to go on from.
func (p *pool) raise(op int64) {
	for have := p.op.Load(); op > have && !p.op.CompareAndSwap(have, op); have = p.op.Load() {
	}
}

// do sends one operation and records what came of it.
func (l *load) do(slot int, op *history.Op, req history.Request, result *string) {
	l.sent.Add(1)
	n := l.inFlight.Add(1)
	for m := l.maxInFlight.Load(); n > m && !l.maxInFlight.CompareAndSwap(m, n); m = l.maxInFlight.Load() {
	}
	rep := l.ask(l.clients[slot], time.Duration(op.Call), req)
	op.Return = int64(l.clock.Now())
	l.inFlight.Add(-1)
	l.fill(op, rep, result)
	switch op.Outcome {
	case history.OK:
		l.ok.Add(1)
		l.remember(op, req, rep)
	case history.Fail:
		l.fail.Add(1)
	default:
		l.unknown.Add(1)
		l.names[slot] = l.numbers.Add(1) - 1
	}
	l.logs[slot].Add(op)
	if l.watcher != nil {
		l.watcher.look(op, l.clock.Now)
	}
	l.meter.add(op.Outcome == history.OK, op.Return-op.Due)
}

// ask gives an operation the scenario's timeout from its call.
func (p *pool) ask(c Client, call time.Duration, req history.Request) history.Reply {
	ctx, cancel := context.WithDeadline(context.Background(), p.clock.Time(call+p.spec.Load.Timeout))
	defer cancel()
	return c.Do(ctx, req)
}

// fill copies a reply into an operation.
func (p *pool) fill(op *history.Op, rep history.Reply, result *string) {
	op.Outcome, op.Node = rep.Outcome, rep.Node
	switch op.Outcome {
	case history.OK:
		if rep.Found != nil && (op.Kind == history.Get || op.Kind == history.CAS) {
			*result = history.Short(*rep.Found, p.spec.Load.ValueSize)
			op.Result = result
		}
		op.Swapped = rep.Swapped
	case history.Fail, history.Unknown:
	default: // a client that does not say what it knows knows nothing
		op.Outcome = history.Unknown
	}
	if op.Outcome != history.OK {
		op.Error = "no reason given"
		if rep.Err != nil {
			op.Error = reason(rep.Err)
		}
	}
}

// reason is an error in one line of bounded length: a run may fail a million times.
func reason(err error) string {
	const most = 200
	s := strings.ToValidUTF8(strings.Join(strings.Fields(err.Error()), " "), "?")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if s == "" {
		return "no reason given"
	}
	return s
}

func (l *load) remember(op *history.Op, req history.Request, rep history.Reply) {
	switch op.Kind {
	case history.Get:
		l.seen.put(op.Key, rep.Found)
	case history.Put, history.Delete:
		l.seen.put(op.Key, &req.Value)
	case history.Append:
		if old, there := l.seen.get(op.Key); there {
			v := old + req.Value
			l.seen.put(op.Key, &v)
		}
	case history.CAS:
		if op.Swapped {
			l.seen.put(op.Key, &req.Value)
		} else {
			l.seen.put(op.Key, rep.Found)
		}
	}
}

func (l *load) report() Report {
	r := Report{
		Offered: l.offered, Sent: l.sent.Load(), OK: l.ok.Load(), Fail: l.fail.Load(), Unknown: l.unknown.Load(),
		Dropped: l.dropped, Unsent: l.unsent.Load(), MaxInFlight: l.maxInFlight.Load(), MaxQueued: l.maxQueued.Load(),
		SpoolBytes: l.rec.Bytes(), Still: append([]Still{}, l.still...),
		Lateness: Lateness{
			P50: l.late.Quantile(0.5), P90: l.late.Quantile(0.9), P99: l.late.Quantile(0.99),
			P999: l.late.Quantile(0.999), Max: l.late.Max(), N: l.late.N(),
		},
	}
	if d := min(l.clock.Now(), l.spec.End) - l.spec.Start; d > 0 {
		r.OfferedPerS = float64(r.Offered) / d.Seconds()
	}
	return r
}

// calibrate runs the load's mix as a closed loop on keys of its own for d and
// returns the operations a second that it sustains: the median over parts of
// that time, the first tenth left out, when connections are made.
func (p *pool) calibrate(ctx context.Context, d time.Duration) (float64, error) {
	const parts = 10
	spec := p.spec.Load
	spec.Closed = true
	s := NewStream(spec, p.spec.Seed+1)
	var mu sync.Mutex
	var done [parts]atomic.Int64
	var lastErr atomic.Pointer[error]
	start := p.clock.Now()
	var workers sync.WaitGroup
	for _, c := range p.clients {
		workers.Go(func() {
			for ctx.Err() == nil {
				call := p.clock.Now()
				if call-start >= d {
					return
				}
				mu.Lock()
				row := s.Next()
				mu.Unlock()
				kind := history.Kind(row.Kind)
				req := history.Request{Kind: kind, Key: "cal" + row.Key[1:]}
				if row.Value != "" {
					req.Value = history.OnWire(kind, row.Value, p.spec.Load.ValueSize)
				}
				if kind == history.CAS {
					req.Expect = history.Pad(neverWritten, p.spec.Load.ValueSize)
				}
				rep := p.ask(c, call, req)
				if part := int64(parts * (p.clock.Now() - start) / d); rep.Outcome == history.OK && part < parts {
					done[part].Add(1)
				} else if rep.Err != nil {
					lastErr.Store(&rep.Err)
				}
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	var rates []float64
	for i := range done {
		if i > 0 {
			rates = append(rates, float64(done[i].Load())*parts/d.Seconds())
		}
	}
	slices.Sort(rates)
	if m := rates[len(rates)/2]; m > 0 {
		return m, nil
	}
	err := errors.New("most of the time no operation succeeded")
	if why := lastErr.Load(); why != nil {
		err = fmt.Errorf("%w: %w", err, *why)
	}
	return 0, err
}

// finalReads reads every key until it answers, for at most within. It records
// the read that answered, or the last one that did not, as phase final, and
// returns the keys that did not answer.
func (p *pool) finalReads(ctx context.Context, d Dialer, keys []string, within time.Duration) (missing []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var mu sync.Mutex
	var readers sync.WaitGroup
	next := 0
	for range min(len(keys), max(1, min(p.spec.Load.Clients, 32))) {
		// Reads go to the leader, whatever the load preferred: they must be linearizable.
		c, err := d.Dial(ctx, Cluster{p.spec.Endpoints, p.spec.Shards, "leader"})
		if err != nil {
			cancel()
			readers.Wait()
			return nil, fmt.Errorf("make client for final reads: %w", err)
		}
		log := p.rec.Log()
		readers.Go(func() {
			defer c.Close()
			for {
				mu.Lock()
				if next == len(keys) {
					mu.Unlock()
					return
				}
				key := keys[next]
				next++
				mu.Unlock()
				if !p.readUntil(ctx, c, log, key) {
					mu.Lock()
					missing = append(missing, key)
					mu.Unlock()
				}
			}
		})
	}
	readers.Wait()
	slices.Sort(missing)
	return missing, p.rec.Flush()
}

func (p *pool) readUntil(ctx context.Context, c Client, log *history.Log, key string) bool {
	op := history.Op{ID: p.op.Add(1), Client: int(p.numbers.Add(1) - 1), Key: key, Kind: history.Get, Phase: "final"}
	var result string
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		op.Call = int64(p.clock.Now())
		op.Due = op.Call
		ask, cancel := context.WithTimeout(ctx, p.spec.Load.Timeout)
		rep := c.Do(ask, history.Request{Kind: history.Get, Key: key})
		cancel()
		op.Return = int64(p.clock.Now())
		p.fill(&op, rep, &result)
		if op.Outcome == history.OK {
			op.Error = ""
		}
		if op.Outcome == history.OK || ctx.Err() != nil {
			log.Add(&op)
			return op.Outcome == history.OK
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}
