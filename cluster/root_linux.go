package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/dm"
	"brownout/internal/sys/mount"
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

// buildRoot gives this process, which is alone in a new mount namespace, a root
// directory of its own, made of memory and read-only views of the host.
// Nothing of it is seen outside, and it goes away with the namespace.
func buildRoot(s *setup) error {
	r := s.Dir // an existing directory, covered in this namespace only
	if s.Block != "" {
		if err := mountBlock(s.Block, filepath.Join(r, "data")); err != nil {
			return err
		}
	}
	data, err := os.OpenFile(filepath.Join(r, "data"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer data.Close()
	if s.Loop {
		if s.loop, err = dm.Attach(filepath.Join(r, loopImage)); err != nil {
			return err
		}
	}
	notes, err := os.OpenFile(filepath.Join(r, notesDir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer notes.Close()
	disk := "data"
	devices := []string{"null", "zero", "full", "random", "urandom", "tty"}
	if s.Disk == DiskSlowFS {
		disk = backing
		devices = append(devices, "fuse") // for init alone
	}
	at := func(p string) string { return filepath.Join(r, p) }
	for _, step := range []func() error{
		mount.Private,
		func() error { return mount.Tmpfs(r, rootBytes, 0o755) },
		func() error { return makeDirs(r, s) },
		func() error {
			for _, t := range hostTrees {
				if err := mount.Tree(r, t); err != nil {
					return err
				}
			}
			return nil
		},
		func() error { return makeEtc(r, s) },
		func() error { return mount.Devices(at("dev"), devices...) },
		func() error { return links(at("dev")) },
		func() error { return mount.Proc(at("proc")) },
		func() error { return attachSelf(at(brownout)) },
		func() error {
			if s.loop != nil {
				return mountLoop(s.loop, at(disk), s.UID)
			}
			return mount.Bind(fmt.Sprintf("/proc/self/fd/%d", data.Fd()), at(disk))
		},
		func() error {
			return mount.Bind(fmt.Sprintf("/proc/self/fd/%d", notes.Fd()), at(notesDir))
		},
		func() error { return unix.Sethostname([]byte(s.Name)) },
		func() error { return mount.Pivot(r) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
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
		{notesDir, 0o755, s.UID},
		{"root", 0o700, 0},
	} {
		p := filepath.Join(r, d.path)
		if err := errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, d.mode), os.Lchown(p, d.uid, d.uid)); err != nil {
			return err
		}
	}
	return nil
}

// attachSelf shows this binary at a path. The path of our own program leads to
// a mount of the namespace that we came from, which cannot be bound here: so
// the supervisor gives us one that is mounted nowhere.
func attachSelf(at string) error {
	if err := os.WriteFile(at, nil, 0o555); err != nil {
		return err
	}
	if err := unix.MoveMount(fdExe, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("show this binary: %w", err)
	}
	return unix.Close(fdExe)
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
	own := map[string]string{
		"hostname":      s.Name + "\n",
		"hosts":         s.Hosts,
		"resolv.conf":   "",               // nobody to ask: names are in hosts
		"nsswitch.conf": "hosts: files\n", // so that an unknown name is an error at once
		"passwd":        fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\n%s:x:%d:%d:node:/data:/bin/sh\n", s.Name, s.UID, s.UID),
		"group":         fmt.Sprintf("root:x:0:\n%s:x:%d:\n", s.Name, s.UID),
	}
	etc := filepath.Join(r, "etc")
	for name, content := range own {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir("/etc")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := mount.BindReadOnly("/etc", filepath.Join(r, hostEtc)); err != nil {
		return err
	}
	for _, e := range entries {
		if _, is := own[e.Name()]; is {
			continue
		}
		if err := os.Symlink(filepath.Join(hostEtc, e.Name()), filepath.Join(etc, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// links makes those names in /dev that are links into /proc.
func links(dev string) error {
	for _, l := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}} {
		if err := os.Symlink(l[0], filepath.Join(dev, l[1])); err != nil {
			return err
		}
	}
	return nil
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
