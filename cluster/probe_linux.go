package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/cgroup"
	"brownout/internal/sys/unsupported"
	"brownout/internal/undo"
)

// capabilities are what [Up] cannot do without, see capabilities(7). A root
// user in a container often has fewer than it seems.
var capabilities = []struct {
	number int
	name   string
}{
	{unix.CAP_SYS_ADMIN, "SYS_ADMIN"},   // namespaces, mounts
	{unix.CAP_NET_ADMIN, "NET_ADMIN"},   // links
	{unix.CAP_SYS_PTRACE, "SYS_PTRACE"}, // /proc/PID/root of processes that are another user's
	{unix.CAP_SETUID, "SETUID"},         // a user for each node
	{unix.CAP_SETGID, "SETGID"},
}

// Probe says whether this host can hold a cluster at all: it makes and removes
// a cgroup and looks at our privileges. The error is [errors.ErrUnsupported] if
// it cannot; what single faults need beyond that is their providers' to say.
func Probe(ctx context.Context) error {
	if err := privileged(); err != nil {
		return err
	}
	host, err := cgroup.Discover()
	if err != nil {
		return err
	}
	owner, err := undo.Self("probe")
	if err != nil {
		return fmt.Errorf("probe cgroups: %w", err)
	}
	g, err := host.Create(owner.String())
	if err != nil {
		return err
	}
	if err := g.Delete(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("probe cgroups: %w", err)
	}
	return nil
}

// privileged says what privileges are missing.
func privileged() error {
	if os.Geteuid() != 0 {
		return &unsupported.Error{What: "nodes", Why: "not running as root; namespaces, cgroups and links need it", Cure: "sudo"}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var missing []string
	for _, c := range capabilities {
		if data[c.number/32].Effective&(1<<(c.number%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &unsupported.Error{
		What: "nodes", Why: "root, but without CAP_" + strings.Join(missing, ", CAP_"),
		Cure: "in a container: --privileged or --cap-add " + strings.Join(missing, ","),
	}
}
