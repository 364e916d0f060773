package kvserver

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes the file's bytes durable.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == unix.EINTR {
			continue
		}
		return os.NewSyscallError("fdatasync", err)
	}
}
