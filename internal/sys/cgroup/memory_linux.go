package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"brownout/internal/sys/unsupported"
)

// A Memory is what a group holds and what its limits did to it.
type Memory struct {
	Usage    int64 // bytes, page cache included
	Anon     int64 // that could go to swap only
	File     int64 // page cache, which can be taken back
	Hits     uint64
	OOMKills uint64
	UnderOOM bool // v1: somebody waits for memory right now
}

// NoLimit is a memory limit that is none.
const NoLimit = int64(-1)

// memory returns the directory of the memory controller.
func (g *Group) memory() (dir string, version int, err error) { return g.Dir("memory") }

// Memory reads what the group holds. Hits are the times that it ran into its
// limit (v1 failcnt; v2 memory.events max and high).
func (g *Group) Memory() (Memory, error) {
	dir, version, err := g.memory()
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	used, anon, file := "memory.usage_in_bytes", "total_rss", "total_cache"
	if version == 2 {
		used, anon, file = "memory.current", "anon", "file"
	}
	if m.Usage, err = readInt(filepath.Join(dir, used)); err != nil {
		return m, fmt.Errorf("read memory of group %s: %w", g.name, err)
	}
	kv, err := flat(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return m, fmt.Errorf("read memory of group %s: %w", g.name, err)
	}
	m.Anon, m.File = int64(kv[anon]), int64(kv[file])
	if version == 2 {
		kv, err = flat(filepath.Join(dir, "memory.events"))
		m.Hits, m.OOMKills = kv["max"]+kv["high"], kv["oom_kill"]
		return m, err
	}
	hits, err := readInt(filepath.Join(dir, "memory.failcnt"))
	if err != nil {
		return m, err
	}
	kv, err = flat(filepath.Join(dir, "memory.oom_control"))
	m.Hits, m.OOMKills, m.UnderOOM = uint64(hits), kv["oom_kill"], kv["under_oom"] == 1
	return m, err
}

// SetMemoryLimit lets the group hold no more than bytes, none of it in swap, or
// as much as it can get with [NoLimit]. On v1 a limit that the kernel cannot
// reclaim down to is refused with EBUSY; on v2 it kills.
func (g *Group) SetMemoryLimit(bytes int64) error {
	dir, version, err := g.memory()
	if err != nil {
		return err
	}
	if version == 2 {
		err = limit2(dir, bytes)
	} else {
		err = limit1(dir, bytes)
	}
	if err != nil {
		return fmt.Errorf("limit memory of group %s to %d bytes: %w", g.name, bytes, err)
	}
	got, err := g.MemoryLimit()
	if err != nil {
		return err
	}
	if page := int64(os.Getpagesize()); got/page != bytes/page {
		return fmt.Errorf("limit memory of group %s to %d bytes: the kernel made it %d", g.name, bytes, got)
	}
	return nil
}

func limit2(dir string, bytes int64) error {
	value, swap := strconv.FormatInt(bytes, 10), "0"
	if bytes == NoLimit {
		value, swap = "max", "max"
	}
	if err := write(filepath.Join(dir, "memory.swap.max"), swap); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return write(filepath.Join(dir, "memory.max"), value)
}

// limit1 keeps the group out of swap by its swappiness. A limit of memory and
// swap together would do it, too, but its counter is charged first, and since
// Linux 6.14 does not count when it fails.
func limit1(dir string, bytes int64) error {
	swappiness := []byte("0")
	if bytes == NoLimit {
		var err error
		if swappiness, err = readSmall(filepath.Join(filepath.Dir(dir), "memory.swappiness")); err != nil {
			return err
		}
	}
	if err := write(filepath.Join(dir, "memory.swappiness"), strings.TrimSpace(string(swappiness))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return write(filepath.Join(dir, "memory.limit_in_bytes"), strconv.FormatInt(bytes, 10))
}

// unlimited is what v1 reads for no limit: the largest number of whole pages.
const unlimited = int64(1) << 62

// MemoryLimit reads the limit in force on the group itself, or [NoLimit].
func (g *Group) MemoryLimit() (int64, error) {
	dir, version, err := g.memory()
	if err != nil {
		return 0, err
	}
	if version == 2 {
		b, err := readSmall(filepath.Join(dir, "memory.max"))
		if err != nil {
			return 0, err
		}
		if string(b) == "max\n" {
			return NoLimit, nil
		}
		return readInt(filepath.Join(dir, "memory.max"))
	}
	n, err := readInt(filepath.Join(dir, "memory.limit_in_bytes"))
	if n >= unlimited {
		n = NoLimit
	}
	return n, err
}

// SetOOMPause lets processes of the group that need memory beyond its limit wait
// until there is some, instead of being killed. Only v1 can.
func (g *Group) SetOOMPause(on bool) error {
	dir, version, err := g.memory()
	if err != nil {
		return err
	}
	if version == 2 {
		return &unsupported.Error{What: "OOM pause", Why: "cgroup v2 has no memory.oom_control", Cure: "memory.high, which makes who allocates sleep"}
	}
	value := "0"
	if on {
		value = "1"
	}
	if err := write(filepath.Join(dir, "memory.oom_control"), value); err != nil {
		return fmt.Errorf("pause group %s when it is out of memory: %w", g.name, err)
	}
	return nil
}

// SetMemoryHigh makes processes of the group sleep that take memory beyond
// bytes. Only v2 can. [NoLimit] lets all go.
func (g *Group) SetMemoryHigh(bytes int64) error {
	dir, version, err := g.memory()
	if err != nil {
		return err
	}
	if version == 1 {
		return &unsupported.Error{What: "memory.high", Why: "cgroup v1 has none", Cure: "the OOM pause of v1"}
	}
	value := strconv.FormatInt(bytes, 10)
	if bytes == NoLimit {
		value = "max"
	}
	if err := write(filepath.Join(dir, "memory.high"), value); err != nil {
		return fmt.Errorf("set memory.high of group %s: %w", g.name, err)
	}
	return nil
}
