package cgroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/proc"
	"brownout/internal/sys/unsupported"
)

// A Group is one name in every hierarchy that can be written to.
//
// On v2 a group that has children must hold no processes itself (the rule of
// "no internal processes"): put processes into leaves only. The same layout
// works on v1.
//
// Methods may be called concurrently; the kernel orders them.
type Group struct {
	host *Host
	name string
	dirs []dir
	lib  cgroup1.Cgroup   // the v1 hierarchies that containerd/cgroups can find; nil if there are none
	uni  *cgroup2.Manager // the v2 hierarchy; nil if there is none
}

// A dir is the group in one hierarchy.
type dir struct {
	path string
	h    *hierarchy
	lib  bool // containerd/cgroups does this one
}

// Create makes the group, its name being one of ours: "bo-<id>", or "bo-<id>/n1"
// with its parents. A group that exists already is an error matching
// [os.ErrExist]. On error nothing of the last element of name is left.
func (h *Host) Create(name string) (*Group, error) {
	g, err := h.group(name)
	if err != nil {
		return nil, err
	}
	for _, d := range g.dirs {
		if _, err := os.Lstat(d.path); err == nil {
			return nil, fmt.Errorf("create cgroup %s: %w", d.path, os.ErrExist)
		}
	}
	if err := g.create(); err != nil {
		for _, d := range slices.Backward(g.dirs) {
			_ = unix.Rmdir(d.path)
		}
		return nil, fmt.Errorf("create cgroup %s: %w", name, err)
	}
	return g, nil
}

// Open returns a group that exists in at least one hierarchy, or an error
// matching [os.ErrNotExist].
func (h *Host) Open(name string) (*Group, error) {
	g, err := h.group(name)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(g.dirs, func(d dir) bool { _, err := os.Lstat(d.path); return err == nil }) {
		return nil, fmt.Errorf("open cgroup %s: %w", name, os.ErrNotExist)
	}
	if slices.ContainsFunc(g.dirs, func(d dir) bool { return d.lib }) {
		lib, err := cgroup1.Load(cgroup1.StaticPath("/"+name), cgroup1.WithHierarchy(g.subsystems))
		if err != nil && !errors.Is(err, cgroup1.ErrCgroupDeleted) {
			return nil, fmt.Errorf("open cgroup %s: %w", name, err)
		}
		if err == nil {
			g.lib = lib
		}
	}
	if v2 := h.v2(); v2 != nil && v2.writable {
		if g.uni, err = cgroup2.Load("/"+name, cgroup2.WithMountpoint(v2.dir)); err != nil {
			return nil, fmt.Errorf("open cgroup %s: %w", name, err)
		}
	}
	return g, nil
}

// group names the group's directories.
func (h *Host) group(name string) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	g := &Group{host: h, name: name}
	for i := range h.hs {
		hi := &h.hs[i]
		if hi.writable {
			g.dirs = append(g.dirs, dir{path: filepath.Join(hi.dir, name), h: hi, lib: hi.version == 1 && standard(hi)})
		}
	}
	if len(g.dirs) == 0 {
		return nil, &unsupported.Error{
			What: "cgroups",
			Why:  "no hierarchy of v1 or v2 can be written to",
			Cure: "run as root; in a container: --privileged, or mount the cgroup file system read-write",
		}
	}
	return g, nil
}

// standard says whether containerd/cgroups finds the hierarchy: it takes all v1
// controllers to be below one directory, each by its own name.
func standard(h *hierarchy) bool {
	at, err := os.Stat(h.dir)
	if err != nil {
		return false
	}
	for _, c := range h.controllers {
		by, err := os.Stat(filepath.Join(filepath.Dir(h.dir), c))
		if err != nil || !os.SameFile(at, by) {
			return false
		}
	}
	return true
}

// subsystems are the controllers that containerd/cgroups shall use. By itself
// it would take all it finds below the first cgroup mount, whichever that is,
// and create parents in all of them (cgroup1.Default).
func (g *Group) subsystems() ([]cgroup1.Subsystem, error) {
	var ss []cgroup1.Subsystem
	for _, d := range g.dirs {
		if !d.lib {
			continue
		}
		root := filepath.Dir(d.h.dir)
		for _, c := range d.h.controllers {
			switch c {
			case "cpu":
				ss = append(ss, cgroup1.NewCpu(root))
			case "cpuacct":
				ss = append(ss, cgroup1.NewCpuacct(root))
			case "memory":
				ss = append(ss, cgroup1.NewMemory(root))
			case "freezer":
				ss = append(ss, cgroup1.NewFreezer(root))
			case "pids":
				ss = append(ss, cgroup1.NewPids(root))
			case "blkio":
				ss = append(ss, cgroup1.NewBlkio(root))
			case "cpuset": // takes CPUs and memory nodes over from the parent, without which nobody can enter
				ss = append(ss, cgroup1.NewCpuset(root))
			}
		}
	}
	return ss, nil
}

func (g *Group) create() (err error) {
	if slices.ContainsFunc(g.dirs, func(d dir) bool { return d.lib }) {
		g.lib, err = cgroup1.New(cgroup1.StaticPath("/"+g.name), &specs.LinuxResources{}, cgroup1.WithHierarchy(g.subsystems))
		if err != nil {
			return err
		}
	}
	for _, d := range g.dirs {
		switch {
		case d.lib:
		case d.h.version == 1: // mounted where containerd/cgroups does not look
			if err := os.MkdirAll(d.path, 0o755); err != nil {
				return err
			}
			if slices.Contains(d.h.controllers, "cpuset") {
				if err := inheritCPUs(d); err != nil {
					return err
				}
			}
		default:
			if err := g.createUnified(d); err != nil {
				return err
			}
		}
	}
	for _, d := range g.dirs { // read back: a directory can be made anywhere
		if v := g.host.k.version(d.path); v != d.h.version {
			return fmt.Errorf("%s is not in a cgroup v%d file system", d.path, d.h.version)
		}
	}
	return nil
}

// inheritCPUs gives a v1 cpuset and those above it, up to the hierarchy's root,
// what their parents have: nobody can enter one that is empty.
func inheritCPUs(d dir) error {
	rel, err := filepath.Rel(d.h.dir, d.path)
	if err != nil {
		return err
	}
	at := d.h.dir
	for part := range strings.SplitSeq(rel, "/") {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := readSmall(filepath.Join(at, file))
			if err != nil {
				return err
			}
			own := filepath.Join(at, part, file)
			if has, err := readSmall(own); err != nil || len(strings.TrimSpace(string(has))) > 0 {
				if err != nil {
					return err
				}
				continue
			}
			if err := write(own, strings.TrimSpace(string(b))); err != nil {
				return err
			}
		}
		at = filepath.Join(at, part)
	}
	return nil
}

// createUnified makes the group in the v2 hierarchy with those of our
// controllers that are there. On hybrid hosts that is none of them, and
// cgroup2's NewManager would fail with ENOENT when asked for any, so it makes
// the directory only and the controllers are chosen here.
func (g *Group) createUnified(d dir) (err error) {
	if g.uni, err = cgroup2.NewManager(d.h.dir, "/"+g.name, &cgroup2.Resources{}); err != nil {
		return enableError(d.h.dir, err)
	}
	want := slices.DeleteFunc(slices.Clone(d.h.controllers), func(c string) bool { return !slices.Contains(used, c) })
	if len(want) == 0 {
		return nil
	}
	if err := g.uni.ToggleControllers(want, cgroup2.Enable); err != nil {
		return enableError(filepath.Dir(d.path), err)
	}
	got, err := g.uni.Controllers()
	if err != nil {
		return err
	}
	for _, c := range want {
		if !slices.Contains(got, c) {
			return &unsupported.Error{
				What: c + " controller",
				Why:  fmt.Sprintf("%s was enabled for %s, which does not show it", c, d.path),
				Cure: "see that nothing else manages " + d.h.dir + " (systemd: Delegate=yes)",
			}
		}
	}
	return nil
}

// enableError says what can be done when controllers cannot be handed on to
// children. The kernel refuses with EBUSY while processes live in the parent,
// unless that is the root of all.
func enableError(parent string, err error) error {
	switch {
	case errors.Is(err, syscall.EBUSY):
		return &unsupported.Error{
			What: "cgroup v2 controllers",
			Why:  fmt.Sprintf("processes live in %s itself, so it cannot hand controllers on (%v)", parent, err),
			Cure: fmt.Sprintf("systemd-run -p Delegate=yes --scope …; or in a container, before anything else: mkdir %[1]s/init && for p in $(cat %[1]s/cgroup.procs); do echo $p > %[1]s/init/cgroup.procs; done", parent),
		}
	case errors.Is(err, syscall.EOPNOTSUPP):
		return &unsupported.Error{
			What: "cgroup v2 controllers",
			Why:  fmt.Sprintf("%s is threaded (%v)", parent, err),
			Cure: "run outside of threaded cgroups",
		}
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &unsupported.Error{
			What: "cgroup v2 controllers",
			Why:  fmt.Sprintf("%s cannot be written to (%v)", parent, err),
			Cure: "run as root; in a container: --privileged, or mount the cgroup file system read-write",
		}
	}
	return err
}

// Child makes a group below this one.
func (g *Group) Child(name string) (*Group, error) { return g.host.Create(g.name + "/" + name) }

// Name returns the group's name, with those of its parents.
func (g *Group) Name() string { return g.name }

// Paths returns the group's directories, v1 and v2.
func (g *Group) Paths() []string {
	var ps []string
	for _, d := range g.dirs {
		ps = append(ps, d.path)
	}
	return ps
}

// Dir returns the group's directory of a controller, and the version it is of.
func (g *Group) Dir(controller string) (path string, version int, err error) {
	c, err := g.host.Controller(controller)
	if err != nil {
		return "", 0, err
	}
	return filepath.Join(c.Dir, g.name), c.Version, nil
}

// v2 returns the group's directory in the unified hierarchy, "" if there is none.
func (g *Group) v2() string {
	for _, d := range g.dirs {
		if d.h.version == 2 {
			return d.path
		}
	}
	return ""
}

// v1 returns the group's directory of a v1 controller, "" if there is none.
func (g *Group) v1(controller string) string {
	for _, d := range g.dirs {
		if d.h.version == 1 && slices.Contains(d.h.controllers, controller) {
			return d.path
		}
	}
	return ""
}

// ProcsFiles opens cgroup.procs of every hierarchy for writing. A process that
// holds them moves itself into the group by writing "0" to each.
func (g *Group) ProcsFiles() ([]*os.File, error) {
	return g.open("cgroup.procs", func(dir) bool { return true })
}

// TasksFiles opens the tasks file of every v1 hierarchy for writing. A thread
// that writes "0" to each is in the group alone, without the rest of its
// process, and so are the processes that it starts. For v2, see V2Dir.
func (g *Group) TasksFiles() ([]*os.File, error) {
	return g.open("tasks", func(d dir) bool { return d.h.version == 1 })
}

func (g *Group) open(name string, which func(dir) bool) ([]*os.File, error) {
	var fs []*os.File
	for _, d := range g.dirs {
		if !which(d) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(d.path, name), os.O_WRONLY, 0)
		if err != nil {
			for _, f := range fs {
				f.Close()
			}
			return nil, fmt.Errorf("open group %s: %w", g.name, err)
		}
		fs = append(fs, f)
	}
	return fs, nil
}

// V2Dir opens the group's directory in the v2 hierarchy, for
// [syscall.SysProcAttr].CgroupFD: a process can be born in it. It returns nil
// and no error on hosts without one.
func (g *Group) V2Dir() (*os.File, error) {
	p := g.v2()
	if p == "" {
		return nil, nil
	}
	return os.Open(p)
}

// Add moves a process into the group, in every hierarchy.
func (g *Group) Add(pid int) error {
	for _, d := range g.dirs {
		if err := write(filepath.Join(d.path, "cgroup.procs"), fmt.Sprint(pid)); err != nil {
			return fmt.Errorf("move process %d into group %s: %w", pid, g.name, err)
		}
	}
	return nil
}

// Pids returns the processes in the group and below it, ascending.
func (g *Group) Pids() ([]int, error) {
	var all []int
	for _, d := range g.dirs {
		for _, sub := range tree(d.path) {
			ps, err := pids(filepath.Join(sub, "cgroup.procs"))
			if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
				return nil, fmt.Errorf("list group %s: %w", g.name, err)
			}
			all = append(all, ps...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// tree returns dir and all groups below it, parents first. What vanishes
// meanwhile is left out.
func tree(dir string) []string {
	var ds []string
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			ds = append(ds, p)
		}
		return nil
	})
	return ds
}

// Kill sends SIGKILL to every process in the group and below it, also to those
// that they start meanwhile. A process that a v1 freezer holds dies when it is
// thawed. It does not wait.
//
// NB: cgroup.kill would do it at once, but is not used: in a group that it was
// ever written to, every process that is born there later by CLONE_INTO_CGROUP
// is killed at its birth (seen on Linux 6.18; the kernel compares the group's
// count of kills with that of the parent's group), so a node could not be
// started again.
func (g *Group) Kill() error {
	if in, err := g.holds(os.Getpid()); err != nil || in {
		return fmt.Errorf("kill group %s: this process is in it: %w", g.name, cmp.Or(err, error(syscall.EDEADLK)))
	}
	var errs []error
	seen := map[int]bool{}
	for range 100 { // who forks faster than that is for Delete
		ps, err := g.Pids()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range ps {
			if seen[pid] {
				continue
			}
			seen[pid], fresh = true, true
			if err := g.kill(pid); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		if !fresh {
			break
		}
	}
	return errors.Join(errs...)
}

// kill kills a process if it is in the group still: by the time it is opened
// its number may be that of another.
func (g *Group) kill(pid int) error {
	p, err := proc.Open(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	in, err := g.holds(pid)
	if err != nil || !in {
		return err
	}
	return p.Signal(syscall.SIGKILL)
}

// holds says whether a process is in the group or below it, in any hierarchy.
func (g *Group) holds(pid int) (bool, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false, err
	}
	own, err := parseOwn(string(b))
	if err != nil {
		return false, err
	}
	for _, p := range own {
		// The start of the path depends on where the hierarchy is mounted; our name does not.
		if strings.Contains(p+"/", "/"+g.name+"/") {
			return true, nil
		}
	}
	return false, nil
}

// DeleteWithin bounds [Group.Delete] when its context does not.
const DeleteWithin = 5 * time.Second

// Delete kills what is in the group and removes it with all groups below it.
// Frozen processes are thawed first: those of a v1 freezer would not die. A
// group that is gone is no error. What is left when ctx or [DeleteWithin] ends
// is in the error.
func (g *Group) Delete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, DeleteWithin)
	defer cancel()
	var last error
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left, err := g.remove()
		if left == 0 {
			return nil
		}
		last = err
		g.release()
		if err := g.Kill(); err != nil {
			last = errors.Join(last, err)
		}
		if err := wait(ctx, pause); err != nil {
			return fmt.Errorf("delete group %s: %w (%w)", g.name, last, err)
		}
	}
}

// remove tries to remove every directory, deepest first.
func (g *Group) remove() (left int, err error) {
	var errs []error
	for _, d := range g.dirs {
		for _, sub := range slices.Backward(tree(d.path)) {
			// rmdir(2) itself: os.Remove would try unlink first, os.RemoveAll the files inside.
			if err := unix.Rmdir(sub); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, &os.PathError{Op: "remove", Path: sub, Err: err})
			}
		}
	}
	return len(errs), errors.Join(errs...)
}

// release lets go of everybody that is held by the group itself.
func (g *Group) release() {
	for _, d := range g.dirs {
		for _, sub := range tree(d.path) {
			if d.h.version == 2 {
				_ = write(filepath.Join(sub, "cgroup.freeze"), "0")
				continue
			}
			if slices.Contains(d.h.controllers, "freezer") {
				_ = write(filepath.Join(sub, "freezer.state"), "THAWED")
			}
			if slices.Contains(d.h.controllers, "memory") {
				_ = write(filepath.Join(sub, "memory.oom_control"), "0") // wakes who waits for memory
			}
		}
	}
}

// wait returns after d, or earlier with ctx's error.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write writes a value to a cgroup file in one call. Unlike [os.WriteFile] it
// does not create: in a directory that is not a cgroup that would succeed.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
