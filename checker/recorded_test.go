package checker

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"brownout/internal/history"
)

// moduleDir finds the source of a module in the local cache.
func moduleDir(t *testing.T, path string) string {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skipf("needs the source of %s: %v", path, err)
	}
	return dir
}

var kvLine = regexp.MustCompile(`^\{:process (\d+), :type :(invoke|ok), :f :(get|put|append), :key "(.*)", :value (nil|"(.*)")\}$`)

// readKVLog reads the key-value logs that ship with porcupine: every call
// returns; an absent key reads as the empty string. Times are line numbers.
func readKVLog(t *testing.T, path string) []history.Op {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var ops []history.Op
	open := map[string]int{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<24)
	for line := int64(1); sc.Scan(); line++ {
		m := kvLine.FindStringSubmatch(sc.Text())
		if m == nil {
			t.Fatalf("%s:%d: %q", path, line, sc.Text())
		}
		if m[2] == "invoke" {
			open[m[1]] = len(ops)
			client, _ := strconv.Atoi(m[1])
			op := history.Op{ID: int64(len(ops) + 1), Client: client, Key: m[4], Kind: history.Kind(m[3]), Outcome: history.Unknown, Call: line, Return: line}
			if m[3] != "get" {
				op.Value = ptr(m[6])
			}
			ops = append(ops, op)
			continue
		}
		op := &ops[open[m[1]]]
		op.Outcome, op.Return = history.OK, line
		if m[3] == "get" && m[6] != "" {
			op.Result = ptr(m[6])
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return ops
}

func TestRecordedHistoriesGetTheirKnownVerdicts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := filepath.Join(moduleDir(t, "github.com/anishathalye/porcupine"), "test_data", "kv")
	for _, tt := range []struct {
		file string
		want Verdict
	}{
		{"c01-ok.txt", OK}, {"c01-bad.txt", Illegal}, {"c10-ok.txt", OK}, {"c10-bad.txt", Illegal}, {"c50-ok.txt", OK}, {"c50-bad.txt", Illegal},
	} {
		t.Run(tt.file, func(t *testing.T) {
			ops := readKVLog(t, filepath.Join(dir, tt.file))
			start := time.Now()
			res := check(t, ops, Options{Budget: 60 * time.Second})
			t.Logf("%d operations, %d keys, %d pieces, the longest of %d, in %v: %s %v", res.Ops, res.Keys, res.Counts.Pieces, res.Counts.Longest, time.Since(start).Round(time.Microsecond), res.Verdict, labels(res))
			if res.Verdict != tt.want {
				t.Errorf("Check(%s) = %s (%s), want %s", tt.file, res.Verdict, res.Why, tt.want)
			}
			for _, c := range res.Conflicts {
				t.Log(c.Text)
			}
		})
	}
}

func labels(res Result) map[string]int {
	out := map[string]int{}
	for _, c := range res.Conflicts {
		out[c.Label]++
	}
	return out
}
