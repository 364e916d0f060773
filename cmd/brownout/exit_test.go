package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"brownout/internal/run"
)

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"nothing wrong", nil, 0},
		{"an expectation missed", &judged{run.Fail}, 1},
		{"a violation", fmt.Errorf("run: %w", &judged{run.Violation}), 3},
		{"nothing known", &judged{run.Inconclusive}, 4},
		{"a usage error", &usageError{errors.New("unknown flag")}, 2},
		{"a run that left nothing to judge", &unjudged{"out", errors.New("history.jsonl is missing")}, 4},
		{"a host that cannot", fmt.Errorf("start: %w", errors.ErrUnsupported), 5},
		{"an interrupt", fmt.Errorf("run: %w", &interrupted{os.Interrupt}), 130},
		{"a code that was explained already", &silent{5}, 5},
		{"anything else is a mistake of the caller's or ours", context.DeadlineExceeded, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitCode(tt.err); got != tt.want {
				t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

func TestWorstCode(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []int
		want int
	}{
		{"no runs", nil, 0},
		{"all pass", []int{0, 0}, 0},
		{"a violation wins over a miss", []int{1, 3, 4}, 3},
		{"a miss wins over not knowing", []int{4, 1, 5}, 1},
		{"not knowing wins over not being able", []int{5, 4, 0}, 4},
		{"not being able wins over a pass", []int{0, 5}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := worstCode(tt.in...); got != tt.want {
				t.Errorf("worstCode(%v) = %d, want %d", tt.in, got, tt.want)
			}
		})
	}
}
