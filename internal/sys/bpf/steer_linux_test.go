package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"brownout/internal/needs"
)

func TestProbeAnswersOnThisHost(t *testing.T) {
	needs.Host(t, needs.Root)
	if err := Probe(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("probe failed: %v", err)
	}
}

// TestWithoutPrivilegesItIsUnsupported asks from a thread that gave its
// capabilities away.
func TestWithoutPrivilegesItIsUnsupported(t *testing.T) {
	needs.Host(t, needs.Root)
	answer := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			answer <- fmt.Errorf("drop capabilities: %w", err)
			return
		}
		_, err := load()
		answer <- explain(err)
	}()
	if err := <-answer; !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("load = %v, want unsupported", err)
	}
}

// TestProgramsDecide runs both programs on frames without any device.
func TestProgramsDecide(t *testing.T) {
	needs.Host(t, needs.Root)
	s, err := Load()
	if errors.Is(err, errors.ErrUnsupported) {
		needs.Host(t, needs.Need{Name: "bpf", Check: func() string { return err.Error() }})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for pair, rule := range map[[2]int]Rule{{0, 1}: Drop, {0, 2}: Wire} {
		if err := s.Set(pair[0], pair[1], rule); err != nil {
			t.Fatal(err)
		}
	}
	frame := func(src, dst int) []byte {
		b := make([]byte, 64)
		copy(b, MAC(dst))
		copy(b[6:], MAC(src))
		b[12] = 0x08
		return b
	}
	broadcast := frame(3, 0)
	copy(broadcast, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	const next, shot = ^uint32(0), uint32(actShot)
	for _, tt := range []struct {
		name     string
		program  *ebpf.Program
		frame    []byte
		want     uint32
		src, dst int
		counted  Counters
	}{
		{"a healthy pair goes on to the bridge", s.pair, frame(1, 0), next, 1, 0, Counters{Seen: 1, Bytes: 64}},
		{"a cut pair is dropped", s.pair, frame(0, 1), shot, 0, 1, Counters{Seen: 1, Bytes: 64, Dropped: 1}},
		{"the wire without a device drops", s.pair, frame(0, 2), shot, 0, 2, Counters{Seen: 1, Bytes: 64, Wired: 1, Dropped: 1}},
		{"a group is dropped", s.pair, broadcast, shot, 3, -1, Counters{Seen: 1, Bytes: 64, Dropped: 1}},
		{"what comes back to a cut pair is dropped", s.out, frame(0, 1), shot, 0, 1, Counters{Seen: 1, Bytes: 64, Dropped: 2}},
		{"what comes back to a port without a tenant is dropped", s.out, frame(5, 6), shot, 5, 6, Counters{Dropped: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.program.Run(&ebpf.RunOptions{Data: tt.frame})
			if errors.Is(err, ebpf.ErrNotSupported) {
				t.Skip(err)
			}
			if err != nil || got != tt.want {
				t.Errorf("program returned %d, %v; want %d", int32(got), err, int32(tt.want))
			}
			if c, err := s.Counters(tt.src, tt.dst); err != nil || c != tt.counted {
				t.Errorf("counters = %+v, %v; want %+v", c, err, tt.counted)
			}
		})
	}
}

func TestWhatTheKernelLacksIsSaidInWords(t *testing.T) {
	for _, err := range []error{unix.EPERM, unix.ENOSYS, unix.ENOENT, ebpf.ErrNotSupported, fs.ErrPermission} {
		if got := explain(fmt.Errorf("x: %w", err)); !errors.Is(got, errors.ErrUnsupported) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if got := explain(unix.ENOMEM); errors.Is(got, errors.ErrUnsupported) {
		t.Errorf("no memory became %v", got)
	}
}
