package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/sys/netns"
)

// A network is one switch with namespaces for the nodes, and one for the clients.
// Every system's nodes share the nodes' namespaces, with ports of their own.
type network struct {
	sw     *cluster.Switch
	nodes  []*os.File
	addrs  []netip.Addr
	client *os.File
	ended  chan struct{}
	wg     sync.WaitGroup
}

func newNet(ctx context.Context, nodes int) (n *network, err error) {
	n = &network{ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if n.sw, err = cluster.NewSwitch(ctx, cluster.SwitchConfig{}); err != nil {
		return n, err
	}
	for i := range nodes + 1 {
		ns, err := netns.New()
		if err != nil {
			return n, err
		}
		name := fmt.Sprint("n", i+1)
		if i == nodes {
			n.client, name = ns, "clients"
		} else {
			n.nodes, n.addrs = append(n.nodes, ns), append(n.addrs, cluster.IP4(i))
		}
		if _, err := n.sw.Plug(ctx, i, name, ns); err != nil {
			return n, err
		}
	}
	return n, nil
}

// close ends all processes and the network.
func (n *network) close() error {
	close(n.ended)
	n.wg.Wait()
	if n.sw == nil {
		return nil
	}
	return n.sw.Close()
}

// start runs a program in a node's namespace until the network is closed. It
// dies with us: the thread that starts it lives as long.
func (n *network) start(node int, dir, name string, argv ...string) (pid int, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(name, argv[1:]...)
	cmd.Args, cmd.Dir, cmd.Stdout, cmd.Stderr = argv, dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	n.wg.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		if err := unix.Setns(int(n.nodes[node].Fd()), unix.CLONE_NEWNET); err != nil {
			started <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		<-n.ended
		cmd.Process.Kill()
		cmd.Wait()
	})
	if err := <-started; err != nil {
		return 0, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return cmd.Process.Pid, nil
}

// dial connects from the clients' namespace.
func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	return netns.Dial(ctx, n.client, "tcp", addr)
}

// eventually tries until it works.
func eventually(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-tick.C:
		}
	}
}
