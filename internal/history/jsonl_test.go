package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func text(s string) *string { return &s }

// reference is a line of history.jsonl as encoding/json writes it.
func reference(t testing.TB, op Op) string {
	type line struct {
		Op      int64           `json:"op"`
		Client  int             `json:"client"`
		Key     string          `json:"key"`
		Kind    Kind            `json:"kind"`
		Value   *string         `json:"value,omitempty"`
		Expect  json.RawMessage `json:"expect,omitempty"`
		Result  json.RawMessage `json:"result,omitempty"`
		Swapped *bool           `json:"swapped,omitempty"`
		Outcome Outcome         `json:"outcome"`
		Due     int64           `json:"due_ns"`
		Call    int64           `json:"call_ns"`
		Return  int64           `json:"return_ns"`
		Node    string          `json:"node"`
		Phase   string          `json:"phase,omitempty"`
		Error   string          `json:"error,omitempty"`
	}
	raw := func(v any) []byte {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
		return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	}
	l := line{
		Op: op.ID, Client: op.Client, Key: op.Key, Kind: op.Kind, Value: op.Value, Outcome: op.Outcome,
		Due: op.Due, Call: op.Call, Return: op.Return, Node: op.Node, Phase: op.Phase, Error: op.Error,
	}
	if op.Kind == CAS {
		l.Expect = raw(op.Expect)
	}
	if op.Outcome == OK && (op.Kind == Get || op.Kind == CAS) {
		l.Result = raw(op.Result)
	}
	if op.Outcome == OK && op.Kind == CAS {
		l.Swapped = &op.Swapped
	}
	return string(raw(l))
}

var alphabet = []string{"a", "Z", "7", " ", "\"", "\\", "/", "\n", "\r", "\t", "\b", "\f", "\x00", "\x1f", "\x7f", "<", "&", "é", "日", "\u2028", "\u2029", "😀", "\ufffd"}

func randomText(rng *rand.Rand) string {
	var b strings.Builder
	for range rng.IntN(8) {
		b.WriteString(alphabet[rng.IntN(len(alphabet))])
	}
	return b.String()
}

func randomOp(rng *rand.Rand) Op {
	maybe := func() *string {
		if rng.IntN(4) == 0 {
			return nil
		}
		return text(randomText(rng))
	}
	op := Op{
		ID: rng.Int64N(1e12) - 10, Client: rng.IntN(1000), Key: randomText(rng),
		Kind:    []Kind{Get, Put, CAS, Append, Delete}[rng.IntN(5)],
		Outcome: []Outcome{OK, Fail, Unknown}[rng.IntN(3)],
		Due:     rng.Int64() - rng.Int64(), Call: -rng.Int64N(1e18), Return: rng.Int64N(1e18),
		Node: randomText(rng), Phase: randomText(rng), Error: randomText(rng),
	}
	switch op.Kind {
	case Put, Append:
		op.Value = text(randomText(rng))
	case Delete:
		op.Value = maybe()
	case CAS:
		op.Value, op.Expect = text(randomText(rng)), maybe()
	}
	if op.Outcome == OK && (op.Kind == Get || op.Kind == CAS) {
		op.Result = maybe()
		op.Swapped = op.Kind == CAS && rng.IntN(2) == 0
	}
	return op
}

func TestTheEncoderWritesWhatEncodingJSONWrites(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		op := randomOp(rng)
		got := AppendJSON(nil, &op)
		if want := reference(t, op); string(got) != want {
			t.Fatalf("AppendJSON = %s\nwant         %s", got, want)
		}
		back, err := Decode(got)
		if err != nil {
			t.Fatalf("Decode(%s): %v", got, err)
		}
		if d := cmp.Diff(op, back); d != "" {
			t.Fatalf("round trip of %s (-want +got):\n%s", got, d)
		}
	}
	bad := Op{Key: "a\xffb", Kind: Get, Outcome: Unknown}
	if got, want := string(AppendJSON(nil, &bad)), reference(t, bad); got != want {
		t.Errorf("AppendJSON = %s, want %s", got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const good = `{"op":1,"client":2,"key":"k","kind":"get","result":null,"outcome":"ok","due_ns":1,"call_ns":2,"return_ns":3,"node":"n1"}`
	if _, err := Decode([]byte(good)); err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, tt := range []struct{ name, line, want string }{
		{"an empty line", "", `want '{'`},
		{"a line cut short", good[:40], "the line ends"},
		{"an unknown field", change(`"op":1`, `"op":1,"colour":"red"`), `unknown field "colour"`},
		{"a field given twice", change(`"op":1`, `"op":1,"op":2`), `field "op" twice`},
		{"a missing time", change(`"call_ns":2,`, ``), `field "call_ns" is missing`},
		{"a missing node", change(`,"node":"n1"`, ``), `field "node" is missing`},
		{"an ok get without result", change(`"result":null,`, ``), `field "result" is missing`},
		{"a result of an unknown get", change(`"ok"`, `"unknown"`), `field "result" has no meaning for a unknown get`},
		{"a get with a value", change(`"op":1`, `"op":1,"value":"x"`), `field "value" has no meaning`},
		{"swapped on a get", change(`"op":1`, `"op":1,"swapped":true`), `field "swapped" has no meaning`},
		{"swapped on a cas that is unknown", `{"op":1,"client":2,"key":"k","kind":"cas","value":"a","expect":null,"swapped":true,"outcome":"unknown","due_ns":1,"call_ns":2,"return_ns":3,"node":"n1"}`, `field "swapped" has no meaning`},
		{"a put without value", `{"op":1,"client":2,"key":"k","kind":"put","outcome":"ok","due_ns":1,"call_ns":2,"return_ns":3,"node":"n1"}`, `field "value" is missing`},
		{"a put of null", `{"op":1,"client":2,"key":"k","kind":"put","value":null,"outcome":"ok","due_ns":1,"call_ns":2,"return_ns":3,"node":"n1"}`, `value: null`},
		{"an ok cas without swapped", `{"op":1,"client":2,"key":"k","kind":"cas","value":"a","expect":null,"result":null,"outcome":"ok","due_ns":1,"call_ns":2,"return_ns":3,"node":"n1"}`, `field "swapped" is missing`},
		{"a return before its call", change(`"return_ns":3`, `"return_ns":1`), "return_ns 1 before call_ns 2"},
		{"another kind", change(`"get"`, `"scan"`), `kind "scan"`},
		{"another outcome", change(`"ok"`, `"error"`), `outcome "error"`},
		{"a number as text", change(`"op":1`, `"op":"1"`), "want an integer"},
		{"a fraction", change(`"op":1`, `"op":1.5`), "want an integer"},
		{"an exponent", change(`"op":1`, `"op":1e3`), "want an integer"},
		{"a leading zero", change(`"op":1`, `"op":01`), "want an integer"},
		{"a number beyond 64 bits", change(`"op":1`, `"op":9223372036854775808`), "too large"},
		{"a text as number", change(`"key":"k"`, `"key":7`), `want '"'`},
		{"text that is not UTF-8", change(`"key":"k"`, "\"key\":\"\xff\""), "not UTF-8"},
		{"a control character", change(`"key":"k"`, "\"key\":\"\x01\""), "control character"},
		{"a broken escape", change(`"key":"k"`, `"key":"\u12"`), "key: column"},
		{"something after the object", good + "{}", "after the operation"},
		{"a comma too many", change(`"op":1,`, `"op":1,,`), `want '"'`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(tt.line))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Decode(%s) = %v, want %q", tt.line, err, tt.want)
			}
		})
	}
}

func TestReadNamesTheLine(t *testing.T) {
	op := Op{ID: 1, Key: "k", Kind: Put, Value: text("v"), Outcome: OK, Node: "n1"}
	good := string(AppendJSON(nil, &op)) + "\n"
	for _, tt := range []struct {
		name, in string
		n        int
		want     string
	}{
		{"an empty file", "", 0, ""},
		{"two good lines", good + good, 2, ""},
		{"the last line without newline but whole", good + strings.TrimSuffix(good, "\n"), 2, ""},
		{"a torn last line", good + good + good[:30], 2, "line 3: the file ends in the middle of it"},
		{"a bad line in the middle", good + "{}\n" + good, 1, `line 2: field "op" is missing`},
		{"a blank line", good + "\n" + good, 1, "line 2: "},
		{"a line without end", good + strings.Repeat("x", MaxLine+1<<20), 1, "line 2: longer than 16 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			var got error
			for _, err := range Read(strings.NewReader(tt.in)) {
				if got = err; err == nil {
					n++
				}
			}
			if n != tt.n || (got == nil) != (tt.want == "") || got != nil && !strings.HasPrefix(got.Error(), tt.want) {
				t.Errorf("read %d operations, %v; want %d, %q", n, got, tt.n, tt.want)
			}
			var le *LineError
			if got != nil && !errors.As(got, &le) {
				t.Errorf("%v is no LineError", got)
			}
		})
	}
}

func TestALongLineIsReadWhole(t *testing.T) {
	op := Op{ID: 1, Key: "k", Kind: Put, Value: text(strings.Repeat("v", 3<<20)), Outcome: OK, Node: "n1"}
	var b bytes.Buffer
	w := NewWriter(&b)
	for range 3 {
		if err := w.Write(&op); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	ops, err := ReadAll(&b)
	if err != nil || len(ops) != 3 || *ops[2].Value != *op.Value {
		t.Errorf("ReadAll = %d operations, %v; want 3 equal ones", len(ops), err)
	}
}

func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		op := randomOp(rng)
		f.Add(AppendJSON(nil, &op))
	}
	f.Add([]byte(`{ "op" : -0 , "client":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		op, err := Decode(line)
		if err != nil {
			return
		}
		if !json.Valid(line) {
			t.Fatalf("took %q, which is not JSON", line)
		}
		again, err := Decode(AppendJSON(nil, &op))
		if err != nil || !cmp.Equal(again, op) {
			t.Fatalf("round trip: %+v, %v; want %+v", again, err, op)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	op := Op{ID: 123456, Client: 17, Key: "k0042", Kind: CAS, Value: text(strings.Repeat("v", 64)), Expect: text(strings.Repeat("e", 64)), Result: text(strings.Repeat("e", 64)), Swapped: true, Outcome: OK, Due: 12345678901, Call: 12345678999, Return: 12345999999, Node: "n3"}
	buf := AppendJSON(nil, &op)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendJSON(buf[:0], &op)
	}
}

func BenchmarkRead(b *testing.B) {
	rng := rand.New(rand.NewPCG(5, 6))
	var in []byte
	for range 10_000 {
		op := randomOp(rng)
		in = append(AppendJSON(in, &op), '\n')
	}
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadAll(bytes.NewReader(in)); err != nil {
			b.Fatal(err)
		}
	}
}
