package kvserver

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
	"sync/atomic"
)

// A trie is a keyspace whose readers take no lock: they look at the last state
// that was published, which nobody changes any more. Who writes copies the nodes on
// the way to a key (a hash array mapped trie, Bagwell 2001), once in each run of
// entries: what was made since the last publishing is nobody else's yet and is
// changed in place.
type trie struct {
	seed      maphash.Seed
	published atomic.Pointer[trieState]
	now       trieState // what the next publishing will show
	batch     uint64    // numbers the publishings, from 1
}

type trieState struct {
	seed maphash.Seed
	root *trieNode // nil: no keys
	keys int
}

// Each level of nodes decides by so many bits of a key's hash.
const trieBits = 5

// A trieNode has a slot for each bit of used, in order.
type trieNode struct {
	batch uint64 // before whose publishing it was made
	used  uint32
	slots []trieSlot
}

// A trieSlot is one of both.
type trieSlot struct {
	leaf *trieLeaf
	node *trieNode
}

// A trieLeaf never changes.
type trieLeaf struct {
	hash       uint64
	key, value string
	next       *trieLeaf // another key of the same hash
}

func newTrie(seed maphash.Seed) *trie {
	t := &trie{seed: seed, now: trieState{seed: seed}}
	t.publish()
	return t
}

func (t *trie) get(key []byte) (string, bool) { return t.now.get(key) }
func (t *trie) size() int                     { return t.now.keys }
func (t *trie) reader() glance                { return t.published.Load() }
func (t *trie) empty() keyspace               { return newTrie(t.seed) }
func (t *trie) place([]byte) uint8            { return 0 }
func (t *trie) done()                         {}
func (t *trie) freeze() frozen                { return t.published.Load() }

func (t *trie) publish() {
	state := t.now
	t.published.Store(&state)
	t.batch++
}

func (t *trie) replace(with keyspace) {
	w := with.(*trie)
	t.now = w.now
	t.batch = max(t.batch, w.batch) + 1 // none of its nodes is to be changed in place
	t.publish()
}

func (t *trie) set(key []byte, value string) {
	leaf := &trieLeaf{hash: maphash.Bytes(t.seed, key), key: string(key), value: value}
	if t.now.root == nil {
		t.now.root = &trieNode{batch: t.batch}
	}
	var fresh bool
	t.now.root, fresh = t.put(t.now.root, leaf, 0)
	if fresh {
		t.now.keys++
	}
}

func (t *trie) del(key []byte) bool {
	if _, there := t.get(key); !there {
		return false
	}
	t.now.root = t.cut(t.now.root, key, maphash.Bytes(t.seed, key), 0)
	t.now.keys--
	return true
}

// find returns the bit of a hash in a node at shift and its slot's place.
func (n *trieNode) find(hash uint64, shift uint) (bit uint32, at int) {
	bit = 1 << (hash >> shift & (1<<trieBits - 1))
	return bit, bits.OnesCount32(n.used & (bit - 1))
}

// own returns a node that may be changed.
func (t *trie) own(n *trieNode) *trieNode {
	if n.batch == t.batch {
		return n
	}
	return &trieNode{batch: t.batch, used: n.used, slots: slices.Clone(n.slots)}
}

// put returns the node with leaf in the place of any that has its key.
func (t *trie) put(n *trieNode, leaf *trieLeaf, shift uint) (_ *trieNode, fresh bool) {
	bit, at := n.find(leaf.hash, shift)
	n = t.own(n)
	if n.used&bit == 0 {
		n.used |= bit
		n.slots = slices.Insert(n.slots, at, trieSlot{leaf: leaf})
		return n, true
	}
	s := &n.slots[at]
	switch {
	case s.node != nil:
		s.node, fresh = t.put(s.node, leaf, shift+trieBits)
	case s.leaf.hash == leaf.hash:
		rest, there := s.leaf.without(leaf.key)
		leaf.next, fresh = rest, !there
		s.leaf = leaf
	default: // both go one level down
		below := &trieNode{batch: t.batch}
		below, _ = t.put(below, s.leaf, shift+trieBits)
		below, fresh = t.put(below, leaf, shift+trieBits)
		*s = trieSlot{node: below}
	}
	return n, fresh
}

// without returns the leaves of one hash but that of key.
func (l *trieLeaf) without(key string) (rest *trieLeaf, there bool) {
	switch {
	case l == nil:
		return nil, false
	case l.key == key:
		return l.next, true
	}
	below, there := l.next.without(key)
	if !there {
		return l, false
	}
	return &trieLeaf{hash: l.hash, key: l.key, value: l.value, next: below}, true
}

// cut returns the node without key, nil if nothing is left. The key is there.
func (t *trie) cut(n *trieNode, key []byte, hash uint64, shift uint) *trieNode {
	bit, at := n.find(hash, shift)
	n = t.own(n)
	s := &n.slots[at]
	if s.node != nil {
		s.node = t.cut(s.node, key, hash, shift+trieBits)
	} else {
		s.leaf, _ = s.leaf.without(string(key))
	}
	if *s == (trieSlot{}) {
		n.used &^= bit
		n.slots = slices.Delete(n.slots, at, at+1)
	}
	if n.used == 0 {
		return nil
	}
	return n
}

func (s *trieState) size() int { return s.keys }
func (s *trieState) release()  {}

func (s *trieState) get(key []byte) (string, bool) {
	hash := maphash.Bytes(s.seed, key)
	shift := uint(0)
	for n := s.root; n != nil; shift += trieBits {
		bit, at := n.find(hash, shift)
		if n.used&bit == 0 {
			break
		}
		for l := n.slots[at].leaf; l != nil; l = l.next {
			if l.hash == hash && l.key == string(key) {
				return l.value, true
			}
		}
		n = n.slots[at].node
	}
	return "", false
}

func (s *trieState) all() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) { s.root.each(yield) }
}

func (n *trieNode) each(yield func(string, string) bool) bool {
	if n == nil {
		return true
	}
	for _, s := range n.slots {
		if s.node != nil && !s.node.each(yield) {
			return false
		}
		for l := s.leaf; l != nil; l = l.next {
			if !yield(l.key, l.value) {
				return false
			}
		}
	}
	return true
}
