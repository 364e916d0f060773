package dm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"brownout/internal/needs"
)

var hasDM = needs.Need{Name: "dm", Check: func() string {
	if err := Probe("linear", "delay", "flakey"); err != nil {
		return err.Error()
	}
	return ""
}}

var tests atomic.Int64

const sectors = 8 << 20 / 512

// device is a linear one over a loop device over a file.
func device(t *testing.T) (Device, string) {
	t.Helper()
	needs.Host(t, needs.Root, hasDM)
	file := filepath.Join(t.TempDir(), "bo-image")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, sectors*512); err != nil {
		t.Fatal(err)
	}
	l, err := Attach(file)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the device mapper uses it from here on
	d, err := Create(fmt.Sprintf("bo-test%d-%d", os.Getpid(), tests.Add(1)), linear(l.Path()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	return d, l.Path()
}

func linear(loop string) Table { return Table{sectors, "linear", loop + " 0"} }

// block does one direct operation on the device and says how long it took.
func block(t *testing.T, d Device, write bool) (time.Duration, error) {
	t.Helper()
	fd, err := unix.Open(d.Path(), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	raw := make([]byte, 8192)
	b := raw[-uintptr(unsafe.Pointer(&raw[0]))&4095:][:4096]
	began := time.Now()
	if write {
		_, err = unix.Pwrite(fd, b, 0)
	} else {
		_, err = unix.Pread(fd, b, 0)
	}
	return time.Since(began), err
}

func TestTablesChangeWhatADeviceDoes(t *testing.T) {
	d, loop := device(t)
	const delay = 200 * time.Millisecond
	for _, step := range []struct {
		table       Table
		read, write time.Duration // at least
		fails       bool          // writes
	}{
		{linear(loop), 0, 0, false},
		{Table{sectors, "delay", fmt.Sprintf("%[1]s 0 0 %[1]s 0 200", loop)}, 0, delay, false},
		{Table{sectors, "delay", fmt.Sprintf("%[1]s 0 200 %[1]s 0 0 %[1]s 0 0", loop)}, delay, 0, false},
		{Table{sectors, "flakey", loop + " 0 0 3600 1 error_writes"}, 0, 0, true},
		{linear(loop), 0, 0, false},
	} {
		if err := d.Load(step.table); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Table(); err != nil || got.Target != step.table.Target || got.Sectors != sectors {
			t.Errorf("table = %+v, %v; want %+v", got, err, step.table)
		}
		read, err := block(t, d, false)
		if err != nil || read < step.read {
			t.Errorf("%s: a read takes %v, %v; want at least %v", step.table.Target, read, err, step.read)
		}
		write, err := block(t, d, true)
		if (err != nil) != step.fails || err != nil && !errors.Is(err, unix.EIO) || write < step.write {
			t.Errorf("%s: a write takes %v, %v; want at least %v, an error: %v", step.table.Target, write, err, step.write, step.fails)
		}
		t.Logf("%s: read %v, write %v", step.table.Target, read, write)
	}
}

func TestWrongTablesAreRefused(t *testing.T) {
	d, loop := device(t)
	for _, bad := range []Table{{sectors, "nonsense", ""}, {sectors, "delay", loop}, {0, "linear", loop + " 0"}, {sectors, "linear", "/dev/none 0"}} {
		if err := d.Load(bad); err == nil {
			t.Errorf("%+v was loaded", bad)
		}
	}
	if _, err := Create(d.Name, linear(loop)); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second device of that name: %v", err)
	}
	if got, err := d.Table(); err != nil || got.Target != "linear" {
		t.Errorf("table = %+v, %v after refusals", got, err)
	}
}

// A device whose removal was asked for while it is in use goes with its last user.
func TestRemovalWaitsForTheLastUser(t *testing.T) {
	d, _ := device(t)
	fd, err := unix.Open(d.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	names, err := List()
	if err != nil || !slices.Contains(names, d.Name) {
		t.Errorf("List = %v, %v; want %s, which is in use", names, err, d.Name)
	}
	unix.Close(fd)
	gone := func() bool { names, err = List(); return err == nil && !slices.Contains(names, d.Name) }
	for end := time.Now().Add(20 * time.Second); !gone() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if !gone() {
		t.Errorf("List = %v, %v without users; want no %s", names, err, d.Name)
	}
	if err := d.Remove(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Remove = %v of what is gone", err)
	}
}
