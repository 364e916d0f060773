package checker

import (
	"fmt"
	"testing"
)

// TestTableKeepsValuesOfOneHash: values are told apart by what they are, wherever
// their hashes send them.
func TestTableKeepsValuesOfOneHash(t *testing.T) {
	const n = 50
	for name, hash := range map[string]func(i int) uint64{
		"their own": nil,
		"one":       func(int) uint64 { return 1<<40 + 3 },
		"one place": func(i int) uint64 { return uint64(i)<<32 + 3 },
		"the last":  func(int) uint64 { return 1<<64 - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(n + 1)
			if got := len(tb.slots); 3*got < 4*(n+1) || got >= 4*n {
				t.Errorf("%d places for %d values", got, n)
			}
			if hash == nil {
				hash = func(i int) uint64 { return tb.hash(ptr(fmt.Sprint("v", i))) }
			}
			for i := range n {
				if got := tb.add(ptr(fmt.Sprint("v", i)), hash(i)); got != int32(i+1) {
					t.Fatalf("value %d is version %d", i, got)
				}
				if got := tb.add(ptr(fmt.Sprint("v", i)), hash(i)); got != 0 {
					t.Fatalf("value %d is version %d again", i, got)
				}
			}
			for i := range 2 * n {
				want := int32(i + 1)
				if i >= n {
					want = 0
				}
				if got, _ := tb.find(ptr(fmt.Sprint("v", i)), hash(i)); got != want {
					t.Errorf("value %d is version %d, want %d", i, got, want)
				}
			}
		})
	}
}
