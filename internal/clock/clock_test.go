package clock

import (
	"testing"
	"time"
)

func TestTwoClocksOfOneZeroAgree(t *testing.T) {
	zero := Raw()
	a, b := At(zero), At(zero)
	for range 100 {
		lo := a.Now()
		mid := b.Now()
		hi := a.Now()
		if slack := 100 * time.Microsecond; mid < lo-slack || mid > hi+slack {
			t.Fatalf("b.Now() = %v is not between a's %v and %v", mid, lo, hi)
		}
	}
	if got := a.Time(time.Second).Sub(b.Time(0)); got < 999*time.Millisecond || got > 1001*time.Millisecond {
		t.Errorf("distance of two run times = %v, want 1s", got)
	}
}
