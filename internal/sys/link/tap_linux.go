package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
	"brownout/internal/sys/unsupported"
)

const tun = "/dev/net/tun"

// Tap makes a TAP device inside ns and returns its file, non-blocking, whose
// frames carry a virtio-net header of 10 bytes in native order. The kernel may
// hand over unfinished checksums and whole TCP super-packets (and UDP ones, from
// 6.2), as the header says. The device lives as long as ns; while nobody reads
// it, frames sent to it go nowhere.
//
// The error is [errors.ErrUnsupported] where the host has no TUN.
func Tap(ns *os.File, name string) (*os.File, error) {
	var file *os.File
	err := netns.Do(ns, func() error {
		fd, err := openTun()
		if err != nil {
			return err
		}
		if err := makeTap(fd, name); err != nil {
			unix.Close(fd)
			return fmt.Errorf("make TAP %s: %w", name, err)
		}
		file = os.NewFile(uintptr(fd), tun)
		return nil
	})
	return file, err
}

// ProbeTap says whether the host can make a TAP, without making one:
// [errors.ErrUnsupported] if it cannot.
func ProbeTap() error {
	fd, err := openTun()
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// openTun opens the device by its number of the system, not through [os.Open]:
// it cannot be polled before it is a TAP, and Go would remember that.
func openTun() (int, error) {
	fd, err := unix.Open(tun, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return -1, &unsupported.Error{What: "TAP device", Why: tun + ": " + err.Error(), Cure: "modprobe tun; in a container also --device " + tun}
	case errors.Is(err, fs.ErrPermission):
		return -1, &unsupported.Error{What: "TAP device", Why: tun + ": " + err.Error(), Cure: "run as root; in a container add --device " + tun + " --cap-add NET_ADMIN"}
	default:
		return -1, fmt.Errorf("open %s: %w", tun, err)
	}
}

func makeTap(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	// Persistent, so that closing the file does not wait for the device's end,
	// some 20 ms; it goes with the namespace.
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("TUNSETPERSIST: %w", err)
	}
	const (
		tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
		udp = unix.TUN_F_USO4 | unix.TUN_F_USO6
	)
	// Without an offload the kernel splits super-packets itself: right, but slower.
	for _, offload := range []int{tcp | udp, tcp} {
		if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload); err == nil {
			return nil
		}
	}
	return fmt.Errorf("TUNSETOFFLOAD: %w", err)
}
