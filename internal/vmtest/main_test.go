package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	pass := "\x16=== RUN   TestA\r\n\x16--- PASS: TestA (0.00s)\r\n\x16PASS\r\n"
	for _, tt := range []struct {
		name, said string
		ended      bool
		failed     []string
		verdict    string // of the last suite
	}{
		{"a suite that passes", markBegin + "p\r\n" + pass + markEnd + "ok\r\n" + markOver + "\r\n", true, nil, "pass"},
		{"a suite that fails without a word", markBegin + "p\n" + markEnd + "fail\n" + markOver + "\n", true, []string{"p"}, "fail"},
		{"a machine that dies in a suite", markBegin + "p\n\x16=== RUN   TestA\n", false, []string{"p"}, "fail"},
		{"a machine that dies between suites", markBegin + "p\n" + pass + markEnd + "ok\n", false, nil, "pass"},
		{"a suite that measures times", markBegin + "brownout/faults\n" + markEnd + "fail\n" + markOver + "\n", true, []string{"brownout/faults"}, "fail"},
		{"nothing at all", "", false, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			ended, failed, err := report(t.Context(), strings.NewReader(tt.said), &out)
			if err != nil || ended != tt.ended || !slices.Equal(failed, tt.failed) {
				t.Errorf("ended %v, failed %q, %v; want %v, %q", ended, failed, err, tt.ended, tt.failed)
			}
			verdict := ""
			for line := range strings.Lines(out.String()) {
				var e struct{ Action, Package, Test string }
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				if e.Test == "" {
					verdict = e.Action
				}
			}
			if verdict != tt.verdict {
				t.Errorf("the suite's verdict is %q, want %q:\n%s", verdict, tt.verdict, out.String())
			}
		})
	}
}

// A hang must end in time and be a failure that shows the console.
func TestHangIsAFailure(t *testing.T) {
	dir := t.TempDir()
	console := filepath.Join(dir, "console")
	if err := os.WriteFile(console, []byte("Kernel panic"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	err := bootFor(t, 100*time.Millisecond, console)
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("boot = %v, want an error with the console", err)
	}
}

// What cpio(1) lists is what the kernel will unpack.
func TestArchive(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip(err)
	}
	var image bytes.Buffer
	a := &archive{w: &image, dirs: map[string]bool{}}
	for _, content := range []string{"", "a", "four", "12345"} {
		if err := a.add("d/e/"+content+"x", 0o100644, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-id", "--quiet")
	cmd.Dir, cmd.Stdin = dir, &image
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, content := range []string{"", "a", "four", "12345"} {
		if b, err := os.ReadFile(filepath.Join(dir, "d/e", content+"x")); err != nil || string(b) != content {
			t.Errorf("%q unpacked as %q, %v", content, b, err)
		}
	}
}

func bootFor(t *testing.T, within time.Duration, console string) error {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return boot(ctx, "kernel", "image", "", console, new(bytes.Buffer))
}
