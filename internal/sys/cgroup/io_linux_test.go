package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/dm"
)

func TestLimitsOfDevicesAreReadBack(t *testing.T) {
	g := testGroup(t, testHost(t))
	file := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<20)); err != nil {
		t.Fatal(err)
	}
	loop, err := dm.Attach(file)
	if err != nil {
		t.Skip(err)
	}
	defer loop.Close()
	var st unix.Stat_t
	if err := unix.Stat(loop.Path(), &st); err != nil {
		t.Fatal(err)
	}
	for _, l := range []IOLimit{{WriteBytes: 1 << 20}, {ReadBytes: 4096, ReadOps: 2, WriteOps: 20}, {}} {
		if err := g.SetIOLimit(st.Rdev, l); errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		if got, err := g.IOLimit(st.Rdev); got != l || err != nil {
			t.Errorf("limits = %+v, %v; want %+v", got, err, l)
		}
	}
}

func TestOneDeviceIsFoundAmongLimits(t *testing.T) {
	const text = "7:1 rbps=max wbps=5 riops=max wiops=max\n7:11 rbps=4096 wbps=max riops=max wiops=20\n"
	if got, err := ioMax(text, "7:11", "wiops"); got != 20 || err != nil {
		t.Errorf("wiops of 7:11 = %d, %v; want 20", got, err)
	}
	if got, err := ioMax(text, "7:11", "wbps"); got != 0 || err != nil {
		t.Errorf("wbps of 7:11 = %d, %v; want none", got, err)
	}
	if got, err := throttled("7:1 5\n7:11 4096\n", "7:11"); got != 4096 || err != nil {
		t.Errorf("7:11 = %d, %v; want 4096", got, err)
	}
}
