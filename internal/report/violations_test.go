package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	hist "brownout/internal/history"
	"brownout/internal/run"
)

func TestViolationsAreDrawn(t *testing.T) {
	a, b := "v1", "<v2>"
	core := []hist.Op{
		{ID: 1, Client: 1, Key: "k", Kind: hist.Put, Value: &a, Outcome: hist.OK, Call: 1e9, Return: 2e9, Node: "n1"},
		{ID: 2, Client: 2, Key: "k", Kind: hist.Put, Value: &b, Outcome: hist.Unknown, Call: 3e9, Return: 4e9, Node: "n1"},
		{ID: 3, Client: 3, Key: "k", Kind: hist.Get, Result: &b, Outcome: hist.OK, Call: 5e9, Return: 6e9, Node: "n2"},
		{ID: 4, Client: 4, Key: "k", Kind: hist.Get, Result: &a, Outcome: hist.OK, Call: 7e9, Return: 8e9, Node: "n2"},
	}
	v := run.Conflict{Key: "k", Label: "non-monotonic read", Ops: []int64{2, 3, 4}, Text: "…", At: 8e9, Context: []string{"n1 led in term 2, " + strings.Repeat("as the nodes said ", 10)}}
	for i := range core {
		v.Core = append(v.Core, hist.AppendJSON(nil, &core[i]))
	}
	faults := []run.Fault{{ID: "f1", Kind: "net.partition", Nodes: []string{"n1>n2"}, Start: 2e9, End: 6e9}}
	dir := filepath.Join(t.TempDir(), "violations")
	if err := Violations(dir, run.Consistency{Violations: []run.Conflict{v}}, faults); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var back run.Conflict
	if err := json.Unmarshal([]byte(read("1.json")), &back); err != nil || len(back.Core) != 4 {
		t.Errorf("1.json: %v, %+v", err, back)
	}
	svg := read("1.svg")
	dec := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("1.svg: %v\n%s", err, svg)
		}
	}
	for _, want := range []string{"non-monotonic read on k", "f1 net.partition", "3 get@n2 found &#34;&lt;v2&gt;&#34;", ">n1 led in term 2, as"} {
		if !strings.Contains(svg, want) {
			t.Errorf("1.svg lacks %q:\n%s", want, svg)
		}
	}
	if page := read("1.html"); !strings.Contains(page, "net.partition") {
		t.Error("1.html does not tell of the fault")
	}
	if err := Violations(dir+"2", run.Consistency{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "2"); err == nil {
		t.Error("a directory for no conflict")
	}
}

// TestLinesAreNoSeconds: of a file without times the places are told, and drawn to scale.
func TestLinesAreNoSeconds(t *testing.T) {
	a := "v1"
	core := []hist.Op{{ID: 1, Key: "k", Kind: hist.Put, Value: &a, Outcome: hist.OK, Call: 1, Return: 41}}
	svg := string(Timeline(&run.Conflict{Key: "k", At: 41, Untimed: true}, core, nil))
	for _, want := range []string{"line 1 to line 41", ">line -1<", `width="818.2"`} {
		if !strings.Contains(svg, want) {
			t.Errorf("lacks %q:\n%s", want, svg)
		}
	}
	if svg := string(Timeline(&run.Conflict{Key: "k", At: 41}, core, nil)); strings.Contains(svg, "line 1") {
		t.Errorf("of a history with times:\n%s", svg)
	}
}
