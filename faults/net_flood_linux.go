package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/netns"
	"brownout/internal/undo"
)

// A flood is real traffic. Its sockets are opened in the nodes' namespaces and
// handed to a process in a cgroup of its own, so that the work of sending is no
// node's.
type floodFault struct{ b *bench }

func newFlood(b *bench) Provider { return &floodFault{b} }

// Probe needs nothing that a cluster does not.
func (f *floodFault) Probe(context.Context) error { return nil }

// A floodPlan tells the process what its files are: of each link a UDP socket
// at both ends, then TCP connections, near end before far end.
type floodPlan struct {
	Links int     `json:"links"`
	Flows int     `json:"flows"`
	UDP   float64 `json:"udp_bits_per_s"` // on each link
}

const (
	floodFirst    = 3    // number of the first file
	floodDatagram = 1400 // bytes of payload
	floodChunk    = 64 << 10
	floodTick     = 2 * time.Millisecond
	floodReady    = 5 * time.Second
)

func (f *floodFault) Inject(ctx context.Context, site Site, d Dose) (_ Injection, err error) {
	if len(site.Links) == 0 {
		return nil, errors.New("no links to flood")
	}
	x := &flooding{b: f.b, links: site.Links}
	if err := x.start(ctx, d); err != nil {
		return nil, err
	}
	return x, nil
}

// Flooding is a flood in force.
type flooding struct {
	b     *bench
	links []Link

	mu    sync.Mutex
	cmd   *exec.Cmd
	in    io.WriteCloser
	ended chan struct{}
	group *cgroup.Group
}

// start opens the sockets and lets the process go.
func (x *flooding) start(ctx context.Context, d Dose) (err error) {
	limit, udp := d.Float("limit_bits_per_s"), d.Float("udp")/100
	p := floodPlan{Links: len(x.links), Flows: max(int(d.Float("flows")), 0), UDP: limit * udp}
	if limit <= 0 {
		return fmt.Errorf("flood of %v bit/s: nothing to send", limit)
	}
	if udp >= 1 || p.Flows == 0 {
		p.Flows, p.UDP = 0, limit
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, l := range x.links {
		some, err := x.sockets(ctx, l, p.Flows, (limit-p.UDP)/float64(max(p.Flows, 1)))
		files = append(files, some...)
		if err != nil {
			return fmt.Errorf("open flood on %s: %w", l, err)
		}
	}
	plan, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return x.run(ctx, string(plan), files)
}

// sockets opens the flows of one link. The kernel itself paces TCP.
func (x *flooding) sockets(ctx context.Context, l Link, flows int, each float64) (files []*os.File, err error) {
	keep := func(c interface{ File() (*os.File, error) }) error {
		f, err := c.File()
		if err == nil {
			files = append(files, f)
		}
		return err
	}
	_, near, err := x.b.endpoint(l.From)
	if err != nil {
		return nil, err
	}
	_, far, err := x.b.endpoint(l.To)
	if err != nil {
		return nil, err
	}
	ip, _ := addrOf(x.b, l.To)
	in, err := netns.ListenPacket(ctx, far, "udp4", netip.AddrPortFrom(ip, 0).String(), nil)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := netns.Dial(ctx, near, "udp4", in.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := errors.Join(keep(out.(*net.UDPConn)), keep(in.(*net.UDPConn))); err != nil {
		return files, err
	}
	c, err := newCanary(ctx, x.b, l)
	if err != nil {
		return files, err
	}
	defer c.close()
	for range flows {
		a, b, err := c.connect(ctx)
		if err != nil {
			return files, err
		}
		raw, err := a.SyscallConn()
		if err == nil {
			var set error
			err = raw.Control(func(fd uintptr) {
				set = unix.SetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, uint64(max(each/8, 1)))
			})
			err = errors.Join(err, set)
		}
		err = errors.Join(err, keep(a), keep(b))
		a.Close()
		b.Close()
		if err != nil {
			return files, err
		}
	}
	return files, nil
}

// run starts the process in a cgroup of its own, and then lets it send.
func (x *flooding) run(ctx context.Context, plan string, files []*os.File) error {
	cmd := exec.Command(x.b.Exe, "_flood", plan)
	cmd.Env = []string{undo.RunEnv + "=" + x.b.Cluster.Owner().String()}
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	group, err := x.b.Cluster.Group().Child(fmt.Sprintf("flood%d", x.b.links.id()))
	if err != nil {
		return err
	}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The death signal is the thread's that forked: it stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed: what it says is known
		}
	}()
	drop := func() error { return group.Delete(context.WithoutCancel(ctx)) }
	if err := <-started; err != nil {
		return errors.Join(fmt.Errorf("start flood: %w", err), drop())
	}
	x.mu.Lock()
	x.cmd, x.in, x.ended, x.group = cmd, in, ended, group
	x.mu.Unlock()
	if err := group.Add(cmd.Process.Pid); err != nil {
		return errors.Join(err, x.Heal(context.WithoutCancel(ctx)))
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		return errors.Join(fmt.Errorf("start flood: %w", err), x.Heal(context.WithoutCancel(ctx)))
	}
	return nil
}

// Set starts another flood in place of this one: its sockets have their pace.
func (x *flooding) Set(ctx context.Context, d Dose) error {
	if err := x.Heal(ctx); err != nil {
		return err
	}
	return x.start(ctx, d)
}

// Heal ends the process and takes its cgroup away.
func (x *flooding) Heal(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cmd == nil {
		return nil
	}
	x.in.Close()
	_ = x.cmd.Process.Kill()
	select {
	case <-x.ended:
	case <-ctx.Done():
		return fmt.Errorf("end flood: %w", ctx.Err())
	}
	if err := x.group.Delete(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	x.cmd = nil
	return nil
}

// FloodMain is the process that floods: it sends and receives on the sockets it
// was given until its standard input ends.
func FloodMain(args []string) int {
	var p floodPlan
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &p) != nil {
		fmt.Fprintln(os.Stderr, "flood: no plan")
		return 2
	}
	conns := make([]net.Conn, p.Links*(2+2*p.Flows))
	for i := range conns {
		f := os.NewFile(uintptr(floodFirst+i), "flow")
		c, err := net.FileConn(f)
		if err != nil {
			fmt.Fprintln(os.Stderr, "flood:", err)
			return 1
		}
		f.Close()
		conns[i] = c
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil { // in its cgroup now
		return 0
	}
	for l := range p.Links {
		of := conns[l*(2+2*p.Flows):]
		go sendUDP(of[0], p.UDP)
		go drain(of[1], floodDatagram)
		for i := range p.Flows {
			go sendTCP(of[2+2*i])
			go drain(of[3+2*i], floodChunk)
		}
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started it is done
	return 0
}

// sendUDP sends bits bits a second, counted as on an Ethernet link. After a
// stall it does not make up for more than a few ticks.
func sendUDP(c net.Conn, bits float64) {
	if bits <= 0 {
		return
	}
	buf := make([]byte, floodDatagram)
	const frame = (floodDatagram + headers) * 8
	gap := time.Duration(float64(frame) / bits * float64(time.Second))
	next := time.Now()
	for {
		now := time.Now()
		if late := now.Sub(next); late > 10*floodTick+10*gap {
			next = now
		}
		for ; !next.After(now); next = next.Add(gap) {
			_, _ = c.Write(buf) // what is refused is lost, as UDP is
		}
		<-time.After(max(time.Until(next), floodTick))
	}
}

func sendTCP(c net.Conn) {
	for buf := make([]byte, floodChunk); ; {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

func drain(c net.Conn, size int) {
	for buf := make([]byte, size); ; {
		if _, err := c.Read(buf); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
	}
}
