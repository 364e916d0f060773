package quantity

import (
	"fmt"
	"strings"
	"time"
)

var durations = []unit{
	{"ns", 1},
	{"us", int64(time.Microsecond)},
	{"ms", int64(time.Millisecond)},
	{"s", int64(time.Second)},
	{"m", int64(time.Minute)},
	{"h", int64(time.Hour)},
}

// ParseDuration parses a time that is not negative: "20ms", "1m30s", "200us"
// (or µs), "1.5s". Several parts go from the larger unit to the smaller.
func ParseDuration(s string) (time.Duration, error) {
	const example = "20ms"
	rest := strings.NewReplacer("µ", "u", "μ", "u").Replace(s)
	if rest == "0" {
		return 0, fmt.Errorf("0 what? write 0s")
	}
	var sum int64
	least := len(durations)
	for {
		num, after, err := split(rest, "duration", example)
		if err != nil {
			return 0, err
		}
		name := strings.TrimRight(after, "0123456789. ")
		if i := strings.IndexAny(after, "0123456789."); i >= 0 {
			name = strings.TrimSpace(after[:i])
		}
		if name == "" {
			return 0, fmt.Errorf("%s what? write %sms", s, s)
		}
		u, i := unitNamed(name)
		if i < 0 {
			return 0, fmt.Errorf("%q is not a duration: unknown unit %q, want one of %s", s, name, names(durations))
		}
		if i >= least {
			return 0, fmt.Errorf("%q is not a duration: %s after a smaller unit or itself", s, name)
		}
		v, err := whole(num, u, "duration")
		if err != nil {
			return 0, err
		}
		if sum += v; sum < 0 {
			return 0, fmt.Errorf("%s is larger than a duration can be", s)
		}
		least = i
		if rest = strings.TrimPrefix(after, name); rest == "" {
			return time.Duration(sum), nil
		}
	}
}

func unitNamed(name string) (unit, int) {
	for i, u := range durations {
		if u.name == name {
			return u, i
		}
	}
	return unit{}, -1
}

// Duration prints d, which must not be negative, as [ParseDuration] reads it:
// exactly, in the unit a person would choose.
func Duration(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d < time.Microsecond:
		return fmt.Sprintf("%dns", d)
	case d < time.Millisecond:
		return decimal(int64(d), int64(time.Microsecond)) + "us"
	case d < time.Second:
		return decimal(int64(d), int64(time.Millisecond)) + "ms"
	}
	var b strings.Builder
	for _, u := range []unit{durations[5], durations[4]} {
		if n := int64(d) / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= time.Duration(n * u.size)
		}
	}
	if d > 0 {
		b.WriteString(decimal(int64(d), int64(time.Second)) + "s")
	}
	return b.String()
}

// decimal prints v/per, where per is a power of ten, without trailing zeros.
func decimal(v, per int64) string {
	s := fmt.Sprint(v / per)
	if v%per == 0 {
		return s
	}
	frac := fmt.Sprint(per + v%per)[1:]
	return s + "." + strings.TrimRight(frac, "0")
}

// A Spread is a duration with a deviation, "5ms ± 1ms".
type Spread struct{ Mean, Dev time.Duration }

// ParseSpread parses "5ms", "5ms ± 1ms" or "5ms +- 1ms".
func ParseSpread(s string) (Spread, error) {
	mean, dev, found := strings.Cut(strings.Replace(s, "+-", "±", 1), "±")
	m, err := ParseDuration(strings.TrimSuffix(mean, " "))
	if err != nil || !found {
		return Spread{Mean: m}, err
	}
	d, err := ParseDuration(strings.TrimPrefix(dev, " "))
	return Spread{m, d}, err
}

func (s Spread) String() string {
	if s.Dev == 0 {
		return Duration(s.Mean)
	}
	return Duration(s.Mean) + " ± " + Duration(s.Dev)
}
