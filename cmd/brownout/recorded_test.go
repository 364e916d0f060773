package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"brownout/internal/judge"
)

// The histories that ship with porcupine have the verdicts its tests state.
func TestRecordedHistoriesOfOthers(t *testing.T) {
	dir := moduleDir(t, "github.com/anishathalye/porcupine")
	code, err := os.ReadFile(filepath.Join(dir, "porcupine_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, m := range regexp.MustCompile(`checkJepsen\(t, (\d+), (true|false)\)`).FindAllSubmatch(code, -1) {
		name := "jepsen/etcd_" + strings.Repeat("0", 3-len(m[1])) + string(m[1]) + ".log"
		want[name] = 3
		if string(m[2]) == "true" {
			want[name] = 0
		}
	}
	for _, c := range []string{"c01", "c10", "c50"} {
		want["kv/"+c+"-ok.txt"], want["kv/"+c+"-bad.txt"] = 0, 3
	}
	if len(want) != 108 {
		t.Fatalf("%d histories with verdicts, want 108", len(want))
	}
	var seen bytes.Buffer
	o := &output{out: &seen, talk: &seen}
	for name, code := range want {
		got, err := checkOne(t.Context(), o, filepath.Join(dir, "test_data", filepath.FromSlash(name)), checkOptions{budget: judge.Options{}})
		if err != nil || got != code {
			t.Errorf("check %s = %d, %v; want %d", name, got, err, code)
		}
	}
	// One is empty: nothing follows from it.
	if got, err := checkOne(t.Context(), o, filepath.Join(dir, "test_data", "jepsen", "etcd_095.log"), checkOptions{}); err != nil || got != 4 {
		t.Errorf("check of an empty history = %d, %v; want 4", got, err)
	}
}

// moduleDir finds the source of a module in the local cache.
func moduleDir(t *testing.T, path string) string {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skipf("needs the source of %s: %v", path, err)
	}
	return dir
}
