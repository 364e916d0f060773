package history

import (
	"strings"
	"testing"
)

func TestShortGivesBackOnlyWhatPaddingMade(t *testing.T) {
	pad := strings.Repeat
	for _, tt := range []struct {
		name string
		raw  string
		size int
		want string
	}{
		{"a padded value", "v17" + pad("~", 29), 32, "v17"},
		{"a tombstone", "x17" + pad("~", 29), 32, "x17"},
		{"a value with two elements", "v17" + pad("~", 29) + "+a18" + pad("~", 12) + "+a19" + pad("~", 12), 32, "v17+a18+a19"},
		{"elements of an absent key", "+a18" + pad("~", 12), 32, "+a18"},
		{"a token longer than the size", "v12345", 3, "v12345"},
		{"an element of a small size", "v1~~+a2~", 4, "v1+a2"},
		{"a value cut short", "v17" + pad("~", 28), 32, "v17" + pad("~", 28)},
		{"a value cut to its token", "v17", 32, "damaged:v17"},
		{"a value too long", "v17" + pad("~", 30), 32, "v17" + pad("~", 30)},
		{"an element cut to its token", "v17" + pad("~", 29) + "+a18", 32, "v17" + pad("~", 29) + "+a18"},
		{"a flipped filler", "v17" + pad("~", 28) + "}", 32, "v17" + pad("~", 28) + "}"},
		{"an empty value", "", 32, "damaged:"},
		{"an empty value of size 0", "", 0, "damaged:"},
		{"a lone plus", "+", 32, "damaged:+"},
		{"a number with a leading zero", "v07" + pad("~", 29), 32, "v07" + pad("~", 29)},
		{"a foreign value", "hello", 32, "damaged:hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Short(tt.raw, tt.size); got != tt.want {
				t.Errorf("Short(%q, %d) = %q, want %q", tt.raw, tt.size, got, tt.want)
			}
		})
	}
}

// FuzzShort: whatever comes from the wire either is exactly the padded form of
// what Short returns, or Short's answer is no token.
func FuzzShort(f *testing.F) {
	f.Add("v1~~~~~~", 8)
	f.Add("v1~~~~~~+a22~~~~+a23~~~~", 8)
	f.Add("+a1", 0)
	f.Fuzz(func(t *testing.T, raw string, size int) {
		if size < 0 || size > 1<<12 {
			return
		}
		got := Short(raw, size)
		if got == "" {
			t.Fatalf("Short(%q) is empty", raw)
		}
		parts := strings.Split(got, "+")
		var again strings.Builder
		if parts[0] != "" {
			if !isToken(parts[0], "vx") {
				return
			}
			again.WriteString(Pad(parts[0], size))
		}
		for _, p := range parts[1:] {
			if !isToken(p, "a") {
				return
			}
			again.WriteString(PadElement("+"+p, size))
		}
		if again.String() != raw {
			t.Fatalf("Short(%q, %d) = %q looks right, but pads to %q", raw, size, got, again.String())
		}
	})
}
