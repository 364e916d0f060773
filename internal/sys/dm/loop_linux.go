package dm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/unsupported"
)

// A Loop is a block device whose content is a file. It goes away with its last
// user; the Loop itself is one until it is closed.
type Loop struct{ f *os.File }

// Attach makes a file a block device.
func Attach(file string) (*Loop, error) {
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, &unsupported.Error{What: "loop device", Why: err.Error(), Cure: "modprobe loop (CONFIG_BLK_DEV_LOOP); in a container: --privileged"}
	}
	defer ctl.Close()
	const tries = 20 // others take free ones, too
	for range tries {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		f, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, &unsupported.Error{What: "loop device", Why: err.Error(), Cure: "in a container: --privileged, with the host's /dev"}
		}
		cfg := unix.LoopConfig{Fd: uint32(back.Fd())}
		cfg.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		copy(cfg.Info.File_name[:len(cfg.Info.File_name)-1], file)
		err = unix.IoctlLoopConfigure(int(f.Fd()), &cfg)
		if err == nil {
			return &Loop{f}, nil
		}
		f.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to %s: %w", file, f.Name(), err)
		}
	}
	return nil, fmt.Errorf("attach %s: no loop device stayed free in %d tries", file, tries)
}

// Path of the device.
func (l *Loop) Path() string { return l.f.Name() }

// Source is a path to it in whatever mount namespace this process is.
func (l *Loop) Source() string { return fmt.Sprintf("/proc/self/fd/%d", l.f.Fd()) }

// Close ends this use of the device.
func (l *Loop) Close() error { return l.f.Close() }
