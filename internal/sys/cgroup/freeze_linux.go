package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"brownout/internal/sys/unsupported"
)

// A Freezer is one version's way to stop all processes of a group.
type Freezer struct {
	Version int // 2, or 1
	file    string
	g       *Group
}

// Freezer returns the freezer of a version, or an error matching
// [errors.ErrUnsupported] that says why there is none.
//
// The v2 freezer exists in every v2 hierarchy since Linux 5.2, whatever
// controllers it has, so on hybrid hosts, too. Prefer it: a process that a v1
// freezer holds ignores SIGKILL until it is thawed, so a testbed that is killed
// meanwhile leaves it behind.
func (g *Group) Freezer(version int) (*Freezer, error) {
	switch version {
	case 2:
		p := g.v2()
		if p == "" {
			return nil, &unsupported.Error{What: "cgroup v2 freezer", Why: "no writable cgroup2 is mounted", Cure: "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"}
		}
		f := filepath.Join(p, "cgroup.freeze")
		if _, err := os.Stat(f); err != nil {
			return nil, &unsupported.Error{What: "cgroup v2 freezer", Why: err.Error(), Cure: "use Linux 5.2 or later"}
		}
		return &Freezer{2, f, g}, nil
	case 1:
		p := g.v1("freezer")
		if p == "" {
			return nil, &unsupported.Error{What: "cgroup v1 freezer", Why: "no writable v1 hierarchy has it", Cure: "use the v2 freezer, or signals"}
		}
		return &Freezer{1, filepath.Join(p, "freezer.state"), g}, nil
	}
	return nil, fmt.Errorf("freezer of cgroup v%d: no such version", version)
}

// Freeze stops every process of the group and below it by the v2 freezer if
// there is one, else by v1's, and returns when all stand still. On error
// everybody runs again.
func (g *Group) Freeze(ctx context.Context) error {
	f, err := g.freezer()
	if err != nil {
		return err
	}
	return f.Freeze(ctx)
}

// Thaw lets everybody run again and returns when they do. Thawing what is not
// frozen is no error.
func (g *Group) Thaw(ctx context.Context) error {
	f, err := g.freezer()
	if err != nil {
		return err
	}
	return f.Thaw(ctx)
}

func (g *Group) freezer() (*Freezer, error) {
	f, err := g.Freezer(2)
	if errors.Is(err, errors.ErrUnsupported) {
		return g.Freezer(1)
	}
	return f, err
}

// Freeze returns when all processes stand still; if that is not before ctx
// ends, they are thawed again.
func (f *Freezer) Freeze(ctx context.Context) error {
	return f.FreezeOr(ctx, func() bool { return false })
}

// FreezeOr returns also, and leaves the freeze on, when enough says that who
// does not stand still yet cannot run before it does: a task in
// uninterruptible sleep freezes on its way out of the kernel.
func (f *Freezer) FreezeOr(ctx context.Context, enough func() bool) error {
	err := f.set(ctx, true, enough)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, f.Thaw(ctx))
	}
	return err
}

// Thaw lets all processes run.
func (f *Freezer) Thaw(ctx context.Context) error {
	return f.set(ctx, false, func() bool { return false })
}

func (f *Freezer) set(ctx context.Context, frozen bool, enough func() bool) error {
	verb, value := "thaw", "0"
	if frozen {
		verb, value = "freeze", "1"
	}
	if f.Version == 1 {
		value = map[bool]string{true: "FROZEN", false: "THAWED"}[frozen]
	}
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		// Once is enough for v2; v1 asks to write again while it says FREEZING
		// (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
		if err := write(f.file, value); err != nil {
			return fmt.Errorf("%s group %s: %w", verb, f.g.name, err)
		}
		is, err := f.Frozen()
		if err != nil {
			return fmt.Errorf("%s group %s: %w", verb, f.g.name, err)
		}
		if is == frozen || enough() {
			return nil
		}
		if err := wait(ctx, pause); err != nil {
			return fmt.Errorf("%s group %s: not yet, by cgroup v%d: %w", verb, f.g.name, f.Version, err)
		}
	}
}

// Frozen says whether all processes of the group stand still, as the kernel
// sees it: not what was asked for. On v1, a group that is freezing counts as
// neither, so as not frozen; one that is frozen through its parent as frozen.
func (f *Freezer) Frozen() (bool, error) {
	if f.Version == 2 {
		kv, err := flat(filepath.Join(filepath.Dir(f.file), "cgroup.events"))
		return kv["frozen"] == 1, err
	}
	b, err := os.ReadFile(f.file)
	return strings.TrimSpace(string(b)) == "FROZEN", err
}
