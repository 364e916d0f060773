package kvserver

import (
	"io"
	"strconv"
)

// maxReplies is how much a connection's replies may grow before they are sent.
const maxReplies = 64 << 10

// A respWriter collects replies (RESP2) and sends them together. It holds no
// more than maxReplies and one value: then it sends, and waits for the client
// to read. After an error it does nothing; the connection's reader sees the same.
type respWriter struct {
	w   io.Writer
	buf []byte
	err error
}

func (w *respWriter) flush() {
	if len(w.buf) > 0 && w.err == nil {
		_, w.err = w.w.Write(w.buf)
	}
	if w.buf = w.buf[:0]; cap(w.buf) > 4*maxReplies {
		w.buf = nil
	}
}

// end is called behind every reply and part of one.
func (w *respWriter) end() {
	w.buf = append(w.buf, '\r', '\n')
	if len(w.buf) >= maxReplies {
		w.flush()
	}
}

func (w *respWriter) header(kind byte, n int64) {
	w.buf = strconv.AppendInt(append(w.buf, kind), n, 10)
	w.end()
}

func (w *respWriter) word(s string) {
	w.buf = append(append(w.buf, '+'), s...)
	w.end()
}

// fail writes an error. One that quotes the client must not end the line.
func (w *respWriter) fail(s string) {
	w.buf = append(w.buf, '-')
	for i := range len(s) {
		c := s[i]
		if c == '\r' || c == '\n' {
			c = ' '
		}
		w.buf = append(w.buf, c)
	}
	w.end()
}

func (w *respWriter) null()          { w.header('$', -1) }
func (w *respWriter) number(n int64) { w.header(':', n) }
func (w *respWriter) array(n int)    { w.header('*', int64(n)) }
func (w *respWriter) bulk(s string)  { writeBulk(w, s) }
func (w *respWriter) bytes(b []byte) { writeBulk(w, b) }

func writeBulk[T string | []byte](w *respWriter, s T) {
	w.buf = strconv.AppendInt(append(w.buf, '$'), int64(len(s)), 10)
	w.buf = append(append(w.buf, '\r', '\n'), s...)
	w.end()
}
