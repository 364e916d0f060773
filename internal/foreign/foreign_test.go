package foreign

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"strings"
	"testing"

	"brownout/checker"
	"brownout/internal/history"
)

func verdict(t *testing.T, h History) checker.Verdict {
	t.Helper()
	res, err := checker.Check(context.WithoutCancel(t.Context()), h.Ops, checker.Options{})
	if err != nil {
		t.Fatalf("Check: %v\n%+v", err, h.Ops)
	}
	return res.Verdict
}

const ok, bad = checker.OK, checker.Illegal

func TestSemantics(t *testing.T) {
	init := func(s string) *string { return &s }
	for _, tt := range []struct {
		name, in string
		opt      Options
		format   Format
		want     checker.Verdict
	}{
		{"knossos: a register starts as 0", `{:process 1 :type :invoke :f :read} {:process 1 :type :ok :f :read :value 0}`, Options{}, EDN, ok},
		{"knossos: and as nothing else", `{:process 1 :type :invoke :f :read} {:process 1 :type :ok :f :read :value 1}`, Options{}, EDN, bad},
		{"knossos: unless it is said", `{:process 1 :type :invoke :f :read} {:process 1 :type :ok :f :read :value 1}`, Options{Init: init("1")}, EDN, ok},
		{"knossos: a start of nil", `{:process 1 :type :invoke :f :cas :value [nil 2]} {:process 1 :type :ok :f :cas :value [nil 2]}`, Options{Init: init("nil")}, EDN, ok},
		{"knossos: a read of nil constrains nothing", `[{:process 1 :type :invoke :f :write :value 1} {:process 1 :type :ok :f :write :value 1}
			{:process 1 :type :invoke :f :read :value nil} {:process 1 :type :ok :f :read :value nil}]`, Options{}, EDN, ok},
		{"knossos: a failed cas did not happen, it is no mismatch", `({:process 1, :type :invoke, :f :cas, :value [0 1]} {:process 1, :type :fail, :f :cas, :value [0 1]})`, Options{}, EDN, ok},
		{"knossos: a failed write is not read", `[{:process 1 :type :invoke :f :write :value 1} {:process 1 :type :fail :f :write :value 1}
			{:process 1 :type :invoke :f :read} {:process 1 :type :ok :f :read :value 1}]`, Options{}, EDN, bad},
		{"knossos: info may happen later", `[{:process 1 :type :invoke :f :write :value 1} {:process 1 :type :info :f :write :value :timed-out}
			{:process 2 :type :invoke :f :read} {:process 2 :type :ok :f :read :value 0}
			{:process 2 :type :invoke :f :read} {:process 2 :type :ok :f :read :value 1}]`, Options{}, EDN, ok},
		{"knossos: but not be undone", `[{:process 1 :type :invoke :f :write :value 1} {:process 1 :type :info :f :write :value nil, :error "x;y)"}
			{:process 2 :type :invoke :f :read} {:process 2 :type :ok :f :read :value 1} ; a comment ]
			{:process 2 :type :invoke :f :read} {:process 2 :type :ok :f :read :value 0}]`, Options{}, EDN, bad},
		{"edn: keys of jepsen.independent", `{:process 1 :type :invoke :f :write :value [7 1]} {:process 1 :type :ok :f :write :value [7 1]}
			{:process 2 :type :invoke :f :read :value [7 nil]} {:process 2 :type :ok :f :read :value [7 1]}
			{:process 2 :type :invoke :f :read :value [8 nil]} {:process 2 :type :ok :f :read :value [8 nil]}`, Options{}, EDN, ok},
		{"edn: and their tag", `{:process 1 :type :invoke :f :cas :value [7 [1 2]]} {:process 1 :type :fail :f :cas :value [7 [1 2]]}
			{:process 2 :type :invoke :f :read :value #jepsen.independent.Tuple[7 nil]} {:process 2 :type :ok :f :read :value #jepsen.independent.Tuple[7 2]}`, Options{}, EDN, bad},
		{"edn: a list by its words", `{:process 1 :type :invoke :f :append :value 1} {:process 1 :type :ok :f :append :value 1}
			{:process 1 :type :invoke :f :read :value nil} {:process 1 :type :ok :f :read :value [1]}`, Options{}, EDN, ok},
		{"edn: a mutex by its words", `{:process 1 :type :invoke :f :acquire} {:process 1 :type :ok :f :acquire} {:process 2 :type :invoke :f :acquire} {:process 2 :type :ok :f :acquire}`, Options{}, EDN, bad},
		{"edn: all on one line are in order", `[{:process 1 :type :invoke :f :write :value 1} {:process 1 :type :ok :f :write :value 1} {:process 2 :type :invoke :f :read} {:process 2 :type :ok :f :read :value 0}]`, Options{}, EDN, bad},
		{"edn: equal times are concurrent", `{:process 1 :type :invoke :f :write :value 1 :time 5} {:process 1 :type :ok :f :write :value 1 :time 7} {:process 2 :type :invoke :f :read :time 7} {:process 2 :type :ok :f :read :value 0 :time 9}`, Options{}, EDN, ok},
		{"edn: tags, sets, what is skipped, the nemesis", `#jepsen.history.Op{:process 1 :type :invoke :f :read :x #{1 2} #_#_ :y "z"} {:process :nemesis :type :info :f :kill} {:process 1 :type :ok :f :read :value 0 :e \newline}`, Options{}, EDN, ok},
		{"edn: keys of a map of registers", `{:process 1 :type :invoke :f :write :value ["a" 1]} {:process 1 :type :ok :f :write :value ["a" 1]}
			{:process 1 :type :invoke :f :read :value ["b" nil]} {:process 1 :type :ok :f :read :value ["b" 1]}`, Options{Model: KV}, EDN, bad},
		{"edn: maps differ by what is in them", wrote(`{:a 1, :b {:c 2}}`, `{:a 1, :b {:c 3}}`), Options{}, EDN, bad},
		{"edn: maps have no order", wrote(`{:a 1, :b 2}`, `{:b 2, :a 1}`), Options{}, EDN, ok},
		{"edn: sets have no order", wrote(`#{1 2}`, `#{2 1}`), Options{}, EDN, ok},
		{"edn: a set is no list", wrote(`#{1 2}`, `[1 2]`), Options{}, EDN, bad},
		{"edn: a list is a vector", wrote(`(1 2)`, `[1 2]`), Options{}, EDN, ok},
		{"edn: characters of two halves", wrote(`"\uD83D\uDE00"`, `"\uD83D\uDE01"`), Options{}, EDN, bad},
		{"edn: an escape is what it stands for", wrote(`"\uD83D\uDE00"`, `"😀"`), Options{}, EDN, ok},
		{"edn: integers beyond 64 bits", wrote(`99999999999999999999N`, `+99999999999999999999`), Options{}, EDN, ok},
		{"edn: a string is no number, as a key", `{:process 1 :type :invoke :f :write :value ["1" 5]} {:process 1 :type :ok :f :write :value ["1" 5]}
			{:process 1 :type :invoke :f :read :value [1 nil]} {:process 1 :type :ok :f :read :value [1 5]}`, Options{Model: KV}, EDN, bad},
		{"edn: packed", packed(wrote("1", "2")), Options{}, EDN, bad},
		{"edn: a byte order mark", "\ufeff" + wrote("1", "1"), Options{}, EDN, ok},
		{"append-list", `{:process 1 :type :invoke :f :append :value 1} {:process 1 :type :ok :f :append :value 1}
			{:process 1 :type :invoke :f :append :value 2} {:process 1 :type :ok :f :append :value 2}
			{:process 1 :type :invoke :f :read :value nil} {:process 1 :type :ok :f :read :value [1 2]}`, Options{Model: AppendList}, EDN, ok},
		{"append-list: one is lost", `{:process 1 :type :invoke :f :append :value 1} {:process 1 :type :ok :f :append :value 1}
			{:process 1 :type :invoke :f :append :value 2} {:process 1 :type :ok :f :append :value 2}
			{:process 1 :type :invoke :f :read :value nil} {:process 1 :type :ok :f :read :value [2]}`, Options{Model: AppendList}, EDN, bad},
		{"append-list: 1 2 is not 12", `{:process 1 :type :invoke :f :append :value 12} {:process 1 :type :ok :f :append :value 12}
			{:process 1 :type :invoke :f :read :value nil} {:process 1 :type :ok :f :read :value [1 2]}`, Options{Model: AppendList}, EDN, bad},
		{"mutex", `{:process 1 :type :invoke :f :acquire} {:process 1 :type :ok :f :acquire} {:process 1 :type :invoke :f :release} {:process 1 :type :ok :f :release}
			{:process 2 :type :invoke :f :acquire} {:process 2 :type :ok :f :acquire}`, Options{Model: Mutex}, EDN, ok},
		{"mutex: held twice", `{:process 1 :type :invoke :f :acquire} {:process 1 :type :ok :f :acquire} {:process 2 :type :invoke :f :acquire} {:process 2 :type :ok :f :acquire}`, Options{Model: Mutex}, EDN, bad},
		{"jepsen: nil is a value", logLines("0 :invoke :write 1", "0 :ok :write 1", "0 :invoke :read nil", "0 :ok :read nil"), Options{}, JepsenLog, bad},
		{"jepsen: a failed cas is a mismatch", logLines("0 :invoke :write 1", "0 :ok :write 1", "0 :invoke :cas [1 2]", "0 :fail :cas [1 2]"), Options{}, JepsenLog, bad},
		{"jepsen: which an unknown write may explain", logLines("1 :invoke :write 3", "1 :info :write :timed-out", "0 :invoke :write 1", "0 :ok :write 1", "0 :invoke :cas [1 2]", "0 :fail :cas [1 2]"), Options{}, JepsenLog, ok},
		{"jepsen: a read that timed out is dropped", logLines("0 :invoke :read nil", "0 :fail :read :timed-out", "0 :invoke :read nil", "0 :ok :read nil"), Options{}, JepsenLog, ok},
		{"jepsen: dates, threads, other lines", "2020-01-01 00:00:00,000{GMT}\tINFO\t[jepsen worker 0] jepsen.util: 0\t:invoke\t:read\tnil\nINFO  jepsen.core - Starting\nINFO  jepsen.util - :nemesis\t:info\t:start\tnil\nINFO  jepsen.util - 0 :ok :read 3\n", Options{}, JepsenLog, bad},
		{"kv-log: absent reads as empty", `{:process 0, :type :invoke, :f :get, :key "1", :value nil}` + "\n" + `{:process 0, :type :ok, :f :get, :key "1", :value ""}`, Options{}, KVLog, ok},
		{"kv-log: an append", `{:process 0, :type :invoke, :f :append, :key "1", :value "x"}` + "\n" + `{:process 0, :type :ok, :f :append, :key "1", :value "x"}` + "\n" +
			`{:process 0, :type :invoke, :f :get, :key "1", :value nil}` + "\n" + `{:process 0, :type :ok, :f :get, :key "1", :value "y"}`, Options{}, KVLog, bad},
		{"brownout", `{"op":1,"client":1,"key":"k","kind":"get","result":"v","outcome":"ok","due_ns":1,"call_ns":1,"return_ns":2,"node":"n1"}` + "\n", Options{}, Brownout, bad},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := Read(strings.NewReader(tt.in), tt.opt)
			if err != nil {
				t.Fatal(err)
			}
			if got := verdict(t, h); got != tt.want || h.Format != tt.format {
				t.Errorf("%s of format %s, want %s of %s\n%+v", got, h.Format, tt.want, tt.format, h.Ops)
			}
		})
	}
}

// wrote is a history of a register into which was written what then is found.
func wrote(written, found string) string {
	const call, end = "{:process 1 :type :invoke :f ", "{:process 1 :type :ok :f "
	return call + ":write :value " + written + "}\n" + end + ":write :value " + written + "}\n" +
		call + ":read}\n" + end + ":read :value " + found + "}\n"
}

func logLines(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("INFO  jepsen.util - " + strings.ReplaceAll(l, " :", "\t:") + "\n")
	}
	return b.String()
}

func TestDamagedHistoriesAreErrorsWithTheirLine(t *testing.T) {
	const invoke, done = "{:process 1 :type :invoke :f :write :value 1}\n", "{:process 1 :type :ok :f :write :value 1}\n"
	for _, tt := range []struct {
		name, in string
		line     int
		want     string
	}{
		{"an end without a beginning", done, 1, "did not begin"},
		{"two open operations", invoke + invoke, 2, "while its operation of line 1 is open"},
		{"two ends", invoke + done + done, 3, "did not begin"},
		{"the answer to another question", invoke + strings.Replace(done, "1}", "2}", 1), 2, "of line 1 was of 1"},
		{"the end of another function", invoke + strings.Replace(done, ":write", ":read", 1), 2, "is a :write"},
		{"time goes back", strings.Replace(invoke, "}", " :time 9}", 1) + strings.Replace(done, "}", " :time 8}", 1), 2, "goes back: 8 after 9"},
		{"times at times", strings.Replace(invoke, "}", " :time 9}", 1) + done, 2, "have a :time"},
		{"no time", strings.Replace(invoke, "}", ` :time "x"}`, 1), 1, ":time"},
		{"a function of none", "{:process 1 :type :invoke :f :jump}", 1, ":jump"},
		{"a type of none", "{:process 1 :type :later :f :read}", 1, ":later"},
		{"no process", invoke + "{:type :invoke :f :read}", 2, ":process is missing"},
		{"no map", invoke + "17", 2, "no event"},
		{"an open map", invoke + "{:process 1 ", 2, "the middle of this event"},
		{"half a character", wrote(`"\uD83D"`, "1"), 1, "half a character"},
		{"an open list", "[" + invoke, 2, "line 1 opened is not closed"},
		{"more after the list", "[" + invoke + "] {}", 2, "after the end"},
		{"a wrong bracket", invoke + "{:process 1 ]", 2, "closes what line 2"},
		{"an odd map", invoke + "{:process}", 2, "without a value"},
		{"an open string", invoke + `{:process "`, 2, "middle of this event"},
		{"too deep", invoke + strings.Repeat("[", 100), 2, "nested"},
		{"of no format", "hello\n", 1, "begins no history"},
		{"of no format, after blank lines", "\n\n; x\n<xml>\n", 4, "begins no history"},
		{"no line of a log", logLines("0 :invoke :read nil") + "what\n", 2, "no line of a Jepsen log"},
		{"a torn line of a log", logLines("0 :invoke :read nil", "0 :ok"), 2, "no line of a Jepsen log"},
		{"a log's return without call", logLines("0 :invoke :read nil", "1 :ok :read 3"), 2, "did not begin"},
		{"a log's value", logLines("0 :invoke :write x"), 1, "want a number"},
		{"brownout: back in time", `{"op":1,"client":1,"key":"k","kind":"get","result":"v","outcome":"ok","due_ns":1,"call_ns":3,"return_ns":2,"node":"n1"}` + "\n", 1, "before call_ns"},
		{"brownout: torn", `{"op":1,"client":1,"key":"k","kind":"get"`, 1, "ends in the middle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := Read(strings.NewReader(tt.in), Options{})
			line, is := errors.AsType[*history.LineError](err)
			if !is || line.Line != tt.line || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Read = %+v, %v; want an error of line %d with %q", h.Ops, err, tt.line, tt.want)
			}
		})
	}
}

func TestAModelMustFitItsFormat(t *testing.T) {
	x := "1"
	for _, opt := range []Options{
		{Format: JepsenLog, Model: KV},
		{Format: KVLog, Model: Mutex},
		{Format: Brownout, Model: Mutex},
		{Format: "xml"},
		{Format: EDN, Model: KV, Init: &x},
		{Format: EDN, Model: Mutex, Init: &x},
	} {
		if _, err := Read(strings.NewReader(""), opt); err == nil {
			t.Errorf("Read with %+v worked", opt)
		}
	}
	put := `{"op":1,"client":1,"key":"k","kind":"delete","outcome":"ok","due_ns":1,"call_ns":1,"return_ns":2,"node":"n1"}` + "\n"
	if _, err := Read(strings.NewReader(put), Options{Model: CASRegister}); err == nil {
		t.Error("a delete of a cas-register was taken")
	}
}

// Whatever the bytes, a reader ends with operations that keep the rules or
// with an error.
func FuzzRead(f *testing.F) {
	f.Add([]byte(logLines("0 :invoke :cas [1 2]", "0 :fail :cas [1 2]")), "")
	f.Add([]byte(`[{:process 1 :type :invoke :f :read :value nil :time 1} #_x {:process 1 :type :ok :f :read :value #a "\u0041"}]`), "kv")
	f.Add([]byte(`{:process 0, :type :invoke, :f :append, :key "1", :value "x"}`), "append-list")
	f.Fuzz(func(t *testing.T, in []byte, model string) {
		h, err := Read(bytes.NewReader(in), Options{Model: Model(model)})
		if err != nil || h.Format == Brownout {
			return
		}
		if err := checker.Validate(h.Ops); err != nil {
			t.Errorf("an invalid history was read: %v\n%+v", err, h.Ops)
		}
		if len(h.Lines) != len(h.Ops) {
			t.Errorf("%d lines of %d operations", len(h.Lines), len(h.Ops))
		}
	})
}

func TestASpoolIsRecognised(t *testing.T) {
	var spool bytes.Buffer
	rec := history.NewRecorder(&spool)
	v := "v1"
	rec.Log().Add(&history.Op{ID: 1, Key: "k1", Kind: history.Put, Value: &v, Outcome: history.OK, Call: 1, Return: 2})
	if err := rec.End(); err != nil {
		t.Fatal(err)
	}
	h, err := Read(bytes.NewReader(spool.Bytes()), Options{})
	if err != nil || h.Format != Brownout || len(h.Ops) != 1 || *h.Ops[0].Value != "v1" {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := Read(bytes.NewReader(spool.Bytes()), Options{Model: AppendList}); err == nil {
		t.Error("a put is no operation of an append-list")
	}
}

func packed(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s)) // into memory
	_ = z.Close()
	return b.String()
}
