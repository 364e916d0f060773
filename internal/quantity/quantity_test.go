package quantity

import (
	"math"
	"strings"
	"testing"
	"testing/quick"
	"time"
)

func TestParseDuration(t *testing.T) {
	for _, tt := range []struct {
		in, prints string
		want       time.Duration
		err        string
	}{
		{in: "20ms", want: 20 * time.Millisecond, prints: "20ms"},
		{in: "20 ms", want: 20 * time.Millisecond, prints: "20ms"},
		{in: "1m30s", want: 90 * time.Second, prints: "1m30s"},
		{in: "1h", want: time.Hour, prints: "1h"},
		{in: "60m", want: time.Hour, prints: "1h"},
		{in: "200us", want: 200 * time.Microsecond, prints: "200us"},
		{in: "200µs", want: 200 * time.Microsecond, prints: "200us"},
		{in: "200μs", want: 200 * time.Microsecond, prints: "200us"},
		{in: "1.5s", want: 1500 * time.Millisecond, prints: "1.5s"},
		{in: "0.5us", want: 500, prints: "500ns"},
		{in: "1m0.25s", want: 60250 * time.Millisecond, prints: "1m0.25s"},
		{in: "0s", want: 0, prints: "0s"},
		{in: "20", err: "20 what? write 20ms"},
		{in: "0", err: "0 what? write 0s"},
		{in: "-5ms", err: "-5ms is negative"},
		{in: "", err: "is not a duration; write it as 20ms"},
		{in: "ms", err: "is not a duration; write it as 20ms"},
		{in: "20mss", err: `unknown unit "mss"`},
		{in: "20 minutes", err: `unknown unit "minutes"`},
		{in: "1s1h", err: "after a smaller unit"},
		{in: "1s1s", err: "after a smaller unit"},
		{in: "1m30", err: "1m30 what?"},
		{in: "0.5ns", err: "finer than a duration can be"},
		{in: "1e3ms", err: `unknown unit "e"`},
		{in: ".5s", err: "is not a duration"},
		{in: "5.s", err: "is not a duration"},
		{in: "1.2.3s", err: "is not a duration"},
		{in: "3000000h", err: "larger than a duration can be"},
		{in: "2562047h47m16.9s", err: "larger than a duration can be"},
		{in: strings.Repeat("1", 500) + "s", err: "501 characters"},
	} {
		got, err := ParseDuration(tt.in)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("ParseDuration(%q) = %v, %v; want error %q", tt.in, got, err, tt.err)
			}
		case err != nil || got != tt.want || Duration(got) != tt.prints:
			t.Errorf("ParseDuration(%q) = %v (prints %s), %v; want %v (%s)", tt.in, got, Duration(got), err, tt.want, tt.prints)
		}
	}
}

func TestDurationsPrintAndParseToTheSame(t *testing.T) {
	if err := quick.Check(func(v int64, shift uint8) bool {
		d := time.Duration(v & math.MaxInt64 >> (shift % 63))
		got, err := ParseDuration(Duration(d))
		return err == nil && got == d
	}, nil); err != nil {
		t.Error(err)
	}
}

// law is one parser with its printer; print(parse(s)) must be a fixed point.
var laws = []struct {
	name  string
	again func(string) (string, error)
}{
	{"duration", law(ParseDuration, Duration)},
	{"spread", law(ParseSpread, Spread.String)},
	{"size", law(ParseSize, Size)},
	{"count", law(ParseCount, Count)},
	{"bit rate", law(ParseBitRate, BitRate)},
	{"byte rate", law(ParseByteRate, ByteRate)},
	{"percent", law(ParsePercent, Percent)},
	{"rate", law(ParseRate, Rate.String)},
	{"ratio", law(ParseRatio, Ratio.String)},
}

func law[T comparable](parse func(string) (T, error), print func(T) string) func(string) (string, error) {
	return func(s string) (string, error) {
		v, err := parse(s)
		if err != nil {
			return "", err
		}
		printed := print(v)
		again, err := parse(printed)
		if err != nil || again != v {
			panic("law broken: " + s + " prints as " + printed)
		}
		return printed, nil
	}
}

func TestAmounts(t *testing.T) {
	for _, tt := range []struct{ law, in, prints, err string }{
		{"size", "256B", "256B", ""},
		{"size", "64KiB", "64KiB", ""},
		{"size", "65536 B", "64KiB", ""},
		{"size", "1.5MiB", "1536KiB", ""},
		{"size", "64kB", "64000B", ""},
		{"size", "0B", "0B", ""},
		{"size", "256", "", "256 what? write 256B"},
		{"size", "64KB", "", `unknown unit "KB"`},
		{"size", "0.3B", "", "finer than"},
		{"size", "99999999TiB", "", "larger than"},
		{"count", "10k", "10k", ""},
		{"count", "1500", "1500", ""},
		{"count", "1M", "1M", ""},
		{"count", "0", "0", ""},
		{"count", "1.5", "", "finer than"},
		{"count", "ten", "", "is not a count"},
		{"count", "10kB", "", "is not a count"},
		{"bit rate", "10Mbit/s", "10Mbit/s", ""},
		{"bit rate", "1Gbit/s", "1Gbit/s", ""},
		{"bit rate", "8000bit/s", "8kbit/s", ""},
		{"bit rate", "10Mbps", "", `unknown unit "Mbps"`},
		{"bit rate", "10", "", "10 what? write 10Mbit/s"},
		{"byte rate", "1MiB/s", "1MiB/s", ""},
		{"byte rate", "10 MiB/s", "10MiB/s", ""},
		{"percent", "30%", "30%", ""},
		{"percent", "0.5%", "0.5%", ""},
		{"percent", "30", "", "30 what? write 30%"},
		{"percent", "-1%", "", "negative"},
		{"percent", "30%%", "", "is not a percentage"},
		{"rate", "2000/s", "2000/s", ""},
		{"rate", "2k/s", "2000/s", ""},
		{"rate", "0.5/s", "0.5/s", ""},
		{"rate", "50% of max", "50% of max", ""},
		{"rate", "2000", "", "2000 what? write 2000/s"},
		{"rate", "50%", "", "50% of what? write 50% of max"},
		{"rate", "0% of max", "", "nothing"},
		{"rate", "fast", "", "is not a rate"},
		{"ratio", "3x baseline", "3x baseline", ""},
		{"ratio", "3x the baseline", "3x baseline", ""},
		{"ratio", "80% of baseline", "80% of baseline", ""},
		{"ratio", "80% of the baseline", "80% of baseline", ""},
		{"ratio", "3 baseline", "", "is not a ratio"},
		{"ratio", "3x", "", "is not a ratio"},
		{"spread", "5ms ± 1ms", "5ms ± 1ms", ""},
		{"spread", "5ms +- 1ms", "5ms ± 1ms", ""},
		{"spread", "5ms±1ms", "5ms ± 1ms", ""},
		{"spread", "5ms", "5ms", ""},
		{"spread", "5ms ± 1", "", "1 what?"},
		{"spread", "± 1ms", "", "is not a duration"},
	} {
		for _, l := range laws {
			if l.name != tt.law {
				continue
			}
			got, err := l.again(tt.in)
			if tt.err == "" && (err != nil || got != tt.prints) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%s %q prints as %q, %v; want %q, %q", tt.law, tt.in, got, err, tt.prints, tt.err)
			}
		}
	}
}

// FuzzLaws: whatever a parser accepts prints to text that parses to the same
// value, and prints the same again.
func FuzzLaws(f *testing.F) {
	for _, s := range []string{"20ms", "1m30s", "5ms ± 1ms", "64KiB", "10k", "10Mbit/s", "1MiB/s", "0.5%", "50% of max", "3x baseline", "80% of baseline", "0.000000001s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, l := range laws {
			printed, err := l.again(s)
			if err != nil {
				continue
			}
			if again, err := l.again(printed); err != nil || again != printed {
				t.Errorf("%s %q prints as %q, that as %q, %v", l.name, s, printed, again, err)
			}
		}
	})
}
