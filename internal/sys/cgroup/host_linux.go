package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/unsupported"
)

// A Host knows where the controllers of this host are. It does not change.
type Host struct {
	mode Mode
	hs   []hierarchy
	k    kernel
}

// Discover looks where the controllers are. That there are none is no error;
// that /proc cannot be read or parsed is.
func Discover() (*Host, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("discover cgroups: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if errors.Is(err, os.ErrNotExist) {
		return &Host{k: thisKernel{}}, nil // kernel without cgroups
	}
	if err != nil {
		return nil, fmt.Errorf("discover cgroups: %w", err)
	}
	return discover(string(mountinfo), string(own), thisKernel{})
}

func discover(mountinfo, own string, k kernel) (*Host, error) {
	ms, err := parseMounts(mountinfo)
	if err != nil {
		return nil, fmt.Errorf("discover cgroups: %w", err)
	}
	paths, err := parseOwn(own)
	if err != nil {
		return nil, fmt.Errorf("discover cgroups: %w", err)
	}
	hs, err := layOut(ms, paths, k)
	if err != nil {
		return nil, fmt.Errorf("discover cgroups: %w", err)
	}
	h := &Host{hs: hs, k: k}
	v1 := slices.ContainsFunc(hs, func(h hierarchy) bool { return h.version == 1 })
	v2 := slices.ContainsFunc(hs, func(h hierarchy) bool { return h.version == 2 })
	switch {
	case v1 && v2:
		h.mode = Hybrid
	case v1:
		h.mode = V1
	case v2:
		h.mode = V2
	}
	return h, nil
}

// thisKernel answers for the kernel we run on.
type thisKernel struct{}

func (thisKernel) version(dir string) int {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	switch st.Type {
	case unix.CGROUP_SUPER_MAGIC:
		return 1
	case unix.CGROUP2_SUPER_MAGIC:
		return 2
	}
	return 0
}

func (thisKernel) writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

func (thisKernel) controllers(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return strings.Fields(string(b)), err
}

// Mode says which versions are in use; "" if there are no cgroups.
func (h *Host) Mode() Mode { return h.mode }

// Controllers lists what there is, as "cpu:v1", sorted; ":ro" is added to what
// cannot be written to. A v2 hierarchy without any controller, which still
// freezes, kills and counts pressure, is "unified:v2".
func (h *Host) Controllers() []string {
	var cs []string
	for _, hi := range h.hs {
		names := hi.controllers
		if hi.version == 2 && len(names) == 0 {
			names = []string{"unified"}
		}
		for _, c := range names {
			s := fmt.Sprintf("%s:v%d", c, hi.version)
			if !hi.writable {
				s += ":ro"
			}
			cs = append(cs, s)
		}
	}
	slices.Sort(cs)
	return cs
}

// Controller says where a controller can be used. If it cannot, the error says
// why and what would help, and matches [errors.ErrUnsupported]. "blkio" is
// called "io" on v2; either name finds either.
func (h *Host) Controller(name string) (Controller, error) {
	alias := map[string]string{"blkio": "io", "io": "blkio"}[name]
	for _, hi := range h.hs {
		for _, c := range hi.controllers {
			if c != name && c != alias {
				continue
			}
			found := Controller{Name: c, Version: hi.version, Dir: hi.dir, Writable: hi.writable}
			if !hi.writable {
				return found, &unsupported.Error{
					What: c + " controller",
					Why:  fmt.Sprintf("v%d at %s is read-only", hi.version, hi.dir),
					Cure: "run as root; in a container: --privileged, or mount the cgroup file system read-write",
				}
			}
			return found, nil
		}
	}
	e := &unsupported.Error{What: name + " controller"}
	switch h.mode {
	case "":
		e.Why, e.Cure = "no cgroup file system is mounted", "mount cgroup2 on /sys/fs/cgroup"
	case V2:
		e.Why = "not among the controllers of " + h.v2().dir
		e.Cure = "in a container: --privileged --cgroupns=host, or delegate it (systemd: Delegate=yes); on a host: boot without cgroup_disable=" + name
	default:
		e.Why = "in no mounted hierarchy of cgroup v1 or v2"
		e.Cure = "mount -t cgroup -o " + name + " cgroup /sys/fs/cgroup/" + name
	}
	return Controller{}, e
}

// v2 returns the unified hierarchy, or nil.
func (h *Host) v2() *hierarchy {
	for i := range h.hs {
		if h.hs[i].version == 2 {
			return &h.hs[i]
		}
	}
	return nil
}

// v1 returns the v1 hierarchy of a controller, or nil.
func (h *Host) v1(controller string) *hierarchy {
	for i := range h.hs {
		if h.hs[i].version == 1 && slices.Contains(h.hs[i].controllers, controller) {
			return &h.hs[i]
		}
	}
	return nil
}

// Plan returns the directories that Create makes for name, so that they can be
// written down before.
func (h *Host) Plan(name string) []string {
	var dirs []string
	for _, hi := range h.hs {
		if hi.writable {
			dirs = append(dirs, filepath.Join(hi.dir, name))
		}
	}
	return dirs
}

// List returns the names of all groups of ours at the top of any hierarchy,
// whoever made them.
func (h *Host) List() ([]string, error) {
	var names []string
	var errs []error
	for _, hi := range h.hs {
		es, err := os.ReadDir(hi.dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, e := range es {
			if e.IsDir() && checkName(e.Name()) == nil && !slices.Contains(names, e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names, errors.Join(errs...)
}

// pids reads a cgroup.procs file. Processes of PID namespaces that we cannot
// see are 0 there and left out.
func pids(file string) ([]int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var ps []int
	for _, f := range strings.Fields(string(b)) {
		p, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
		if p > 0 {
			ps = append(ps, p)
		}
	}
	return ps, nil
}
