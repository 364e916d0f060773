//go:build !linux

package kvserver

import "os"

// datasync makes the file's bytes durable.
func datasync(f *os.File) error { return f.Sync() }
