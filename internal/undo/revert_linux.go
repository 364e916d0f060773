package undo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/dm"
	"brownout/internal/sys/proc"
)

// Revert undoes one record, whoever made it. What is gone already is
// [os.ErrNotExist]; what exists but is not ours, an error and left alone.
func Revert(r Record) error {
	switch r.Kind {
	case Cgroup:
		return revertCgroup(r.Name)
	case Process:
		return revertProcess(r.Name, r.Born)
	case Mount:
		return revertMount(r.Name)
	case Loop:
		return revertLoop(r.Name)
	case Mapped:
		return revertMapped(r.Name)
	case Link:
		return revertLink(r.Name)
	}
	return fmt.Errorf("unknown kind %q", r.Kind)
}

// goneWithin bounds the wait for what was killed to be gone.
const goneWithin = time.Second

// revertCgroup removes the cgroups called name in all hierarchies, and kills
// what is in them.
func revertCgroup(name string) error {
	if _, ok := ParseOwner(name); !ok {
		return fmt.Errorf("cgroup %q does not bear the name of a run", name)
	}
	host, err := cgroup.Discover()
	if err != nil {
		return err
	}
	g, err := host.Open(name)
	if errors.Is(err, errors.ErrUnsupported) {
		return os.ErrNotExist // where no group can be made, none was
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), goneWithin)
	defer cancel()
	return g.Delete(ctx)
}

// InUse says whether this host has cgroups of that owner.
func (o Owner) InUse() bool {
	host, err := cgroup.Discover()
	if err != nil {
		return false // making some will say so
	}
	_, err = host.Open(o.String())
	return err == nil
}

// foreign says whether a group holds processes that this PID namespace cannot
// see, which are 0 in the list: then its owner's pid means nothing here.
func foreign(g *cgroup.Group) bool {
	found := false
	for _, top := range g.Paths() {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
				found = found || slices.Contains(strings.Fields(string(b)), "0")
			}
			return nil // what vanishes meanwhile holds nobody
		})
	}
	return found
}

// revertProcess kills a process if it is still the one that was recorded.
func revertProcess(name string, want uint64) error {
	pid, err := strconv.Atoi(name)
	if err != nil || pid <= 1 {
		return fmt.Errorf("%q is not the pid of a process of ours", name)
	}
	p, err := proc.Open(pid) // keeps the pid from meaning another process between look and kill
	if err != nil {
		return err
	}
	defer p.Close()
	if born, ok := lives(pid); !ok || born != want {
		return os.ErrNotExist
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), goneWithin, fmt.Errorf("killed, but still there after %v", goneWithin))
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

// ours says whether a mount is one of brownout's.
func (m mountLine) ours() bool {
	return strings.HasPrefix(m.source, Prefix) || m.fstype == "fuse.slowfs"
}

func revertMount(point string) error {
	i := slices.IndexFunc(mounts(), func(m mountLine) bool { return m.point == point })
	if i < 0 {
		return os.ErrNotExist
	}
	if m := mounts()[i]; !m.ours() {
		return fmt.Errorf("%s is a mount of %s (%s), not of ours", point, m.source, m.fstype)
	}
	return unix.Unmount(point, unix.MNT_DETACH)
}

// revertLoop detaches a loop device whose backing file is named bo-*.
func revertLoop(dev string) error {
	name := filepath.Base(dev)
	file, err := loopBacking(name)
	if err != nil {
		return os.ErrNotExist
	}
	if !strings.HasPrefix(filepath.Base(file), Prefix) {
		return fmt.Errorf("%s is backed by %s, which is not ours", dev, file)
	}
	f, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", dev, err)
	}
	return nil
}

// revertMapped removes a device of the device mapper that bears a run's name.
// What still uses it is dying; it goes with its last user.
func revertMapped(name string) error {
	if _, ok := mappedOwner(name); !ok {
		return fmt.Errorf("dm device %q does not bear the name of a run", name)
	}
	names, err := dm.List()
	if err != nil {
		return err
	}
	if !slices.Contains(names, name) {
		return os.ErrNotExist
	}
	return dm.Device{Name: name}.Remove()
}

// mappedOwner reads whose a device is: its name is the owner's and, after a
// dash, what it is to the owner.
func mappedOwner(name string) (Owner, bool) {
	i := strings.LastIndex(name, "-")
	if i < 0 {
		return Owner{}, false
	}
	return ParseOwner(name[:i])
}

func loopBacking(name string) (string, error) {
	b, err := os.ReadFile("/sys/block/" + name + "/loop/backing_file")
	return strings.TrimSuffix(strings.TrimSpace(string(b)), " (deleted)"), err
}

// revertLink deletes an interface of this network namespace called bo-*.
func revertLink(name string) error {
	if !strings.HasPrefix(name, Prefix) {
		return fmt.Errorf("link %q is not ours", name)
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return os.ErrNotExist
	}
	return deleteLink(i.Index)
}

// deleteLink asks rtnetlink(7) to delete an interface: one request, one answer.
func deleteLink(index int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("delete link: %w", err)
	}
	defer unix.Close(fd)
	msg := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	le := nativeEndian
	le.PutUint32(msg[0:], uint32(len(msg)))
	le.PutUint16(msg[4:], unix.RTM_DELLINK)
	le.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	le.PutUint32(msg[unix.SizeofNlMsghdr+4:], uint32(index))
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("delete link: %w", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return fmt.Errorf("delete link: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 || le.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("delete link: unexpected answer")
	}
	if errno := -int32(le.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
		return fmt.Errorf("delete link: %w", syscall.Errno(errno))
	}
	return nil
}
