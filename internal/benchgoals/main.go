// Command benchgoals reads what `go test -bench` prints, passes it on, and ends
// with a table: what this project wants to reach beside what was measured. A
// goal that is missed fails nothing, because the host and its other users have
// their part in every number; where the benchmark measured that part too, the
// table shows it.
package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A goal is a bound on one metric of one benchmark.
type goal struct {
	what        string
	bench, unit string
	bound       bound
	limit       float64
	beside      string // a metric of the same benchmark that says what the host itself gives, if any
}

type bound int

const (
	atMost bound = iota // of the value without its sign
	atLeast
)

// results are metrics by benchmark and unit. Of a benchmark that ran more than
// once, the last counts.
type results map[string]map[string]float64

func main() {
	got, err := read(os.Stdin, os.Stdout)
	if err == nil {
		err = table(os.Stdout, goals, got)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchgoals:", err)
		os.Exit(2)
	}
}

var (
	procs = regexp.MustCompile(`-\d+$`)
	noise = regexp.MustCompile(`^(PASS$|\?|ok .*no test files)`)
)

// read copies in to out, but for lines that say nothing, and keeps what was measured.
func read(in io.Reader, out io.Writer) (results, error) {
	got := results{}
	sc := bufio.NewScanner(in)
	for sc.Scan() {
		line := sc.Text()
		if noise.MatchString(line) {
			continue
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return nil, err
		}
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := procs.ReplaceAllString(strings.TrimPrefix(f[0], "Benchmark"), "")
		metrics := map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 { // behind the name and the number of turns
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				metrics[f[i+1]] = v
			}
		}
		got[name] = metrics
	}
	return got, sc.Err()
}

// table prints the goals of which something was measured.
func table(out io.Writer, goals []goal, got results) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	rows := 0
	for _, g := range goals {
		v, ok := got[g.bench][g.unit]
		if !ok {
			continue
		}
		if rows == 0 {
			fmt.Fprintln(w, "\nquantity\tgoal\tmeasured\tunit\t\thost itself")
		}
		rows++
		sign, met := "≤", math.Abs(v) <= g.limit
		if g.bound == atLeast {
			sign, met = "≥", v >= g.limit
		}
		word := "met"
		if !met {
			word = "missed"
		}
		host := ""
		if b, ok := got[g.bench][g.beside]; ok {
			host = number(b)
		}
		unit := g.unit
		for _, prefix := range []string{"p50-", "p99-", "max-"} {
			unit = strings.TrimPrefix(unit, prefix)
		}
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%s\t%s\t%s\n", g.what, sign, number(g.limit), number(v), unit, word, host)
	}
	return w.Flush()
}

// number prints four digits that count, and large numbers whole.
func number(v float64) string {
	if math.Abs(v) >= 1000 {
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
