package stages

import (
	"math"
	"math/bits"
)

// durations is a histogram of how long requests took, in buckets that grow by
// an eighth: good enough to tell the slowest from the rest.
type durations struct {
	n       int
	buckets [64 * 8]uint32
}

func (d *durations) add(ns int64) {
	d.n++
	d.buckets[bucket(uint64(max(ns, 0)))]++
}

// bucket is the place of ns: its power of two and the three bits below it.
func bucket(ns uint64) int {
	if ns < 8 {
		return int(ns)
	}
	exp := bits.Len64(ns) - 1
	return (exp-2)*8 + int(ns>>(exp-3))&7
}

// floor is the smallest ns of a bucket.
func floor(i int) int64 {
	if i < 8 {
		return int64(i)
	}
	exp, rest := i/8+2, i%8
	return int64(8+rest) << (exp - 3)
}

// slowest returns where the slowest hundredth begins, and forgets all. After fewer
// requests than are kept anyway it is nowhere.
func (d *durations) slowest() int64 {
	from := int64(math.MaxInt64)
	if d.n > perDrain {
		left := d.n / 100
		for i := len(d.buckets) - 1; i >= 0; i-- {
			if left -= int(d.buckets[i]); left <= 0 && d.buckets[i] > 0 {
				from = floor(i)
				break
			}
		}
	}
	*d = durations{}
	return from
}
