package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A group is a cgroup of one name in every hierarchy of the host.
type group struct {
	v2 string   // directory in the unified hierarchy, "" if there is none
	v1 []string // directories in the others
}

func newGroup(name string) (*group, error) {
	g := &group{}
	for _, c := range []string{"cpu", "cpuacct", "memory", "freezer", "blkio", "pids"} {
		g.v1 = append(g.v1, filepath.Join("/sys/fs/cgroup", c, name))
	}
	g.v2 = filepath.Join("/sys/fs/cgroup/unified", name)
	return g, g.mkdir()
}

func (g *group) mkdir() error {
	for _, d := range append(g.v1, g.v2) {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) child(name string) (*group, error) {
	c := &group{v2: filepath.Join(g.v2, name)}
	for _, d := range g.v1 {
		c.v1 = append(c.v1, filepath.Join(d, name))
	}
	return c, c.mkdir()
}

func (g *group) entrances() (into *os.File, joins []*os.File, err error) {
	into, err = os.Open(g.v2)
	for _, d := range g.v1 {
		f, e := os.OpenFile(filepath.Join(d, "tasks"), os.O_WRONLY, 0)
		err = errors.Join(err, e)
		joins = append(joins, f)
	}
	return into, joins, err
}

func (g *group) procs() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(g.v2, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("parse cgroup.procs: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func (g *group) kill() error {
	pids, err := g.procs()
	for _, p := range pids {
		err = errors.Join(err, syscall.Kill(p, syscall.SIGKILL))
	}
	return err
}

func (g *group) thaw() error               { return nil }
func (g *group) oomKills() (uint64, error) { return 0, nil }
