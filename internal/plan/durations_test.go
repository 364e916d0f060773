package plan

import (
	"slices"
	"testing"
	"time"
)

func TestParseDurations(t *testing.T) {
	got, err := ParseDurations("5ms, 20ms,1s")
	if want := []time.Duration{5e6, 20e6, 1e9}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "5ms,", "5", "-1ms", "5ms 3ms"} {
		if got, err := ParseDurations(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

func FuzzParseDurations(f *testing.F) {
	f.Add("5ms, 20ms")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseDurations(s)
		if err == nil && (len(got) == 0 || slices.Min(got) < 0) {
			t.Errorf("%q is %v", s, got)
		}
	})
}
