package cgroup

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestControllerSaysWhyNot(t *testing.T) {
	const v2 = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
	for _, tt := range []struct {
		name           string
		mountinfo, own string
		k              fakeKernel
		ask            string
		mode           Mode
		want           string // in the error; "" for none
	}{
		{"v2 has it", v2, "0::/\n", fakeKernel{versions: map[string]int{"/sys/fs/cgroup": 2}, offers: "cpu io"}, "cpu", V2, ""},
		{"blkio is called io on v2", v2, "0::/\n", fakeKernel{versions: map[string]int{"/sys/fs/cgroup": 2}, offers: "cpu io"}, "blkio", V2, ""},
		{"v2 was not given it", v2, "0::/\n", fakeKernel{versions: map[string]int{"/sys/fs/cgroup": 2}, offers: "memory"}, "cpu", V2, "cpu controller: not among the controllers of /sys/fs/cgroup (in a container: --privileged"},
		{"v2 is read-only", v2, "0::/\n", fakeKernel{versions: map[string]int{"/sys/fs/cgroup": 2}, readOnly: map[string]bool{"/sys/fs/cgroup": true}, offers: "cpu"}, "cpu", V2, "cpu controller: v2 at /sys/fs/cgroup is read-only (run as root"},
		{"v1 lacks it", "33 32 0:30 / /c/cpu rw - cgroup cgroup rw,cpu\n", "1:cpu:/\n", fakeKernel{versions: map[string]int{"/c/cpu": 1}}, "memory", V1, "mount -t cgroup -o memory"},
		{"nothing is mounted", "", "", fakeKernel{}, "cpu", "", "no cgroup file system is mounted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := discover(tt.mountinfo, tt.own, tt.k)
			if err != nil {
				t.Fatal(err)
			}
			if h.Mode() != tt.mode {
				t.Errorf("mode = %q, want %q", h.Mode(), tt.mode)
			}
			_, err = h.Controller(tt.ask)
			if tt.want == "" {
				if err != nil {
					t.Errorf("Controller(%s) = %v", tt.ask, err)
				}
				return
			}
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Controller(%s) = %v, want %q", tt.ask, err, tt.want)
			}
		})
	}
}

func TestEnableError(t *testing.T) {
	for _, tt := range []struct {
		err         error
		unsupported bool
		cure        string
	}{
		{syscall.EBUSY, true, "systemd-run -p Delegate=yes --scope"},
		{syscall.EROFS, true, "--privileged"},
		{syscall.EOPNOTSUPP, true, "threaded"},
		{syscall.EIO, false, "input/output error"},
	} {
		err := enableError("/sys/fs/cgroup", tt.err)
		if errors.Is(err, errors.ErrUnsupported) != tt.unsupported || !strings.Contains(err.Error(), tt.cure) {
			t.Errorf("enableError(%v) = %v, want %q", tt.err, err, tt.cure)
		}
	}
}

func TestParseIO(t *testing.T) {
	r, w := parseBlkio([]byte("254:0 Read 4096\n254:0 Write 100\n254:0 Sync 5\n7:1 Read 4\n7:1 Write 1\nTotal 4201\n"))
	if r != 4100 || w != 101 {
		t.Errorf("parseBlkio = %d, %d; want 4100, 101", r, w)
	}
	var s Stat
	parseIOStat([]byte("254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1 rbytes=1 wbytes=1 rios=1 wios=1\n"), &s)
	if s.ReadBytes != 11 || s.WriteBytes != 21 || s.ReadOps != 2 || s.WriteOps != 3 {
		t.Errorf("parseIOStat = %+v", s)
	}
}

func TestParseFlat(t *testing.T) {
	kv := parseFlat([]byte("nr_periods 12\nnr_throttled 3\nword\n\nnegative -4\nthrottled_time 99 trailing\n"))
	if kv["nr_periods"] != 12 || kv["nr_throttled"] != 3 || kv["throttled_time"] != 99 || len(kv) != 3 {
		t.Errorf("parseFlat = %v", kv)
	}
}

func TestQuotaPercent(t *testing.T) {
	if p := (Quota{20 * time.Millisecond, 100 * time.Millisecond}).Percent(); p != 20 {
		t.Errorf("percent = %v, want 20", p)
	}
}
