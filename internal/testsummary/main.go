// Command testsummary reads the stream of `go test -json` and prints what a
// person wants of it: failures whole, a line per package, and every skip with
// its reason, because a skip that nobody reads is a hole in the gate.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
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
	file := flag.String("failed", "", "write to this `file` what failed and may be tried again: a line each, package, tab, pattern for -run")
	flag.Parse()
	failed, err := summarize(os.Stdin, os.Stdout)
	if err == nil && *file != "" {
		err = os.WriteFile(*file, []byte(strings.Join(failed, "")), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(2)
	}
}

// crash is what a program prints that ends before all its tests have run: what
// those would have said nobody knows, so nothing of it may be tried again.
var crash = regexp.MustCompile(`^(panic: |fatal error: |SIG[A-Z]+: |WARNING: DATA RACE|\*\*\* Test killed)`)

// summarize returns the failed tests that have no failed tests within, unless a
// package failed in another way than by its tests.
func summarize(in io.Reader, out io.Writer) (again []string, err error) {
	output := map[key][]string{}
	var failures []key
	crashed := false
	var skips []string
	passed, failed, skipped := 0, 0, 0
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Fprintln(out, sc.Text()) // a build error, or go itself
			crashed = true
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "output", "build-output":
			output[k] = append(output[k], e.Output)
			crashed = crashed || crash.MatchString(e.Output) || e.Action == "build-output"
		case "fail":
			for _, line := range output[k] {
				fmt.Fprint(out, line)
			}
			delete(output, k)
			if e.Test != "" {
				failed++
				failures = append(failures, k)
			} else {
				byTests := slices.ContainsFunc(failures, func(f key) bool { return f.pkg == e.Package })
				crashed = crashed || !byTests
				for other, lines := range output { // tests that never ended
					if other.pkg == e.Package {
						fmt.Fprint(out, strings.Join(lines, ""))
						delete(output, other)
						crashed = crashed || other.test != ""
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
		return nil, err
	}
	if len(skips) > 0 {
		slices.Sort(skips)
		fmt.Fprintf(out, "\n=== SKIPPED %d tests on this host ===\n%s\n", skipped, strings.Join(skips, "\n"))
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if crashed {
		return nil, nil
	}
	for _, f := range failures {
		if !slices.ContainsFunc(failures, func(k key) bool { return k.pkg == f.pkg && strings.HasPrefix(k.test, f.test+"/") }) {
			again = append(again, fmt.Sprintf("%s\t%s\n", f.pkg, pattern(f.test)))
		}
	}
	return again, nil
}

// pattern is what -run needs for one test.
func pattern(test string) string {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
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
