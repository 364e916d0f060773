package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Places inside a box that are the testbed's own. The target cannot look into private.
const (
	private   = "/.brownout"      // mode 0700
	backing   = private + "/disk" // what /data is served from
	hostEtc   = private + ".etc"  // the host's /etc, read-only
	brownout  = "/brownout"       // this binary; a Command calls it /bin/brownout, see program
	rootBytes = 64 << 20          // of the box's root file system: /tmp, /run, /etc
)

// hostTrees are seen read-only inside a box, so that any program of the host runs there.
var hostTrees = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix"}

// ownEtc are the files of /etc that a box has of its own.
var ownEtc = map[string]string{
	"hostname":      "", // filled in
	"hosts":         "",
	"resolv.conf":   "",               // nobody to ask: names are in hosts
	"nsswitch.conf": "hosts: files\n", // so that an unknown name is an error at once
	"passwd":        "",
	"group":         "",
	"mtab":          "",
}

// A step is one action of building the root, for errors.
type step struct {
	what string
	do   func() error
}

func inOrder(steps ...step) error {
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// buildRoot gives this process, which is alone in a new mount namespace, a root
// directory of its own, made of memory and read-only views of the host.
// Nothing of it is seen outside, and it goes away with the namespace.
func buildRoot(s *setup) error {
	r := s.Dir // an existing directory, covered in this namespace only
	data, err := os.OpenFile(filepath.Join(r, "data"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer data.Close()
	at := func(p string) string { return filepath.Join(r, p) }
	err = inOrder(
		step{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		step{"mount root", func() error {
			return unix.Mount("brownout", r, "tmpfs", unix.MS_NOSUID, fmt.Sprintf("mode=755,size=%d", rootBytes))
		}},
		step{"make directories", func() error { return makeDirs(r, s) }},
		step{"show the host's programs", func() error { return bindTrees(r) }},
		step{"make /etc", func() error { return makeEtc(r, s) }},
		step{"make /dev", func() error { return makeDev(r) }},
		step{"mount /proc", func() error {
			return unix.Mount("proc", at("proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}},
		step{"show this binary", func() error {
			if err := os.WriteFile(at(brownout), nil, 0o555); err != nil {
				return err
			}
			// The path of our own program leads to a mount of the namespace that we
			// came from, which cannot be bound here.
			if err := unix.MoveMount(fdExe, "", unix.AT_FDCWD, at(brownout), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return err
			}
			return unix.Close(fdExe)
		}},
		step{"show the disk", func() error {
			to := "data"
			if s.Disk == DiskSlowFS {
				to = backing
			}
			return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", data.Fd()), at(to), "", unix.MS_BIND, "")
		}},
		step{"set host name", func() error { return unix.Sethostname([]byte(s.Name)) }},
	)
	if err != nil {
		return err
	}
	return pivot(r)
}

// pivot makes dir the root and forgets the old one.
func pivot(dir string) error {
	return inOrder(
		step{"enter new root", func() error { return os.Chdir(dir) }},
		step{"pivot root", func() error { return unix.PivotRoot(".", ".") }},
		step{"leave old root", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
		step{"enter /", func() error { return os.Chdir("/") }},
	)
}

func makeDirs(r string, s *setup) error {
	for _, d := range []struct {
		path string
		mode os.FileMode
		uid  int
	}{
		{private, 0o700, 0},
		{backing, 0o700, s.UID},
		{hostEtc, 0o755, 0},
		{"etc", 0o755, 0},
		{"dev", 0o755, 0},
		{"dev/shm", 0o777 | os.ModeSticky, 0},
		{"proc", 0o555, 0},
		{"tmp", 0o777 | os.ModeSticky, 0},
		{"var", 0o755, 0},
		{"var/tmp", 0o777 | os.ModeSticky, 0},
		{"run", 0o755, s.UID}, // admin socket
		{"data", 0o700, s.UID},
		{"root", 0o700, 0},
	} {
		p := filepath.Join(r, d.path)
		if err := errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, d.mode), os.Lchown(p, d.uid, d.uid)); err != nil {
			return err
		}
	}
	return nil
}

// bindTrees shows the host's program directories read-only. On most hosts some
// of them are links into /usr.
func bindTrees(r string) error {
	for _, tree := range hostTrees {
		st, err := os.Lstat(tree)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		to := filepath.Join(r, tree)
		if st.Mode()&os.ModeSymlink != 0 {
			link, err := os.Readlink(tree)
			if err == nil {
				err = os.Symlink(link, to)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if err := bindReadOnly(tree, to); err != nil {
			return fmt.Errorf("bind %s: %w", tree, err)
		}
	}
	return nil
}

// bindReadOnly shows from at to, with all that is mounted below it, read-only.
func bindReadOnly(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	err := unix.MountSetattr(-1, to, unix.AT_RECURSIVE, &attr)
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.12: without what is mounted below
		err = unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID, "")
	}
	return err
}

// detached returns a mount of path that is nowhere yet, for a child to attach.
func detached(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("detach a mount of %s: %w", path, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil && !errors.Is(err, unix.ENOSYS) {
		unix.Close(fd)
		return nil, fmt.Errorf("make the mount of %s read-only: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// makeEtc fills /etc with links to the host's files, except for the few that
// say who the box is and how it finds others.
func makeEtc(r string, s *setup) error {
	entries, err := os.ReadDir("/etc")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		if err := bindReadOnly("/etc", filepath.Join(r, hostEtc)); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if _, own := ownEtc[e.Name()]; own {
			continue
		}
		if err := os.Symlink(filepath.Join(hostEtc, e.Name()), filepath.Join(r, "etc", e.Name())); err != nil {
			return err
		}
	}
	for name, content := range ownEtc {
		switch name {
		case "hostname":
			content = s.Name + "\n"
		case "hosts":
			content = s.Hosts
		case "passwd":
			content = fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\n%s:x:%d:%d:node:/data:/bin/sh\n", s.Name, s.UID, s.UID)
		case "group":
			content = fmt.Sprintf("root:x:0:\n%s:x:%d:\n", s.Name, s.UID)
		case "mtab":
			if err := os.Symlink("../proc/self/mounts", filepath.Join(r, "etc", name)); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(filepath.Join(r, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeDev makes the few devices that programs expect. /dev/fuse is for init alone.
func makeDev(r string) error {
	for _, d := range []struct {
		name         string
		major, minor uint32
		mode         uint32
	}{
		{"null", 1, 3, 0o666},
		{"zero", 1, 5, 0o666},
		{"full", 1, 7, 0o666},
		{"random", 1, 8, 0o666},
		{"urandom", 1, 9, 0o666},
		{"tty", 5, 0, 0o666},
		{"fuse", 10, 229, 0o600},
	} {
		p := filepath.Join(r, "dev", d.name)
		err := unix.Mknod(p, unix.S_IFCHR|d.mode, int(unix.Mkdev(d.major, d.minor)))
		if err == nil {
			err = os.Chmod(p, os.FileMode(d.mode)) // past the umask
		} else if errors.Is(err, unix.EPERM) { // a container without the right to make devices may still have them
			err = bindDevice("/dev/"+d.name, p)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	for _, l := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}} {
		if err := os.Symlink(l[0], filepath.Join(r, "dev", l[1])); err != nil {
			return err
		}
	}
	return nil
}

func bindDevice(from, to string) error {
	if _, err := os.Stat(from); err != nil {
		return nil // whoever needs it will say so
	}
	if err := os.WriteFile(to, nil, 0o600); err != nil {
		return err
	}
	return unix.Mount(from, to, "", unix.MS_BIND, "")
}

// hosts is /etc/hosts of every box and of the client: all nodes by name.
func hosts(nodes []*Node, client int) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s %s\n%s %s\n", n.IP4(), n.name, n.IP6(), n.name)
	}
	fmt.Fprintf(&b, "%s %s\n%s %s\n", IP4(client), ClientName, IP6(client), ClientName)
	return b.String()
}
