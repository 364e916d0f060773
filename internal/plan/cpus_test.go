package plan

import (
	"slices"
	"testing"
)

func TestParseCPUs(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []int
	}{
		{"0", []int{0}},
		{"0-2,4", []int{0, 1, 2, 4}},
		{"4,0-2,1", []int{0, 1, 2, 4}},
		{"", nil},
		{"a", nil},
		{"2-1", nil},
		{"0-99999", nil},
		{"-1", nil},
		{"1,", nil},
	} {
		got, err := ParseCPUs(tt.in)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("ParseCPUs(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
}

func FuzzParseCPUs(f *testing.F) {
	f.Add("0-2,4")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseCPUs(s)
		if err != nil {
			return
		}
		again, err := ParseCPUs(FormatCPUs(got))
		if err != nil || !slices.Equal(got, again) {
			t.Fatalf("%q is %v, printed and read again %v, %v", s, got, again, err)
		}
	})
}
