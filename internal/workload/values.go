package workload

import (
	"strings"

	"brownout/internal/history"
)

// filler pads values to their size on the wire. No token holds it.
const filler = '~'

// maxElement bounds the size of one appended element: appends grow a value, so
// padding each to the full size would test the network, not the store.
const maxElement = 16

// Pad returns token padded to size bytes, or token itself if it is longer. The
// history holds tokens, the wire holds padded ones.
func Pad(token string, size int) string {
	if len(token) >= size {
		return token
	}
	return token + strings.Repeat(string(filler), size-len(token))
}

// PadElement returns an appended element as put on the wire.
func PadElement(token string, size int) string { return Pad(token, min(size, maxElement)) }

// Short is the inverse of [Pad] and [PadElement] and of values built of one
// padded base and any number of padded elements. It strips padding only if
// padding the result again gives exactly raw; else it returns raw whole, so
// that a damaged value never looks right.
func Short(raw string, size int) string {
	base, rest := raw, ""
	if i := strings.IndexByte(raw, '+'); i >= 0 {
		base, rest = raw[:i], raw[i:]
	}
	short := strings.TrimRight(base, string(filler))
	if base != "" && !isToken(short, "vx") || base != Pad(short, max(size*min(1, len(base)), 0)) {
		return raw
	}
	if rest == "" {
		return short
	}
	var b strings.Builder
	b.WriteString(short)
	for rest != "" {
		element := rest
		if i := strings.IndexByte(rest[1:], '+'); i >= 0 {
			element = rest[:i+1]
		}
		rest = rest[len(element):]
		token := strings.TrimRight(element, string(filler))
		if !strings.HasPrefix(token, "+a") || !isToken(token[1:], "a") || PadElement(token, size) != element {
			return raw
		}
		b.WriteString(token)
	}
	return b.String()
}

// isToken says whether s is one of letters followed by an operation's number.
func isToken(s, letters string) bool {
	if len(s) < 2 || !strings.Contains(letters, s[:1]) || s[1] == '0' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// onWire returns a planned value as it is sent.
func onWire(kind history.Kind, token string, size int) string {
	if kind == history.Append {
		return PadElement(token, size)
	}
	return Pad(token, size)
}
