// Command vmtest runs tests of kernel mechanisms on a stock kernel in QEMU,
// because a developer's host rarely has all of them: netem, the device mapper
// and a pure cgroup v2 hierarchy. .ci/vmtest calls it with a kernel package's
// tree.
//
// It packs test binaries, brownout, kernel modules and itself as /init into an
// initramfs, boots it and prints what `go test -json` would have printed. It
// needs no KVM: QEMU translates.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"brownout/internal/sys/proc"
)

// A suite is a package's tests, or a command, that runs in the machine.
type suite struct {
	Name string   // import path, or what the command shows
	Args []string // flags of the test binary, or the command's argv
	Test bool
}

// suites are what needs a kernel that developers' hosts do not have, and what
// must also work on that one.
var suites = []suite{
	tests("brownout/internal/sys/cgroup", "."),
	tests("brownout/internal/sys/freezer", "."),
	tests("brownout/internal/sys/link", "."),
	tests("brownout/internal/sys/qdisc", "."),
	tests("brownout/internal/sys/dm", "."),
	tests("brownout/cluster", "World|KilledNode"),
	// Who competes with its probe for an emulated CPU does not let it start in time.
	tests("brownout/faults", "^TestNetem|^TestBlock|^TestCPUFaultsConform|^TestMemoryFaultsConform", "TestCPUFaultsConform/cpu/cpu.(steal|contend)"),
	command("brownout/cmd/doctor", "/bin/brownout", "doctor", "--measure=false"),
	command("brownout/cmd/run", "/bin/brownout", "run", "/testdata/stock.yaml"),
}

// tests are those of a package whose names match run, without what matches a skip.
func tests(pkg, run string, skip ...string) suite {
	args := []string{"-test.short", "-test.run=" + run}
	for _, s := range skip {
		args = append(args, "-test.skip="+s)
	}
	return suite{pkg, args, true}
}

func command(name string, argv ...string) suite { return suite{name, argv, false} }

// timed reports whether a suite measures doses, which an emulated machine on a
// busy host cannot give.
func timed(name string) bool { return name == "brownout/faults" || name == "brownout/cmd/run" }

// errBusy says that suites failed of which a busy host says nothing.
var errBusy = errors.New("suites that measure times failed on a busy host")

// errMachine says that the machine hung or died: as a whole, it is tried once more.
var errMachine = errors.New("the machine")

// errFailed are suites that did not pass in a machine that ran to its end.
type errFailed struct {
	suites  []string
	doubted bool // all of them measure times, and others had much of the CPUs meanwhile
}

func (e *errFailed) Error() string { return "failed: " + strings.Join(e.suites, ", ") }

// othersMost is the share of all CPU time that others may have while suites
// measure times in the machine, which wants all of two CPUs.
const othersMost = 0.05

// cpuTime is what the host's CPUs have done since it booted; nothing if that cannot be read.
func cpuTime() proc.CPU {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return proc.CPU{}
	}
	h, _ := proc.ParseHost(b)
	return h.CPU
}

// others is the share of all CPU time, the hypervisor's steal included, that was
// not the machine's.
func others(spent proc.CPU, machine *os.ProcessState) float64 {
	if spent.Total() <= 0 {
		return 0
	}
	return max(0, float64(spent.Busy()+spent.Steal-machine.UserTime()-machine.SystemTime())/float64(spent.Total()))
}

const module = "brownout/"

// modules are loaded, with what they depend on, if the kernel has them as such.
var modules = strings.Fields(`
	veth bridge tun ifb inet_diag tcp_diag udp_diag
	sch_netem sch_htb sch_tbf sch_ingress cls_u32 cls_bpf act_mirred
	virtio_pci virtio_blk loop ext4 fuse dm-mod dm-delay dm-flakey`)

func main() {
	if os.Getpid() == 1 {
		guest()
		return
	}
	kernel := flag.String("kernel", "", "tree of an unpacked kernel package")
	within := flag.Duration("within", 5*time.Minute, "for the machine to boot, run everything and power off")
	only := flag.String("only", "", "run only suites whose name contains this")
	run := flag.String("run", "", "in place of a suite's own pattern of tests")
	keep := flag.String("keep", "", "directory for the image and the kernel's log; default a temporary one")
	flag.Parse()
	var chosen []suite
	for _, s := range suites {
		if strings.Contains(s.Name, *only) {
			if *run != "" && s.Test {
				s = tests(s.Name, *run)
			}
			chosen = append(chosen, s)
		}
	}
	if err := host(*kernel, *keep, *within, chosen); err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		if errors.Is(err, errBusy) {
			os.Exit(exitBusy)
		}
		os.Exit(1)
	}
}

const exitBusy = 3

func host(kernel, dir string, within time.Duration, chosen []suite) error {
	if dir == "" {
		d, err := os.MkdirTemp("", "bo-vmtest-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(d)
		dir = d
	}
	images, err := filepath.Glob(filepath.Join(kernel, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("%s holds %d kernels, want one boot/vmlinuz-*", kernel, len(images))
	}
	image := filepath.Join(dir, "initramfs")
	once := func() error {
		if err := pack(image, kernel, chosen); err != nil {
			return fmt.Errorf("pack: %w", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		drive := filepath.Join(dir, "drive") // empty each time
		if err := errors.Join(os.WriteFile(drive, nil, 0o600), os.Truncate(drive, driveBytes)); err != nil {
			return err
		}
		return boot(ctx, images[0], image, drive, filepath.Join(dir, "console"), os.Stdout)
	}
	err = once()
	// As .ci/test does with tests that need this host's kernel.
	var first, second *errFailed
	all := "everything"
	switch {
	case errors.Is(err, errMachine):
		fmt.Fprintf(os.Stderr, "=== %v\n=== tried again, whole ===\n", err)
	case errors.As(err, &first) && len(first.suites) <= fewFailures:
		all = strings.Join(first.suites, ", ")
		fmt.Fprintf(os.Stderr, "=== tried again, in a machine of their own: %s ===\n", all)
		chosen = slices.DeleteFunc(slices.Clone(chosen), func(s suite) bool { return !slices.Contains(first.suites, s.Name) })
	default:
		return err
	}
	switch err = once(); {
	case err == nil:
		fmt.Fprintf(os.Stderr, "=== FLAKY: failed once, passed when tried again alone; see below why: %s ===\n", all)
	case errors.As(err, &second) && second.doubted:
		return errBusy
	}
	return err
}

// driveBytes is the size of the machine's drive, a sparse file.
const driveBytes = 1 << 30

// fewFailures are tried again.
const fewFailures = 2

// boot runs the machine and turns what it says on its second serial port into
// the events of `go test -json`. The first is the kernel's console.
func boot(ctx context.Context, kernel, image, drive, console string, out io.Writer) (err error) {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		// Not microvm: its clock is wrong or does not start without KVM.
		"-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot",
		"-kernel", kernel, "-initrd", image, "-drive", "if=virtio,format=raw,cache=unsafe,file="+drive,
		"-append", "console=ttyS0 loglevel=6 panic=-1 reboot=t mitigations=off tsc=nowatchdog no_timer_check psi=1",
		"-serial", "file:"+console, "-serial", "stdio")
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	begin, used := time.Now(), cpuTime()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended, failed, parseErr := report(ctx, said, out)
	err = cmd.Wait()
	rest := others(cpuTime().Sub(used), cmd.ProcessState)
	fmt.Fprintf(os.Stderr, "vmtest: the machine ran for %.0fs; others had %.0f %% of the CPUs\n", time.Since(begin).Seconds(), 100*rest)
	switch {
	case parseErr != nil:
		return parseErr
	case context.Cause(ctx) != nil && !ended:
		return fmt.Errorf("%w did not end in time; its console:\n%s", errMachine, tail(console))
	case !ended:
		return fmt.Errorf("%w died (%v); its console:\n%s", errMachine, err, tail(console))
	case len(failed) > 0:
		return &errFailed{failed, rest > othersMost && !slices.ContainsFunc(failed, func(s string) bool { return !timed(s) })}
	}
	return nil
}

// Marks of the guest's report, each a line of its own before and after what a
// suite prints.
const (
	markBegin = "\x01begin "
	markEnd   = "\x01end "
	markOver  = "\x01over"
)

// report reads the guest's report to its end. It says whether it had one, and
// which suites failed.
func report(ctx context.Context, said io.Reader, out io.Writer) (ended bool, failed []string, err error) {
	in := bufio.NewReader(said)
	var (
		pkg  string
		conv *exec.Cmd
		to   io.WriteCloser
	)
	finish := func(ok bool) error {
		if conv == nil {
			return nil
		}
		if !ok {
			failed = append(failed, pkg)
			fmt.Fprint(to, "\n\x16FAIL\n") // a suite that died did not say so
		}
		err := errors.Join(to.Close(), conv.Wait())
		conv = nil
		return err
	}
	for {
		line, rerr := in.ReadString('\n')
		line = strings.ReplaceAll(line, "\r", "")
		switch {
		case strings.HasPrefix(line, markBegin):
			pkg = strings.TrimSpace(line[len(markBegin):])
			conv = exec.Command("go", "tool", "test2json", "-t", "-p", pkg)
			conv.Stdout, conv.Stderr = out, os.Stderr
			if to, err = conv.StdinPipe(); err != nil {
				return false, failed, err
			}
			if err := conv.Start(); err != nil {
				return false, failed, fmt.Errorf("test2json: %w", err)
			}
		case strings.HasPrefix(line, markEnd):
			if err := finish(strings.TrimSpace(line[len(markEnd):]) == "ok"); err != nil {
				return false, failed, err
			}
		case strings.HasPrefix(line, markOver):
			ended = true
		case conv != nil:
			if _, err := io.WriteString(to, line); err != nil {
				return false, failed, err
			}
		}
		if rerr != nil {
			if conv != nil {
				fmt.Fprintf(to, "\nvmtest: the machine ended in the middle of %s (%v)\n", pkg, context.Cause(ctx))
				err := finish(false)
				return false, failed, err
			}
			return ended, failed, nil
		}
	}
}

// tail is the end of a file, for an error.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(b, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
}

// A manifest tells the guest what to do.
type manifest struct {
	Modules []string // files in /modules, in order
	Suites  []suite
}

func (m manifest) encode() []byte {
	b, _ := json.Marshal(m) // plain types
	return b
}
