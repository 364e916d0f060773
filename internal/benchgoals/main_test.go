package main

import (
	"strings"
	"testing"
)

func TestGoalsBesideWhatWasMeasured(t *testing.T) {
	in := `goos: linux
BenchmarkSlow/a-1-2   	 5	 100 ns/op	 250.5 p99-µs	 1000 host-p99-µs
BenchmarkFast         	 5	 100 ns/op	 -0.5 error-%	 400000 frames/s
PASS
?   	brownout	[no test files]
`
	var out strings.Builder
	got, err := read(strings.NewReader(in), &out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "PASS") || strings.Contains(out.String(), "?") || !strings.Contains(out.String(), "BenchmarkFast") {
		t.Errorf("passed on:\n%s", out.String())
	}
	out.Reset()
	err = table(&out, []goal{
		{"slow", "Slow/a-1", "p99-µs", atMost, 250, "host-p99-µs"},
		{"error", "Fast", "error-%", atMost, 1, ""},
		{"fast", "Fast", "frames/s", atLeast, 300_000, ""},
		{"absent", "Absent", "ns/op", atMost, 1, ""},
	}, got)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) > 0 {
			rows = append(rows, strings.Join(f, " "))
		}
	}
	want := []string{
		"quantity goal measured unit host itself",
		"slow ≤ 250 250.5 µs missed 1000",
		"error ≤ 1 -0.5 error-% met",
		"fast ≥ 300000 400000 frames/s met",
	}
	if strings.Join(rows, "\n") != strings.Join(want, "\n") {
		t.Errorf("table:\n%s\nwant:\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
}
