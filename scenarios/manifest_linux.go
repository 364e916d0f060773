package scenarios

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/internal/sys/cgroup"
)

// manifest describes the conditions of a run as far as they are known before it.
func manifest(p *plan.Plan, id, dir, exe string, argv []string) run.Manifest {
	m := run.Manifest{
		Schema: run.ManifestSchema, Run: id, Started: time.Now().Format(time.RFC3339Nano),
		Scenario: p.Scenario, Hash: p.SHA256, Seed: p.Seed, Argv: argv, Version: p.Version,
		Go: runtime.Version(), Modules: map[string]string{}, Binaries: map[string]string{},
		Host: host(dir), Providers: map[string]run.Provider{}, Sysctls: sysctls(), Mechanisms: map[string]string{},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			m.Modules[d.Path] = d.Version
		}
	}
	if sum, err := fileHash(exe); err == nil {
		m.Binaries["brownout"] = sum
	}
	return m
}

// networkOf describes the healthy links of a cluster: what was asked for, and
// what the kernel has.
func networkOf(c *cluster.Cluster, n plan.Network) run.Network {
	out := c.Network()
	out.Profile, out.Delay, out.Jitter, out.Rate, out.Queue = n.Profile, int64(n.Delay), int64(n.Jitter), n.Rate, n.Queue
	return out
}

func host(dir string) run.Host {
	h := run.Host{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:])
	}
	h.CPUModel = procField("/proc/cpuinfo", "model name")
	if kb, err := strconv.ParseInt(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		h.MemoryBytes = kb << 10
	}
	h.Clocksource = word("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if cg, err := cgroup.Discover(); err == nil {
		h.CgroupMode = string(cg.Mode())
		h.Controllers = cg.Controllers()
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		h.Filesystem = filesystem(int64(st.Type))
	}
	return h
}

// filesystem names the common magic numbers of statfs(2).
func filesystem(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	}
	return "0x" + strconv.FormatInt(magic, 16)
}

// sysctls reads the settings that change what a run measures. They are read,
// never written.
func sysctls() map[string]string {
	out := map[string]string{}
	for _, name := range []string{
		"kernel/sched_rt_runtime_us", "kernel/sched_rt_period_us", "vm/dirty_ratio", "vm/dirty_background_ratio",
		"vm/swappiness", "net/core/rmem_max", "net/core/wmem_max", "net/ipv4/tcp_congestion_control",
		"net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem",
	} {
		if v := word("/proc/sys/" + name); v != "" {
			out[strings.ReplaceAll(name, "/", ".")] = v
		}
	}
	return out
}

func word(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// procField returns the value of the first "name : value" line.
func procField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if k, v, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func fileHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
