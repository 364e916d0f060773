package history

import (
	"strings"
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

// Short is the inverse of [Pad] and [PadElement], and of a padded base followed
// by any number of padded elements. A value that is not exactly what padding
// its short form again would give is damaged, and must not look right: it is
// returned whole, marked where it could be taken for a token.
func Short(raw string, size int) string {
	base, rest := raw, ""
	if i := strings.IndexByte(raw, '+'); i >= 0 {
		base, rest = raw[:i], raw[i:]
	}
	short := strings.TrimRight(base, string(filler))
	if raw == "" || base != "" && (!isToken(short, "vx") || Pad(short, size) != base) {
		return damaged(raw)
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
		if !isToken(token[1:], "a") || PadElement(token, size) != element {
			return damaged(raw)
		}
		b.WriteString(token)
	}
	return b.String()
}

func damaged(raw string) string {
	if strings.IndexByte(raw, filler) >= 0 {
		return raw
	}
	return "damaged:" + raw
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

// OnWire returns a planned value as it is sent.
func OnWire(kind Kind, token string, size int) string {
	if kind == Append {
		return PadElement(token, size)
	}
	return Pad(token, size)
}
