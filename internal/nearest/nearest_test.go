package nearest

import "testing"

func TestWord(t *testing.T) {
	fields := []string{"recovery", "baseline", "warmup", "faults", "rate", "add", "on", "net.delay", "disk.delay", "during"}
	for _, tt := range []struct{ in, want string }{
		{"recovry", "recovery"},
		{"durign", "during"},
		{"basline", "baseline"},
		{"disk.dealy", "disk.delay"},
		{"disk_delay", "disk.delay"},
		{"ad", "add"},
		{"no", "on"},
		{"Rate", "rate"},
		{"x", ""},
		{"", ""},
		{"completely", ""},
		{"zq", ""},
	} {
		if got := Word(tt.in, fields); got != tt.want {
			t.Errorf("Word(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"abcd", "badc", 2},
	} {
		if got, back := distance(tt.a, tt.b), distance(tt.b, tt.a); got != tt.want || back != tt.want {
			t.Errorf("distance(%q, %q) = %d, backwards %d; want %d", tt.a, tt.b, got, back, tt.want)
		}
	}
}
