package faults

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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

// TestOlderDataNeedNoMoreRoom: what is copied is the same, with holes for zeroes.
func TestOlderDataNeedNoMoreRoom(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	log := make([]byte, 40*copyStep+100) // zeroes, written as such
	copy(log[3*copyStep-2:], "entry")    // across two steps
	copy(log[len(log)-3:], "end")
	if err := os.WriteFile(filepath.Join(from, "log"), log, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(from, to); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(to, "log")
	got, err := os.ReadFile(at)
	if err != nil || !bytes.Equal(got, log) {
		t.Fatalf("%d bytes (%v) are not the %d that were copied", len(got), err, len(log))
	}
	var st unix.Stat_t
	if err := unix.Stat(at, &st); err != nil || st.Blocks*512 > 4*copyStep {
		t.Errorf("the copy takes %d bytes (%v), want some %d", st.Blocks*512, err, 3*copyStep)
	}
}
