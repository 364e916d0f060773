package plan

import (
	"fmt"
	"strings"
	"time"
)

// mostDurations bounds a list; 1 MiB of text or so.
const mostDurations = 100_000

// ParseDurations reads a list of times, as in "5ms, 20ms, 1ms".
func ParseDurations(list string) ([]time.Duration, error) {
	var out []time.Duration
	for word := range strings.SplitSeq(list, ",") {
		d, err := time.ParseDuration(strings.TrimSpace(word))
		switch {
		case err != nil:
			return nil, fmt.Errorf("time %d: %q is not a duration, as in 5ms", len(out)+1, strings.TrimSpace(word))
		case d < 0:
			return nil, fmt.Errorf("time %d: %s is negative", len(out)+1, d)
		case len(out) == mostDurations:
			return nil, fmt.Errorf("more than %d times", mostDurations)
		}
		out = append(out, d)
	}
	return out, nil
}
