package undo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/dm"
)

var nativeEndian = binary.NativeEndian

// helpers are the first arguments of our own helper processes.
var helpers = []string{"_init", "_wire", "_load", "_spin", "_tenant", "_flood", "_reaper", "_up"}

// Find returns what dead runs left on this host, in the order in which it is to
// be reverted, without any journal: processes of ours whose owner is gone,
// cgroups, mounts, loops and links that bear our names. Things of live runs are
// left out, unless all is true.
//
// Mounts, loops and links do not say whose they are, and no run makes any in
// the host's namespaces on purpose: they are reported only while no run is alive.
func Find(ctx context.Context, all bool) ([]Record, error) {
	found := []Record{}
	live := false
	wanted := func(o Owner) bool {
		alive := o.Alive()
		live = live || alive
		return all || !alive
	}
	self := os.Getpid()
	for _, p := range helperProcesses() {
		o, ok := ParseOwner(p.Run)
		if ok && wanted(o) && p.Name != strconv.Itoa(self) {
			found = append(found, p)
			if all && o.Alive() && o.PID != self {
				// The owner goes first, or it would report its helpers' end as a failure.
				own := Record{Kind: Process, Name: strconv.Itoa(o.PID), Born: o.Born, Run: o.String()}
				if !slices.Contains(found, own) {
					found = slices.Insert(found, 0, own)
				}
			}
		}
	}
	host, err := cgroup.Discover()
	if err != nil {
		return found, err
	}
	names, err := host.List()
	if err != nil {
		return found, err
	}
	for _, name := range names {
		o, ok := ParseOwner(name)
		if !ok || !wanted(o) {
			continue
		}
		if g, err := host.Open(name); err == nil && foreign(g) {
			live = true // seen through a mount that is shared with another PID namespace
			continue
		}
		found = append(found, Record{Kind: Cgroup, Name: name, Run: name})
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	mapped, err := dm.List()
	if err != nil {
		return found, err
	}
	for _, name := range mapped {
		if o, ok := mappedOwner(name); ok && wanted(o) {
			found = append(found, Record{Kind: Mapped, Name: name, Run: o.String()})
		}
	}
	if live && !all {
		return found, nil
	}
	for _, m := range slices.Backward(mounts()) { // the innermost first
		if m.ours() {
			found = append(found, Record{Kind: Mount, Name: m.point})
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*")
	for _, l := range loops {
		if file, err := loopBacking(filepath.Base(l)); err == nil && strings.HasPrefix(filepath.Base(file), Prefix) {
			found = append(found, Record{Kind: Loop, Name: "/dev/" + filepath.Base(l)})
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		return found, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, Prefix) {
			found = append(found, Record{Kind: Link, Name: l.Name})
		}
	}
	return found, nil
}

// Sweep reverts what [Find] finds, past failures, and returns what it found
// with how it stands.
func Sweep(ctx context.Context, all bool) ([]Record, error) {
	found, err := Find(ctx, all)
	errs := []error{err}
	for i := range found {
		r := &found[i]
		if err := context.Cause(ctx); err != nil {
			errs = append(errs, err)
			break
		}
		r.State = Undone
		if err := Revert(*r); err != nil && !errors.Is(err, os.ErrNotExist) {
			r.State, r.Error = Failed, err.Error()
			errs = append(errs, fmt.Errorf("revert %s %s: %w", r.Kind, r.Name, err))
		}
	}
	return found, errors.Join(errs...)
}

// helperProcesses returns the processes that were started as helpers of a run:
// by their arguments and by the run in their environment, not by a name alone.
func helperProcesses() []Record {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []Record
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if r, ok := helperProcess(pid); ok {
			found = append(found, r)
		}
	}
	return found
}

func helperProcess(pid int) (Record, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	args, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return Record{}, false
	}
	argv := bytes.Split(args, []byte{0})
	if len(argv) < 2 || !slices.Contains(helpers, string(argv[1])) {
		return Record{}, false
	}
	env, err := os.ReadFile(dir + "/environ")
	if err != nil {
		return Record{}, false
	}
	for _, kv := range bytes.Split(env, []byte{0}) {
		run, ok := strings.CutPrefix(string(kv), RunEnv+"=")
		if !ok {
			continue
		}
		if _, ok := ParseOwner(run); !ok {
			return Record{}, false
		}
		born, ok := lives(pid)
		return Record{Kind: Process, Name: strconv.Itoa(pid), Born: born, Run: run}, ok
	}
	return Record{}, false
}

// A mountLine is a line of /proc/self/mountinfo.
type mountLine struct{ point, fstype, source string }

func mounts() []mountLine {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var ms []mountLine
	for line := range strings.Lines(string(b)) {
		if m, ok := parseMount(line); ok {
			ms = append(ms, m)
		}
	}
	return ms
}

// parseMount reads one line as proc_pid_mountinfo(5) describes it: a varying
// number of optional fields ends with a lone hyphen.
func parseMount(line string) (mountLine, bool) {
	f := strings.Fields(line)
	i := slices.Index(f, "-")
	if i < 6 || len(f) < i+3 {
		return mountLine{}, false
	}
	return mountLine{point: unescape(f[4]), fstype: f[i+1], source: unescape(f[i+2])}, true
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
