package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/dm"
	"brownout/internal/sys/unsupported"
)

// A loop is an ext4 of the node's own in a file, on a loop device that goes away
// with the last who uses it: the box's init, and its mount.
const (
	loopImage = "disk.img"
	loopBytes = 1 << 30 // sparse
)

// ProbeLoop reports whether nodes can have file systems of their own.
func ProbeLoop() error {
	no := func(why, cure string) error {
		return &unsupported.Error{What: "an ext4 on a loop device", Why: why, Cure: cure}
	}
	if _, err := mkfs(); err != nil {
		return err
	}
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return no(err.Error(), "modprobe loop; in a container: --privileged")
	}
	defer f.Close()
	if _, err := unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
		return no("get a free loop device: "+err.Error(), "modprobe loop; in a container: --privileged")
	}
	return nil
}

// makeImage makes the node's file system.
func (n *Node) makeImage(ctx context.Context) error {
	program, err := mkfs()
	if err != nil {
		return err
	}
	image := filepath.Join(n.dir, loopImage)
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(loopBytes), f.Close()); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, program, "-q", "-F", "-E", "nodiscard", "-J", "size=16", image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a file system for %s: %w: %s", n.name, err, out)
	}
	return nil
}

// mountLoop shows the file system of a loop device, which its user owns.
func mountLoop(dev *dm.Loop, at string, uid int) error {
	if err := unix.Mount(dev.Source(), at, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount an ext4 at %s: %w", at, err)
	}
	_ = os.Remove(filepath.Join(at, "lost+found")) // a node's directory is empty at first
	return errors.Join(os.Chmod(at, 0o700), os.Lchown(at, uid, uid))
}

// Of the ext4 and xfs shutdown ioctl.
const (
	fsShutdown         = 0x8004587d // FS_IOC_SHUTDOWN
	shutdownNoLogFlush = 2          // what the journal has not on the disk is lost
)

// shutdown is a power loss of a file system: nothing that is not on its device
// gets there any more. It is mounted again.
func shutdown(dev *dm.Loop, at string, uid int) error {
	dir, err := os.Open(at)
	if err != nil {
		return err
	}
	how := uint32(shutdownNoLogFlush)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), fsShutdown, uintptr(unsafe.Pointer(&how)))
	dir.Close()
	if errno != 0 {
		return fmt.Errorf("shut the file system down: %w", errno)
	}
	// Who has files open on it gets errors now, and shall close them.
	for began := time.Now(); ; <-time.After(5 * time.Millisecond) {
		err := unix.Unmount(at, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) || time.Since(began) > 3*time.Second {
			return fmt.Errorf("unmount the file system that was shut down: %w", err)
		}
	}
	return mountLoop(dev, at, uid)
}

// ShutdownDisk takes from the node's own file system what is not on its device,
// as a power loss does, and mounts it again. The target does not run. It matches
// [errors.ErrUnsupported] without [Config.Loop].
func (n *Node) ShutdownDisk(ctx context.Context) error {
	if !n.box.c.cfg.Loop {
		return fmt.Errorf("shut down the disk of %s: it is not its own: %w", n.name, errors.ErrUnsupported)
	}
	n.box.remounts.Add(1)
	defer n.box.remounts.Add(1)
	if _, err := n.box.call(ctx, order{Verb: verbShut}); err != nil {
		return fmt.Errorf("shut down the disk of %s: %w", n.name, err)
	}
	return nil
}

// OwnDisk says whether the node's disk is a file system of its own.
func (n *Node) OwnDisk() bool { return n.box.c.cfg.Loop }
