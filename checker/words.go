package checker

import "slices"

// Words are the values ever written to a key. They tell from a value that was
// found by whom it was made: a base (of a put, cas or tombstone) followed by
// appended elements.
type words struct {
	owners map[string][]int // op indices by value, all roles
	base   map[string]bool
	elem   map[string]bool
	lens   []int // of elements
	blens  []int // of bases
	bare   bool  // some delete leaves the key absent
	empty  bool  // some value is "": nothing can be told apart
	cache  map[string]parse
}

// A parse is how a value was put together.
type parse struct {
	ways  int      // 0, 1, or 2 for "several"
	words []string // of the only way, in order; of several ways: all that may occur, in any order
	based bool     // words[0] is a base (ways == 1)
}

func newWords(ops []op) *words {
	w := &words{owners: map[string][]int{}, base: map[string]bool{}, elem: map[string]bool{}, cache: map[string]parse{}}
	for i := range ops {
		o := &ops[i]
		if !o.writes() {
			continue
		}
		if o.Value == nil {
			w.bare = true
			continue
		}
		v := *o.Value
		w.empty = w.empty || v == ""
		w.owners[v] = append(w.owners[v], i)
		if o.Kind == "append" {
			w.elem[v] = true
			w.lens = addLen(w.lens, len(v))
		} else {
			w.base[v] = true
			w.blens = addLen(w.blens, len(v))
		}
	}
	return w
}

func addLen(lens []int, n int) []int {
	if slices.Contains(lens, n) {
		return lens
	}
	return append(lens, n)
}

// owner returns the index of the only write of value v.
func (w *words) owner(v string) (int, bool) {
	if o := w.owners[v]; len(o) == 1 {
		return o[0], true
	}
	return 0, false
}

// parse takes a value apart. The absent value is made of no words.
func (w *words) parse(v *string) parse {
	if v == nil {
		return parse{ways: 1}
	}
	if w.empty {
		return parse{ways: 2, words: nil}
	}
	if p, ok := w.cache[*v]; ok {
		return p
	}
	p := w.parseText(*v)
	w.cache[*v] = p
	return p
}

// An edge is a word at a place of the text.
type edge struct {
	from, to int
	base     bool
}

func (w *words) parseText(v string) parse {
	if len(w.elem) == 0 {
		if w.base[v] {
			return parse{ways: 1, words: []string{v}, based: true}
		}
		return parse{}
	}
	if v == "" {
		return parse{}
	}
	// Forward: all words at all places that can be reached from the start.
	reach := make([]bool, len(v)+1)
	reach[0] = true
	var edges []edge
	for at := range len(v) {
		if !reach[at] {
			continue
		}
		if at == 0 {
			for _, n := range w.blens {
				if n <= len(v) && w.base[v[:n]] {
					edges = append(edges, edge{0, n, true})
					reach[n] = true
				}
			}
		}
		for _, n := range w.lens {
			if at+n <= len(v) && w.elem[v[at:at+n]] {
				edges = append(edges, edge{at, at + n, false})
				reach[at+n] = true
			}
		}
	}
	// Backward: in how many ways the end is reached from each place. An edge
	// comes after all edges into its start, so one sweep is enough.
	ways := make([]uint8, len(v)+1)
	ways[len(v)] = 1
	for _, e := range slices.Backward(edges) {
		ways[e.from] = min(2, ways[e.from]+ways[e.to])
	}
	p := parse{ways: int(ways[0])}
	for _, e := range edges { // on a way to the end; with one way, exactly its words in order
		if ways[e.to] > 0 {
			p.words = append(p.words, v[e.from:e.to])
			p.based = p.based || e.base
		}
	}
	return p
}
