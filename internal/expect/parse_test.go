package expect

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct{ in, prints string }{
		{"linearizable", "linearizable"},
		{"no acknowledged write is lost", "no acknowledged write is lost"},
		{"  no   acknowledged write is lost ", "no acknowledged write is lost"},
		{"p99(put) during disk.delay < 3x baseline", "p99(put) during disk.delay < 3x baseline"},
		{"p99(put) during disk.delay<3x the baseline", "p99(put) during disk.delay < 3x baseline"},
		{"p50 < 20ms", "p50 < 20ms"},
		{"p50(all) in fault < 20 ms", "p50 < 20ms"},
		{"p50 during fault <= 20ms", "p50 <= 20ms"},
		{"p99(get) during fault f2 ≤ 5ms", "p99(get) during f2 <= 5ms"},
		{"p999(cas) during f12 >= 5ms", "p999(cas) during f12 >= 5ms"},
		{"max in recovery < 1s", "max in recovery < 1s"},
		{"service p99(put) in run < 100% of baseline", "service p99(put) in run < 100% of baseline"},
		{"p99(put) of service < 9ms", "service p99(put) < 9ms"},
		{"p99(put) of shard 1 during disk.delay < 3x baseline", "p99(put) of shard 1 during disk.delay < 3x baseline"},
		{"p99 of service of shard 0 < 9ms", "service p99 of shard 0 < 9ms"},
		{"p99 of shard 0 of service < 9ms", "service p99 of shard 0 < 9ms"},
		{"throughput of shard 12 in recovery > 500/s", "throughput of shard 12 in recovery > 500/s"},
		{"errors(put) of shard 2 = 0", "errors(put) of shard 2 = 0"},
		{"leader_changes of shard 1 in run = 0", "leader_changes of shard 1 in run = 0"},
		{"response p99(put) < 9ms", "p99(put) < 9ms"},
		{"throughput during disk.delay > 80% of baseline", "throughput during disk.delay > 80% of baseline"},
		{"throughput(append) in recovery > 0.5k/s", "throughput(append) in recovery > 500/s"},
		{"errors = 0", "errors = 0"},
		{"errors(put) during net.partition is 0", "errors(put) during net.partition = 0"},
		{"unknown < 0.5%", "unknown < 0.5%"},
		{"fails in recovery == 0", "fails in recovery = 0"},
		{"leader_changes = 0", "leader_changes = 0"},
		{"leader_changes in run <= 1", "leader_changes in run <= 1"},
		{"time_to_recover(process.kill) < 5s", "time_to_recover(process.kill) < 5s"},
		{"time_to_recover(f1) < 1m30s", "time_to_recover(f1) < 1m30s"},
		{"diagnosis during disk.delay is disk@follower", "diagnosis during disk.delay is disk@follower"},
		{"diagnosis is none", "diagnosis is none"},
		{"diagnosis during f1 is network@n12", "diagnosis during f1 is network@n12"},
		{"diagnosis in baseline is cpu", "diagnosis in baseline is cpu"},
	} {
		s, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if s.String() != tt.prints {
			t.Errorf("Parse(%q) prints %q, want %q", tt.in, s, tt.prints)
		}
		if again, err := Parse(s.String()); err != nil || again != s {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", s, again, err, s)
		}
	}
}

func TestMistakesPointAtTheWord(t *testing.T) {
	for _, tt := range []struct{ in, at, msg, hint string }{
		{"p99(put) durign disk.delay < 3x baseline", "durign", "expected during, in or", "during"},
		{"p99(putt) < 5ms", "putt", "expected get, put", "put"},
		{"p98 < 5ms", "p98", "expected linearizable", "p"},
		{"linearisable", "linearisable", "expected", "linearizable"},
		{"linearizable please", "please", "the end of the sentence", ""},
		{"no acknowledged write is last", "last", `expected "lost"`, "lost"},
		{"p99 during disk.dealy < 5ms", "disk.dealy", "a fault in force", "disk.delay"},
		{"p99 in recovry < 5ms", "recovry", "a phase", "recovery"},
		{"p99 in disk.delay < 5ms", "disk.delay", "a phase", ""},
		{"p99 < 5", "5", "5 what? write 5ms", ""},
		{"p99 < 5 minutes", "5 minutes", "unknown unit", ""},
		{"p99 < 3x", "3x", "3x of what? write 3x baseline", ""},
		{"throughput > 80%", "80%", "80% of what? write 80% of baseline", ""},
		{"p99 < 80%", "80%", "80% of baseline", ""},
		{"p99 < 3xx baseline", "3xx baseline", "is not a ratio", ""},
		{"errors < 3x baseline", "3x baseline", "not compared with the baseline", ""},
		{"errors < 5ms", "5ms", "a count or a share", ""},
		{"leader_changes < 1%", "1%", "a count", ""},
		{"time_to_recover < 5s", "<", "( and a fault", ""},
		{"time_to_recover(disk) < 5s", "disk", "a fault's kind", ""},
		{"time_to_recover(f1) during f1 < 5s", "during", "takes no period", ""},
		{"time_to_recover(f0) < 5s", "f0", "a fault's kind", ""},
		{"p99(put < 5ms", "<", "expected )", ""},
		{"p99 = 5ms", "=", "never exactly", ""},
		{"p99 != 5ms", "!=", "a comparison", ""},
		{"p99", " ", "ends here; expected a comparison", ""},
		{"p99 <", " ", "ends here; expected a duration", ""},
		{"", " ", "ends here", ""},
		{"service throughput > 5/s", "throughput", "expected p50", ""},
		{"service p99 of response < 5ms", "response", "was said before", ""},
		{"p99 of put < 5ms", "put", "service, response or a shard", ""},
		{"p99 of shard one < 5ms", "one", "a shard's number", ""},
		{"p99 of shard 1 of shard 2 < 5ms", "shard", "was named before", ""},
		{"errors of service = 0", "service", "a shard", ""},
		{"diagnosis during disk.delay is disc@leader", "disc@leader", "a culprit", "disk@leader"},
		{"diagnosis is disk@leeder", "disk@leeder", "behind @", "disk@leader"},
		{"diagnosis is none@n1", "none@n1", "no place", ""},
		{"throughput > 50% of max", "50% of max", "is no limit", ""},
		{"p99\x00 < 5ms", "\x00", "unexpected character", ""},
	} {
		_, err := Parse(tt.in)
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("Parse(%q): %v, want an *Error", tt.in, err)
			continue
		}
		runes := append([]rune(e.Text), ' ', ' ')
		at := string(runes[e.Start : e.Start+e.Width])
		if at != tt.at || !strings.Contains(e.Msg, tt.msg) || !strings.Contains(e.Hint, tt.hint) || tt.hint == "" && e.Hint != "" {
			t.Errorf("Parse(%q) at %q: %s (%s)\nwant at %q: %s (%s)", tt.in, at, e.Msg, e.Hint, tt.at, tt.msg, tt.hint)
		}
	}
}

// FuzzParse: no input panics; what parses prints to something that parses to
// the same; a mistake lies within the sentence or directly behind it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"linearizable", "no acknowledged write is lost", "p99(put) during disk.delay < 3x baseline", "errors = 0",
		"throughput in recovery > 80% of baseline", "time_to_recover(f1) < 5s", "diagnosis during f1 is disk@n2", "service p999 < 5ms",
		"leader_changes in run <= 1", "p99(put) durign ü < 5",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := Parse(in)
		if err != nil {
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Width < 1 || e.Start < 0 || e.Start > len([]rune(e.Text)) || e.Msg == "" {
				t.Fatalf("Parse(%q): %#v", in, err)
			}
			_ = e.Error()
			return
		}
		if again, err := Parse(s.String()); err != nil || again != s {
			t.Fatalf("Parse(%q) prints %q, which parses to %+v, %v", in, s, again, err)
		}
	})
}
