package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode"

	"brownout/internal/run"
)

type suite struct {
	XMLName  xml.Name `xml:"testsuite"`
	Name     string   `xml:"name,attr"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Errors   int      `xml:"errors,attr"`
	Skipped  int      `xml:"skipped,attr"`
	Time     string   `xml:"time,attr"`
	Cases    []testCase
}

type testCase struct {
	XMLName xml.Name `xml:"testcase"`
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Failure *problem `xml:"failure"`
	Error   *problem `xml:"error"`
}

type problem struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes one test case for each expectation, for linearizability, for
// durability, for each fault's dose, and for the run as a whole.
//
// What was missed is a failure. What is inconclusive is an error and not a
// skip: CI systems count skips as green, and a run that shows nothing is not.
func JUnit(w io.Writer, _ fs.FS, r run.Result) error {
	class := "brownout." + r.Scenario
	s := suite{Name: class}
	add := func(name string, v run.Verdict, kind, message, text string) {
		c := testCase{Class: class, Name: clean(name)}
		p := &problem{Message: clean(message), Type: kind, Text: clean(text)}
		switch v {
		case run.Pass:
		case run.Inconclusive:
			c.Error = p
			s.Errors++
		default:
			c.Failure = p
			s.Failures++
		}
		s.Cases = append(s.Cases, c)
	}
	for _, e := range r.Expectations {
		add("expect: "+e.Text, e.Verdict, string(e.Verdict), cmpWhy(e), strings.TrimSpace(Observed(e)+"\n"+Where(e)))
	}
	var conflicts []string
	for _, v := range r.Consistency.Violations {
		conflicts = append(conflicts, v.Label+": "+v.Text)
	}
	add("history: linearizable", verdictOf(r.Consistency.Verdict), r.Consistency.Verdict, r.Consistency.Why, strings.Join(conflicts, "\n"))
	var lost []string
	for _, l := range r.Durability.Lost {
		lost = append(lost, l.Text)
	}
	add("history: no acknowledged write is lost", verdictOf(r.Durability.Verdict), r.Durability.Verdict, r.Durability.Why, strings.Join(lost, "\n"))
	for _, f := range r.Faults {
		v := run.Pass
		if f.Bit != run.BitYes || f.Healed != run.HealedYes {
			v = run.Inconclusive
		}
		add(fmt.Sprintf("dose: %s %s", f.ID, f.Kind), v, "dose", fmt.Sprintf("bit: %s, healed: %s. %s", f.Bit, f.Healed, f.Why),
			fmt.Sprintf("asked for %s\nmeasured %s", params(f.Requested), params(f.Measured)))
	}
	add("verdict", r.Verdict, string(r.Verdict), r.Why, "")
	s.Tests = len(s.Cases)
	var end int64
	for _, p := range r.Phases {
		end = max(end, p.End)
	}
	s.Time = fmt.Sprintf("%.3f", float64(end)/1e9)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func cmpWhy(e run.Expectation) string {
	if e.Why != "" {
		return e.Why
	}
	return Observed(e)
}

func verdictOf(word string) run.Verdict {
	switch word {
	case "ok":
		return run.Pass
	case "illegal", "lost":
		return run.Fail
	}
	return run.Inconclusive
}

// clean drops what XML 1.0 cannot hold; encoding/xml would write U+FFFD for it.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}
