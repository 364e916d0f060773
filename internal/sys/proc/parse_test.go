package proc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     Stat
		err      bool
	}{
		{
			"a shell",
			"12345 (bash) S 1 12345 12345 34816 12346 4194304 1000 2000 3 4 5 6 7 8 20 0 1 0 987654 1000000 250 18446744073709551615 0 0\n",
			Stat{PID: 12345, Comm: "bash", State: 'S', PPID: 1, MinFlt: 1000, MajFlt: 3, User: 50 * time.Millisecond, System: 60 * time.Millisecond, Threads: 1, Start: 987654, RSS: 250, CPU: -1},
			false,
		},
		{
			"a name made to confuse",
			"7 (a) R 1 (b c) Z 2 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 42 0 -1 0\n",
			Stat{PID: 7, Comm: "a) R 1 (b c", State: 'Z', PPID: 2, Threads: 3, Start: 42, RSS: -1, CPU: -1},
			false,
		},
		{"nothing", "", Stat{}, true},
		{"no end of the name", "7 (a", Stat{}, true},
		{"brackets the wrong way round", ")(", Stat{}, true},
		{"cut short", "7 (a) R 1 7 7", Stat{}, true},
		{"a word where a number belongs", "7 (a) R x 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 42 0 -1 0", Stat{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseStat([]byte(tt.in))
			if d := cmp.Diff(tt.want, got); d != "" || (err != nil) != tt.err {
				t.Errorf("ParseStat(%q): %v\n%s", tt.in, err, d)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	in := "Name:\tsome name\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t77\nNgid:\t0\nPid:\t77\nPPid:\t1\nTracerPid:\t0\n" +
		"Uid:\t1000\t1001\t1002\t1003\nGid:\t5\t6\t7\t8\nFDSize:\t64\nGroups:\t4 24 27 \nNStgid:\t77\t1\nNSpid:\t77\t12\t1\n" +
		"VmRSS:\t    2048 kB\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000001\nCapInh:\t0000000000000000\n" +
		"CapPrm:\t000001fffeffffff\nCapEff:\t000001fffeffffff\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n" +
		"NoNewPrivs:\t1\nSeccomp:\t2\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n"
	want := Status{
		Name: "some name", State: 'S', TGID: 77, PPID: 1, UID: [4]int{1000, 1001, 1002, 1003}, GID: [4]int{5, 6, 7, 8},
		Groups: []int{4, 24, 27}, NSPID: []int{77, 12, 1}, SigPending: 1 << 8, SharedPending: 1,
		CapPrm: 0x1fffeffffff, CapEff: 0x1fffeffffff, CapBnd: 0x1ffffffffff, NoNewPrivs: true, Seccomp: 2,
		RSSBytes: 2 << 20, VoluntarySwitches: 150, InvoluntarySwitches: 545,
	}
	got, err := ParseStatus([]byte(in))
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("ParseStatus: %v\n%s", err, d)
	}
	for _, bad := range []string{"Uid:\t1\t2\n", "State:\t\n", "no colon\n", "VmRSS:\tmuch kB\n", "CapEff:\txyz\n"} {
		if got, err := ParseStatus([]byte(bad)); err == nil {
			t.Errorf("ParseStatus(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestParseIO(t *testing.T) {
	got, err := ParseIO([]byte("rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 7\nnew_field: 8\n"))
	if want := (IO{1, 2, 3, 4, 5, 6, 7}); got != want || err != nil {
		t.Errorf("ParseIO = %+v, %v; want %+v", got, err, want)
	}
	if _, err := ParseIO([]byte("rchar: -1\n")); err == nil {
		t.Error("a negative count was accepted")
	}
}

func TestParseSchedStat(t *testing.T) {
	got, err := ParseSchedStat([]byte("1500000 250000 17\n"))
	if want := (SchedStat{1500 * time.Microsecond, 250 * time.Microsecond, 17}); got != want || err != nil {
		t.Errorf("ParseSchedStat = %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "1 2", "1 2 x", "99999999999999999999 1 1", "1 2 3 4"} {
		if got, err := ParseSchedStat([]byte(bad)); err == nil {
			t.Errorf("ParseSchedStat(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestParseHost(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name, in string
		want     Host
		err      bool
	}{
		{
			"two CPUs",
			"cpu  30 2 20 400 10 1 2 5 0 0\ncpu0 15 1 10 200 5 1 1 2 0 0\ncpu1 15 1 10 200 5 0 1 3 0 0\nintr 123 4 5\nctxt 99\nbtime 1\nprocesses 12\nprocs_running 3\nprocs_blocked 1\nsoftirq 1 2 3\n",
			Host{
				CPU: CPU{User: 300 * ms, Nice: 20 * ms, System: 200 * ms, Idle: 4000 * ms, IOWait: 100 * ms, IRQ: 10 * ms, SoftIRQ: 20 * ms, Steal: 50 * ms},
				PerCPU: []CPU{
					{User: 150 * ms, Nice: 10 * ms, System: 100 * ms, Idle: 2000 * ms, IOWait: 50 * ms, IRQ: 10 * ms, SoftIRQ: 10 * ms, Steal: 20 * ms},
					{User: 150 * ms, Nice: 10 * ms, System: 100 * ms, Idle: 2000 * ms, IOWait: 50 * ms, SoftIRQ: 10 * ms, Steal: 30 * ms},
				},
				Switches: 99, Forks: 12, Running: 3, Blocked: 1,
			},
			false,
		},
		{"no cpu line", "ctxt 1\n", Host{}, true},
		{"too few times", "cpu 1 2\n", Host{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseHost([]byte(tt.in))
			if d := cmp.Diff(tt.want, got); d != "" || (err != nil) != tt.err {
				t.Errorf("ParseHost: %v\n%s", err, d)
			}
		})
	}
}

func TestParsePressure(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     Pressure
		err      bool
	}{
		{
			"some and full",
			"some avg10=1.50 avg60=0.25 avg300=0.00 total=2500\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1000\n",
			Pressure{Some: Stall{1.5, 0.25, 0, 2500 * time.Microsecond}, Full: Stall{0.5, 0, 0, time.Millisecond}},
			false,
		},
		{"an old kernel's CPU file", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", Pressure{Some: Stall{Total: 7 * time.Microsecond}}, false},
		{"nothing", "", Pressure{}, true},
		{"no number", "some avg10=x\n", Pressure{}, true},
		{"not a number", "some avg10=NaN\n", Pressure{}, true},
		{"a total of more than 292 years", "some total=18446744073709551615\n", Pressure{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePressure([]byte(tt.in))
			if d := cmp.Diff(tt.want, got); d != "" || (err != nil) != tt.err {
				t.Errorf("ParsePressure(%q): %v\n%s", tt.in, err, d)
			}
		})
	}
}

// The law: what was parsed, printed as the kernel prints it, parses to the same.
func FuzzPressure(f *testing.F) {
	f.Add([]byte("some avg10=1.50 avg60=0.25 avg300=0.00 total=2500\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1000\n"))
	f.Add([]byte("some total=1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePressure(b)
		if err != nil {
			return
		}
		line := func(name string, s Stall) string {
			return fmt.Sprintf("%s avg10=%v avg60=%v avg300=%v total=%d\n", name, s.Avg10, s.Avg60, s.Avg300, s.Total.Microseconds())
		}
		again, err := ParsePressure([]byte(line("some", p.Some) + line("full", p.Full)))
		if err != nil || again != p {
			t.Fatalf("round trip of %+v: %+v, %v", p, again, err)
		}
	})
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("7 (a) R 1 (b c) Z 2 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 42 0 -1 0\n"))
	f.Add([]byte("7 (a) R 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 42 4096 9 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStat(b)
		if err != nil {
			return
		}
		text := fmt.Sprintf("%d (%s) %c %d 0 0 0 0 0 %d 0 %d 0 %d %d 0 0 0 0 %d 0 %d 0 %d",
			s.PID, s.Comm, s.State, s.PPID, s.MinFlt, s.MajFlt, s.User/Tick, s.System/Tick, s.Threads, s.Start, s.RSS)
		if s.CPU != -1 { // what an older kernel does not tell
			text += fmt.Sprintf("%s %d", strings.Repeat(" 0", 14), s.CPU)
		}
		again, err := ParseStat([]byte(text))
		if err != nil || again != s {
			t.Fatalf("round trip of %+v: %+v, %v", s, again, err)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte("Name:\tx\nState:\tR (running)\nUid:\t1\t2\t3\t4\nNSpid:\t7 1\nVmRSS:\t4 kB\nCapEff:\tff\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseStatus(b); err == nil && s.RSSBytes%1024 != 0 {
			t.Fatalf("resident size %d is not in KiB", s.RSSBytes)
		}
	})
}

func FuzzHost(f *testing.F) {
	f.Add([]byte("cpu  30 2 20 400 10 1 2 5 0 0\ncpu0 15 1 10 200\nctxt 3\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHost(b)
		if err == nil && h.CPU.Sub(h.CPU) != (CPU{}) {
			t.Fatalf("%+v minus itself is not zero", h.CPU)
		}
	})
}

func TestParseClockOffset(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
		bad  bool
	}{
		{"monotonic           0         0\nboottime            0         0\n", 0, false},
		{"monotonic        3600 500000000\nboottime        3600 500000000\n", time.Hour + 500*time.Millisecond, false},
		{"monotonic          -6 500000000\nboottime          -6 500000000\n", -5500 * time.Millisecond, false},
		{"boottime            1         0\n", 0, true},
		{"monotonic           x         0\n", 0, true},
		{"", 0, true},
	} {
		got, err := ParseClockOffset([]byte(tt.text))
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("ParseClockOffset(%q) = %v, %v; want %v", tt.text, got, err, tt.want)
		}
	}
}
