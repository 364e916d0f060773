package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/unsupported"
)

// An IOLimit is what a group's processes may ask of one block device in a
// second, for each direction; 0 is no limit.
//
// It is for what they ask of the device themselves: direct reads and writes, and
// what their own fsync writes back. On v1 what a thread of the kernel writes
// back for them, the journal's commits included, is nobody's; on v2 it is theirs
// if the file system can tell (ext4, btrfs, xfs).
type IOLimit struct{ ReadBytes, WriteBytes, ReadOps, WriteOps int64 }

// Names of an IOLimit's values, in order: v1's file and v2's key of each.
var (
	throttleFiles = [4]string{"read_bps", "write_bps", "read_iops", "write_iops"}
	maxKeys       = [4]string{"rbps", "wbps", "riops", "wiops"}
)

func (l IOLimit) values() [4]int64 {
	return [4]int64{l.ReadBytes, l.WriteBytes, l.ReadOps, l.WriteOps}
}

// SetIOLimit puts limits of a device, which is named as by [unix.Stat_t].Rdev,
// in force in place of those before, and reads them back. It matches
// [errors.ErrUnsupported] where the controller is not there.
func (g *Group) SetIOLimit(dev uint64, l IOLimit) error {
	dir, version, err := g.ioDir()
	if err != nil {
		return err
	}
	name := deviceName(dev)
	if version == 2 {
		words := []string{name}
		for i, v := range l.values() {
			value := "max"
			if v > 0 {
				value = strconv.FormatInt(v, 10)
			}
			words = append(words, maxKeys[i]+"="+value)
		}
		err = write(filepath.Join(dir, "io.max"), strings.Join(words, " "))
	} else {
		for i, v := range l.values() {
			if err = write(throttleFile(dir, i), fmt.Sprintf("%s %d", name, v)); err != nil { // 0 takes it away
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("limit what group %s asks of device %s: %w", g.name, name, err)
	}
	if got, err := g.IOLimit(dev); err != nil || got != l {
		return errors.Join(err, fmt.Errorf("limit what group %s asks of device %s: the kernel made %+v of %+v", g.name, name, got, l))
	}
	return nil
}

// IOLimit reads the limits of a device.
func (g *Group) IOLimit(dev uint64) (IOLimit, error) {
	dir, version, err := g.ioDir()
	if err != nil {
		return IOLimit{}, err
	}
	var v [4]int64
	if version == 2 {
		b, err := readSmall(filepath.Join(dir, "io.max"))
		if err != nil {
			return IOLimit{}, fmt.Errorf("read io.max of group %s: %w", g.name, err)
		}
		for i, key := range maxKeys {
			if v[i], err = ioMax(string(b), deviceName(dev), key); err != nil {
				return IOLimit{}, err
			}
		}
	} else {
		for i := range throttleFiles {
			b, err := readSmall(throttleFile(dir, i))
			if err != nil {
				return IOLimit{}, fmt.Errorf("read limits of group %s: %w", g.name, err)
			}
			if v[i], err = throttled(string(b), deviceName(dev)); err != nil {
				return IOLimit{}, err
			}
		}
	}
	return IOLimit{v[0], v[1], v[2], v[3]}, nil
}

// An IOAccount is where the kernel counts what a group has of devices.
type IOAccount struct {
	Ops, Bytes string // files; one and the same on v2
	Asked      bool   // v1: what waits for its turn is counted already; v2: what had it
}

// IOAccount finds the group's.
func (g *Group) IOAccount() (IOAccount, error) {
	dir, version, err := g.ioDir()
	if err != nil {
		return IOAccount{}, err
	}
	if version == 2 {
		file := filepath.Join(dir, "io.stat")
		return IOAccount{Ops: file, Bytes: file}, nil
	}
	return IOAccount{filepath.Join(dir, "blkio.throttle.io_serviced"), filepath.Join(dir, "blkio.throttle.io_service_bytes"), true}, nil
}

// Account finds one number of a device in a file of an [IOAccount]: by the
// word of v1 (Read, Write) or the key of v2 (rios, wbytes, ...); 0 if the device
// is not in it.
func Account(text string, dev uint64, word, key string) (int64, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != deviceName(dev) {
			continue
		}
		if fields[1] == word && len(fields) == 3 {
			return strconv.ParseInt(fields[2], 10, 64)
		}
		for _, f := range fields[1:] {
			if k, v, _ := strings.Cut(f, "="); k == key {
				return strconv.ParseInt(v, 10, 64)
			}
		}
	}
	return 0, nil
}

// ioMax finds one key of a device in io.max: "7:0 rbps=max wbps=1048576 …".
func ioMax(text, device, key string) (int64, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != device {
			continue
		}
		for _, f := range fields[1:] {
			if k, v, _ := strings.Cut(f, "="); k == key && v != "max" {
				return strconv.ParseInt(v, 10, 64)
			}
		}
	}
	return 0, nil
}

// throttled finds a device in a file of blkio.throttle: "7:0 1048576".
func throttled(text, device string) (int64, error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == device {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, nil
}

// ioDir returns the group's directory of the controller, and checks that it can limit.
func (g *Group) ioDir() (dir string, version int, err error) {
	dir, version, err = g.Dir("io")
	if err != nil {
		return "", 0, err
	}
	file, config := filepath.Join(dir, "io.max"), "CONFIG_BLK_DEV_THROTTLING"
	if version == 1 {
		file = throttleFile(dir, 0)
	}
	if _, err := os.Stat(file); err != nil {
		return "", 0, &unsupported.Error{What: "limits of block devices", Why: err.Error(), Cure: "a kernel with " + config}
	}
	return dir, version, nil
}

func throttleFile(dir string, i int) string {
	return filepath.Join(dir, "blkio.throttle."+throttleFiles[i]+"_device")
}

func deviceName(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
