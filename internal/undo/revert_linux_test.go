package undo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/link"
	"brownout/internal/sys/mount"
	"brownout/internal/sys/netns"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("UNDO_TEST_MOUNTS"); dir != "" {
		if err := mountAndRevert(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sleeper starts a process of no importance.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestRevertKillsTheRecordedProcessOnly(t *testing.T) {
	cmd := sleeper(t)
	born, ok := lives(cmd.Process.Pid)
	if !ok {
		t.Fatal("it does not live")
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := Revert(Record{Kind: Process, Name: pid, Born: born + 1}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another life of the pid: %v, want that it is gone", err)
	}
	if _, ok := lives(cmd.Process.Pid); !ok {
		t.Fatal("a process that was not recorded was killed")
	}
	if err := Revert(Record{Kind: Process, Name: pid, Born: born}); err != nil {
		t.Error(err)
	}
	if err := Revert(Record{Kind: Process, Name: pid, Born: born}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second time: %v, want that it is gone", err)
	}
	for _, name := range []string{"1", "0", "-1", "x", ""} {
		if err := Revert(Record{Kind: Process, Name: name}); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("pid %q: %v, want a refusal", name, err)
		}
	}
}

func TestRevertRefusesWhatIsNotOurs(t *testing.T) {
	for _, r := range []Record{
		{Kind: Cgroup, Name: "system.slice"},
		{Kind: Cgroup, Name: "bo-x/../system.slice"},
		{Kind: Mount, Name: "/proc"},
		{Kind: Link, Name: "lo"},
		{Kind: "file", Name: "/etc/passwd"},
	} {
		if err := Revert(r); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("Revert(%+v) = %v, want a refusal", r, err)
		}
	}
	for _, r := range []Record{
		{Kind: Cgroup, Name: "bo-none-1-1"},
		{Kind: Mount, Name: "/no/such/mount"},
		{Kind: Link, Name: "bo-none"},
		{Kind: Loop, Name: "/dev/loop999"},
	} {
		if err := Revert(r); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Revert(%+v) = %v, want that it is gone", r, err)
		}
	}
}

func TestRevertRemovesCgroupsWithAllInThem(t *testing.T) {
	needs.Host(t, needs.Root)
	host, err := cgroup.Discover()
	if err != nil {
		t.Fatal(err)
	}
	o, err := Self("undo" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if o.InUse() {
		t.Fatal("in use before it was made")
	}
	g, err := host.Create(o.String())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Delete(context.Background()) })
	child, err := g.Child("n1")
	if err != nil {
		t.Fatal(err)
	}
	cmd := sleeper(t)
	if err := child.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := child.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !o.InUse() || !o.Alive() {
		t.Error("not in use, or we are not alive")
	}
	find := func(all bool) bool {
		found, err := Find(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(found, func(r Record) bool { return r.Name == o.String() })
	}
	if find(false) {
		t.Error("Find reports what belongs to the living")
	}
	if !find(true) {
		t.Error("Find does not report it even if all is asked for")
	}
	if err := Revert(Record{Kind: Cgroup, Name: o.String()}); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	for _, p := range g.Paths() {
		if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", p, err)
		}
	}
}

func TestFindTellsOrphansByArgumentsAndEnvironment(t *testing.T) {
	needs.Host(t, needs.Root)
	// A process that lived a moment ago, and whose pid may be anybody's now.
	dead := Owner{ID: "gone", PID: os.Getpid(), Born: 1}
	self, err := Self("here")
	if err != nil {
		t.Fatal(err)
	}
	env := func(o fmt.Stringer) []string { return []string{RunEnv + "=" + o.String()} }
	// A shell stands in, waiting for input, whose first argument is a script's name.
	dir := t.TempDir()
	for _, script := range []string{"_init", "_target"} { // once: a shell may be about to read it
		if err := os.WriteFile(filepath.Join(dir, script), []byte("read x\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	helper := func(arg string, env []string) int {
		cmd := exec.Command("/bin/sh", arg)
		cmd.Env, cmd.Dir = env, dir
		// It ends with us, as its input does. (A signal at the parent's death would come
		// when the thread that started it ends, which in Go may be any time.)
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd.Process.Pid
	}
	orphan := helper("_init", env(dead))
	others := map[string]int{
		"a helper of a live run":          helper("_init", env(self)),
		"a process with such arguments":   helper("_init", nil),
		"a process with such environment": helper("_target", env(dead)),
		"a run of no known form":          helper("_init", []string{RunEnv + "=x"}),
	}
	has := func(pid int) bool {
		found, err := Find(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(found, func(r Record) bool { return r.Kind == Process && r.Name == strconv.Itoa(pid) })
	}
	for end := time.Now().Add(5 * time.Second); !has(orphan) && time.Now().Before(end); {
	}
	if !has(orphan) {
		t.Error("the orphan was not found")
	}
	for name, pid := range others {
		if has(pid) {
			t.Errorf("%s was found", name)
		}
	}
}

func TestRevertDeletesLinksOfOurs(t *testing.T) {
	needs.Host(t, needs.Root)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	conn, err := link.At(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Bridge("bo-test", 7, 1500); err != nil {
		t.Fatal(err)
	}
	err = netns.Do(ns, func() error {
		if err := Revert(Record{Kind: Link, Name: "bo-test"}); err != nil {
			t.Error(err)
		}
		if _, err := net.InterfaceByName("bo-test"); err == nil {
			t.Error("it is still there")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mountAndRevert runs in a mount namespace of its own.
func mountAndRevert(dir string) error {
	if err := mount.Private(); err != nil {
		return err
	}
	ours, others := filepath.Join(dir, "with space"), filepath.Join(dir, "others")
	for _, d := range []string{ours, others} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := syscall.Mount("bo-disk", ours, "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := syscall.Mount("bystander", others, "tmpfs", 0, ""); err != nil {
		return err
	}
	found, err := Find(context.Background(), true)
	fmt.Println("found", slices.ContainsFunc(found, func(r Record) bool { return r.Kind == Mount && r.Name == ours }),
		slices.ContainsFunc(found, func(r Record) bool { return r.Name == others }), err)
	fmt.Println("revert", Revert(Record{Kind: Mount, Name: ours}), Revert(Record{Kind: Mount, Name: others}) != nil)
	left, err := mount.Points(dir)
	fmt.Println("left", len(left), err)
	return nil
}

func TestRevertUnmountsWhatIsOurs(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), "UNDO_TEST_MOUNTS="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if want := "found true false <nil>\nrevert <nil> true\nleft 1 <nil>\n"; err != nil || string(out) != want {
		t.Errorf("inside: %s(%v)\nwant %s", out, err, want)
	}
}

func TestParseMount(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       mountLine
		ok         bool
	}{
		{"a plain one", "36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw", mountLine{"/mnt2", "ext3", "/dev/root"}, true},
		{"optional fields vary in number", "36 35 98:0 / /a rw shared:1 master:2 - fuse.slowfs slowfs rw", mountLine{"/a", "fuse.slowfs", "slowfs"}, true},
		{"spaces are escaped", `36 35 98:0 / /a\040b\134c rw - tmpfs bo-x rw`, mountLine{`/a b\c`, "tmpfs", "bo-x"}, true},
		{"no hyphen", "36 35 98:0 / /a rw shared:1", mountLine{}, false},
		{"cut short", "36 35 98:0 / /a rw - ext4", mountLine{}, false},
		{"nothing", "", mountLine{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := parseMount(tt.line); ok != tt.ok || got != tt.want {
				t.Errorf("parseMount(%q) = %+v, %v; want %+v, %v", tt.line, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func FuzzParseMount(f *testing.F) {
	f.Add("36 35 98:0 / /a rw shared:1 master:2 - fuse.slowfs slowfs rw")
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := parseMount(line); ok && !strings.Contains(line, m.fstype) {
			t.Errorf("parseMount(%q) = %+v", line, m)
		}
	})
}
