package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"brownout/internal/run"
	"brownout/internal/sys/stamp"
)

// Prey is a run that is going on, as somebody else on this host sees it: it is
// found by what it has in /proc and /sys, with nothing of the code under test.
type prey struct {
	cmd   *exec.Cmd
	dir   string // of the run
	ended <-chan struct{}
}

// pids are the processes in a cgroup of the run: "n1", or "" for all below it.
func (p prey) pids(group string) (out []int) {
	for _, root := range []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		files, _ := filepath.Glob(fmt.Sprintf("%s/bo-*-%d-*/%s/cgroup.procs", root, p.cmd.Process.Pid, group))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for _, w := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(w); err == nil {
					out = append(out, pid)
				}
			}
		}
		if len(out) > 0 {
			break
		}
	}
	return out
}

// put writes to a file of a node's cgroup, whichever hierarchy has it.
func (p prey) put(file, value string) error {
	for _, root := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		files, _ := filepath.Glob(fmt.Sprintf("%s/bo-*-%d-*/n1/%s", root, p.cmd.Process.Pid, file))
		if len(files) > 0 {
			return os.WriteFile(files[0], []byte(value), 0)
		}
	}
	return fmt.Errorf("no %s in a cgroup of n1", file)
}

// either puts what works: the file names of one cgroup version, or the other's.
func (p prey) either(fileA, a, fileB, b string) error {
	if err := p.put(fileA, a); err == nil {
		return nil
	}
	return p.put(fileB, b)
}

// thaw lets n1 run whenever the run has frozen it, and want all of a CPU, until
// the fault is over.
func (p prey) thaw() error {
	groups, err := p.groups()
	if err != nil {
		return err
	}
	spin := exec.Command("sh", "-c", groups+"while :; do :; done")
	if err := spin.Start(); err != nil {
		return err
	}
	defer func() { _ = spin.Process.Kill(); _ = spin.Wait() }()
	over := make(chan struct{})
	go func() { p.await(final); close(over) }()
	for {
		if err := p.put("cgroup.freeze", "0"); err != nil {
			return err
		}
		select {
		case <-over:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

// final tells the last event of a fault's dose.
func final(e run.Event) bool { return e.Type == run.FaultMeasured && e.Data["final"] == nil }

// groups are the commands by which a shell joins n1's cgroups.
func (p prey) groups() (string, error) {
	var join strings.Builder
	for _, root := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		files, err := filepath.Glob(fmt.Sprintf("%s/bo-*-%d-*/n1/cgroup.procs", root, p.cmd.Process.Pid))
		if err != nil {
			return "", err
		}
		for _, f := range files {
			fmt.Fprintf(&join, "echo $$ > %s; ", f)
		}
	}
	if join.Len() == 0 {
		return "", errors.New("n1 has no cgroup")
	}
	return join.String(), nil
}

// free moves n1's processes out of its cgroup, in the hierarchy that limits memory.
func (p prey) free() error {
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		runs, _ := filepath.Glob(fmt.Sprintf("%s/bo-*-%d-*", root, p.cmd.Process.Pid))
		if len(runs) == 0 {
			continue
		}
		for _, pid := range p.pids("n1") {
			err := os.WriteFile(root+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("no cgroup of the run")
}

// adminSocket is that of a process in a box, as it is seen from outside.
func adminSocket(pid int) string {
	return filepath.Join("/proc", strconv.Itoa(pid), "root", "run", "admin.sock")
}

// deafen hides the admin socket of n1's program until the fault is healed.
func (p prey) deafen() error {
	pids := p.pids("n1")
	if len(pids) == 0 {
		return fmt.Errorf("n1 has no process")
	}
	sock := adminSocket(pids[0])
	if err := os.Rename(sock, sock+".away"); err != nil {
		return err
	}
	p.await(final)
	return os.Rename(sock+".away", sock)
}

// respawn kills n1's program and starts it again in its box, with the host's clocks.
func (p prey) respawn() error {
	pids := p.pids("n1")
	if len(pids) == 0 {
		return fmt.Errorf("n1 has no process")
	}
	proc := fmt.Sprintf("/proc/%d/", pids[0])
	args, err1 := os.ReadFile(proc + "cmdline")
	env, err2 := os.ReadFile(proc + "environ")
	st, err3 := os.ReadFile(proc + "stat")
	info, err4 := os.Stat(proc)
	groups, err5 := p.groups()
	exe, err6 := os.Readlink(proc + "exe") // as its box has it
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(st), ") ")
	box := strings.Fields(rest)[1] // its parent
	uid := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid))
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		return err
	}
	p.await(func(e run.Event) bool { return e.Type == run.NodeExited })
	argv := strings.Split(strings.TrimRight(string(args), "\x00"), "\x00")
	again := exec.Command("bash", append([]string{"-c", groups + `exec nsenter -t "$0" -m -n -p -r -w -S "$1" -G "$1" "${@:2}"`, box, uid, exe}, argv[1:]...)...)
	again.Env = strings.Split(strings.TrimRight(string(env), "\x00"), "\x00")
	again.Env = append(again.Env, "PATH=/usr/bin:/bin:/usr/sbin:/sbin")
	if err := again.Start(); err != nil {
		return err
	}
	go func() { _ = again.Wait() }() // with the box
	return nil
}

// kill ends processes of the run whose command line has a word.
func (p prey) kill(word string) error { return p.signal(word, unix.SIGKILL) }

// signal sends a signal to processes of the run whose command line has a word.
func (p prey) signal(word string, sig unix.Signal) error {
	n := 0
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		b, _ := os.ReadFile(f)
		pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
		if !bytes.Contains(b, []byte("\x00"+word+"\x00")) || !p.has(pid) {
			continue
		}
		if err := unix.Kill(pid, sig); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("the run has no process %s", word)
	}
	return nil
}

// stall stops the wire, does something and lets it go on.
func (p prey) stall(meanwhile func() error) error {
	if err := p.signal("_wire", unix.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(meanwhile(), p.signal("_wire", unix.SIGCONT))
}

// flood sends so many datagrams from n1 to an address, where nobody listens.
func (p prey) flood(to netip.AddrPort, datagrams int) error {
	pids := p.pids("n1")
	if len(pids) == 0 {
		return fmt.Errorf("n1 has no process")
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pids[0]))
	if err != nil {
		return err
	}
	defer ns.Close()
	s, err := stamp.Open(ns, netip.IPv4Unspecified(), 1<<20)
	if err != nil {
		return err
	}
	defer s.Close()
	for range datagrams {
		s.Send(to, [][]byte{make([]byte, 64)})
	}
	return nil
}

// has reports whether a process descends from the run.
func (p prey) has(pid int) bool {
	for pid > 1 && pid != p.cmd.Process.Pid {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			return false
		}
		pid, _ = strconv.Atoi(fields[1])
	}
	return pid == p.cmd.Process.Pid
}

// unfilter takes all that steers packets off the ports of the run's switch.
func (p prey) unfilter() error {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	if err != nil {
		return err
	}
	n := 0
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); !strings.HasPrefix(to, "net:") {
			continue
		}
		ns, err := netns.GetFromPath(fd)
		if err != nil {
			return err
		}
		h, err := netlink.NewHandleAt(ns)
		ns.Close()
		if err != nil {
			return err
		}
		links, _ := h.LinkList()
		for _, l := range links {
			if !strings.HasPrefix(l.Attrs().Name, "bo-port") {
				continue
			}
			qdiscs, _ := h.QdiscList(l)
			for _, q := range qdiscs {
				if q.Type() == "clsact" && h.QdiscDel(q) == nil {
					n++
				}
			}
		}
		h.Close()
	}
	if n == 0 {
		return fmt.Errorf("no filter on any port of the switch")
	}
	return nil
}

// uncover mounts n1's real directory over the file system that makes it slow.
func (p prey) uncover() error {
	return p.inside(func() error { return unix.Mount("/.brownout/disk", "/data", "", unix.MS_BIND, "") })
}

// cover mounts a tmpfs over n1's directory.
func (p prey) cover() error {
	return p.inside(func() error { return unix.Mount("tmpfs", "/data", "tmpfs", 0, "mode=0777") })
}

// abort has the kernel give up the connection of n1's FUSE file system.
func (p prey) abort() error {
	return p.inside(func() error {
		if err := unix.Unmount("/data", unix.MNT_FORCE); err != unix.EBUSY { // it is in use, and aborted all the same
			return fmt.Errorf("umount -f: %w", err)
		}
		return nil
	})
}

// inside does something where n1's program has its mounts.
func (p prey) inside(do func() error) error {
	pids := p.pids("n1")
	if len(pids) == 0 {
		return fmt.Errorf("n1 has no process")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		done <- func() error {
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pids[0]))
			if err != nil {
				return err
			}
			defer f.Close()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNS); err != nil {
				return err
			}
			return do()
		}()
	}()
	return <-done
}

// tell posts to the admin socket of n1's program.
func (p prey) tell(path, body string) error {
	pids := p.pids("n1")
	if len(pids) == 0 {
		return fmt.Errorf("n1 has no process")
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", adminSocket(pids[0]))
	}}}
	resp, err := c.Post("http://n1"+path, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return nil
}

// await polls until the run has written an event that is wanted, or has ended.
func (p prey) await(wanted func(run.Event) bool) bool {
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-p.ended:
			return false
		case <-tick.C:
		}
		if _, err := os.Stat(filepath.Join(p.dir, run.EventsFile)); err != nil {
			continue
		}
		events, _ := run.ReadEvents(os.DirFS(p.dir)) // the last line may be half written
		for _, e := range events {
			if wanted(e) {
				tick.Stop()
				return true
			}
		}
	}
}
