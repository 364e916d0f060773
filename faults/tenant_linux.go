package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/netns"
	"brownout/internal/undo"
)

// An appetite is what a tenant wants of the host. Zero values want nothing.
type appetite struct {
	burn   int    // threads that want all the CPU time that they can get
	hold   int64  // bytes of memory, touched again and again
	grab   int64  // bytes of memory, touched once and kept, as fast as it can
	churn  int64  // bytes of a file that are read or written again and again, at most so many a second if pace is set
	dirty  bool   // churn writes
	sync   bool   // and makes each MiB durable
	pace   int64  // bytes a second of churn; 0 is as fast as it can
	fsyncs int64  // writes with fsync a second, to the file
	block  int64  // bytes of each
	many   int    // that many of them at a time
	udp    string // where datagrams go
	bits   int64  // of them a second
	probe  bool   // take new memory all the time, and say when that had to wait
	remain bool   // die last of all when memory runs out, instead of first
}

func (a appetite) args() []string {
	return []string{
		"_tenant", "-burn", strconv.Itoa(a.burn), "-hold", strconv.FormatInt(a.hold, 10), "-grab", strconv.FormatInt(a.grab, 10),
		"-churn", strconv.FormatInt(a.churn, 10), "-dirty=" + strconv.FormatBool(a.dirty), "-sync=" + strconv.FormatBool(a.sync),
		"-pace", strconv.FormatInt(a.pace, 10), "-fsyncs", strconv.FormatInt(a.fsyncs, 10), "-block", strconv.FormatInt(a.block, 10), "-many", strconv.Itoa(a.many), "-udp", a.udp, "-bits", strconv.FormatInt(a.bits, 10),
		"-probe=" + strconv.FormatBool(a.probe), "-remain=" + strconv.FormatBool(a.remain),
	}
}

// TenantMain is "brownout _tenant": a process that eats what it is told to. It
// begins when it reads a line from its standard input, and ends with that input
// or with its parent. File 3 is the one that it churns.
func TenantMain(args []string) int {
	var a appetite
	fs := flag.NewFlagSet("_tenant", flag.ContinueOnError)
	fs.IntVar(&a.burn, "burn", 0, "threads that spin")
	fs.Int64Var(&a.hold, "hold", 0, "bytes of memory to hold")
	fs.Int64Var(&a.grab, "grab", 0, "bytes of memory to take at once")
	fs.Int64Var(&a.churn, "churn", 0, "bytes of file 3 to go through")
	fs.BoolVar(&a.dirty, "dirty", false, "churn writes")
	fs.BoolVar(&a.sync, "sync", false, "churn makes durable")
	fs.Int64Var(&a.pace, "pace", 0, "bytes a second of churn")
	fs.Int64Var(&a.fsyncs, "fsyncs", 0, "writes with fsync a second, to file 3")
	fs.Int64Var(&a.block, "block", 4096, "bytes of each")
	fs.IntVar(&a.many, "many", 1, "of them at a time")
	fs.StringVar(&a.udp, "udp", "", "address that datagrams go to")
	fs.Int64Var(&a.bits, "bits", 0, "bits a second of datagrams")
	fs.BoolVar(&a.probe, "probe", false, "say when new memory had to be waited for")
	fs.BoolVar(&a.remain, "remain", false, "be no preferred victim when memory runs out")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if !a.remain { // of all in its group, it shall die first
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	}
	in := make([]byte, 1)
	if _, err := os.Stdin.Read(in); err != nil {
		return 1
	}
	runtime.GOMAXPROCS(a.burn + 4)
	for range a.burn {
		go func() {
			for {
				for range 10_000 { // some microseconds
				}
			}
		}()
	}
	failed := make(chan error, 4)
	eat := func(f func() error) { go func() { failed <- f() }() }
	if a.hold > 0 {
		eat(func() error { return holdMemory(a.hold) })
	}
	if a.grab > 0 {
		eat(func() error { return grabMemory(a.grab) })
	}
	if a.churn > 0 {
		eat(func() error { return churnFile(os.NewFile(3, "churn"), a) })
	}
	if a.fsyncs > 0 {
		eat(func() error { return hammerFile(os.NewFile(3, "hammer"), a) })
	}
	if a.udp != "" {
		eat(func() error { return sendDatagrams(a.udp, a.bits) })
	}
	if a.probe {
		eat(probeMemory)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		failed <- nil
	}()
	if err := <-failed; err != nil {
		fmt.Fprintln(os.Stderr, "_tenant:", err)
		return 1
	}
	return 0
}

// pages maps memory that the kernel hands out page by page.
func pages(size int64) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		err = ignore(unix.Madvise(b, unix.MADV_NOHUGEPAGE), unix.EINVAL) // a kernel without huge pages
	}
	return b, err
}

func ignore(err error, those ...error) error {
	for _, e := range those {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

const pageSize = 4096

// holdMemory touches all of it about twice a second. What the process holds
// anyway counts.
func holdMemory(size int64) error {
	var total, resident, shared int64
	statm, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(statm), &total, &resident, &shared)
	}
	if err != nil {
		return err
	}
	b, err := pages(max(size-(resident-shared)*pageSize, pageSize))
	if err != nil {
		return err
	}
	for {
		for i := 0; i < len(b); i += pageSize {
			b[i]++
		}
		<-time.After(500 * time.Millisecond)
	}
}

// grabMemory takes all of it and then keeps quiet.
func grabMemory(size int64) error {
	b, err := pages(size)
	if err != nil {
		return err
	}
	for i := 0; i < len(b); i += pageSize {
		b[i]++
	}
	select {}
}

const churnStep = 256 << 10

// churnFile goes through a file from its begin to its end for ever.
func churnFile(f *os.File, a appetite) error {
	buf := make([]byte, churnStep)
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM) // no reading ahead beyond what is asked for
	began, done := time.Now(), int64(0)
	var last int64
	for {
		for at := int64(0); at < a.churn; at += churnStep {
			part := buf[:min(churnStep, a.churn-at)]
			var err error
			if a.dirty {
				_, err = f.WriteAt(part, at)
			} else if _, err = f.ReadAt(part, at); errors.Is(err, io.EOF) {
				err = nil
			}
			if done += int64(len(part)); err == nil && a.sync && done-last >= 1<<20 {
				last = done
				err = unix.Fdatasync(int(f.Fd()))
			}
			if err != nil {
				return err
			}
			if a.pace > 0 {
				due := began.Add(time.Duration(float64(done) / float64(a.pace) * 1e9))
				if wait := time.Until(due); wait > 0 {
					<-time.After(wait)
				} else if wait < -time.Second { // what could not be had is not made up for
					began, done, last = time.Now(), 0, 0
				}
			}
		}
	}
}

// datagram is the payload of one: with its headers a full frame of 1500 bytes.
const datagramBytes = 1472

// sendDatagrams sends at a rate, counted with headers as on the wire.
func sendDatagrams(to string, bits int64) error {
	c, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	buf := make([]byte, datagramBytes)
	const frame = (datagramBytes + 28 + 14) * 8 // bits
	began, sent := time.Now(), int64(0)
	for {
		due := int64(time.Since(began).Seconds() * float64(bits) / frame)
		for n := 0; sent < due && n < 256; n++ {
			if _, err := c.Write(buf); err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOBUFS) {
				return err
			}
			sent++
		}
		if due-sent > bits/frame { // a second behind: it is not made up for
			began, sent = time.Now(), 0
		}
		<-time.After(time.Millisecond)
	}
}

// A memoryGap is a time in which new memory was waited for, as a tenant tells
// of it: by CLOCK_MONOTONIC, in nanoseconds.
type memoryGap struct{ From, To int64 }

const (
	probePages = 8192 // that the probe goes through before it gives them back
	probeTouch = 32   // of them each millisecond
	probeLeast = 5 * time.Millisecond
)

// probeMemory takes new pages all the time and writes down gaps. Until it has
// them it stands still, as anybody would in its group.
func probeMemory() error {
	runtime.LockOSThread()
	b, err := pages(probePages * pageSize)
	if err != nil {
		return err
	}
	now := func() int64 {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail
		return ts.Nano()
	}
	nap := unix.Timespec{Nsec: int64(time.Millisecond)}
	for at := 0; ; {
		from := now()
		for range probeTouch {
			b[at*pageSize]++
			at++
		}
		if to := now(); to-from >= int64(probeLeast) {
			if err := binary.Write(os.Stdout, binary.NativeEndian, memoryGap{from, to}); err != nil {
				return err
			}
		}
		if at == probePages {
			at = 0
			if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
				return err
			}
		}
		_ = unix.Nanosleep(&nap, nil)
	}
}

// A tenant is a helper process in a cgroup.
type tenant struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser // what it says
	done chan struct{} // closed when it has ended
	err  error         // how; valid then
}

// startTenant starts a process of an appetite in a group, and in a network
// namespace unless ns is nil. It waits for begin.
func (b *bench) startTenant(g *cgroup.Group, a appetite, ns *os.File, files ...*os.File) (*tenant, error) {
	return b.startHelper(g, a.args(), ns, files...)
}

// startHelper starts this program again in a cgroup. It waits for begin.
func (b *bench) startHelper(g *cgroup.Group, args []string, ns *os.File, files ...*os.File) (*tenant, error) {
	t := &tenant{cmd: exec.Command(b.Exe, args...), done: make(chan struct{})}
	t.cmd.Env = []string{undo.RunEnv + "=" + b.Cluster.Owner().String()}
	t.cmd.Dir = "/"
	t.cmd.ExtraFiles = files
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var err error
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	t.out, t.cmd.Stdout = r, w
	begun := make(chan error, 1)
	go func() {
		defer close(t.done)
		life := func() error { // on one thread, whose end would be the process's
			err := t.cmd.Start()
			w.Close()
			begun <- err
			if err != nil {
				return nil
			}
			return t.cmd.Wait()
		}
		if ns != nil {
			t.err = netns.Do(ns, life)
		} else {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			t.err = life()
		}
		select {
		case begun <- t.err: // the namespace could not be entered
		default:
		}
	}()
	if err := <-begun; err != nil {
		r.Close()
		return nil, fmt.Errorf("start tenant: %w", err)
	}
	if err := g.Add(t.cmd.Process.Pid); err != nil {
		t.end()
		return nil, err
	}
	return t, nil
}

func (t *tenant) pid() int { return t.cmd.Process.Pid }

func (t *tenant) begin() error {
	if _, err := t.in.Write([]byte("\n")); err != nil {
		return fmt.Errorf("let tenant begin: %w", err)
	}
	return nil
}

// end kills it and returns when it is gone.
func (t *tenant) end() {
	t.in.Close()
	_ = t.cmd.Process.Kill() // it may have ended
	<-t.done
	t.out.Close()
}

// alive says whether it still runs.
func (t *tenant) alive() bool {
	select {
	case <-t.done:
		return false
	default:
		return true
	}
}

// newGroup makes a group for tenants beside those of the nodes. It goes away
// with the run's, whatever happens to us.
func (b *bench) newGroup() (*cgroup.Group, error) {
	return b.Cluster.Group().Child("t" + strconv.FormatInt(probes.Add(1), 10))
}

func deleteGroup(ctx context.Context, g *cgroup.Group) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
	defer cancel()
	return g.Delete(ctx)
}

// bystanders are the groups of tenants that are not there to take CPU time from
// nodes, though they use some. A meter of who does leaves them out.
type bystanders struct {
	mu     sync.Mutex
	groups map[*cgroup.Group]bool
	gone   time.Duration // what those used that are gone
}

// newGroup makes the group of a bystander.
func (s *bystanders) newGroup(b *bench) (*cgroup.Group, error) {
	g, err := b.newGroup()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups == nil {
		s.groups = map[*cgroup.Group]bool{}
	}
	s.groups[g] = true
	return g, nil
}

// delete ends it, and everybody in it.
func (s *bystanders) delete(ctx context.Context, g *cgroup.Group) error {
	s.mu.Lock()
	used, _ := g.CPUUsage() // its tenants have ended: this is all
	delete(s.groups, g)
	s.gone += used
	s.mu.Unlock()
	err := deleteGroup(ctx, g)
	if err != nil { // it is there still
		s.mu.Lock()
		s.groups[g] = true
		s.gone -= used
		s.mu.Unlock()
	}
	return err
}

// used is the CPU time of all of them, ever.
func (s *bystanders) used() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.gone
	for g := range s.groups {
		used, _ := g.CPUUsage()
		sum += used
	}
	return sum
}

// scratchFile makes a file without a name on the disk that the nodes are on. It
// holds nothing, and reads as zeroes up to size.
func (b *bench) scratchFile(n *cluster.Node, size int64) (*os.File, error) {
	dir := filepath.Dir(n.Dir())
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return nil, &Unsupported{What: "a file whose pages can be taken back", Why: "the run's directory is in memory itself", Cure: "--out on a disk"}
	}
	f, err := os.CreateTemp(dir, "churn-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(f.Name()), f.Truncate(size)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Several processes may be ended at once.
func endAll(ts []*tenant) {
	var wg sync.WaitGroup
	for _, t := range ts {
		wg.Go(t.end)
	}
	wg.Wait()
}
