package faults

import (
	"os"
	"path/filepath"
	"testing"

	"brownout/internal/faultfs"
)

// TestOlderDataIsTheNodesOnly: slowfs keeps what a loss of power needs beside
// the node's files, and has it also when older ones are put in their place.
func TestOlderDataIsTheNodesOnly(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{faultfs.Trash + "/1", "wal/log", "meta"} {
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(to, faultfs.Trash), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{faultfs.Trash + "/1": false, "wal/log": true, "meta": true} {
		if _, err := os.Stat(filepath.Join(to, name)); (err == nil) != want {
			t.Errorf("%s: %v, want there = %v", name, err, want)
		}
	}
}
