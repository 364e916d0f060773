// Package foreign reads histories that other tools recorded.
//
// A format is a way to write events; what they mean is said once, in [About],
// which the help of brownout check prints. All readers stream, and all say the
// line of what they do not understand: a history that is guessed at can prove
// anything.
package foreign

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"brownout/internal/history"
)

// A Format is a way to write a history.
type Format string

// Formats.
const (
	Brownout  Format = "brownout"
	JepsenLog Format = "jepsen-log"
	KVLog     Format = "kv-log"
	EDN       Format = "edn"
)

// Formats lists them.
var Formats = []Format{Brownout, JepsenLog, KVLog, EDN}

// A Model is what the operations were done to.
type Model string

// Models. All are checked as maps of strings: a register is a map of one key, a
// list is a string of its elements, a mutex is a register that is free or held.
const (
	KV          Model = "kv"
	CASRegister Model = "cas-register"
	AppendList  Model = "append-list"
	Mutex       Model = "mutex"
)

// Models lists them.
var Models = []Model{KV, CASRegister, AppendList, Mutex}

// About says what each format's words mean.
const About = `Formats (--format; recognised by their first line if not given; gzip is unpacked) and what they mean:

  brownout    One JSON object a line, as in history.jsonl, or a run's history.bin. ok: completed; fail: certainly
              did not happen; unknown: may have happened, then or later. Times are
              call_ns and return_ns. Models kv (all kinds), cas-register (get, put, cas),
              append-list (get, append).
  edn         Jepsen's and Knossos' history: EDN maps, with or without [ ] around them.
              :ok completed; :fail certainly did not happen, a failed cas included; :info
              unknown. A read of nil constrains nothing. Operations without an end are
              unknown. Models append-list (:append :read, starts empty), mutex (:acquire
              :release, starts free), kv (a register's words on :key, or on the first of
              [key value]; starts absent) and cas-register (:read :write :cas; starts as 0
              unless --init says otherwise): without --model whichever the words at the
              file's beginning are of, cas-register if they are of any. With :time in all
              of them that is the time, else the order of the events.
  jepsen-log  The log of a Jepsen test (jepsen.util lines), a cas-register that starts as
              nil, which is a value. A failed cas found another value than it expected; a
              read that timed out is dropped, whatever else has no end is unknown. The
              order of the lines is the time.
  kv-log      porcupine's key-value logs: EDN maps with :key and :f :get, :put or :append
              (strings). An absent key reads as "". The order of the lines is the time.

A client whose operation is unknown goes on as a new one. An end without a beginning, two
open operations of one client, an answer to another question, or a time that goes back is
an error with its line, as is what cannot be read: never a verdict.`

// Options choose how to read. Zero values mean: found out from the file.
type Options struct {
	Format Format
	Model  Model
	Init   *string // the register's value at the start, as the format writes it; "nil" is none
}

// A History is what was read.
type History struct {
	Format  Format
	Model   Model
	Ops     []history.Op
	Lines   []int // of each operation's beginning
	Untimed bool  // Call and Return are lines, not ns
	Dropped int   // operations that constrain nothing, not in Ops
}

// Line returns the line of operation index i.
func (h *History) Line(i int) int {
	if i < len(h.Lines) {
		return h.Lines[i]
	}
	return i + 1
}

// Read reads a history. A [*history.LineError] says where it is wrong.
func Read(r io.Reader, opt Options) (History, error) {
	br := bufio.NewReaderSize(r, 1<<18)
	if magic, _ := br.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(br)
		if err != nil {
			return History{}, fmt.Errorf("read what looks like gzip: %w", err)
		}
		br = bufio.NewReaderSize(z, br.Size())
	}
	if mark, _ := br.Peek(3); string(mark) == "\ufeff" {
		_, _ = br.Discard(3) // just peeked
	}
	if opt.Format == "" {
		var err error
		if opt.Format, err = detect(br); err != nil {
			return History{}, err
		}
	}
	h := History{Format: opt.Format, Model: opt.Model}
	var err error
	switch opt.Format {
	case Brownout:
		h.Model = cmp.Or(h.Model, KV)
		h.Ops, err = readBrownout(br, h.Model)
		return h, err
	case JepsenLog:
		h.Model = cmp.Or(h.Model, CASRegister)
		err = only(h, CASRegister)
	case KVLog:
		h.Model = cmp.Or(h.Model, KV)
		err = only(h, KV)
	case EDN:
		if h.Model == "" {
			h.Model, err = guess(br)
		}
	default:
		err = fmt.Errorf("format %q: want %s", opt.Format, list(Formats))
	}
	if err != nil {
		return History{}, err
	}
	b := newBuilder(&h)
	if err := b.begin(opt.Init); err != nil {
		return History{}, err
	}
	if opt.Format == JepsenLog {
		err = readJepsenLog(br, b)
	} else {
		err = readEDN(br, b)
	}
	if err != nil {
		return History{}, err
	}
	b.finish()
	return h, nil
}

func only(h History, m Model) error {
	if h.Model != m {
		return fmt.Errorf("model %q: a %s is of model %s", h.Model, h.Format, m)
	}
	return nil
}

func list[T ~string](words []T) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}

// ParseModel takes a model's name.
func ParseModel(s string) (Model, error) { return parse(s, Models, "model") }

// ParseFormat takes a format's name.
func ParseFormat(s string) (Format, error) { return parse(s, Formats, "format") }

func parse[T ~string](s string, all []T, what string) (T, error) {
	for _, t := range all {
		if string(t) == s || s == "" {
			return T(s), nil
		}
	}
	return "", fmt.Errorf("%s %q: want %s", what, s, list(all))
}

// detect looks at the beginning, without taking it.
func detect(br *bufio.Reader) (Format, error) {
	head, err := br.Peek(br.Size())
	if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
		return "", fmt.Errorf("read: %w", err)
	}
	rest := head
	for {
		rest = bytes.TrimLeft(rest, " \t\r\n,")
		if !bytes.HasPrefix(rest, []byte(";")) {
			break
		}
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	switch {
	case history.IsSpool(head):
		return Brownout, nil
	case len(rest) == 0:
		return Brownout, nil // of nothing, all formats say the same
	case bytes.HasPrefix(line, []byte(`{"`)) || bytes.HasPrefix(line, []byte(`{ "`)):
		return Brownout, nil
	case bytes.IndexByte([]byte("{[(#"), line[0]) >= 0:
		for _, word := range []string{":get", ":put", ":append"} {
			if bytes.Contains(line, []byte(":key ")) && bytes.Contains(line, []byte(word)) {
				return KVLog, nil
			}
		}
		return EDN, nil
	case bytes.Contains(line, []byte("jepsen.")) || logNoise().Match(line):
		return JepsenLog, nil
	}
	return "", &history.LineError{
		Line: 1 + bytes.Count(head[:len(head)-len(rest)], []byte("\n")),
		Err:  fmt.Errorf("%q begins no history: want %s", short(line), list(Formats)),
	}
}

// Words that only one model has, as its operations are written.
var modelWords = []struct {
	is    *regexp.Regexp
	model Model
}{
	{regexp.MustCompile(`:f\s+:(acquire|lock)\b`), Mutex},
	{regexp.MustCompile(`:f\s+:(append|add)\b`), AppendList},
	{regexp.MustCompile(`:value\s+(#jepsen\.independent\.Tuple\s*)?\[\s*[^][{}\s,]+[\s,]+nil\s*\]`), KV}, // a read of one of many keys
}

// guess says of what model an EDN history is, by its beginning: a cas-register's
// words are the most usual, and a list's and a mutex' are their own.
func guess(br *bufio.Reader) (Model, error) {
	head, err := br.Peek(br.Size())
	if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
		return "", fmt.Errorf("read: %w", err)
	}
	for _, w := range modelWords {
		if w.is.Match(head) {
			return w.model, nil
		}
	}
	return CASRegister, nil
}

func short(b []byte) string {
	if len(b) > 40 {
		return string(b[:40]) + "…"
	}
	return string(b)
}

// kinds says which kinds of operation a model has.
var kinds = map[Model]string{KV: "get put cas append delete", CASRegister: "get put cas", AppendList: "get append"}

func readBrownout(r *bufio.Reader, m Model) ([]history.Op, error) {
	may, ok := kinds[m]
	if !ok {
		return nil, fmt.Errorf("model %q: a history of format brownout is of model kv, cas-register or append-list", m)
	}
	ops, err := history.ReadAny(r)
	if err != nil {
		return nil, err
	}
	for i, op := range ops {
		if !strings.Contains(may, string(op.Kind)) {
			return nil, &history.LineError{Line: i + 1, Err: fmt.Errorf("kind %q is none of model %s: want %s", op.Kind, m, list(strings.Fields(may)))}
		}
	}
	return ops, nil
}
