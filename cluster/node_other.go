//go:build !linux

package cluster

// A box exists on Linux only.
type box struct{}
