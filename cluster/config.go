package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"brownout/internal/faultfs"
	"brownout/internal/run"
	"brownout/internal/undo"
)

// MaxNodes bounds a cluster: one host, one bridge, one election.
const MaxNodes = 25

// A Config says what to bring up. The zero value of an optional field means
// the default written beside it.
type Config struct {
	ID     string // short run id, [a-z0-9]{1,32}; part of the name of everything that is made
	Dir    string // absolute run directory; nodes live in Dir/nodes/n1/{data/,stdout.log,stderr.log}
	Nodes  int    // 1..25
	Target Target // what runs on the nodes
	Cache  bool   // beside the nodes, a box called cache, which is none of them; the target runs there, too
	Exe    string // this binary, for helpers and as /bin/brownout on the nodes; default /proc/self/exe
	Disk   string // slowfs: /data through our own filesystem, so that disks can be hurt (default); plain: without; any: slowfs if this host has it
	// Passthrough lets reads and writes of slowfs go to the backing files
	// directly, where the kernel can: nearly the speed of a plain disk, but rules
	// for reads and writes do not reach files that are open.
	Passthrough bool
	Trap        []faultfs.Op // classes of the targets' own file operations that can be hurt on any disk; see [Node.SetTrap]
	// Block puts each node's data on a block device of its own with this file
	// system, so that the device can be hurt; slowfs may be on top. See [Node.SetBlock].
	Block string
	Loop  bool // nodes' data is on an ext4 of their own on a loop device, to be shut down; Disk is plain

	Journal    *undo.Journal   // every change to the host is journaled before it is made
	Emit       func(run.Event) // told what happens, from several goroutines but never two at once; default: nobody
	Seed       uint64          // of what is random in the network's impairments
	MTU        int             // of all links; default 1500
	Congestion string          // TCP's congestion control on all links; default cubic, or reno where the kernel lacks it
	Ready      time.Duration   // for all nodes to be ready and agree on a leader; default 30s

	noUsers bool // for tests: as on a host that has no spare users
}

// Disks of a node.
const (
	DiskSlowFS = "slowfs"
	DiskPlain  = "plain"
	DiskAny    = "any"
)

// File systems on block devices of nodes.
const (
	BlockExt4 = "ext4"                 // every fsync flushes the device's cache, once
	BlockBare = "ext4 without journal" // survives writes that fail: an aborted journal stays read-only
)

var validID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]{1,32}$`) })

// withDefaults returns c with defaults filled in, or everything that is wrong with it at once.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if !validID().MatchString(c.ID) {
		errs = append(errs, fmt.Errorf("id: %q is not 1 to 32 of a-z and 0-9", c.ID))
	}
	if !filepath.IsAbs(c.Dir) {
		errs = append(errs, fmt.Errorf("dir: %q is not an absolute path", c.Dir))
	}
	if c.Nodes < 1 || c.Nodes > MaxNodes {
		errs = append(errs, fmt.Errorf("nodes: %d is not in 1..%d", c.Nodes, MaxNodes))
	}
	if c.Target == nil {
		errs = append(errs, errors.New("target: missing"))
	}
	if c.Journal == nil {
		errs = append(errs, errors.New("journal: missing"))
	}
	c.Disk = cmp.Or(c.Disk, DiskSlowFS)
	if c.Disk != DiskSlowFS && c.Disk != DiskPlain && c.Disk != DiskAny {
		errs = append(errs, fmt.Errorf("disk: %q is none of %s, %s, %s", c.Disk, DiskSlowFS, DiskPlain, DiskAny))
	}
	if c.Block != "" && c.Block != BlockExt4 && c.Block != BlockBare {
		errs = append(errs, fmt.Errorf("block: %q is none of %s, %s", c.Block, BlockExt4, BlockBare))
	}
	if c.Loop && (c.Disk != DiskPlain || c.Block != "") {
		errs = append(errs, fmt.Errorf("loop: disk is %s and block %q, not %s and none", c.Disk, c.Block, DiskPlain))
	}
	if c.Ready < 0 {
		errs = append(errs, fmt.Errorf("ready: %v is negative", c.Ready))
	}
	c.Exe = cmp.Or(c.Exe, "/proc/self/exe")
	c.Ready = cmp.Or(c.Ready, 30*time.Second)
	if c.Emit == nil {
		c.Emit = func(run.Event) {}
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("cluster config: %w", err)
	}
	return c, nil
}
