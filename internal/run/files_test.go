package run

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func file(name, text string) fs.FS { return fstest.MapFS{name: {Data: []byte(text)}} }

func TestReadEvents(t *testing.T) {
	good := `{"t_ns":-5,"type":"node.started","node":"n1"}` + "\n" + `{"t_ns":7,"type":"fault.measured","fault":"f1","measured":{"p50_ns":20100000},"bit":"yes"}` + "\n"
	for _, tt := range []struct{ name, in, want string }{
		{"two events", good, ""},
		{"none", "", ""},
		{"the last without newline", strings.TrimSuffix(good, "\n"), ""},
		{"a torn line", good + `{"t_ns":8,"ty`, "events.jsonl:3: the line is cut off"},
		{"a blank line", good + "\n", "events.jsonl:3: the line is cut off"},
		{"an unknown field", good + `{"t_ns":8,"type":"note","size":1}`, `events.jsonl:3: json: unknown field "size"`},
		{"an unknown type", good + `{"t_ns":8,"type":"nothing"}`, `events.jsonl:3: unknown type of event "nothing"`},
		{"two on a line", `{"t_ns":8,"type":"note"} {"t_ns":8,"type":"note"}`, "events.jsonl:1: something after the object"},
		{"a line that is too long", `{"t_ns":8,"type":"note","text":"` + strings.Repeat("x", maxLine) + `"}`, "events.jsonl:1: bufio.Scanner: token too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, err := ReadEvents(file(EventsFile, tt.in))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
				t.Fatalf("ReadEvents = %v, want %q", err, tt.want)
			}
			if tt.name == "two events" && (len(events) != 2 || events[1].Bit != BitYes || events[1].Measured["p50_ns"] != 20.1e6 || events[0].T != -5) {
				t.Errorf("ReadEvents = %+v", events)
			}
		})
	}
	if _, err := ReadEvents(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadEvents of nothing = %v, want ErrNotExist", err)
	}
}

func TestReadJSONNamesFileAndLine(t *testing.T) {
	type doc struct{ A, B int }
	for _, tt := range []struct{ name, in, want string }{
		{"good", "{\"A\":1,\n\"B\":2}\n", ""},
		{"wrong type", "{\"A\":1,\n\"B\":\"x\"}\n", "d.json:2: "},
		{"unknown field", "{\"A\":1,\n\n\"C\":2}\n", `unknown field "C"`},
		{"broken", "{\"A\":1,\n\"B\":}\n", "d.json:2: invalid character"},
		{"cut off", "{\"A\":1,\n\"B\":2", "d.json:2: the file is cut off"},
		{"empty", "", "d.json:1: the file is cut off"},
		{"two", "{}\n{}", "d.json:1: something after the document"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d doc
			err := ReadJSON(file("d.json", tt.in), "d.json", &d)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("ReadJSON = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSamplesAreReadOneByOne(t *testing.T) {
	in := `{"t_ns":1,"node":"n1","source":"io","values":{"a":1}}` + "\n" + `{"t_ns":2,"node":"n1","source":"io","values":{"a":2}}` + "\n{"
	n := 0
	for s, err := range Samples(file(TelemetryFile, in)) {
		if n++; n == 2 && (err != nil || s.Values["a"] != 2) {
			t.Errorf("second sample = %+v, %v", s, err)
		}
		if n == 3 && (err == nil || err.Error() != "telemetry.jsonl:3: the line is cut off") {
			t.Errorf("third sample: %v", err)
		}
	}
	if n != 3 {
		t.Errorf("read %d, want 3", n)
	}
}

func TestResultAndManifestComeBackAsWritten(t *testing.T) {
	dir := t.TempDir()
	observed := 1.07
	r := Result{Schema: ResultSchema, Run: "r", Verdict: Fail, ExitCode: 1, Why: "<&>", Expectations: []Expectation{{Text: "p99", Verdict: Fail, Observed: &observed}}}
	if err := WriteResult(dir, r); err != nil {
		t.Fatal(err)
	}
	got, err := ReadResult(os.DirFS(dir))
	if err != nil || cmp.Diff(r, got) != "" {
		t.Errorf("ReadResult = %v\n%s", err, cmp.Diff(r, got))
	}
	if b, _ := os.ReadFile(dir + "/" + ResultFile); !strings.Contains(string(b), `"why": "<&>"`) {
		t.Error("HTML characters are escaped")
	}
	m := Manifest{Schema: ManifestSchema, Run: "r", Seed: 1 << 63}
	if err := WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadManifest(os.DirFS(dir)); err != nil || cmp.Diff(m, got) != "" {
		t.Errorf("ReadManifest = %v\n%s", err, cmp.Diff(m, got))
	}
	if _, err := ReadResult(file(ResultFile, `{"schema":"brownout.result/2"}`)); err == nil || !strings.Contains(err.Error(), `schema "brownout.result/2", this program reads`) {
		t.Errorf("ReadResult of another version = %v", err)
	}
	if err := WriteResult(dir+"/none", r); err == nil {
		t.Error("WriteResult into nothing succeeded")
	}
}
