package cgroup

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCheckName(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		ok       bool
	}{
		{"a run's group", "bo-k3f9-1234-567890", true},
		{"a node's group", "bo-k3f9-1234-567890/n1", true},
		{"a neighbour's", "bo-a/burner.1_x", true},
		{"somebody else's", "system.slice", false},
		{"the root", "/", false},
		{"an absolute path", "/bo-a", false},
		{"out of ours", "bo-a/..", false},
		{"out of ours and into another", "bo-a/../system.slice", false},
		{"hidden", "bo-a/.x", false},
		{"an empty element", "bo-a//n1", false},
		{"a control file", "bo-a/n1\n", false},
		{"nothing", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := checkName(tt.in); (err == nil) != tt.ok {
				t.Errorf("checkName(%q) = %v", tt.in, err)
			}
		})
	}
}

func TestUnescape(t *testing.T) {
	if got, want := unescape(`/a\040b\134c\011`), "/a b\\c\t"; got != want {
		t.Errorf("unescape = %q, want %q", got, want)
	}
}

func TestQuotaFor(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name    string
		percent float64
		period  time.Duration
		want    Quota
		err     string
		fair    bool
	}{
		{"a fifth of a CPU", 20, 100 * ms, Quota{20 * ms, 100 * ms}, "", true},
		{"two and a half CPUs", 250, 10 * ms, Quota{25 * ms, 10 * ms}, "", true},
		{"the smallest period", 100, ms, Quota{ms, ms}, "", false},
		{"the largest period", 1, time.Second, Quota{10 * ms, time.Second}, "", true},
		{"less than a bandwidth slice", 20, 20 * ms, Quota{4 * ms, 20 * ms}, "", false},
		{"rounded to microseconds", 33.333333, 100 * ms, Quota{33333 * time.Microsecond, 100 * ms}, "", true},
		{"a period too short", 20, 999 * time.Microsecond, Quota{}, "the kernel takes 1ms to 1s", false},
		{"a period too long", 20, 2 * time.Second, Quota{}, "the kernel takes 1ms to 1s", false},
		{"a quota too small", 5, 10 * ms, Quota{}, "with this period 10% or more, or with 5% a period of 20ms or more", false},
		{"nothing", 0, 100 * ms, Quota{}, "not in 0..", false},
		{"less than nothing", -5, 100 * ms, Quota{}, "not in 0..", false},
		{"more than any host has", 1e9, 100 * ms, Quota{}, "not in 0..", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := QuotaFor(tt.percent, tt.period)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("QuotaFor(%v, %v) = %v, %v; want %v, %q", tt.percent, tt.period, got, err, tt.want, tt.err)
			}
			if fair, why := got.Fair(); err == nil && fair != tt.fair {
				t.Errorf("%v fair: %v (%s), want %v", got, fair, why, tt.fair)
			}
		})
	}
}

func TestParseCPUMax(t *testing.T) {
	for _, tt := range []struct {
		in            string
		quota, period int64
		ok            bool
	}{
		{"max 100000\n", -1, 100000, true},
		{"20000 100000\n", 20000, 100000, true},
		{"20000\n", 0, 0, false},
		{"x 100000\n", 0, 0, false},
		{"", 0, 0, false},
	} {
		q, p, err := parseCPUMax(tt.in)
		if q != tt.quota && tt.ok || p != tt.period && tt.ok || (err == nil) != tt.ok {
			t.Errorf("parseCPUMax(%q) = %d, %d, %v", tt.in, q, p, err)
		}
	}
}

// The law: what was parsed is among the lines, and no more than them.
func FuzzParse(f *testing.F) {
	f.Add("4:memory:/a\n0::/\n", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	f.Fuzz(func(t *testing.T, own, mountinfo string) {
		if m, err := parseOwn(own); err == nil {
			for c, p := range m {
				if !strings.Contains(own, c) || !strings.Contains(own, p) {
					t.Fatalf("%q: %q is not in %q", c, p, own)
				}
			}
		}
		if ms, err := parseMounts(mountinfo); err == nil && len(ms) > strings.Count(mountinfo, "\n")+1 {
			t.Fatalf("%d mounts in %q", len(ms), mountinfo)
		}
	})
}

// fakeKernel is a tree that was recorded.
type fakeKernel struct {
	versions map[string]int // by directory; 0 where something covers it
	readOnly map[string]bool
	offers   string // cgroup.controllers at the top of v2
}

func (k fakeKernel) version(dir string) int   { return k.versions[dir] }
func (k fakeKernel) writable(dir string) bool { return !k.readOnly[dir] }
func (k fakeKernel) controllers(string) ([]string, error) {
	return strings.Fields(k.offers), nil
}

func TestLayOut(t *testing.T) {
	for _, tt := range []struct {
		name           string
		mountinfo, own string
		k              fakeKernel
		want           []string
	}{
		{
			"every controller in v1 beside an empty v2, in a guest without systemd",
			`31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`,
			"9:name=systemd:/\n6:freezer:/\n4:memory:/agent/6f6b\n3:cpuset:/\n2:cpuacct:/\n1:cpu:/\n0::/\n",
			fakeKernel{versions: map[string]int{
				"/sys/fs/cgroup/cpu": 1, "/sys/fs/cgroup/cpuacct": 1, "/sys/fs/cgroup/memory": 1, "/sys/fs/cgroup/freezer": 1,
				"/sys/fs/cgroup/systemd": 1, "/sys/fs/cgroup/cpuset": 1, "/sys/fs/cgroup/unified": 2,
			}, offers: "hugetlb"},
			[]string{"1 /sys/fs/cgroup/cpu cpu", "1 /sys/fs/cgroup/cpuacct cpuacct", "1 /sys/fs/cgroup/cpuset cpuset", "1 /sys/fs/cgroup/memory memory", "1 /sys/fs/cgroup/freezer freezer", "2 /sys/fs/cgroup/unified hugetlb"},
		},
		{
			"systemd's hybrid: controllers share mounts, optional fields, memory in v2",
			`30 25 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
36 30 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,cpu,cpuacct
38 30 0:34 / /sys/fs/cgroup/blkio rw,nosuid,nodev,noexec,relatime shared:18 - cgroup cgroup rw,blkio
39 30 0:35 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid shared:19 - cgroup cgroup rw,net_cls,net_prio
`,
			"12:net_cls,net_prio:/\n11:blkio:/user.slice\n4:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/session-1.scope\n0::/user.slice/session-1.scope\n",
			fakeKernel{versions: map[string]int{
				"/sys/fs/cgroup/cpu,cpuacct": 1, "/sys/fs/cgroup/blkio": 1, "/sys/fs/cgroup/unified": 2, "/sys/fs/cgroup/net_cls,net_prio": 1,
			}, offers: "memory"},
			[]string{"2 /sys/fs/cgroup/unified memory", "1 /sys/fs/cgroup/cpu,cpuacct cpu,cpuacct", "1 /sys/fs/cgroup/blkio blkio"},
		},
		{
			"v2 alone under systemd",
			"29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			"0::/user.slice/user-1000.slice/session-3.scope\n",
			fakeKernel{versions: map[string]int{"/sys/fs/cgroup": 2}, offers: "cpuset cpu io memory hugetlb pids rdma misc"},
			[]string{"2 /sys/fs/cgroup cpu,cpuset,hugetlb,io,memory,misc,pids,rdma"},
		},
		{
			"v2 in an unprivileged container with its own cgroup namespace",
			"1503 1502 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n",
			"0::/\n",
			fakeKernel{versions: map[string]int{"/sys/fs/cgroup": 2}, readOnly: map[string]bool{"/sys/fs/cgroup": true}, offers: "cpu io memory pids"},
			[]string{"2 /sys/fs/cgroup cpu,io,memory,pids ro"},
		},
		{
			"v1 in a container without a cgroup namespace: the mount begins at the container's own group",
			`700 650 0:50 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755
701 700 0:29 /docker/4f2a /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,cpu,cpuacct
702 700 0:32 /docker/4f2a /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,memory
`,
			"9:memory:/docker/4f2a\n4:cpu,cpuacct:/docker/4f2a\n",
			fakeKernel{versions: map[string]int{"/sys/fs/cgroup/cpu,cpuacct": 1, "/sys/fs/cgroup/memory": 1}},
			[]string{"1 /sys/fs/cgroup/cpu,cpuacct cpu,cpuacct", "1 /sys/fs/cgroup/memory memory"},
		},
		{
			"a mount that another covers is not there",
			`31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
32 31 0:29 / /sys/fs/cgroup rw - tmpfs tmpfs rw
33 32 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
`,
			"1:cpu:/\n0::/\n",
			fakeKernel{versions: map[string]int{"/sys/fs/cgroup/cpu": 1}},
			[]string{"1 /sys/fs/cgroup/cpu cpu"},
		},
		{
			"of one hierarchy mounted twice the writable one counts",
			`33 32 0:30 / /sys/fs/cgroup/cpu ro - cgroup cgroup ro,cpu
34 32 0:30 / /tmp/cpu\040own rw - cgroup cgroup rw,cpu
`,
			"1:cpu:/\n",
			fakeKernel{versions: map[string]int{"/sys/fs/cgroup/cpu": 1, "/tmp/cpu own": 1}, readOnly: map[string]bool{"/sys/fs/cgroup/cpu": true}},
			[]string{"1 /tmp/cpu own cpu"},
		},
		{"no cgroups at all", "27 1 254:0 / / rw - ext4 /dev/vda rw\n", "", fakeKernel{}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ms, err := parseMounts(tt.mountinfo)
			if err != nil {
				t.Fatal(err)
			}
			own, err := parseOwn(tt.own)
			if err != nil {
				t.Fatal(err)
			}
			hs, err := layOut(ms, own, tt.k)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, h := range hs {
				s := fmt.Sprintf("%d %s %s", h.version, h.dir, strings.Join(h.controllers, ","))
				if !h.writable {
					s += " ro"
				}
				got = append(got, s)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestBrokenFilesAreErrors(t *testing.T) {
	for _, bad := range []string{"31 23 0:28 / /sys/fs/cgroup rw\n", "x\n", "31 23 - cgroup\n"} {
		if ms, err := parseMounts(bad); err == nil {
			t.Errorf("parseMounts(%q) = %v, want an error", bad, ms)
		}
	}
	for _, bad := range []string{"1:cpu\n", "x\n", "1:cpu:relative\n"} {
		if m, err := parseOwn(bad); err == nil {
			t.Errorf("parseOwn(%q) = %v, want an error", bad, m)
		}
	}
}
