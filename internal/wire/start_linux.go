package wire

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process says how to start a wire.
type Process struct {
	Exe  string   // a program whose main calls [Main] when Args[0] says so
	Args []string // before ours; by custom "_wire"
	Env  []string // all of it
	Tap  *os.File // stays open with the caller, so that it outlives the wire
	Seed uint64   // of all that is random

	Patience time.Duration // with an answer, before the process counts as hung; default 5 s
}

// Start starts a wire process and returns when it answers. The process dies
// with ours: by the parent death signal, and because its control socket closes.
func Start(ctx context.Context, p Process) (*Client, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "wire control"), os.NewFile(uintptr(fds[1]), "wire control")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("make control socket: %w", err)
	}

	cmd := exec.Command(p.Exe, append(p.Args, "-seed", strconv.FormatUint(p.Seed, 10))...)
	cmd.Env = append([]string{"GODEBUG=asyncpreemptoff=1"}, p.Env...) // signals would cut sleeps short
	cmd.ExtraFiles = []*os.File{theirs, p.Tap}                        // 3 and 4
	var talk tail
	cmd.Stderr = &talk
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	c := &Client{
		turn: make(chan struct{}, 1), conn: conn, in: bufio.NewReaderSize(conn, 64<<10),
		patience: cmp.Or(p.Patience, patience), done: make(chan struct{}),
	}
	c.turn <- struct{}{}
	started := make(chan error, 1)
	go func() {
		// The death signal is sent when the thread that forked dies, so that
		// thread stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		theirs.Close()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // its state says how it ended
		c.err = c.ended(cmd.ProcessState.String(), strings.TrimSpace(talk.String()))
		close(c.done)
	}()
	if err := <-started; err != nil {
		conn.Close()
		return nil, fmt.Errorf("start wire: %w", err)
	}
	c.pid = cmd.Process.Pid
	c.stop = sync.OnceFunc(func() { cmd.Process.Kill() })
	if err := c.Ping(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("start wire: %w", err)
	}
	return c, nil
}

// A tail keeps the last of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 4 << 10
	t.b = append(t.b, b...)
	if over := len(t.b) - most; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
