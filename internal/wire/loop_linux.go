package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
	"unsafe"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"brownout/internal/clock"
)

const (
	controlFD, tapFD = 3, 4

	holdLimit   = 256 << 20 // bytes of frames on their way; more are dropped and counted
	memoryLimit = 512 << 20 // where the garbage collector comes back, as a last resort

	priority = 20 // of the real-time threads; anything above ordinary does
	// cpuLimit is how long a real-time thread may run without ever sleeping
	// before the kernel kills it. The loop rests long before: see busyLimit.
	cpuLimit  = time.Second
	busyLimit = 200 * time.Millisecond
	rest      = 50 * time.Microsecond

	// A sleep ends late, by an amount the loop learns. It wakes up early by
	// that much, at most maxEarly, and spins the rest of the way; all spinning
	// together takes at most one part in spinShare of the time.
	maxEarly  = 100 * time.Microsecond
	spinShare = 20
	spinSaved = 10 * time.Millisecond // of unused budget

	// The Go scheduler asks for its turn every 10 ms, and would take it when we
	// wake up to send, so it gets it before, when there is time.
	turn     = 5 * time.Millisecond
	turnTime = 200 * time.Microsecond

	// While traffic flows and every impairment holds frames for longer than
	// twice this, incoming frames wake nobody up but wait for up to this long.
	batch = time.Millisecond

	mostAtOnce = 64  // frames, before the clock and requests have their turn
	mostBefore = 512 // frames that came in before a change and are taken in before it: half a millisecond
)

// Main is the wire's process. It returns the exit code.
func Main(args []string) int {
	if err := serve(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serve(args []string) error {
	fs := flag.NewFlagSet("_wire", flag.ContinueOnError)
	seed := fs.Uint64("seed", 0, "of all that is random")
	if err := fs.Parse(args); err != nil {
		return err
	}
	// Nothing on the path of frames allocates once the pools are warm. A
	// collection would stop the world, and its helper threads may be starved.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(max(4, runtime.GOMAXPROCS(0))) // a P is free for the loop whenever it returns from a sleep

	file := os.NewFile(controlFD, "control")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("open control socket: %w", err)
	}
	defer conn.Close()
	l, err := newLoop(*seed)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- l.run() }()
	talked := make(chan error, 1)
	go func() { talked <- l.talk(conn) }()
	select {
	case err := <-ended:
		return err
	case err := <-talked:
		return err // the process ends, and the loop with it
	}
}

// A loop moves frames. All but the mailbox belongs to the thread of run.
type loop struct {
	engine      *Engine
	clock       clock.Clock
	epoll       int // timer, bell and TAP
	quiet       int // timer and bell only, see batch
	timer, bell int // timerfd, eventfd

	asked    chan request
	answered chan reply
	sched    Sched // of talk's goroutine

	scratch       []byte
	armed         time.Duration // 0: the timer is off
	early         time.Duration // learned lateness of sleeps
	budget        time.Duration // for spinning
	settled       time.Duration // when budget was last filled
	slept         time.Duration // when the thread last really slept
	fetched       bool          // whether a frame came in since it last slept
	yielded       time.Duration // when the scheduler last had its turn
	start         time.Duration
	late, transit *hdrhistogram.Histogram
	stats         Stats // only the counts
}

func newLoop(seed uint64) (*loop, error) {
	const from, to, digits = 1, int64(10 * time.Second), 2
	l := &loop{
		engine: New(seed, holdLimit), clock: clock.At(0),
		asked: make(chan request, 1), answered: make(chan reply, 1),
		scratch: make([]byte, maxFrame),
		late:    hdrhistogram.New(from, to, digits), transit: hdrhistogram.New(from, to, digits),
	}
	l.start = l.clock.Now()
	var err error
	for _, ep := range []*int{&l.epoll, &l.quiet} {
		if *ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return nil, fmt.Errorf("epoll_create1: %w", err)
		}
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := unix.SetNonblock(tapFD, true); err != nil {
		return nil, fmt.Errorf("set TAP non-blocking: %w", err)
	}
	for _, w := range []struct{ epoll, fd int }{
		{l.epoll, tapFD}, {l.epoll, l.timer}, {l.epoll, l.bell}, {l.quiet, l.timer}, {l.quiet, l.bell},
	} {
		if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, w.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(w.fd)}); err != nil {
			return nil, fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return l, nil
}

// talk serves the supervisor until it goes away. JSON is worked here, so that it
// costs the loop nothing.
func (l *loop) talk(conn net.Conn) error {
	l.sched = promote()
	in := bufio.NewReaderSize(conn, 64<<10)
	one := native.AppendUint64(nil, 1)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		var q request
		var r reply
		if err := json.Unmarshal(line, &q); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		switch q.Op {
		case opQuit:
			return nil
		case opSet, opStats, opPing:
			l.asked <- q
			if _, err := unix.Write(l.bell, one); err != nil {
				return fmt.Errorf("ring: %w", err)
			}
			r = <-l.answered
		default:
			r.Error = fmt.Sprintf("unknown request %q", q.Op)
		}
		if q.Op != opPing {
			l.sched = promote() // the runtime may have made threads since
		}
		if r.Stats != nil {
			r.Stats.Sched = l.sched
			r.Stats.CPU = cpuTime()
		}
		b, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("write reply: %w", err)
		}
		if _, err := conn.Write(append(b, '\n')); err != nil {
			return fmt.Errorf("write reply: %w", err)
		}
	}
}

// answer serves one request on the loop's thread.
func (l *loop) answer(q request) (r reply) {
	switch q.Op {
	case opSet:
		if q.Src < 0 || q.Src >= MaxPorts || q.Dst < 0 || q.Dst >= MaxPorts {
			r.Error = fmt.Sprintf("no pair %d to %d", q.Src, q.Dst)
			return r
		}
		// What came in before the change meets what was in force then, and what
		// the change lets out is out before the answer: whoever takes the pair
		// off the wire next sends nothing past it.
		for first := l.stats.Reads; l.stats.Reads-first < mostBefore; {
			n := l.stats.Reads
			if l.receive() != nil || l.stats.Reads-n < mostAtOnce {
				break // an error comes again
			}
		}
		now := l.clock.Now()
		l.engine.Set(q.Src, q.Dst, q.Impairment, now)
		l.send(now)
	case opStats:
		s := l.stats
		s.Lateness, s.Transit = spreadOf(l.late), spreadOf(l.transit)
		s.Uptime = l.clock.Now() - l.start
		s.Held = l.engine.Held()
		for i, p := range l.engine.pairs {
			if p != nil {
				s.Pairs = append(s.Pairs, PairStats{Src: i / MaxPorts, Dst: i % MaxPorts, Impairment: p.imp, Counters: p.Counters})
			}
		}
		if q.Reset {
			l.late.Reset()
			l.transit.Reset()
		}
		r.Stats = &s
	}
	return r
}

// run moves frames for ever.
func (l *loop) run() error {
	// Not locked to a thread: all are scheduled alike, see promote, and giving
	// the Go scheduler its turn would take two thread switches instead of none.
	events := make([]unix.EpollEvent, 4)
	now := l.clock.Now()
	l.settled, l.slept = now, now
	for {
		now = l.send(l.clock.Now())
		n, err := l.wait(events, now)
		if err != nil {
			return err
		}
		for _, ev := range events[:n] {
			switch int(ev.Fd) {
			case l.timer:
				rawRead(l.timer, l.scratch[:8])
				l.armed = 0
			case l.bell:
				rawRead(l.bell, l.scratch[:8])
				select {
				case q := <-l.asked:
					l.answered <- l.answer(q)
				default:
				}
			case tapFD:
				if err := l.receive(); err != nil {
					return err
				}
			}
		}
	}
}

// wait sleeps until a frame or a request comes in or the next frame is due, or
// about to be: then it returns again and again until it is.
func (l *loop) wait(events []unix.EpollEvent, now time.Duration) (int, error) {
	l.budget = min(spinSaved, l.budget+(now-l.settled)/spinShare)
	l.settled = now
	due, some := l.engine.Next()
	l.stats.Wakeups++

	early := l.early
	if early > l.budget {
		early = 0
	}
	if some && due-now <= early {
		// An awake thread that polls. A frame may come in meanwhile.
		n := l.poll(events)
		spent := l.clock.Now() - now
		l.budget -= spent
		l.stats.Spun += spent
		return n, nil
	}
	if now-l.slept > busyLimit {
		// Never asleep for long: let others have the core, and show the
		// kernel's watchdog that we are not stuck.
		l.stats.Yields++
		ts := unix.NsecToTimespec(int64(rest))
		unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil)
		l.slept = l.clock.Now()
		return 0, nil
	}
	// Frames that wait already cost no sleep.
	if n := l.poll(events); n > 0 {
		return n, nil
	}
	if some && now-l.yielded > turn && due-now > early+turnTime {
		runtime.Gosched()
		l.yielded = l.clock.Now()
		return 0, nil
	}
	epoll, wake := l.epoll, time.Duration(0)
	if some {
		wake = due - early
		if l.fetched && l.engine.MinHold() > 2*batch {
			// Traffic is flowing. Frames that come in now carry their time with
			// them and are not due for long: they are fetched with the next wake-up.
			epoll, wake = l.quiet, min(wake, now+batch)
		}
	}
	if wake != l.armed {
		its := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(wake))}
		if err := unix.TimerfdSettime(l.timer, unix.TFD_TIMER_ABSTIME, &its, nil); err != nil {
			return 0, fmt.Errorf("timerfd_settime: %w", err)
		}
		l.armed = wake
	}
	l.fetched = false
	n, err := l.sleep(epoll, events, some)
	woke := l.clock.Now()
	l.slept = woke
	l.settled, l.budget = woke, min(spinSaved, l.budget+(woke-now)/spinShare)
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("epoll_wait: %w", err)
	}
	if some && n == 1 && int(events[0].Fd) == l.timer && wake > now {
		l.learn(woke - wake)
	}
	return n, nil
}

// sleep waits for events. Unless it may be for long, it does not tell the
// scheduler, whose monitor would wake up with us every time to see whether we
// returned: half as much work again as ours.
func (l *loop) sleep(epoll int, events []unix.EpollEvent, short bool) (int, error) {
	if !short {
		return unix.EpollWait(epoll, events, -1)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// learn follows the 80th percentile of how late sleeps end: a step up for each
// sleep that ended later, a quarter of it down for each other.
func (l *loop) learn(late time.Duration) {
	const step = 2 * time.Microsecond
	if late > l.early {
		l.early = min(maxEarly, l.early+step)
	} else {
		l.early = max(0, l.early-step/4)
	}
}

// poll asks for events without waiting. It does not tell the scheduler, which
// would take 100 ns more.
func (l *loop) poll(events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// receive takes in what the TAP has, a limited number of frames at a time, and
// sends what is due meanwhile.
func (l *loop) receive() error {
	for range mostAtOnce {
		n, errno := rawRead(tapFD, l.scratch)
		switch errno {
		case 0:
		case unix.EAGAIN, unix.EINTR:
			return nil
		default:
			return fmt.Errorf("read TAP: %w", errno)
		}
		l.stats.Reads++
		l.fetched = true
		src, dst, arrival, ok := readMark(l.scratch[:n])
		if !ok {
			l.stats.Strays++
			continue
		}
		restoreMAC(l.scratch[:n], src, dst)
		var b []byte
		if n <= smallFrame {
			b = l.engine.Alloc(n)
			copy(b, l.scratch[:n])
		} else {
			b = l.scratch[:n]
			l.scratch = l.engine.Alloc(maxFrame)
		}
		l.engine.Push(src, dst, b, arrival)
		now := l.clock.Now()
		if due, some := l.engine.Next(); some && due <= now {
			l.send(now)
		}
	}
	return nil
}

// send writes out what is due and returns the time.
func (l *loop) send(now time.Duration) time.Duration {
	for {
		f, ok := l.engine.Pop(now)
		if !ok {
			return now
		}
		l.stats.Writes++
		if errno := rawWrite(tapFD, f.Data); errno != 0 {
			l.stats.WriteErrors++
		}
		now = l.clock.Now()
		// Out of the histogram's range can only be a frame that is more than 10 s late; it counts as that.
		h := l.transit
		if f.Held {
			h = l.late
		}
		h.RecordValue(min(max(int64(now-f.Due), 1), h.HighestTrackableValue()))
		l.engine.Free(f.Data)
	}
}

func rawRead(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

func rawWrite(fd int, b []byte) unix.Errno {
	for range 3 {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno != unix.EINTR {
			return errno
		}
	}
	return unix.EINTR
}

// promote gives every thread of this process real-time scheduling, or the best
// that is allowed. It must be all: a loop that had to wait for an ordinary
// thread of its own runtime stalled for up to 140 ms on a busy machine. For the
// same reason the flag that keeps threads from inheriting it is not set; this
// process starts no other.
func promote() Sched {
	limit := unix.Rlimit{Cur: uint64(cpuLimit.Microseconds()), Max: uint64(cpuLimit.Microseconds())}
	if err := unix.Setrlimit(unix.RLIMIT_RTTIME, &limit); err == nil {
		fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: priority}
		if threads(func(tid int) error { return unix.SchedSetAttr(tid, &fifo, 0) }) == nil {
			return SchedFIFO
		}
	}
	const favour = -20
	sched := SchedNice
	if threads(func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, favour) }) != nil {
		sched = SchedNormal
	}
	threads(func(tid int) error { // best effort: sleeps of ordinary threads end up to 50 µs late
		return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid), []byte("1"), 0)
	})
	return sched
}

func threads(f func(tid int) error) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := f(tid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(unix.TimevalToNsec(u.Utime) + unix.TimevalToNsec(u.Stime))
}
