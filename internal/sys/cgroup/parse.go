package cgroup

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Mode says which versions of cgroups a host has mounted.
type Mode string

// Modes of a host.
const (
	V1     Mode = "v1"
	V2     Mode = "v2"
	Hybrid Mode = "hybrid" // both: most often all controllers in v1 beside an empty v2
)

// A Controller is where one controller can be used.
type Controller struct {
	Name     string
	Version  int    // 1 or 2
	Dir      string // our groups are made in it
	Writable bool
}

// used are the controllers we put groups in where they exist. Others (devices,
// net_cls, perf_event, ...) are left to the group the process is in anyway.
var used = []string{"cpu", "cpuacct", "memory", "freezer", "pids", "blkio", "io", "cpuset"}

// A mount is a line of /proc/self/mountinfo that shows a cgroup hierarchy.
type mount struct {
	root    string // of the hierarchy, as seen from the mount's own namespace
	point   string
	v2      bool
	options []string // of the superblock: v1 controllers are among them
}

// parseMounts finds the mounted hierarchies in the text of /proc/self/mountinfo, proc_pid_mountinfo(5).
func parseMounts(mountinfo string) ([]mount, error) {
	var ms []mount
	for line := range strings.Lines(mountinfo) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		head, tail, ok := strings.Cut(line, " - ") // between them are optional fields
		h, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(h) < 6 || len(t) < 2 {
			return nil, fmt.Errorf("parse mountinfo line %.80q", line)
		}
		if t[0] != "cgroup" && t[0] != "cgroup2" {
			continue
		}
		m := mount{root: unescape(h[3]), point: unescape(h[4]), v2: t[0] == "cgroup2"}
		if len(t) > 2 {
			m.options = strings.Split(t[2], ",")
		}
		ms = append(ms, m)
	}
	return ms, nil
}

var escaped = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\\[0-7]{3}`) })

// unescape undoes the octal escapes of mountinfo for space, tab, newline and backslash.
func unescape(s string) string {
	return escaped().ReplaceAllStringFunc(s, func(e string) string {
		return string([]byte{(e[1]-'0')<<6 | (e[2]-'0')<<3 | (e[3] - '0')})
	})
}

// parseOwn maps each v1 controller, and "" for v2, to the path of a process's
// group, from the text of /proc/PID/cgroup (cgroups(7)).
func parseOwn(text string) (map[string]string, error) {
	own := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			return nil, fmt.Errorf("parse cgroup line %.80q", line)
		}
		for _, c := range strings.Split(f[1], ",") {
			own[c] = f[2]
		}
	}
	return own, nil
}

// A hierarchy is one tree of groups.
type hierarchy struct {
	version     int
	dir         string // mount point: our groups are made in it
	controllers []string
	writable    bool
}

// A kernel answers what cannot be read from mountinfo.
type kernel interface {
	// version returns 1 or 2 for a directory that really is in a cgroup file
	// system of that version, else 0.
	version(dir string) int
	writable(dir string) bool
	// controllers returns those that v2 offers in a directory.
	controllers(dir string) ([]string, error)
}

// layOut finds the hierarchies that can be used. Groups are made at the top of
// what is mounted: on a host that is the root of the hierarchy, in a container
// it is the container's own group, whatever /proc/self/cgroup calls it. So a
// later process finds them without knowing where an earlier one lived.
func layOut(ms []mount, own map[string]string, k kernel) ([]hierarchy, error) {
	var hs []hierarchy
	seen := map[string]int{} // controllers, or "" for v2, to place in hs
	for _, m := range ms {
		h := hierarchy{version: 1, dir: m.point}
		if m.v2 {
			h.version = 2
		} else {
			for _, o := range m.options {
				if _, is := own[o]; is && o != "" {
					h.controllers = append(h.controllers, o)
				}
			}
			if len(h.controllers) == 0 || !slices.ContainsFunc(h.controllers, func(c string) bool { return slices.Contains(used, c) }) {
				continue // name=systemd, or nothing we use
			}
		}
		if k.version(m.point) != h.version {
			continue // another mount covers it
		}
		h.writable = k.writable(m.point)
		if h.version == 2 {
			cs, err := k.controllers(m.point)
			if err != nil {
				return nil, fmt.Errorf("read controllers of %s: %w", m.point, err)
			}
			h.controllers = cs
		}
		slices.Sort(h.controllers)
		key := ""
		if h.version == 1 {
			key = strings.Join(h.controllers, ",")
		}
		if at, dup := seen[key]; dup { // mounted twice: prefer the one that can be written to
			if !hs[at].writable && h.writable {
				hs[at] = h
			}
			continue
		}
		seen[key] = len(hs)
		hs = append(hs, h)
	}
	return hs, nil
}

var element = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$`) })

// checkName refuses names that are not ours.
func checkName(name string) error {
	if !strings.HasPrefix(name, Prefix) || path.Clean(name) != name {
		return fmt.Errorf("cgroup %q does not begin with %s", name, Prefix)
	}
	for e := range strings.SplitSeq(name, "/") {
		if !element().MatchString(e) {
			return fmt.Errorf("cgroup %q: %q is not a plain name", name, e)
		}
	}
	return nil
}

// parseFlat takes a flat keyed file apart: cpu.stat, cgroup.events, memory.events.
// Lines that are not a word and a number are left alone.
func parseFlat(b []byte) map[string]uint64 {
	kv := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				kv[f[0]] = n
			}
		}
	}
	return kv
}

// parseCPUMax reads "max 100000" or "20000 100000", in µs. quota is negative for max.
func parseCPUMax(s string) (quota, period int64, err error) {
	f := strings.Fields(s)
	if len(f) != 2 {
		return 0, 0, fmt.Errorf("parse cpu.max %.40q", s)
	}
	quota = -1
	if f[0] != "max" {
		if _, err := fmt.Sscanf(f[0], "%d", &quota); err != nil {
			return 0, 0, fmt.Errorf("parse cpu.max %.40q: %w", s, err)
		}
	}
	if _, err := fmt.Sscanf(f[1], "%d", &period); err != nil {
		return 0, 0, fmt.Errorf("parse cpu.max %.40q: %w", s, err)
	}
	return quota, period, nil
}
