package faults

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"brownout/internal/faultfs"
)

// TestWhatWaitsIsNotHad: an account that counts what is asked for has a node's
// megabyte that still waits; what was served is known from the probe's own place in
// the queue.
func TestWhatWaitsIsNotHad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "account")
	if err := os.WriteFile(file, []byte("7:0 Write 2000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := account{file: file, dev: 7 << 8, op: faultfs.Write, bytes: true, asked: true}
	if n, err := a.had(900_000, 4096); n != 904_096 || err != nil {
		t.Errorf("of what is asked for: %d, %v; want what was before the probe's operation, and it", n, err)
	}
	a.asked = false
	if n, err := a.had(900_000, 4096); n != 2_000_000 || err != nil {
		t.Errorf("of what is had: %d, %v; want the account", n, err)
	}
}

// TestRestsAreNoPartOfARate: less than what is allowed may be asked for in them.
func TestRestsAreNoPartOfARate(t *testing.T) {
	begin := time.Now()
	at := func(ms int, n int64) groupCount {
		return groupCount{begin.Add(time.Duration(ms) * time.Millisecond), n}
	}
	m := &throttleMeter{}
	m.looks.add(begin, begin.Add(time.Minute))
	p := &diskProber{counts: []groupCount{at(100, 1000), at(200, 1100), at(1100, 2000), at(3000, rested), at(3100, 2050), at(4100, 3050)}}
	if got := m.counted(p); math.Abs(got-1000) > 1e-6 {
		t.Errorf("%v a second, want 1000", got)
	}
}
