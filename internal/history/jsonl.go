package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"unicode/utf8"
)

// MaxLine is the longest line that [Read] takes, in bytes. A longer one is an
// error, so that a damaged file cannot take the reader's memory.
const MaxLine = 16 << 20

// A LineError says which line of a history is wrong, and how.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// AppendJSON appends op as one line of history.jsonl, without the newline.
// Fields that have no meaning for the kind and outcome are left out, whatever
// op holds. Text that is not UTF-8 is written as encoding/json does, with U+FFFD.
func AppendJSON(b []byte, op *Op) []byte {
	b = append(b, `{"op":`...)
	b = strconv.AppendInt(b, op.ID, 10)
	b = append(b, `,"client":`...)
	b = strconv.AppendInt(b, int64(op.Client), 10)
	b = appendString(append(b, `,"key":`...), op.Key)
	b = appendString(append(b, `,"kind":`...), string(op.Kind))
	if op.Value != nil && op.Kind != Get {
		b = appendString(append(b, `,"value":`...), *op.Value)
	}
	if op.Kind == CAS {
		b = appendNullable(append(b, `,"expect":`...), op.Expect)
	}
	if hasResult(op.Kind, op.Outcome) {
		b = appendNullable(append(b, `,"result":`...), op.Result)
	}
	if op.Kind == CAS && op.Outcome == OK {
		b = strconv.AppendBool(append(b, `,"swapped":`...), op.Swapped)
	}
	b = appendString(append(b, `,"outcome":`...), string(op.Outcome))
	b = strconv.AppendInt(append(b, `,"due_ns":`...), op.Due, 10)
	b = strconv.AppendInt(append(b, `,"call_ns":`...), op.Call, 10)
	b = strconv.AppendInt(append(b, `,"return_ns":`...), op.Return, 10)
	b = appendString(append(b, `,"node":`...), op.Node)
	if op.Phase != "" {
		b = appendString(append(b, `,"phase":`...), op.Phase)
	}
	if op.Error != "" {
		b = appendString(append(b, `,"error":`...), op.Error)
	}
	return append(b, '}')
}

// hasResult reports whether a line must say what was found.
func hasResult(k Kind, o Outcome) bool { return o == OK && (k == Get || k == CAS) }

func appendNullable(b []byte, s *string) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return appendString(b, *s)
}

// appendString quotes s as an [json.Encoder] without HTML escaping does.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[start:i]...), `\u202`...)
			b = append(b, "0123456789abcdef"[r&0xf])
		default:
			i += size
			continue
		}
		i += size
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
}

// A Writer writes history.jsonl through a buffer.
type Writer struct {
	w   *bufio.Writer
	buf []byte
}

// NewWriter returns a Writer to w. The caller flushes it.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 1<<18)} }

// Write writes one operation.
func (w *Writer) Write(op *Op) error {
	w.buf = append(AppendJSON(w.buf[:0], op), '\n')
	_, err := w.w.Write(w.buf)
	return err
}

// Flush writes what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }

// Read decodes a history line by line and stops at the first error, which is a
// [*LineError] unless reading itself failed. Blank lines are errors too.
func Read(r io.Reader) iter.Seq2[Op, error] {
	return func(yield func(Op, error) bool) {
		d := decoder{seen: map[string]string{}}
		for line, err := range Lines(r) {
			if err != nil {
				yield(Op{}, err)
				return
			}
			op, err := d.parse(line.Text)
			if err != nil {
				if line.Torn {
					err = fmt.Errorf("the file ends in the middle of it: %w", err)
				}
				yield(Op{}, &LineError{line.Number, err})
				return
			}
			if !yield(op, nil) {
				return
			}
		}
	}
}

// ReadAll decodes a whole history.
func ReadAll(r io.Reader) ([]Op, error) {
	var ops []Op
	for op, err := range Read(r) {
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// A Line is one line of a file. Text is valid until the next one is read.
type Line struct {
	Number int // from 1
	Text   []byte
	Torn   bool // the last line, without its newline
}

// Lines splits a file of lines; none may be longer than [MaxLine].
func Lines(r io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		br := bufio.NewReaderSize(r, 1<<18)
		var long []byte
		for n := 1; ; n++ {
			text, err := br.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				for long = long[:0]; errors.Is(err, bufio.ErrBufferFull); text, err = br.ReadSlice('\n') {
					if long = append(long, text...); len(long) > MaxLine {
						yield(Line{}, &LineError{n, fmt.Errorf("longer than %d MiB", MaxLine>>20)})
						return
					}
				}
				long = append(long, text...)
				text = long
			}
			if err != nil && err != io.EOF {
				yield(Line{}, fmt.Errorf("read line %d: %w", n, err))
				return
			}
			if err == io.EOF && len(text) == 0 {
				return
			}
			torn := err == io.EOF
			if !yield(Line{n, bytes.TrimSuffix(text, []byte("\n")), torn}, nil) || torn {
				return
			}
		}
	}
}

// Decode parses one line of history.jsonl. It takes only what [AppendJSON]
// writes, in any order of fields and with any JSON white space.
func Decode(line []byte) (Op, error) {
	d := decoder{}
	return d.parse(line)
}

// Fields of a line; bits tell which were seen.
const (
	fOp = 1 << iota
	fClient
	fKey
	fKind
	fValue
	fExpect
	fResult
	fSwapped
	fOutcome
	fDue
	fCall
	fReturn
	fNode
	fPhase
	fError
)

var fieldBits = map[string]int{
	"op": fOp, "client": fClient, "key": fKey, "kind": fKind, "value": fValue, "expect": fExpect,
	"result": fResult, "swapped": fSwapped, "outcome": fOutcome, "due_ns": fDue, "call_ns": fCall,
	"return_ns": fReturn, "node": fNode, "phase": fPhase, "error": fError,
}

// fieldNames is in the order of the bits.
var fieldNames = []string{
	"op", "client", "key", "kind", "value", "expect", "result", "swapped", "outcome",
	"due_ns", "call_ns", "return_ns", "node", "phase", "error",
}

// A decoder parses flat JSON objects. seen keeps one copy of each key and node,
// of which there are few; nil keeps none.
type decoder struct {
	in   []byte
	pos  int
	seen map[string]string
}

func (d *decoder) parse(line []byte) (Op, error) {
	d.in, d.pos = line, 0
	var op Op
	seen := 0
	if err := d.want('{'); err != nil {
		return op, err
	}
	for first := true; ; first = false {
		d.space()
		if d.peek() == '}' {
			d.pos++
			break
		}
		if !first {
			if err := d.want(','); err != nil {
				return op, err
			}
		}
		name, err := d.token()
		if err != nil {
			return op, err
		}
		bit, ok := fieldBits[string(name)]
		if !ok {
			return op, fmt.Errorf("unknown field %q", name)
		}
		if seen&bit != 0 {
			return op, fmt.Errorf("field %q twice", name)
		}
		seen |= bit
		if err := d.want(':'); err != nil {
			return op, err
		}
		if err := d.field(&op, bit); err != nil {
			return op, fmt.Errorf("%s: %w", fieldNames[bitIndex(bit)], err)
		}
	}
	if d.space(); d.pos != len(d.in) {
		return op, fmt.Errorf("column %d: %q after the operation", d.pos+1, excerpt(d.in[d.pos:]))
	}
	return op, validate(&op, seen)
}

func bitIndex(bit int) int {
	i := 0
	for ; bit > 1; bit >>= 1 {
		i++
	}
	return i
}

// field reads the value of one field into op.
func (d *decoder) field(op *Op, bit int) (err error) {
	switch bit {
	case fOp:
		op.ID, err = d.int()
	case fClient:
		var n int64
		n, err = d.int()
		op.Client = int(n)
	case fKey:
		op.Key, err = d.shared()
	case fKind:
		var w string
		w, err = d.shared()
		op.Kind = Kind(w)
	case fValue:
		op.Value, err = d.nullable()
		if err == nil && op.Value == nil {
			err = errors.New("null (leave it out)")
		}
	case fExpect:
		op.Expect, err = d.nullable()
	case fResult:
		op.Result, err = d.nullable()
	case fSwapped:
		op.Swapped, err = d.bool()
	case fOutcome:
		var w string
		w, err = d.shared()
		op.Outcome = Outcome(w)
	case fDue:
		op.Due, err = d.int()
	case fCall:
		op.Call, err = d.int()
	case fReturn:
		op.Return, err = d.int()
	case fNode:
		op.Node, err = d.shared()
	case fPhase:
		op.Phase, err = d.shared()
	case fError:
		op.Error, err = d.string()
	}
	return err
}

// validate says what an operation lacks or has too much.
func validate(op *Op, seen int) error {
	must := fOp | fClient | fKey | fKind | fOutcome | fDue | fCall | fReturn | fNode
	may := fPhase | fError
	switch op.Kind {
	case Get:
	case Put, Append:
		must |= fValue
	case CAS:
		must |= fValue | fExpect
	case Delete:
		may |= fValue
	case "":
	default:
		return fmt.Errorf("kind %q is not get, put, cas, append or delete", op.Kind)
	}
	switch op.Outcome {
	case OK, Fail, Unknown, "":
	default:
		return fmt.Errorf("outcome %q is not ok, fail or unknown", op.Outcome)
	}
	if hasResult(op.Kind, op.Outcome) {
		must |= fResult
		if op.Kind == CAS {
			must |= fSwapped
		}
	}
	for i, name := range fieldNames {
		switch bit := 1 << i; {
		case must&bit != 0 && seen&bit == 0:
			return fmt.Errorf("field %q is missing", name)
		case seen&bit != 0 && (must|may)&bit == 0:
			return fmt.Errorf("field %q has no meaning for a %s %s", name, op.Outcome, op.Kind)
		}
	}
	// encoding/json has no way to say "absent" for an optional word but to leave it out.
	if seen&fPhase != 0 && op.Phase == "" || seen&fError != 0 && op.Error == "" {
		return errors.New("phase and error are left out when empty")
	}
	if op.Return < op.Call {
		return fmt.Errorf("return_ns %d before call_ns %d", op.Return, op.Call)
	}
	return nil
}

func (d *decoder) space() {
	for d.pos < len(d.in) {
		switch d.in[d.pos] {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end.
func (d *decoder) peek() byte {
	if d.pos < len(d.in) {
		return d.in[d.pos]
	}
	return 0
}

func (d *decoder) want(c byte) error {
	d.space()
	if d.peek() != c || d.pos >= len(d.in) {
		return d.unexpected(fmt.Sprintf("%q", c))
	}
	d.pos++
	return nil
}

func (d *decoder) unexpected(want string) error {
	if d.pos >= len(d.in) {
		return fmt.Errorf("column %d: want %s, the line ends", d.pos+1, want)
	}
	return fmt.Errorf("column %d: want %s, got %q", d.pos+1, want, excerpt(d.in[d.pos:]))
}

func excerpt(b []byte) []byte {
	if len(b) > 24 {
		return b[:24]
	}
	return b
}

// token reads a string; the bytes may alias the input.
func (d *decoder) token() ([]byte, error) {
	if err := d.want('"'); err != nil {
		return nil, err
	}
	start, escaped, ascii := d.pos, false, true
	for ; d.pos < len(d.in); d.pos++ {
		switch c := d.in[d.pos]; {
		case c == '"':
			raw := d.in[start:d.pos]
			d.pos++
			if !ascii && !utf8.Valid(raw) {
				return nil, fmt.Errorf("column %d: text is not UTF-8", start+1)
			}
			if !escaped {
				return raw, nil
			}
			var s string
			if err := json.Unmarshal(d.in[start-1:d.pos], &s); err != nil {
				return nil, fmt.Errorf("column %d: %w", start, err)
			}
			return []byte(s), nil
		case c == '\\':
			escaped = true
			d.pos++
		case c < ' ':
			return nil, fmt.Errorf("column %d: control character in a string", d.pos+1)
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	d.pos = len(d.in)
	return nil, d.unexpected("the end of the string")
}

func (d *decoder) string() (string, error) {
	b, err := d.token()
	return string(b), err
}

// shared reads a string of which there are few different ones.
func (d *decoder) shared() (string, error) {
	b, err := d.token()
	if err != nil || d.seen == nil {
		return string(b), err
	}
	if s, ok := d.seen[string(b)]; ok {
		return s, nil
	}
	s := string(b)
	if len(d.seen) < 1<<20 {
		d.seen[s] = s
	}
	return s, nil
}

func (d *decoder) word(w string) bool {
	d.space()
	if bytes.HasPrefix(d.in[d.pos:], []byte(w)) {
		d.pos += len(w)
		return true
	}
	return false
}

func (d *decoder) nullable() (*string, error) {
	if d.word("null") {
		return nil, nil
	}
	s, err := d.string()
	if err != nil {
		return nil, err
	}
	return &s, nil
}

func (d *decoder) bool() (bool, error) {
	if d.word("true") {
		return true, nil
	}
	if d.word("false") {
		return false, nil
	}
	return false, d.unexpected("true or false")
}

func (d *decoder) int() (int64, error) {
	d.space()
	start := d.pos
	if d.peek() == '-' {
		d.pos++
	}
	digits := d.pos
	var n uint64
	for ; d.pos < len(d.in) && '0' <= d.in[d.pos] && d.in[d.pos] <= '9'; d.pos++ {
		if d.pos-digits >= 19 {
			return 0, fmt.Errorf("column %d: number is too large", start+1)
		}
		n = n*10 + uint64(d.in[d.pos]-'0')
	}
	if d.pos == digits || d.in[digits] == '0' && d.pos-digits > 1 {
		d.pos = start
		return 0, d.unexpected("an integer")
	}
	if c := d.peek(); c == '.' || c == 'e' || c == 'E' {
		d.pos = start
		return 0, d.unexpected("an integer")
	}
	if n > 1<<63-1 {
		return 0, fmt.Errorf("column %d: number is too large", start+1)
	}
	if digits > start {
		return -int64(n), nil
	}
	return int64(n), nil
}
