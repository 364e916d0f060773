package kvserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Limits of one request, so that nobody can make the server hold what it has
// not been sent. Redis has the same ones, some larger.
const (
	maxArgs    = 1 << 20      // arguments of a command
	maxBulk    = 2 * maxValue // one argument; what is too long to be stored is refused by name, not by hanging up
	maxRequest = 4 * maxValue // one command
	maxLine    = 64 << 10     // an inline command, or a line that announces a length

	chunk    = 4 << 10    // what a connection reads into
	maxChunk = 16 * chunk // ... if it sends a lot
	minRead  = 512        // room below which a chunk is full
	maxBurst = 512        // commands taken together
	maxSlots = 1024       // arguments for which room is made at once
	noBulk   = -1         // the next line must announce a bulk
)

// A protocolError is the client's. The connection is of no use after it.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// A respReader reads commands: arrays of bulk strings, or lines of words.
//
// What next returns points into the reader's chunk and stays as it is until the
// next fill, or, after pin, for ever: then the reader goes on in a new chunk.
type respReader struct {
	r      io.Reader
	buf    []byte // read and not yet given up
	at     int    // the command being read begins here
	size   int    // of the next chunk
	slots  [][]byte
	pinned bool

	// Of the command being read; offsets count from at.
	pos   int    // parsed so far
	seen  int    // no line ends before this
	left  int    // arguments to come; 0 between commands
	bulk  int    // length of the argument that comes, or noBulk
	spans []span // arguments that came
}

type span struct{ from, to int }

func newRespReader(r io.Reader) *respReader { return &respReader{r: r, size: chunk} }

// pin makes all commands returned so far stay.
func (r *respReader) pin() { r.pinned = true }

// fill reads what there is, at least one byte.
func (r *respReader) fill() error {
	tail := len(r.buf) - r.at
	switch mine := !r.pinned && cap(r.buf) <= maxChunk; {
	case tail == 0 && cap(r.buf) > maxChunk:
		r.buf, r.at = nil, 0
	case mine && (tail == 0 || r.at > 0 && cap(r.buf)-len(r.buf) < minRead):
		r.buf, r.at, r.slots = r.buf[:copy(r.buf, r.buf[r.at:])], 0, r.slots[:0]
	}
	if cap(r.buf)-len(r.buf) < minRead {
		// A command that does not fit gets twice the room that it has filled, whatever it has announced.
		buf := make([]byte, tail, max(r.size, 2*tail))
		copy(buf, r.buf[r.at:])
		r.buf, r.at, r.slots, r.pinned = buf, 0, nil, false
	}
	n, err := r.r.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	if len(r.buf) == cap(r.buf) {
		r.size = min(2*r.size, maxChunk)
	}
	switch {
	case n > 0:
		return nil
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

// next returns the next command, or none if it has not been read in full.
func (r *respReader) next() ([][]byte, error) {
	for {
		rest := r.buf[r.at:]
		switch {
		case r.left > 0:
			done, err := r.arguments(rest)
			if !done || err != nil {
				return nil, err
			}
			return r.take(), nil
		case len(rest) == 0:
			return nil, nil
		}
		multi := rest[0] == '*'
		line, ok, err := r.line(rest, "too big inline request", "too big mbulk count string")
		if !ok || err != nil {
			return nil, err
		}
		if !multi {
			words, err := splitWords(line)
			r.done()
			if err != nil || len(words) > 0 {
				return words, err
			}
			continue
		}
		n, ok := number64(line[1:])
		switch {
		case !ok || n > maxArgs:
			return nil, protocolError("invalid multibulk length")
		case n <= 0:
			r.done()
		default:
			r.left, r.bulk = int(n), noBulk
		}
	}
}

// arguments reads on in an array.
func (r *respReader) arguments(rest []byte) (done bool, err error) {
	for r.left > 0 {
		if r.bulk == noBulk {
			line, ok, err := r.line(rest, "", "too big bulk count string")
			if !ok || err != nil {
				return false, err
			}
			if len(line) == 0 || line[0] != '$' {
				return false, protocolError(fmt.Sprintf("expected '$', got %s", firstOf(line)))
			}
			n, ok := number64(line[1:])
			switch {
			case !ok || n < 0 || n > maxBulk:
				return false, protocolError("invalid bulk length")
			case r.pos+int(n) > maxRequest:
				return false, protocolError("too big request")
			}
			r.bulk = int(n)
		}
		end := r.pos + r.bulk
		if len(rest) < end+2 {
			return false, nil
		}
		if rest[end] != '\r' || rest[end+1] != '\n' {
			return false, protocolError("invalid bulk line ending")
		}
		r.spans = append(r.spans, span{r.pos, end})
		r.pos, r.seen, r.bulk = end+2, end+2, noBulk
		r.left--
	}
	return true, nil
}

// take returns the command that has been read.
func (r *respReader) take() [][]byte {
	n := len(r.spans)
	if cap(r.slots)-len(r.slots) < n {
		r.slots = make([][]byte, 0, max(n, min(2*cap(r.slots), maxSlots), 8))
	}
	first := len(r.slots)
	for _, s := range r.spans {
		r.slots = append(r.slots, r.buf[r.at+s.from:r.at+s.to:r.at+s.to])
	}
	if cap(r.spans) > maxSlots {
		r.spans = nil
	}
	r.done()
	return r.slots[first:len(r.slots):len(r.slots)]
}

// done goes on behind the command.
func (r *respReader) done() {
	r.at += r.pos
	r.pos, r.seen, r.left, r.spans = 0, 0, 0, r.spans[:0]
}

// line returns the line at pos and goes behind it. tooLong says what is wrong
// with one that does not end; which of the two depends on how it begins.
func (r *respReader) line(rest []byte, word, length string) (line []byte, ok bool, err error) {
	end := bytes.IndexByte(rest[max(r.pos, r.seen):], '\n')
	if end >= 0 {
		end += max(r.pos, r.seen)
	}
	if end < 0 && len(rest)-r.pos > maxLine || end-r.pos > maxLine {
		if word != "" && rest[r.pos] != '*' {
			length = word
		}
		return nil, false, protocolError(length)
	}
	if end < 0 {
		r.seen = len(rest)
		return nil, false, nil
	}
	line = bytes.TrimSuffix(rest[r.pos:end], []byte{'\r'})
	r.pos, r.seen = end+1, end+1
	return line, true, nil
}

func firstOf(line []byte) string {
	if len(line) == 0 {
		return "end of line"
	}
	return fmt.Sprintf("'%c'", printable(line[0]))
}

func printable(c byte) byte {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}

// number64 reads a decimal number as Redis writes it (util.c string2ll): no plus, no spaces, no zeros in front.
func number64(s []byte) (n int64, ok bool) {
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		s = s[1:]
	}
	if len(s) == 0 || len(s) > 18 || s[0] == '0' && (len(s) > 1 || negative) {
		return 0, false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, true
}

var errQuotes = protocolError("unbalanced quotes in request")

// splitWords cuts an inline command into words, with quotes as redis-cli has them (sds.c sdssplitargs).
func splitWords(line []byte) (words [][]byte, err error) {
	for {
		line = bytes.TrimLeft(line, " \t\v\f\r\x00")
		if len(line) == 0 {
			return words, nil
		}
		var word []byte
		if word, line, err = nextWord(line); err != nil {
			return nil, err
		}
		words = append(words, word)
	}
}

func nextWord(line []byte) (word, rest []byte, err error) {
	word = []byte{}
	for len(line) > 0 && !isSpace(line[0]) {
		switch c := line[0]; c {
		case '"', '\'':
			if word, line, err = quoted(word, line[1:], c); err != nil {
				return nil, nil, err
			}
			if len(line) > 0 && !isSpace(line[0]) {
				return nil, nil, errQuotes
			}
		default:
			word, line = append(word, c), line[1:]
		}
	}
	return word, line, nil
}

// quoted appends to word what stands before the closing quote.
func quoted(word, s []byte, quote byte) (_, rest []byte, err error) {
	for len(s) > 0 {
		c := s[0]
		switch {
		case c == quote:
			return word, s[1:], nil
		case c != '\\' || len(s) < 2 || quote == '\'' && s[1] != '\'':
			word, s = append(word, c), s[1:]
		case quote == '"' && s[1] == 'x' && len(s) >= 4 && nibble(s[2]) >= 0 && nibble(s[3]) >= 0:
			word, s = append(word, byte(nibble(s[2])<<4|nibble(s[3]))), s[4:]
		default:
			c := s[1]
			if i := bytes.IndexByte([]byte("nrtba"), c); quote == '"' && i >= 0 {
				c = "\n\r\t\b\a"[i]
			}
			word, s = append(word, c), s[2:]
		}
	}
	return nil, nil, errQuotes
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' || c == 0 }

func nibble(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// isProtocol reports whether the client should be told about err.
func isProtocol(err error) bool {
	var p protocolError
	return errors.As(err, &p)
}
