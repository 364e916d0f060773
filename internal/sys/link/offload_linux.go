package link

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
)

// offloads by their names in ethtool(8), and the commands that read them
// (linux/ethtool.h).
var offloads = map[string]uint32{
	"rx-checksumming": 0x14, "tx-checksumming": 0x16, "scatter-gather": 0x18,
	"tcp-segmentation-offload": 0x1e, "generic-segmentation-offload": 0x23, "generic-receive-offload": 0x2b,
}

// Offloads says which offloads of a device in ns are on.
func Offloads(ns *os.File, device string) (map[string]bool, error) {
	on := map[string]bool{}
	err := netns.Do(ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for name, command := range offloads {
			value := struct{ command, data uint32 }{command: command}
			var req struct { // struct ifreq
				name [unix.IFNAMSIZ]byte
				data unsafe.Pointer
				_    [16]byte
			}
			copy(req.name[:unix.IFNAMSIZ-1], device)
			req.data = unsafe.Pointer(&value)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
				return fmt.Errorf("read %s of %s: %w", name, device, errno)
			}
			on[name] = value.data != 0
		}
		return nil
	})
	return on, err
}
