// Package netnstest makes network namespaces for tests.
package netnstest

import (
	"os"
	"testing"

	"brownout/internal/needs"
	"brownout/internal/sys/link"
	"brownout/internal/sys/netns"
)

// Loopback returns a namespace of the test's own in which only lo is up. It
// skips the test where there is no root.
func Loopback(t testing.TB) *os.File {
	t.Helper()
	needs.Host(t, needs.Root)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	c, err := link.At(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const loopback = 1
	if err := c.Up(loopback); err != nil {
		t.Fatal(err)
	}
	return ns
}
