package foreign

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"brownout/internal/history"
)

// A value of EDN: nil, bool, int64, text, keyword, symbol (also what is a
// number but no int64), []any, set or dict.
type (
	str     string
	keyword string
	symbol  string
	set     []any          // in any order
	dict    map[string]any // by the key, printed
)

// Bounds, so that a damaged file cannot take the reader's memory.
const (
	maxDepth = 64
	maxToken = 16 << 20
)

// A ednReader reads one value after the other.
type ednReader struct {
	br    *bufio.Reader
	line  int
	began int // the line on which the present event began
	depth int
}

var errClose = errors.New("closing bracket")

func (r *ednReader) errorf(format string, args ...any) error {
	return &history.LineError{Line: r.line, Err: fmt.Errorf(format, args...)}
}

// torn is the error of an event that is not whole.
func (r *ednReader) torn() error {
	return &history.LineError{Line: r.began, Err: errors.New("the file ends in the middle of this event")}
}

func (r *ednReader) byte() (byte, error) {
	c, err := r.br.ReadByte()
	if c == '\n' {
		r.line++
	}
	return c, err
}

func (r *ednReader) unread(c byte) {
	if c == '\n' {
		r.line--
	}
	_ = r.br.UnreadByte() // of the byte just read: cannot fail
}

// next skips white space, commas and comments.
func (r *ednReader) next() (byte, error) {
	for {
		c, err := r.byte()
		switch {
		case err != nil:
			return 0, err
		case c == ';':
			for c != '\n' {
				if c, err = r.byte(); err != nil {
					return 0, err
				}
			}
		case c == ' ' || c == ',' || c == '\t' || c == '\r' || c == '\n' || c == '\f':
		default:
			return c, nil
		}
	}
}

// value reads the next value. Its error is io.EOF where there is none, errClose
// where the collection around it ends.
func (r *ednReader) value() (any, error) {
	c, err := r.next()
	for err == nil && c == '#' {
		var v any
		var skipped bool
		if v, skipped, err = r.dispatch(); err == nil && !skipped {
			return v, nil
		}
		if err == nil {
			c, err = r.next()
		}
	}
	if err != nil {
		return nil, err
	}
	switch c {
	case ')', ']', '}':
		r.unread(c)
		return nil, errClose
	case '(':
		return r.sequence(')')
	case '[':
		return r.sequence(']')
	case '{':
		return r.dict()
	case '"':
		return r.text()
	case '\\':
		return r.char()
	}
	word, err := r.word(c)
	if err != nil {
		return nil, err
	}
	return r.atom(word)
}

// inside reads a value that must be there.
func (r *ednReader) inside() (any, error) {
	v, err := r.value()
	if err == io.EOF {
		return nil, r.torn()
	}
	return v, err
}

func (r *ednReader) sequence(end byte) ([]any, error) {
	if r.depth++; r.depth > maxDepth {
		return nil, r.errorf("nested deeper than %d", maxDepth)
	}
	defer func() { r.depth-- }()
	start := r.line
	out := []any{}
	for {
		v, err := r.inside()
		if err == errClose {
			return out, r.closed(end, start)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
}

func (r *ednReader) closed(end byte, start int) error {
	if c, err := r.byte(); err != nil || c != end {
		return r.errorf("%q closes what line %d opened; want %q", c, start, end)
	}
	return nil
}

func (r *ednReader) dict() (dict, error) {
	start := r.line
	items, err := r.sequence('}')
	if err != nil {
		return nil, err
	}
	if len(items)%2 != 0 {
		return nil, &history.LineError{Line: start, Err: errors.New("a map has a key without a value")}
	}
	d := make(dict, len(items)/2)
	for i := 0; i < len(items); i += 2 {
		k := show(items[i])
		if _, twice := d[k]; twice {
			return nil, &history.LineError{Line: start, Err: fmt.Errorf("key %s twice", k)}
		}
		d[k] = items[i+1]
	}
	return d, nil
}

func (r *ednReader) text() (any, error) {
	var b []byte
	for {
		c, err := r.byte()
		if err != nil {
			return nil, r.torn()
		}
		switch c {
		case '"':
			if !utf8.Valid(b) {
				return nil, r.errorf("text is not UTF-8")
			}
			return str(b), nil
		case '\\':
			if b, err = r.escape(b); err != nil {
				return nil, err
			}
		default:
			b = append(b, c)
		}
		if len(b) > maxToken {
			return nil, r.errorf("a string longer than %d MiB", maxToken>>20)
		}
	}
}

var escapes = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'b': '\b', 'f': '\f', '"': '"', '\\': '\\'}

func (r *ednReader) escape(b []byte) ([]byte, error) {
	c, err := r.byte()
	if err != nil {
		return nil, r.torn()
	}
	if e, ok := escapes[c]; ok {
		return append(b, e), nil
	}
	if c != 'u' {
		return nil, r.errorf(`\%c is no escape`, c)
	}
	n, err := r.hex()
	if err != nil {
		return nil, err
	}
	if !utf16.IsSurrogate(n) {
		return utf8.AppendRune(b, n), nil
	}
	// Half a character: alone it would read as the same one as all other halves.
	if next, err := r.br.Peek(2); err != nil || string(next) != `\u` {
		return nil, r.errorf(`\u%x is half a character`, n)
	}
	_, _ = r.br.Discard(2) // just peeked
	low, err := r.hex()
	if err != nil {
		return nil, err
	}
	whole := utf16.DecodeRune(n, low)
	if whole == utf8.RuneError {
		return nil, r.errorf(`\u%x\u%x is no character`, n, low)
	}
	return utf8.AppendRune(b, whole), nil
}

// hex reads the four digits of a \u.
func (r *ednReader) hex() (rune, error) {
	var hex [4]byte
	if _, err := io.ReadFull(r.br, hex[:]); err != nil {
		return 0, r.torn()
	}
	n, err := strconv.ParseUint(string(hex[:]), 16, 16)
	if err != nil {
		return 0, r.errorf(`\u%s is no escape`, hex)
	}
	return rune(n), nil
}

// dispatch reads what follows a #: a set, a value to skip, or a tagged value,
// whose tag is left out.
func (r *ednReader) dispatch() (v any, skipped bool, err error) {
	c, err := r.byte()
	if err != nil {
		return nil, false, r.errorf("the file ends after #")
	}
	switch {
	case c == '{':
		var elems []any
		elems, err = r.sequence('}')
		v = set(elems)
	case c == '_':
		_, err = r.tagged()
		return nil, true, err
	case c == '#': // ##NaN, ##Inf
		if c, err = r.byte(); err != nil {
			return nil, false, r.errorf("the file ends after ##")
		}
		var w string
		w, err = r.word(c)
		v = symbol("##" + w)
	case unicode.IsLetter(rune(c)):
		if _, err = r.word(c); err == nil {
			v, err = r.tagged()
		}
	default:
		err = r.errorf("#%c means nothing", c)
	}
	return v, false, err
}

// tagged reads the value that a # stands before.
func (r *ednReader) tagged() (any, error) {
	if r.depth++; r.depth > maxDepth {
		return nil, r.errorf("nested deeper than %d", maxDepth)
	}
	defer func() { r.depth-- }()
	v, err := r.inside()
	if err == errClose {
		err = r.errorf("a # before nothing")
	}
	return v, err
}

func (r *ednReader) char() (any, error) {
	c, err := r.byte()
	if err != nil {
		return nil, r.errorf("the file ends after \\")
	}
	w, err := r.word(c)
	return symbol(`\` + w), err
}

// word reads up to the next delimiter.
func (r *ednReader) word(c byte) (string, error) {
	b := []byte{c}
	for {
		c, err := r.byte()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
		if strings.IndexByte(" ,\t\r\n\f;()[]{}\"", c) >= 0 {
			r.unread(c)
			break
		}
		if b = append(b, c); len(b) > 1<<16 {
			return "", r.errorf("a word longer than %d KiB", 1<<6)
		}
	}
	if !utf8.Valid(b) {
		return "", r.errorf("text is not UTF-8")
	}
	return string(b), nil
}

func (r *ednReader) atom(w string) (any, error) {
	switch w {
	case "nil":
		return nil, nil
	case "true", "false":
		return w == "true", nil
	}
	if w[0] == ':' {
		if len(w) == 1 {
			return nil, r.errorf("a keyword without a name")
		}
		return keyword(w), nil
	}
	whole := strings.TrimSuffix(w, "N")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil {
		return n, nil
	} else if errors.Is(err, strconv.ErrRange) {
		return symbol(strings.TrimPrefix(whole, "+")), nil // the same number with and without its N
	}
	if c := w[0]; unicode.IsLetter(rune(c)) || strings.IndexByte("+-.*!_?$%&=<>/0123456789", c) >= 0 || c >= utf8.RuneSelf {
		return symbol(w), nil
	}
	return nil, r.errorf("%q is no value", short([]byte(w)))
}

// show prints a value as EDN, equal values alike.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case str:
		return strconv.Quote(string(v))
	case []any:
		return "[" + strings.Join(showAll(v), " ") + "]"
	case set:
		words := showAll(v)
		slices.Sort(words)
		return "#{" + strings.Join(words, " ") + "}"
	case dict:
		var words []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			words = append(words, k+" "+show(v[k]))
		}
		return "{" + strings.Join(words, ", ") + "}"
	}
	return fmt.Sprint(v)
}

func showAll(vs []any) []string {
	words := make([]string, len(vs))
	for i := range vs {
		words[i] = show(vs[i])
	}
	return words
}
