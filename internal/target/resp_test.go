package target

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadReply(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     reply
		bad      bool
	}{
		{"a word", "+OK\r\n", reply{kind: '+', text: "OK"}, false},
		{"an error", "-MOVED 0 a:1\r\n", reply{kind: '-', text: "MOVED 0 a:1"}, false},
		{"a number", ":-7\r\n", reply{kind: ':', n: -7}, false},
		{"a string with line ends", "$4\r\na\r\nb\r\n", reply{kind: '$', text: "a\r\nb"}, false},
		{"an empty string", "$0\r\n\r\n", reply{kind: '$'}, false},
		{"nothing", "$-1\r\n", reply{kind: '$', null: true}, false},
		{"a cas that did not swap", "*2\r\n:0\r\n$-1\r\n", reply{kind: '*', list: []reply{{kind: ':'}, {kind: '$', null: true}}}, false},
		{"the end", "", reply{}, true},
		{"half a line", "+O", reply{}, true},
		{"a line without carriage return", "+OK\n", reply{}, true},
		{"a string cut short", "$4\r\na\r\n", reply{kind: '$'}, true},
		{"a string too long for its length", "$1\r\nab\r\n", reply{kind: '$'}, true},
		{"a negative length", "$-2\r\n", reply{kind: '$'}, true},
		{"a length beyond all memory", "$9999999999\r\n", reply{kind: '$'}, true},
		{"a type of version 3", "%1\r\n", reply{kind: '%'}, true},
		{"an endless nesting", strings.Repeat("*1\r\n", 100), reply{kind: '*'}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readReply(bufio.NewReader(strings.NewReader(tt.in)), 0)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(reply{})); diff != "" && !tt.bad || (err != nil) != tt.bad {
				t.Errorf("readReply(%q): %v\n%s", tt.in, err, diff)
			}
		})
	}
}

// FuzzReadReply: what is read is written and read the same.
func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"+OK\r\n", ":12\r\n", "$3\r\nabc\r\n", "*2\r\n:1\r\n$-1\r\n", "-ERR x\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := readReply(bufio.NewReader(bytes.NewReader(in)), 0)
		if err != nil {
			return
		}
		again, err := readReply(bufio.NewReader(bytes.NewReader(appendReply(nil, r))), 0)
		if diff := cmp.Diff(r, again, cmp.AllowUnexported(reply{})); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

// appendReply encodes r; it is the inverse of [readReply].
func appendReply(b []byte, r reply) []byte {
	b = append(b, r.kind)
	switch {
	case r.null:
		return append(b, "-1\r\n"...)
	case r.kind == ':':
		return append(strconv.AppendInt(b, r.n, 10), "\r\n"...)
	case r.kind == '$':
		b = append(strconv.AppendInt(b, int64(len(r.text)), 10), "\r\n"...)
		return append(append(b, r.text...), "\r\n"...)
	case r.kind == '*':
		b = append(strconv.AppendInt(b, int64(len(r.list)), 10), "\r\n"...)
		for _, e := range r.list {
			b = appendReply(b, e)
		}
		return b
	}
	return append(append(b, r.text...), "\r\n"...)
}
