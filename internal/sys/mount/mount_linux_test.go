package mount

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/needs"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("BROWNOUT_TEST_CHILD"); dir != "" {
		if err := box(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// box builds a small root in new namespaces and looks around in it.
func box(dir string) error {
	for _, f := range []func() error{
		Private,
		func() error { return Tmpfs(dir, 1<<20, 0o755) },
		func() error { return os.Mkdir(filepath.Join(dir, "dev"), 0o755) },
		func() error { return Devices(filepath.Join(dir, "dev"), "null", "zero", "random", "urandom") },
		func() error { return os.Mkdir(filepath.Join(dir, "proc"), 0o555) },
		func() error { return Proc(filepath.Join(dir, "proc")) },
		func() error { return Tree(dir, "/usr") },
		func() error { return Tree(dir, "/bin") },
		func() error { return Tree(dir, "/no/such/thing") },
		func() error { return Pivot(dir) },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	fmt.Println("root", names)
	points, err := Points("/")
	if err != nil {
		return err
	}
	fmt.Println("points", slices.Contains(points, "/usr"), slices.Contains(points, "/proc"), len(points) < 20)
	fmt.Println("pid", os.Getpid())
	fmt.Println("write to usr", os.WriteFile("/usr/x", nil, 0o644))
	fmt.Println("full", len(os.WriteFile("/big", make([]byte, 2<<20), 0o644).Error()) > 0)
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = null.WriteString("x")
	fmt.Println("null", err)
	b := make([]byte, 4)
	zero, err := os.Open("/dev/zero")
	if err != nil {
		return err
	}
	_, err = zero.Read(b)
	fmt.Println("zero", b, err)
	return nil
}

func TestRootOfMemoryAndReadOnlyViews(t *testing.T) {
	needs.Host(t, needs.Root)
	dir := t.TempDir()
	before, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), "BROWNOUT_TEST_CHILD="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	names := "[bin dev proc usr]"
	if _, err := os.Lstat("/bin"); err != nil {
		names = "[dev proc usr]"
	}
	want := "root " + names + `
points true true true
pid 1
write to usr open /usr/x: read-only file system
full true
null <nil>
zero [0 0 0 0] <nil>
`
	if string(out) != want || err != nil {
		t.Errorf("inside: %v\n%s\nwant:\n%s", err, out, want)
	}
	after, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(after), dir) || len(after) > len(before)+4096 {
		t.Errorf("mounts are seen outside:\n%s", after)
	}
}

func TestDevicesThatAreNotKnownAreErrors(t *testing.T) {
	if err := Devices(t.TempDir(), "mem"); err == nil {
		t.Error("/dev/mem was made")
	}
	if err := bindDevice("/dev/no-such-device", filepath.Join(t.TempDir(), "x")); err == nil {
		t.Error("a device that the host lacks was shown")
	}
}

func TestBindReadOnlyLeavesNothingOnError(t *testing.T) {
	needs.Host(t, needs.Root)
	dir := t.TempDir()
	if err := BindReadOnly(filepath.Join(dir, "none"), dir); err == nil {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		t.Error("a directory that is not there was bound")
	}
	if ps, err := Points(dir); err != nil || len(ps) != 0 {
		t.Errorf("mount points = %v, %v; want none", ps, err)
	}
}
