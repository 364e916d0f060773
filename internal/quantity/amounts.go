package quantity

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The first unit is the base; printing uses the largest that divides.
var (
	sizes     = []unit{{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}
	decimals  = []unit{{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}}
	bitRates  = []unit{{"bit/s", 1}, {"kbit/s", 1e3}, {"Mbit/s", 1e6}, {"Gbit/s", 1e9}, {"Tbit/s", 1e12}}
	byteRates = []unit{{"B/s", 1}, {"KiB/s", 1 << 10}, {"MiB/s", 1 << 20}, {"GiB/s", 1 << 30}}
	counts    = []unit{{"", 1}, {"k", 1e3}, {"M", 1e6}}
)

// ParseSize parses a number of bytes: "256B", "64KiB", "1MiB", also "64kB" (64000).
func ParseSize(s string) (int64, error) {
	return amount(s, "size", "256B", append(sizes[:len(sizes):len(sizes)], decimals...))
}

// Size prints a number of bytes as [ParseSize] reads it.
func Size(v int64) string { return format(v, sizes) }

// ParseBitRate parses bits per second: "10Mbit/s", "8kbit/s".
func ParseBitRate(s string) (int64, error) { return amount(s, "bit rate", "10Mbit/s", bitRates) }

// BitRate prints bits per second as [ParseBitRate] reads them.
func BitRate(v int64) string { return format(v, bitRates) }

// ParseByteRate parses bytes per second: "1MiB/s".
func ParseByteRate(s string) (int64, error) { return amount(s, "byte rate", "1MiB/s", byteRates) }

// ByteRate prints bytes per second as [ParseByteRate] reads them.
func ByteRate(v int64) string { return format(v, byteRates) }

// ParseCount parses a number of things: "128", "10k", "1M".
func ParseCount(s string) (int64, error) {
	num, name, err := split(s, "count", "10k")
	if err != nil {
		return 0, err
	}
	for _, u := range counts {
		if u.name == name {
			return whole(num, u, "count")
		}
	}
	return 0, fmt.Errorf("%q is not a count: write it as 128, 10k or 1M", s)
}

// Count prints a number of things as [ParseCount] reads it.
func Count(v int64) string { return format(v, counts) }

// ParsePercent parses "30%" as 30.
func ParsePercent(s string) (float64, error) {
	num, name, err := split(s, "percentage", "30%")
	if err != nil {
		return 0, err
	}
	if name == "" {
		return 0, fmt.Errorf("%s what? write %s%%", num, num)
	}
	if name != "%" {
		return 0, fmt.Errorf("%q is not a percentage; write it as 30%%", s)
	}
	return float(num)
}

// Percent prints 30 as "30%".
func Percent(v float64) string { return plain(v) + "%" }

// float returns the number that is nearest to a decimal; every float64 has a
// shortest decimal that leads back to it, and plain prints that.
func float(num string) (float64, error) {
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%s is not a number that can be used", num)
	}
	return v, nil
}

func plain(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// A Rate is how many operations are offered: so many a second, or a share of
// the maximum that a calibration will find.
type Rate struct {
	PerS  float64
	OfMax float64 // in percent; 0 if PerS counts
}

// ParseRate parses "2000/s", "2k/s" or "50% of max".
func ParseRate(s string) (Rate, error) {
	if share, ok := strings.CutSuffix(s, " of max"); ok {
		v, err := ParsePercent(share)
		if err == nil && v == 0 {
			err = fmt.Errorf("%s is nothing", s)
		}
		return Rate{OfMax: v}, err
	}
	num, name, err := split(s, "rate", "2000/s")
	if err != nil {
		return Rate{}, err
	}
	switch name {
	case "/s":
		v, err := float(num)
		return Rate{PerS: v}, err
	case "k/s":
		v, err := whole(num, counts[1], "rate")
		return Rate{PerS: float64(v)}, err
	case "":
		return Rate{}, fmt.Errorf("%s what? write %s/s, or %s%% of max", num, num, num)
	case "%":
		return Rate{}, fmt.Errorf("%s of what? write %s of max", s, s)
	}
	return Rate{}, fmt.Errorf("%q is not a rate; write it as 2000/s or 50%% of max", s)
}

func (r Rate) String() string {
	if r.OfMax != 0 {
		return Percent(r.OfMax) + " of max"
	}
	return PerSecond(r.PerS)
}

// PerSecond prints an absolute rate.
func PerSecond(v float64) string { return plain(v) + "/s" }

// A Ratio compares with the baseline: "3x baseline" or "80% of baseline".
type Ratio struct {
	Value   float64 // as written: 3, or 80
	Percent bool
}

// Factor is what the baseline's value is multiplied with.
func (r Ratio) Factor() float64 {
	if r.Percent {
		return r.Value / 100
	}
	return r.Value
}

// ParseRatio parses "3x baseline" ("3x the baseline", "3 x baseline") or "80% of baseline".
func ParseRatio(s string) (Ratio, error) {
	head, ok := strings.CutSuffix(s, "baseline")
	if !ok {
		return Ratio{}, fmt.Errorf("%q is not a ratio; write it as 3x baseline or 80%% of baseline", s)
	}
	head = strings.TrimSuffix(head, " ")
	head = strings.TrimSuffix(head, " the")
	if share, ok := strings.CutSuffix(head, " of"); ok {
		v, err := ParsePercent(share)
		return Ratio{v, true}, err
	}
	num, name, err := split(head, "ratio", "3x baseline")
	if err != nil {
		return Ratio{}, err
	}
	if name != "x" {
		return Ratio{}, fmt.Errorf("%q is not a ratio; write it as 3x baseline or 80%% of baseline", s)
	}
	v, err := float(num)
	return Ratio{Value: v}, err
}

func (r Ratio) String() string {
	if r.Percent {
		return Percent(r.Value) + " of baseline"
	}
	return plain(r.Value) + "x baseline"
}
