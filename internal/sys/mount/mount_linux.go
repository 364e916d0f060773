package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Private cuts the propagation of mounts between this namespace and all
// others, both ways. systemd makes / shared, and new namespaces inherit that.
func Private() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// Bind shows from at to, with everything mounted below it. Both must exist and
// be of the same sort.
func Bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

// BindReadOnly is Bind with everything read-only and without set-user-ID
// programs. Before Linux 5.12 what is mounted below from stays as it was.
func BindReadOnly(from, to string) error {
	if err := Bind(from, to); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	err := unix.MountSetattr(-1, to, unix.AT_RECURSIVE, &attr)
	if errors.Is(err, unix.ENOSYS) {
		err = unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID, "")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make %s read-only: %w", to, err), unix.Unmount(to, unix.MNT_DETACH))
	}
	return nil
}

// Tmpfs mounts memory of at most size bytes at a directory, whose root gets mode.
func Tmpfs(at string, size int64, mode os.FileMode) error {
	if err := unix.Mount("brownout", at, "tmpfs", unix.MS_NOSUID, fmt.Sprintf("mode=%o,size=%d", mode.Perm(), size)); err != nil {
		return fmt.Errorf("mount memory at %s: %w", at, err)
	}
	return nil
}

// Proc mounts the /proc of this process's PID namespace at a directory.
func Proc(at string) error {
	if err := unix.Mount("proc", at, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount proc at %s: %w", at, err)
	}
	return nil
}

// A device is a character device that programs expect.
type device struct {
	name         string
	major, minor uint32
	mode         uint32
}

var known = []device{
	{"null", 1, 3, 0o666},
	{"zero", 1, 5, 0o666},
	{"full", 1, 7, 0o666},
	{"random", 1, 8, 0o666},
	{"urandom", 1, 9, 0o666},
	{"tty", 5, 0, 0o666},
	{"fuse", 10, 229, 0o600},
}

// Devices makes the named devices in a directory on a file system without
// nodev, for example [Tmpfs]: null, zero, full, random, urandom, tty, fuse. In
// a container that may not make devices, those that it has are shown instead;
// one that it does not have is an error matching [os.ErrNotExist].
func Devices(dir string, names ...string) error {
	for _, name := range names {
		i := slices.IndexFunc(known, func(d device) bool { return d.name == name })
		if i < 0 {
			return fmt.Errorf("make device %s: not known", name)
		}
		d, p := known[i], filepath.Join(dir, name)
		err := unix.Mknod(p, unix.S_IFCHR|d.mode, int(unix.Mkdev(d.major, d.minor)))
		if err == nil {
			err = os.Chmod(p, os.FileMode(d.mode)) // past the umask
		} else if errors.Is(err, unix.EPERM) {
			err = bindDevice(filepath.Join("/dev", name), p)
		}
		if err != nil {
			return fmt.Errorf("make device %s: %w", name, err)
		}
	}
	return nil
}

func bindDevice(from, to string) error {
	if _, err := os.Stat(from); err != nil {
		return err
	}
	if err := os.WriteFile(to, nil, 0o600); err != nil {
		return err
	}
	return Bind(from, to)
}

// Tree shows one of the host's top directories read-only below root, at the
// same path. Where it is a link (as /bin to usr/bin is on most hosts) the link
// is made instead. A directory that the host does not have is left out.
func Tree(root, dir string) error {
	st, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	to := filepath.Join(root, dir)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if st.Mode()&os.ModeSymlink != 0 {
		link, err := os.Readlink(dir)
		if err != nil {
			return err
		}
		return os.Symlink(link, to)
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return BindReadOnly(dir, to)
}

// Pivot makes dir, which must be a mount point, the root of this namespace, and
// lets go of the old root with all that is mounted in it.
func Pivot(dir string) error {
	// Both at one place: the old root is mounted over the new and taken off
	// again, so no directory is needed to put it in; pivot_root(2).
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("pivot to %s: %w", dir, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to %s: %w", dir, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Chdir("/")
}

// Points returns the mount points that this process sees at or below dir, in
// the order they were mounted.
func Points(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	undo := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var ps []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		p := undo.Replace(f[1])
		if p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") {
			ps = append(ps, p)
		}
	}
	return ps, nil
}
