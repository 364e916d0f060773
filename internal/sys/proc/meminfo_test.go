package proc

import "testing"

func TestParseMemInfo(t *testing.T) {
	got, err := ParseMemInfo([]byte("MemTotal:        8000 kB\nMemFree:  1 kB\nMemAvailable:    2000 kB\nHugePages_Total:       0\n"))
	if want := (MemInfo{Total: 8000 << 10, Available: 2000 << 10}); got != want || err != nil {
		t.Errorf("= %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "MemTotal", "MemTotal: x kB\n", "MemTotal: 18446744073709551615 kB\n"} {
		if _, err := ParseMemInfo([]byte(bad)); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func FuzzParseMemInfo(f *testing.F) {
	f.Add([]byte("MemTotal: 8 kB\nMemAvailable: 2 kB\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseMemInfo(b); err == nil && m.Total == 0 {
			t.Fatalf("%q: no memory", b)
		}
	})
}
