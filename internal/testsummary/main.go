// Command testsummary reads the stream of `go test -json` and prints what a
// person wants of it: failures whole, a line per package, and every skip with
// its reason, because a skip that nobody reads is a hole in the gate.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

type key struct{ pkg, test string }

func main() {
	if err := summarize(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(2)
	}
}

func summarize(in io.Reader, out io.Writer) error {
	output := map[key][]string{}
	var skips []string
	passed, failed, skipped := 0, 0, 0
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Fprintln(out, sc.Text()) // a build error, or go itself
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "output", "build-output":
			output[k] = append(output[k], e.Output)
		case "fail":
			for _, line := range output[k] {
				fmt.Fprint(out, line)
			}
			delete(output, k)
			if e.Test != "" {
				failed++
			} else {
				for other, lines := range output { // tests that never ended
					if other.pkg == e.Package {
						fmt.Fprint(out, strings.Join(lines, ""))
						delete(output, other)
					}
				}
				fmt.Fprintf(out, "FAIL\t%s\t%.1fs\n", e.Package, e.Elapsed)
			}
		case "pass":
			if e.Test != "" {
				passed++
			} else {
				fmt.Fprintf(out, "ok\t%s\t%.1fs\n", e.Package, e.Elapsed)
			}
			delete(output, k)
		case "skip":
			if e.Test != "" {
				skipped++
				skips = append(skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(output[k])))
			}
			delete(output, k)
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	if len(skips) > 0 {
		slices.Sort(skips)
		fmt.Fprintf(out, "\n=== SKIPPED %d tests on this host ===\n%s\n", skipped, strings.Join(skips, "\n"))
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return nil
}

// reason picks the line that t.Skip wrote: "    file.go:12: needs root: ...".
func reason(lines []string) string {
	for _, l := range slices.Backward(lines) {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "--- SKIP") && !strings.HasPrefix(l, "=== ") {
			if i := strings.Index(l, ": "); i >= 0 {
				return l[i+2:]
			}
			return l
		}
	}
	return "no reason given"
}
