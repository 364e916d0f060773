package seccomp

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Path is where a system call has a path.
type Path struct{ arg, dir int }

// Syncs, Writes and Reads begin with a file descriptor.
var (
	Syncs  = []int{unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE}
	Writes = []int{unix.SYS_PWRITE64, unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2}
	Reads  = []int{unix.SYS_PREAD64, unix.SYS_READ, unix.SYS_READV, unix.SYS_PREADV, unix.SYS_PREADV2}
)

// Where returns the path of the file that a call is about, as the caller sees
// it; what is no file has another form, as "pipe:[7]". The caller may change its
// memory at any time: for who is not to be fooled this is no protection.
func (c Call) Where() (string, error) {
	p, ok := Opens[c.NR]
	if !ok {
		p, ok = Renames[c.NR]
	}
	if !ok {
		return os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.TID, int32(c.Args[0])))
	}
	path, err := c.text(c.Args[p.arg])
	if err != nil || filepath.IsAbs(path) {
		return filepath.Clean(path), err
	}
	dir := fmt.Sprintf("/proc/%d/cwd", c.TID)
	if p.dir >= 0 && int32(c.Args[p.dir]) != unix.AT_FDCWD {
		dir = fmt.Sprintf("/proc/%d/fd/%d", c.TID, int32(c.Args[p.dir]))
	}
	if dir, err = os.Readlink(dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, path), nil
}

// text reads a string of the caller.
func (c Call) text(at uint64) (string, error) {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", c.TID))
	if err != nil {
		return "", err
	}
	defer mem.Close()
	var out []byte
	for len(out) < unix.PathMax {
		chunk := make([]byte, 256-at%256) // never beyond a page that need not be there
		n, err := mem.ReadAt(chunk, int64(at))
		if i := bytes.IndexByte(chunk[:n], 0); i >= 0 {
			return string(append(out, chunk[:i]...)), nil
		}
		if err != nil {
			return "", err
		}
		out, at = append(out, chunk[:n]...), at+uint64(n)
	}
	return "", unix.ENAMETOOLONG
}
