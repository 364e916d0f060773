// Package quantity reads and prints amounts as people write them: "20ms",
// "5ms ± 1ms", "64KiB", "10Mbit/s", "0.5%", "2000/s", "50% of max", "3x baseline".
//
// Its one law is that printing and parsing are exactly inverse: what a parser
// accepts is represented without rounding, and what a printer writes parses to
// the same value. A number without a unit is an error, never a guess. The
// package knows nothing of bounds; whoever asks for a quantity has them.
package quantity

import (
	"fmt"
	"math/big"
	"strings"
)

// longest is the length of the longest text that is looked at.
const longest = 64

// A unit is a word and how many base units it is.
type unit struct {
	name string
	size int64
}

// number splits s into a plain decimal number and what follows it.
func number(s string) (num, rest string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	return s[:i], s[i:]
}

// rat returns the value of a decimal number such as 12 or 0.5.
func rat(num string) (*big.Rat, bool) {
	whole, frac, dot := strings.Cut(num, ".")
	if whole == "" || dot && (frac == "" || strings.Contains(frac, ".")) {
		return nil, false
	}
	return new(big.Rat).SetString(num)
}

// amount parses NUMBER UNIT, with at most one space between, as a whole number
// of base units. what names the quantity, example one that is written well.
func amount(s, what, example string, units []unit) (int64, error) {
	num, name, err := split(s, what, example)
	if err != nil {
		return 0, err
	}
	if name == "" {
		return 0, fmt.Errorf("%s what? write %s", num, withUnit(num, example))
	}
	for _, u := range units {
		if u.name == name {
			return whole(num, u, what)
		}
	}
	return 0, fmt.Errorf("%q is not a %s: unknown unit %q, want one of %s", s, what, name, names(units))
}

// split parses NUMBER and returns it with the word that follows.
func split(s, what, example string) (num, name string, err error) {
	if len(s) > longest {
		return "", "", fmt.Errorf("%q... is not a %s: %d characters", s[:20], what, len(s))
	}
	if strings.HasPrefix(s, "-") {
		return "", "", fmt.Errorf("%s is negative", s)
	}
	num, name = number(s)
	if _, ok := rat(num); !ok {
		return "", "", fmt.Errorf("%q is not a %s; write it as %s", s, what, example)
	}
	if len(name) > 1 && name[0] == ' ' {
		name = name[1:]
	}
	return num, name, nil
}

// whole returns num units as a whole number of base units.
func whole(num string, u unit, what string) (int64, error) {
	r, ok := rat(num)
	if !ok {
		return 0, fmt.Errorf("%q is not a number", num)
	}
	r.Mul(r, new(big.Rat).SetInt64(u.size))
	if !r.IsInt() {
		return 0, fmt.Errorf("%s%s is finer than a %s can be", num, u.name, what)
	}
	if !r.Num().IsInt64() {
		return 0, fmt.Errorf("%s%s is larger than a %s can be", num, u.name, what)
	}
	return r.Num().Int64(), nil
}

// withUnit puts the unit of example behind num, for a suggestion.
func withUnit(num, example string) string {
	_, rest := number(example)
	return num + rest
}

func names(units []unit) string {
	words := make([]string, len(units))
	for i, u := range units {
		words[i] = u.name
	}
	return strings.Join(words, ", ")
}

// format prints v in the largest of the first n units that divides it.
func format(v int64, units []unit) string {
	for i := len(units) - 1; i > 0; i-- {
		if v != 0 && v%units[i].size == 0 {
			return fmt.Sprintf("%d%s", v/units[i].size, units[i].name)
		}
	}
	return fmt.Sprintf("%d%s", v, units[0].name)
}
