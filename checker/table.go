package checker

import "hash/maphash"

// A table finds the version of a value that was written. Half the size of a map, it
// misses the processor's caches once in a lookup.
type table struct {
	seed  maphash.Seed
	slots []uint64  // half a hash above a version; 0: free
	texts []*string // by version

	fetched uint64 // so that the compiler does not leave the loads out
}

// together is how many values are looked for at a time: what a lookup costs is
// waiting for memory, and many can wait at once.
const together = 128

// newTable makes one for versions 1 to n-1.
func newTable(n int) *table {
	size := 16
	for 3*size < 4*n { // at most three quarters full
		size *= 2
	}
	return &table{seed: maphash.MakeSeed(), slots: make([]uint64, size), texts: make([]*string, 1, n)}
}

func (t *table) hash(v *string) uint64 { return maphash.String(t.seed, *v) }

// fetchTexts has values brought near: no load waits for that of another value.
func (t *table) fetchTexts(vs []*string) {
	all := byte(0)
	for _, v := range vs {
		if v != nil && *v != "" {
			all |= (*v)[0]
		}
	}
	t.fetched = uint64(all)
}

// fetch has the places of values brought near.
func (t *table) fetch(hashes []uint64) {
	mask, all := uint64(len(t.slots)-1), uint64(0)
	for _, h := range hashes {
		all |= t.slots[h&mask]
	}
	t.fetched = all
}

// find returns the version of a value, 0 if nobody wrote it, and its place.
func (t *table) find(v *string, hash uint64) (id int32, at uint64) {
	mask := uint64(len(t.slots) - 1)
	for at = hash & mask; t.slots[at] != 0; at = (at + 1) & mask {
		if s := t.slots[at]; s>>32 == hash>>32 {
			if id = int32(uint32(s)); t.texts[id] == v || *t.texts[id] == *v {
				return id, at
			}
		}
	}
	return 0, at
}

// version returns that of a value, 0 if nobody wrote it.
func (t *table) version(v *string) int32 {
	id, _ := t.find(v, t.hash(v))
	return id
}

// add gives a value the next version; 0: it has one.
func (t *table) add(v *string, hash uint64) (id int32) {
	old, at := t.find(v, hash)
	if old != 0 {
		return 0
	}
	id = int32(len(t.texts))
	t.texts = append(t.texts, v)
	t.slots[at] = hash>>32<<32 | uint64(id)
	return id
}
