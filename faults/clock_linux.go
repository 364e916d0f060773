package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/proc"
	"brownout/kvserver"
)

var clockRows = []row{
	{"clock.offset", meterOffset, []source{{"timens", newOffset}}},
	{"clock.skew", meterSkew, []source{{"agent", newSkew}}},
}

// signed is a dose's time, negative if it goes back.
func signed(d Dose) time.Duration {
	if d.String("direction") == "back" {
		return -d.Duration("add")
	}
	return d.Duration("add")
}

// An offsetFault starts nodes in a time namespace.
type offsetFault struct{ b *bench }

func newOffset(b *bench) Provider { return &offsetFault{b} }

// Probe lets a child live in a time namespace and compares its uptime with ours.
func (f *offsetFault) Probe(ctx context.Context) error {
	no := func(err error) error {
		return &Unsupported{What: "clock.offset by time namespaces", Why: err.Error(), Cure: "Linux 5.6 or later with CONFIG_TIME_NS, as root"}
	}
	var err error
	proc.OnSpareThread(func() {
		if e := unix.Unshare(unix.CLONE_NEWTIME); e != nil {
			err = no(fmt.Errorf("unshare: %w", e))
			return
		}
		const shift = 100_000 // seconds
		text := fmt.Sprintf("monotonic %d 0\nboottime %d 0\n", shift, shift)
		if e := os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid()), []byte(text), 0); e != nil {
			err = no(e)
			return
		}
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "_spin", "-uptime")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, e := cmd.Output()
		if errors.Is(e, unix.EINVAL) {
			// A Go program starts others by vfork. Before commit 2b5f9dad32ed ("fs/exec:
			// switch timens when a task gets a new mm") no child of a vfork could enter.
			err = &Unsupported{What: "clock.offset by time namespaces", Why: "this kernel lets nobody enter one who is started by vfork, as boxes are", Cure: "Linux 6.3 or later"}
			return
		}
		if e != nil {
			err = fmt.Errorf("look at a clock in a time namespace: %w", e)
			return
		}
		theirs, e := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if off := (theirs - monotonic()) / int64(time.Second); e != nil || off < shift-5 || off > shift+5 {
			err = no(fmt.Errorf("a child's clock is off by %ds instead of %ds (%v)", off, shift, e))
		}
	})
	return err
}

func (f *offsetFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.clocks.inject(ctx, site.Nodes, d, func(d Dose) (time.Duration, error) {
		off := signed(d)
		if up := time.Duration(monotonic()); off < -up {
			return 0, fmt.Errorf("clocks set back by %v: at most %v, which is how long this host is up", -off, up.Round(time.Second))
		}
		if off == 0 {
			return 0, errors.New("clocks off by nothing")
		}
		return off, nil
	})
}

// setClock restarts a node with its clocks off by the sum of what is asked.
func (b *bench) setClock(ctx context.Context, node string, asked []time.Duration) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	var sum time.Duration
	for _, off := range asked {
		sum += off
	}
	if least := -time.Duration(monotonic()); sum < least { // each may be possible, and all together not
		return fmt.Errorf("clocks of %s set back by %v in all: at most %v", node, -sum, -least)
	}
	n.ShiftClocks(sum)
	down, err := b.downs.inject(ctx, []string{node}, nil, func(Dose) (syscall.Signal, error) { return syscall.SIGKILL, nil })
	if err != nil {
		return err
	}
	if err := down.Heal(ctx); err != nil {
		return err
	}
	return b.waitReady(ctx, n)
}

// A skewFault asks the target itself to be wrong about the time.
type skewFault struct{ b *bench }

func newSkew(b *bench) Provider { return &skewFault{b} }

func (f *skewFault) Probe(ctx context.Context) error {
	return f.b.probeAdmin(ctx, "clock.skew", "clock.offset, which shifts the monotonic clock of any program")
}

func skewOf(d Dose) (kvserver.ClockRequest, error) {
	rate := d.Float("rate") / 100
	if d.String("direction") == "back" {
		rate = -rate
	}
	r := kvserver.ClockRequest{OffsetNS: int64(signed(d)), Rate: rate}
	switch {
	case (r.OffsetNS == 0) == (r.Rate == 0):
		return r, errors.New("clock.skew: one of add and rate is to be given")
	case r.Rate <= -1:
		return r, fmt.Errorf("a clock that loses %v%%: below 100%%, or it would stand still", d.Float("rate"))
	}
	return r, nil
}

func (f *skewFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	return f.b.skews.inject(ctx, site.Nodes, d, skewOf)
}

// setSkew tells a node's program how wrong its clock is in all. A program that
// does not run has no wrong clock.
func (b *bench) setSkew(ctx context.Context, node string, asked []kvserver.ClockRequest) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	var sum kvserver.ClockRequest
	for _, r := range asked {
		sum.OffsetNS += r.OffsetNS
		sum.Rate += r.Rate
	}
	a := adminOf(n)
	defer a.close()
	err = a.call(ctx, http.MethodPost, "/fault/clock", sum, nil)
	if err != nil && len(asked) == 0 && !n.Running() {
		return nil
	}
	return err
}
