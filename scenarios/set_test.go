package scenarios

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const styled = `# a comment stays
version: 1
name: "styled" # and this one
target:
    kind: kvserver   # four spaces
    nodes: 3
    config: {}
workload:
  keys:
  load: closed
  mix: {get: 50%,
        put: 50%}
timeline:
  warmup: 1s
  faults:
    - {at: 0s, for: 3s, disk.delay: {on: "one follower", add: 20ms}}
    - at: 1s
      for: 2s
      net.partition:
        split: "n1 | n2,n3"
    # the end
  recovery: 1s
expect:
  - linearizable
  - >-
    no acknowledged
    write is lost
`

func TestOverridesChangeTextAndNothingElse(t *testing.T) {
	for _, tt := range []struct {
		name     string
		set      []string
		old, new string // what differs in the text
	}{
		{"a value", []string{"target.nodes=5"}, "nodes: 3", "nodes: 5"},
		{"a quoted value", []string{"name=other"}, `name: "styled"`, "name: other"},
		{"a value that needs quotes", []string{"timeline.faults[1].net.partition.split=n1,n2 | n3"}, `"n1 | n2,n3"`, `"n1,n2 | n3"`},
		{"a value in braces", []string{"timeline.faults[0].disk.delay.add=5ms"}, "20ms", "5ms"},
		{"a value with a sign of its own", []string{"timeline.faults[0].disk.delay.on=n2"}, `"one follower"`, "n2"},
		{"a field that is not there, in braces", []string{"timeline.faults[0].disk.delay.op=write"}, "disk.delay: {on", "disk.delay: {op: write, on"},
		{"a field in empty braces", []string{"target.config.log=bolt"}, "config: {}", "config: {log: bolt}"},
		{"a field that is not there, on lines", []string{"timeline.baseline=2s"}, "  warmup: 1s", "  baseline: 2s\n  warmup: 1s"},
		{"a field that is not there, in a list", []string{"timeline.faults[1].net.partition.one_way=true"}, "        split:", "        one_way: true\n        split:"},
		{"fields at the top", []string{"seed=9"}, "version: 1", "seed: 9\nversion: 1"},
		{"fields below what is not there", []string{"network.delay=1ms"}, "version: 1", "network: {delay: 1ms}\nversion: 1"},
		{"the same twice", []string{"seed=8", "seed=9"}, "version: 1", "seed: 9\nversion: 1"},
		{"two lines added", []string{"seed=9", "timeline.baseline=2s"}, "version: 1", "seed: 9\nversion: 1"},
		{"below an empty field", []string{"workload.keys={count: 7}"}, "keys:", "keys: {count: 7}"},
		{"braces over two lines", []string{"workload.mix={put: 100%}"}, "{get: 50%,\n        put: 50%}", "{put: 100%}\n"},
		{"a block", []string{"timeline.faults[1].net.partition={from: leader}"}, "net.partition:\n        split: \"n1 | n2,n3\"", "net.partition: {from: leader}\n"},
		{"an entry of a list", []string{"expect[0]=errors in recovery = 0"}, "- linearizable", `- "errors in recovery = 0"`},
		{"a list", []string{"timeline.faults[0]={at: 1s, process.kill: {on: n1, restart: 1s}}"}, `{at: 0s, for: 3s, disk.delay: {on: "one follower", add: 20ms}}`, "{at: 1s, process.kill: {on: n1, restart: 1s}}"},
	} {
		src := strings.Replace(styled, "  keys:\n", "  keys: {}\n", 1)
		if strings.Contains(tt.name, "empty field") {
			src = styled
		}
		_, got, err := parse([]byte(src), "x.yaml", tt.set)
		if err != nil {
			t.Errorf("%s: --set %q: %v", tt.name, tt.set, err)
			continue
		}
		want := strings.Replace(src, tt.old, tt.new, 1)
		if len(tt.set) > 1 && tt.name == "two lines added" {
			want = strings.Replace(want, "  warmup: 1s", "  baseline: 2s\n  warmup: 1s", 1)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s: --set %q\n%s", tt.name, tt.set, diff)
		}
		if _, err := Parse(got, "x.yaml"); err != nil {
			t.Errorf("%s: the text with overrides does not parse: %v", tt.name, err)
		}
	}
}

func TestOverridesKeepTheUsersLineNumbers(t *testing.T) {
	src := strings.Replace(styled, "  keys:\n", "  keys: {}\n", 1)
	s, _, err := parse([]byte(src), "x.yaml", []string{"seed=9", "timeline.baseline=2s"})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Parse([]byte(src), "x.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range s.Timeline.Faults {
		if f.Line != plain.Timeline.Faults[i].Line {
			t.Errorf("fault %d is on line %d, want %d", i, f.Line, plain.Timeline.Faults[i].Line)
		}
	}
	_, _, err = parse([]byte(strings.Replace(src, "recovery: 1s", "recovry: 1s", 1)), "x.yaml", []string{"seed=9"})
	if want := "x.yaml:22:3  unknown field"; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), ">   22 |") {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestOverridesThatAreWrong(t *testing.T) {
	for _, tt := range []struct{ set, want string }{
		{"seed", "--set seed  want PATH=VALUE"},
		{"=5", "want PATH=VALUE"},
		{"workload.laod.rate=5/s", `--set workload.laod.rate=5/s  workload has no field "laod" — did you mean "load"?`},
		{"rate=5/s", `a scenario has no field "rate" — did you mean "workload.load.rate"?`},
		{"load.rate=5/s", `did you mean "workload.load.rate"?`},
		{"faults[0].at=5s", `did you mean "timeline.faults[0].at"?`},
		{"timeline.faults.at=5s", "timeline.faults is a list — name an entry, as in timeline.faults[0]"},
		{"timeline.faults[7].at=5s", "timeline.faults[7] does not exist: timeline.faults has 2 entries"},
		{"timeline.faults[x].at=5s", "is a list"},
		{"timeline.faults[0].disk.dealy.add=5ms", "has no field"},
		{"timeline.faults[0].net.delay.add=5ms", "one entry is one fault"},
		{"seed.x=1", "seed is a value and has nothing below it"},
		{"workload.load.clients=5", "workload.load is a value in this file and has no clients"},
		{"target.nodes=many", `--set target.nodes=many  "many" is not a whole number`},
		{"target.nodes=", "not a whole number"},
		{"timeline.faults[0].disk.delay.add=5", "--set timeline.faults[0].disk.delay.add=5  5 what? write 5ms"},
		{"target.nodes=2", "x.yaml:20:16  there is no n3"},
		{"workload.mix={put: 90%}", "sum to 90%"},
		{"workload.mix={put: 90%", "mapping"},
		{"expect[1]=linearizable", "goes over several lines"},
		{"expect[0]=linearisable", `--set expect[0]=linearisable  unexpected "linearisable"`},
	} {
		src := strings.Replace(styled, "  keys:\n", "  keys: {}\n", 1)
		_, _, err := parse([]byte(src), "x.yaml", []string{tt.set})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("--set %s: %v\nwant %s", tt.set, err, tt.want)
		}
	}
}

// FuzzOverride: no path and no value panics; the text that an override leaves
// is a scenario file that says the same, and overriding again changes nothing.
func FuzzOverride(f *testing.F) {
	for _, set := range []string{
		"target.nodes=5", "name=other", "timeline.faults[1].net.partition.split=n1 | n2", "network.delay=1ms", "workload.mix={put: 100%}",
		"expect[0]=errors in recovery = 0", "timeline.faults[0]={at: 1s, process.kill: {on: n1, restart: 1s}}", "timeline.faults[0].disk.delay.op=all",
		"timeline.faults=[]", "seed=", "workload.keys.dist=zipf 1.1", "[0]=1", "a..b=[{", "timeline.warmup=\"1s\"",
	} {
		f.Add(set)
	}
	src := strings.Replace(styled, "  keys:\n", "  keys: {}\n", 1)
	f.Fuzz(func(t *testing.T, set string) {
		began := time.Now()
		s, text, err := parse([]byte(src), "x.yaml", []string{set})
		if d := time.Since(began); d > 10*time.Second {
			t.Fatalf("--set %q took %v", set, d)
		}
		if err != nil {
			return
		}
		again, err := Parse(text, "x.yaml")
		if err != nil {
			t.Fatalf("--set %q leaves what does not parse: %v\n%s", set, err, text)
		}
		twice, _, err := parse(text, "x.yaml", []string{set})
		if err != nil {
			t.Fatalf("--set %q a second time: %v", set, err)
		}
		for _, other := range []*Scenario{again, twice} {
			if diff := cmp.Diff(meaning(s), meaning(other)); diff != "" {
				t.Fatalf("--set %q:\n%s", set, diff)
			}
		}
	})
}

// meaning is a scenario without its places in a file.
func meaning(s *Scenario) Scenario {
	m := *s
	m.Hash = ""
	m.Timeline.Faults = append([]Fault(nil), s.Timeline.Faults...)
	for i := range m.Timeline.Faults {
		m.Timeline.Faults[i].Line = 0
	}
	m.Expect = nil
	for _, e := range s.Expect {
		m.Expect = append(m.Expect, Expectation{Text: e.Text})
	}
	return m
}
