package trace

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/kvserver/stages"
)

// zero is the host's clock at the run's zero.
const zero = int64(5e12)

// us is a time of the host's clock, so many µs after the run's zero.
func us(t ...int64) (out [9]int64) {
	for i, v := range t {
		if v >= 0 {
			out[i] = zero + v*1000
		}
	}
	return out
}

// A write of 1000 µs: queued for 100, n1's disk 200 to 400, n2 has it at 600,
// n3 a long time after.
func records() map[string][]stages.Record {
	return map[string][]stages.Record{
		"n1": {
			{Kind: stages.Request, A: stages.Hash("k1", "v7~~~~~~"), B: 42, T: us(100, 110, 120, 190, -1, -1, 800, 820, 850)},
			{Kind: stages.Store, A: 42, B: 42, T: us(200, 210, 220, 390, 400)},
			{Kind: stages.Send, Peer: 1, A: 42, B: 42, T: us(420, 425, 600)},
			{Kind: stages.Send, Peer: 2, A: 42, B: 42, T: us(430, 435, 9000)},
			{Kind: stages.Apply, A: 42, B: 42, T: us(650, 700, 750, 680)},
			{Kind: stages.Request, A: stages.Hash("k1", ""), T: us(2010, 2020, 2030, 2100, 2110, 2120, 2130, 2140, 2150)},
			{Kind: stages.Encode, A: 42, B: 42, N: 300, T: us(190, 197)},
		},
		"n2": {
			{Kind: stages.Receive, Peer: 0, A: 42, B: 42, T: us(440, 445, 580)},
			{Kind: stages.Store, A: 42, B: 42, T: us(450, 460, 470, 560, 570)},
		},
		"n3": {{Kind: stages.Receive, Peer: 0, A: 42, B: 42, T: us(8000, 8010, 8900)}},
	}
}

func notes(t testing.TB, recs map[string][]stages.Record) *Notes {
	t.Helper()
	files := fstest.MapFS{
		run.EventsFile: {Data: fmt.Appendf(nil, `{"t_ns":0,"type":"phase","phase":"baseline"}
{"t_ns":0,"type":"load.started","data":{"zero_monotonic_ns":%d}}
{"t_ns":1500000,"type":"fault.fired","fault":"f1","kind":"disk.delay","nodes":["n1"]}
{"t_ns":9000000,"type":"fault.healed","fault":"f1","kind":"disk.delay"}
`, zero)},
		run.PlanFile: {Data: []byte(`{"schema":"brownout.plan/1","load":{"value_bytes":8}}`)},
		run.HistoryFile: {Data: []byte(`{"op":7,"client":1,"key":"k1","kind":"put","value":"v7","outcome":"ok","due_ns":0,"call_ns":50000,"return_ns":1000000,"node":"n1"}
{"op":8,"client":1,"key":"k1","kind":"get","result":"v7","outcome":"ok","due_ns":2000000,"call_ns":2005000,"return_ns":2200000,"node":"n1"}
{"op":9,"client":1,"key":"k2","kind":"get","result":null,"outcome":"ok","due_ns":2000000,"call_ns":2005000,"return_ns":2200000,"node":"n1"}
`)},
	}
	for name, rs := range recs {
		h, _ := json.Marshal(stages.Header{Format: stages.Format, Node: name, Members: []string{"n1", "n2", "n3"}})
		b := append(h, '\n')
		for i := range rs {
			b = rs[i].Append(b)
		}
		files["nodes/"+name+"/notes/stages.bin"] = &fstest.MapFile{Data: b}
	}
	n, err := Read(files)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func line(stages []Stage) string {
	var out []string
	for _, s := range stages {
		out = append(out, fmt.Sprintf("%s %s %d", s.Node, s.Name, s.Length()/1000))
	}
	return strings.Join(out, ", ")
}

// TestStoryGoesDownstream: what went there before the answer was waited for, what went on after it was not.
func TestStoryGoesDownstream(t *testing.T) {
	for _, tt := range []struct {
		begun, done int64
		want        string
	}{
		{805, 815, "n1 wake 50, n1 downstream queue 5, n1 downstream 10, n1 answer queue 5, n1 encode and send 30"},
		{805, 900, "n1 wake 50, n1 answer queue 20, n1 encode and send 30"},
	} {
		recs := records()
		recs["n1"] = append(recs["n1"], stages.Record{Kind: stages.Through, A: 40, B: 43, T: us(tt.begun, tt.done)})
		n := notes(t, recs)
		s := n.Story(&n.Ops[0])
		if got := line(s.Stages); !strings.Contains(got, tt.want) {
			t.Errorf("downstream from %d to %d: %s, want %s", tt.begun, tt.done, got, tt.want)
		}
		var b bytes.Buffer
		if err := n.Text(&b, s); err != nil || strings.Contains(b.String(), "downstream") != strings.Contains(tt.want, "downstream") {
			t.Errorf("%v: %s", err, b.String())
		}
	}
}

func TestStoryOfAWrite(t *testing.T) {
	n := notes(t, records())
	s := n.Story(&n.Ops[0])
	want := "client waits in the client 50, client network to n1 50, n1 decode 10, n1 hand over 10, n1 proposal queue 70, n1 encode commands 7, n1 raft takes it 3, " +
		"n1 leader's log: encode 10, n1 leader's log: write 10, n1 leader's log: fsync 170, n1 leader's log: index 10, n1 to the senders 20, " +
		"n1 follower: send 5, n2 follower: network to n2 15, n2 follower: decode 5, n2 follower: raft takes it 5, " +
		"n2 follower: encode 10, n2 follower: write 10, n2 follower: fsync 90, n2 follower: index 10, n2 follower: answer 10, n1 follower: network to n1 20, " +
		"n1 apply queue 50, n1 decode commands 30, n1 lock wait 20, n1 apply 50, n1 wake 50, n1 answer queue 20, n1 encode and send 30, client network to the client 150"
	if got := line(s.Stages); got != want {
		t.Errorf("stages\n%s\nwant\n%s", got, want)
	}
	if s.Quorum != 2 || s.Commit != 600_000 || len(s.Copies) != 2 || !s.Copies[0].Quorum || s.Copies[1].Quorum || s.Copies[1].Node != "n3" {
		t.Errorf("quorum %d, commit %d, copies %+v", s.Quorum, s.Commit, s.Copies)
	}
	var b bytes.Buffer
	if err := n.Text(&b, s); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"entry 42", "With n1 and n2 that was a quorum, 2 of 3", "nobody waited for it", "170µs were fsync", "put k1 \"v7\""} {
		if !strings.Contains(b.String(), words) {
			t.Errorf("the story lacks %q:\n%s", words, b.String())
		}
	}
}

// TestStoryOfAShard has another shard's entry of the same index under way, a little earlier.
func TestStoryOfAShard(t *testing.T) {
	plain, recs := notes(t, records()), records()
	want := line(plain.Story(&plain.Ops[0]).Stages)
	for node, rs := range records() {
		for _, r := range rs {
			if r.Kind == stages.Request {
				r.A++
			}
			r.Group = 3
			for i := range r.T {
				r.T[i] = max(r.T[i]-5000, 0)
			}
			recs[node] = append(recs[node], r)
		}
	}
	n := notes(t, recs)
	s := n.Story(&n.Ops[0])
	if got := line(s.Stages); got != want || s.Beside != 0 {
		t.Errorf("stages\n%s\nwant\n%s, and nobody beside it but %d", got, want, s.Beside)
	}
	var b bytes.Buffer
	if err := n.Text(&b, s); err != nil || !strings.Contains(b.String(), "made it entry 42 of shard 0.") {
		t.Errorf("%v: the story does not tell the shard:\n%s", err, b.String())
	}
}

func TestStoryOfARead(t *testing.T) {
	n := notes(t, records())
	want := "client waits in the client 5, client network to n1 5, n1 decode 10, n1 hand over 10, n1 confirm leadership 70, n1 wake 10, n1 lock wait 10, n1 read 10, n1 answer queue 10, n1 encode and send 10, client network to the client 50"
	if got := line(n.Story(&n.Ops[1]).Stages); got != want {
		t.Errorf("stages\n%s\nwant\n%s", got, want)
	}
	if s := n.Story(&n.Ops[2]); s != nil {
		t.Errorf("a story of what nobody noted: %+v", s)
	}
}

// The leader's own disk is slower than its followers: that is what is waited for.
func TestASlowLeadersDiskIsOnTheWay(t *testing.T) {
	recs := records()
	recs["n1"][1].T = us(200, 210, 220, 630, 640)
	recs["n1"][2].T = us(205, 207, 500) // sent before it was on its own disk
	recs["n2"] = nil
	n := notes(t, recs)
	if got := line(n.Story(&n.Ops[0]).Stages); !strings.Contains(got, "leader's log: fsync 410") || strings.Contains(got, "follower") {
		t.Error(got)
	}
}

// Whatever is missing or contradicts itself, the stages follow each other
// without gaps from due to return: what is not known has that name.
func TestStagesAlwaysAddUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	unseen := 0
	for range 2000 {
		recs := records()
		for name := range recs {
			for i := range recs[name] {
				r := &recs[name][i]
				for j := range r.T {
					switch rng.IntN(12) {
					case 0:
						r.T[j] = 0
					case 1:
						r.T[j] = zero + rng.Int64N(1_200_000)
					}
				}
			}
			if rng.IntN(4) == 0 && len(recs[name]) > 0 {
				i := rng.IntN(len(recs[name]))
				recs[name] = append(recs[name][:i:i], recs[name][i+1:]...)
			}
		}
		n := notes(t, recs)
		for i := range n.Ops {
			s := n.Story(&n.Ops[i])
			if s == nil {
				continue
			}
			at := s.Op.Due
			for _, st := range s.Stages {
				if st.Start != at || st.End <= st.Start {
					t.Fatalf("%v at %d", st, at)
				}
				at = st.End
			}
			if at < s.Op.Return {
				t.Fatalf("the stages end at %d, the operation at %d: %s", at, s.Op.Return, line(s.Stages))
			}
			if s.Unexplained() > 0 {
				unseen++
			}
			var b bytes.Buffer
			if err := n.Text(&b, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if unseen == 0 {
		t.Error("nothing was ever unseen")
	}
}

func TestSummaryAddsUp(t *testing.T) {
	n := notes(t, records())
	all := n.Summarize()
	if len(all) != 3 { // writes and reads of the baseline, reads of the fault
		t.Fatalf("%d summaries: %+v", len(all), all)
	}
	for _, s := range all {
		sum := 0.0
		for _, m := range s.Stages {
			sum += m.NS
		}
		if s.N != 1 || s.Explained != 1 || sum != s.Response {
			t.Errorf("%s in %s: stages sum up to %v of %v, explained %v", s.Class, s.Phase, sum, s.Response, s.Explained)
		}
	}
	var b bytes.Buffer
	if err := SummaryText(&b, all); err != nil || !strings.Contains(b.String(), "leader's log: fsync") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestSelect(t *testing.T) {
	n := notes(t, records())
	for _, tt := range []struct {
		pick Pick
		want []int64
	}{
		{Pick{Op: 7}, []int64{7}},
		{Pick{Op: 9}, nil},
		{Pick{Op: -1, Slowest: 5}, []int64{7, 8}},
		{Pick{Op: -1, Slowest: 1}, []int64{7}},
		{Pick{Op: -1, Kind: "get"}, []int64{8}},
		{Pick{Op: -1, Phase: "f1"}, []int64{8}},
		{Pick{Op: -1, Phase: "disk.delay"}, []int64{8}},
		{Pick{Op: -1, Phase: "recovery"}, nil},
	} {
		var got []int64
		for _, s := range n.Select(tt.pick) {
			got = append(got, s.Op.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("Select(%+v) = %v, want %v", tt.pick, got, tt.want)
		}
	}
}

func TestExports(t *testing.T) {
	n := notes(t, records())
	stories := n.Select(Pick{Op: 7})
	p, err := json.Marshal(NewPerfetto(stories))
	if err != nil {
		t.Fatal(err)
	}
	o, err := json.Marshal(NewOTLP("r1", time.Unix(1000, 0), stories))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ph":"X"`, `"name":"process_name"`, `"args":{"name":"n3"}`} {
		if !strings.Contains(string(p), want) {
			t.Errorf("perfetto lacks %s", want)
		}
	}
	for _, want := range []string{`"traceId":"`, `"startTimeUnixNano":"1000000000000"`, `"endTimeUnixNano":"1000001000000"`, `"stringValue":"n2"`, `"intValue":"42"`} {
		if !strings.Contains(string(o), want) {
			t.Errorf("otlp lacks %s:\n%s", want, o)
		}
	}
	var doc OTLP
	if err := json.Unmarshal(o, &doc); err != nil {
		t.Fatal(err)
	}
	spans := map[string]bool{}
	for _, r := range doc.ResourceSpans {
		for _, s := range r.ScopeSpans[0].Spans {
			if len(s.TraceID) != 32 || len(s.SpanID) != 16 || spans[s.SpanID] {
				t.Errorf("span %+v", s)
			}
			spans[s.SpanID] = true
		}
	}
}

func TestRunsWithoutNotes(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"no load":  {run.EventsFile: {Data: []byte(`{"t_ns":0,"type":"run.ended"}`)}},
		"no notes": {run.EventsFile: {Data: []byte(`{"t_ns":0,"type":"load.started","data":{"zero_monotonic_ns":5}}`)}},
	} {
		if _, err := Read(files); err == nil || !strings.Contains(err.Error(), ErrNoNotes.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ClassOf(history.Get) != Reads || ClassOf(history.CAS) != Writes {
		t.Error("classes")
	}
}
