package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// guest is process 1 of the machine. It ends by switching the machine off.
func guest() {
	if err := settle(); err != nil {
		fmt.Fprintln(os.Stderr, "vmtest: init:", err)
	} else if err := runAll(); err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // QEMU runs with -no-reboot
	select {}
}

// settle mounts what tests expect of a host. cgroup v2 is alone, as on today's
// distributions.
func settle() error {
	// The kernel's own first root cannot be pivoted away from, which boxes do:
	// a mount on top of it can.
	for _, step := range []func() error{
		func() error { return unix.Mount("/", "/new", "", unix.MS_BIND, "") },
		func() error { return unix.Chdir("/new") },
		func() error { return unix.Mount("/new", "/", "", unix.MS_MOVE, "") },
		func() error { return unix.Chroot(".") },
		func() error { return unix.Chdir("/") },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("move the root: %w", err)
		}
	}
	for _, m := range []struct{ kind, at, opts string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"tmpfs", "/dev/shm", ""},
		{"devpts", "/dev/pts", ""},
		{"tmpfs", "/tmp", ""},
		{"tmpfs", "/run", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"bpf", "/sys/fs/bpf", ""},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, m.opts); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return nil
}

func runAll() error {
	b, err := os.ReadFile("/manifest.json")
	if err != nil {
		return err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for _, name := range m.Modules {
		if err := load(filepath.Join("/modules", name)); err != nil {
			return err
		}
	}
	if err := mountDisk(); err != nil {
		return fmt.Errorf("make a disk: %w", err)
	}
	out, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	for _, s := range m.Suites {
		fmt.Fprintf(out, "%s%s\n", markBegin, s.Name)
		verdict := "ok"
		if err := s.run(out); err != nil {
			verdict = "fail"
		}
		fmt.Fprintf(out, "\n%s%s\n", markEnd, verdict)
	}
	fmt.Fprintln(out, markOver)
	return drain(out)
}

// disk is a file system whose pages the kernel can take back, as faults of memory
// need it, on the machine's drive. (A loop device on a tmpfs would not do: what is
// written to it is charged to the writer's cgroup and stays there.)
const disk, drive = "/disk", "/dev/vda"

func mountDisk() error {
	if err := os.Mkdir(disk, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("/sbin/mkfs.ext4", "-q", "-F", "-J", "size=16", drive).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return unix.Mount(drive, disk, "ext4", 0, "")
}

// drain waits until a serial port has sent everything.
func drain(f *os.File) error { return unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1) }

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", file, err)
	}
	return nil
}

// inconclusive is brownout's exit code for a run of which nothing can be said.
const inconclusive = 4

// run prints what a suite prints; a command as if it were a test.
func (s suite) run(out *os.File) error {
	argv, dir := s.Args, "/tmp"
	if s.Test {
		argv = append([]string{"/" + testFile(s.Name), "-test.v=test2json", "-test.paniconexit0", "-test.timeout=3m"}, s.Args...)
		dir = "/" + testDir(s.Name)
	}
	start := func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		plain := struct{ io.Writer }{out} // a pipe, which is no terminal
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, plain, plain
		// What this machine is for must not be skipped in it.
		cmd.Env = []string{"PATH=/bin:/sbin", "HOME=/root", "TMPDIR=" + disk, "BROWNOUT_REQUIRE=root,netem,dm,cgroup2"}
		return cmd.Run()
	}
	if s.Test {
		return start()
	}
	name := filepath.Base(s.Name)
	fmt.Fprintf(out, "\x16=== RUN   %s\n", name)
	begin := time.Now()
	err := start()
	for range 2 { // a busy host makes a run inconclusive, which says nothing
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == inconclusive {
			err = start()
		}
	}
	verdict, last := "PASS", "PASS"
	if err != nil {
		fmt.Fprintf(out, "\n%v: %v\n", argv, err)
		verdict, last = "FAIL", "FAIL"
	}
	fmt.Fprintf(out, "\n\x16--- %s: %s (%.2fs)\n\x16%s\n", verdict, name, time.Since(begin).Seconds(), last)
	return err
}
