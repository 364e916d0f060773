package link

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"brownout/internal/sys/netns"
)

// A Setting is a sysctl of a network namespace: a path below /proc/sys/net and its value.
type Setting struct{ Path, Value string }

// Sysctl makes settings inside ns, in order, up to the first error. It must
// never be called with a namespace that is not ours.
func Sysctl(ns *os.File, settings ...Setting) error {
	return netns.Do(ns, func() error {
		for _, s := range settings {
			if err := os.WriteFile("/proc/sys/net/"+s.Path, []byte(s.Value), 0); err != nil {
				return fmt.Errorf("set sysctl: %w", err)
			}
		}
		return nil
	})
}

// Congestion makes the first of the given congestion controls that ns may use
// its default and returns its name. A namespace may only choose from
// net.ipv4.tcp_allowed_congestion_control of the host, which can lack cubic.
func Congestion(ns *os.File, names ...string) (chosen string, err error) {
	const path = "/proc/sys/net/ipv4/tcp_congestion_control"
	err = netns.Do(ns, func() error {
		for _, name := range names {
			if err = os.WriteFile(path, []byte(name), 0); err == nil {
				chosen = name
				return nil
			}
		}
		return fmt.Errorf("set congestion control to one of %v: %w", names, err)
	})
	return chosen, err
}

// CongestionKnown says whether the kernel has a congestion control loaded: a
// route takes any name, and connections then use the default.
func CongestionKnown(ns *os.File, name string) error {
	return netns.Do(ns, func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
		if err != nil {
			return err
		}
		if known := strings.Fields(string(b)); !slices.Contains(known, name) {
			return fmt.Errorf("the kernel has %s only", strings.Join(known, ", "))
		}
		return nil
	})
}
