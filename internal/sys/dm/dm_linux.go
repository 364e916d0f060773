package dm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/unsupported"
)

// A Table is what a device is made of: one target over all its sectors.
type Table struct {
	Sectors uint64 // of 512 bytes
	Target  string // linear, delay, flakey
	Args    string
}

// A Device is one of the device mapper's.
type Device struct {
	Name         string
	Major, Minor uint32
}

// Path is where the kernel itself shows the device.
func (d Device) Path() string { return fmt.Sprintf("/dev/dm-%d", d.Minor) }

// Commands, flags and sizes of include/uapi/linux/dm-ioctl.h.
const (
	cmdList     = 2
	cmdCreate   = 3
	cmdRemove   = 4
	cmdSuspend  = 6
	cmdLoad     = 9
	cmdStatus   = 12
	cmdVersions = 13

	flagSuspend     = 1 << 1
	flagStatusTable = 1 << 4
	flagFull        = 1 << 8 // the answer did not fit
	flagSkipLockFS  = 1 << 10
	flagDeferred    = 1 << 17

	headSize   = 312
	bufferSize = 16 << 10
	request    = 0xc138fd00 // _IOWR(0xfd, cmd, struct dm_ioctl)
)

var le = binary.NativeEndian

const control = "/dev/mapper/control"

// ioctl gives one command and returns the answer's head and what follows it.
func ioctl(cmd uintptr, name string, flags uint32, payload []byte) (head, data []byte, err error) {
	if len(name) >= 128 || headSize+len(payload) > bufferSize {
		return nil, nil, fmt.Errorf("name of %d bytes, table of %d: too long", len(name), len(payload))
	}
	fd, err := unix.Open(control, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", control, err)
	}
	defer unix.Close(fd)
	b := make([]byte, bufferSize)
	le.PutUint32(b[0:], 4) // version of the interface
	le.PutUint32(b[12:], bufferSize)
	le.PutUint32(b[16:], headSize)
	if payload != nil {
		le.PutUint32(b[20:], 1)
	}
	le.PutUint32(b[28:], flags)
	copy(b[48:], name)
	copy(b[headSize:], payload)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request|cmd, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return nil, nil, errno
	}
	if le.Uint32(b[28:])&flagFull != 0 {
		return nil, nil, fmt.Errorf("an answer of more than %d bytes", bufferSize)
	}
	start := min(le.Uint32(b[16:]), bufferSize)
	return b[:headSize], b[start:], nil
}

// Create makes a device that is ready for use.
func Create(name string, t Table) (Device, error) {
	head, _, err := ioctl(cmdCreate, name, 0, nil)
	if errors.Is(err, unix.EBUSY) {
		err = fs.ErrExist
	}
	if err != nil {
		return Device{}, fmt.Errorf("create dm device %s: %w", name, err)
	}
	dev := le.Uint64(head[40:])
	d := Device{Name: name, Major: unix.Major(dev), Minor: unix.Minor(dev)}
	if err := d.Load(t); err != nil {
		return Device{}, errors.Join(err, d.Remove())
	}
	return d, nil
}

// Load gives the device a new table, at once and without losing what is under
// way: a target that holds requests back lets them go before.
func (d Device) Load(t Table) error {
	const specSize = 40
	spec := make([]byte, (specSize+len(t.Args)+1+7)&^7)
	le.PutUint64(spec[8:], t.Sectors)
	le.PutUint32(spec[20:], uint32(len(spec)))
	copy(spec[24:40], t.Target)
	copy(spec[specSize:], t.Args)
	if _, _, err := ioctl(cmdLoad, d.Name, 0, spec); err != nil {
		return fmt.Errorf("load table %q of dm device %s: %w", t.Target+" "+t.Args, d.Name, err)
	}
	// The file system on top need not write everything down first.
	if _, _, err := ioctl(cmdSuspend, d.Name, flagSuspend|flagSkipLockFS, nil); err != nil {
		return fmt.Errorf("suspend dm device %s: %w", d.Name, err)
	}
	if _, _, err := ioctl(cmdSuspend, d.Name, 0, nil); err != nil {
		return fmt.Errorf("resume dm device %s: %w", d.Name, err)
	}
	return nil
}

// Table reads back what the device is made of.
func (d Device) Table() (Table, error) {
	_, b, err := ioctl(cmdStatus, d.Name, flagStatusTable, nil)
	if err != nil {
		return Table{}, fmt.Errorf("read table of dm device %s: %w", d.Name, err)
	}
	const specSize = 40
	if len(b) < specSize {
		return Table{}, fmt.Errorf("read table of dm device %s: %d bytes", d.Name, len(b))
	}
	return Table{Sectors: le.Uint64(b[8:]), Target: text(b[24:40]), Args: strings.TrimSpace(text(b[specSize:]))}, nil
}

// Remove removes the device, when its last user is gone. One that is gone
// already is an error matching [os.ErrNotExist].
func (d Device) Remove() error {
	_, _, err := ioctl(cmdRemove, d.Name, flagDeferred, nil)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		err = os.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("remove dm device %s: %w", d.Name, err)
	}
	return nil
}

// List returns the names of all devices; none where there is no device mapper.
func List() ([]string, error) {
	_, b, err := ioctl(cmdList, "", 0, nil)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list dm devices: %w", err)
	}
	const nameAt = 12 // after the number of the device, and where the next one is
	return entries(b, 8, nameAt), nil
}

// entries reads a list in which each entry says how far the next one is.
func entries(b []byte, nextAt, nameAt int) (names []string) {
	for len(b) > nameAt {
		name := text(b[nameAt:])
		if name == "" {
			return names
		}
		names = append(names, name)
		next := int(le.Uint32(b[nextAt:]))
		if next <= 0 || next > len(b) {
			return names
		}
		b = b[next:]
	}
	return names
}

func text(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Probe says whether this kernel has targets; [errors.ErrUnsupported] names the first it lacks.
func Probe(targets ...string) error {
	_, b, err := ioctl(cmdVersions, "", 0, nil)
	if err != nil {
		return &unsupported.Error{What: "device mapper", Why: err.Error(), Cure: "modprobe dm-mod (CONFIG_BLK_DEV_DM), as root"}
	}
	const nameAt = 16 // after where the next one is, and three numbers of a version
	have := entries(b, 0, nameAt)
	for _, t := range targets {
		if !slices.Contains(have, t) {
			return &unsupported.Error{What: "device mapper", Why: "the kernel has no target " + t, Cure: "modprobe dm-" + t}
		}
	}
	return nil
}
