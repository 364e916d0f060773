package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/dm"
	"brownout/internal/sys/mount"
	"brownout/internal/sys/unsupported"
	"brownout/internal/undo"
)

// A block is a device of a node's own below its data: an ext4 on a device of the
// device mapper, which can be changed under it, on a file in the node's
// directory. It is removed with its last user, the mount in the node's box.
type block struct {
	dev  dm.Device
	loop string // what is below it
}

const (
	blockFile    = "bo-disk.img"
	blockBytes   = 256 << 20 // sparse
	blockSectors = blockBytes / 512
)

// A BlockFault is what a node's block device does to requests. The zero value
// is a healthy device.
type BlockFault struct {
	Read, Flush time.Duration // added to each read, to each flush of its cache; whole milliseconds
	FailWrites  bool          // every write and flush fails; then nothing is delayed
}

// ProbeBlock says whether nodes can have block devices here which can do what
// targets of the device mapper do.
func ProbeBlock(targets ...string) error {
	if err := dm.Probe(append(targets, "linear")...); err != nil {
		return err
	}
	_, err := mkfs()
	return err
}

func mkfs() (string, error) {
	for _, name := range []string{"mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &unsupported.Error{What: "block devices of nodes", Why: "there is no mkfs.ext4", Cure: "install e2fsprogs"}
}

// makeBlock makes the node's device with a file system for its user.
func (c *Cluster) makeBlock(n *Node, uid int) error {
	program, err := mkfs()
	if err != nil {
		return err
	}
	file := filepath.Join(n.dir, blockFile)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(blockBytes), f.Close()); err != nil {
		return err
	}
	journal := "has_journal"
	if c.cfg.Block == BlockBare {
		journal = "^has_journal"
	}
	out, err := exec.Command(program, "-q", "-F", "-O", journal, "-E", fmt.Sprintf("root_owner=%d:%d,lazy_itable_init=1", uid, uid), file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	loop, err := dm.Attach(file)
	if err != nil {
		return err
	}
	defer loop.Close() // the device mapper uses it from then on
	b := &block{loop: loop.Path()}
	name := c.owner.String() + "-" + n.name
	record := undo.Record{Kind: undo.Mapped, Name: name, Run: c.owner.String()}
	err = c.cfg.Journal.Do(record, func() error {
		b.dev, err = dm.Create(name, b.table(BlockFault{}))
		return err
	})
	if err == nil {
		n.box.block = b
	}
	return err
}

// mountBlock shows the device's file system at dir, in this mount namespace.
func mountBlock(device, dir string) error {
	if err := mount.Private(); err != nil {
		return err
	}
	if err := unix.Mount(device, dir, "ext4", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return os.Remove(filepath.Join(dir, "lost+found"))
}

func (b *block) table(f BlockFault) dm.Table {
	t := dm.Table{Sectors: blockSectors, Target: "linear", Args: b.loop + " 0"}
	switch {
	case f.FailWrites: // never up, for an hour down, and then again
		t.Target, t.Args = "flakey", b.loop+" 0 0 3600 1 error_writes"
	case f.Read > 0 || f.Flush > 0:
		t.Target = "delay"
		t.Args = fmt.Sprintf("%[1]s 0 %[2]d %[1]s 0 0 %[1]s 0 %[3]d", b.loop, f.Read.Milliseconds(), f.Flush.Milliseconds())
	}
	return t
}

var errNoBlock = &unsupported.Error{
	What: "block device faults", Why: "the nodes' data are in the host's own file system, not on devices of their own",
	Cure: "name the provider in the scenario: then its nodes get devices",
}

// SetBlock puts a fault of the node's block device in force in place of the one
// before, and reads back; the zero BlockFault heals it. It is
// [errors.ErrUnsupported] for nodes without one, see [Config].
func (n *Node) SetBlock(f BlockFault) error {
	if n.box.block == nil {
		return fmt.Errorf("%s: %w", n.name, errNoBlock)
	}
	t := n.box.block.table(f)
	if err := n.box.block.dev.Load(t); err != nil {
		return err
	}
	got, err := n.box.block.dev.Table()
	if err == nil && (got.Target != t.Target || got.Sectors != t.Sectors) {
		err = fmt.Errorf("set block device of %s: read back: %s, not %s", n.name, got.Target, t.Target)
	}
	return err
}

// BlockTarget says what the node's device is made of, as the kernel has it; ""
// for nodes without one.
func (n *Node) BlockTarget() (string, error) {
	if n.box.block == nil {
		return "", nil
	}
	t, err := n.box.block.dev.Table()
	return t.Target, err
}

// Block says what file system the node's data are in on a device of its own, ""
// if they are on none.
func (n *Node) Block() string {
	if n.box.block == nil {
		return ""
	}
	return n.box.c.cfg.Block
}
