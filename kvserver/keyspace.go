package kvserver

import (
	"hash/maphash"
	"iter"
	"maps"
	"sync/atomic"
)

// A glance is what a reader may look at.
type glance interface {
	get(key []byte) (value string, there bool)
	size() int
}

// A keyspace holds the keys and their values. One at a time changes it, and
// calls done after each command and publish after each run of entries. What it
// needs against readers, and what they may look at, is its kind's affair: see
// [locks].
type keyspace interface {
	glance
	set(key []byte, value string)
	del(key []byte) (there bool)
	done()
	publish()

	reader() glance
	freeze() frozen         // what was published, for ever; nobody may be changing the keyspace
	empty() keyspace        // another one of the same kind
	replace(with keyspace)  // by one that empty has given, and that nobody else uses
	place(key []byte) uint8 // keys of different places share nothing that is not safe to share
}

// A frozen state is not disturbed by what is written later. It must be released.
type frozen interface {
	size() int
	all() iter.Seq2[string, string]
	release() // while nobody changes the keyspace that it is of
}

// The map is cut into parts so that a snapshot need not copy it: a frozen state
// holds the parts as they are, and a write to a part that is held copies this one first.
const parts = 256

type part struct {
	m     map[string]string
	views int // frozen states that hold this part
}

// A partedMap is a keyspace for readers who hold a lock of their keys' places.
type partedMap struct {
	seed  maphash.Seed
	part  [parts]*part
	keys  atomic.Int64 // after the last command that is done
	fresh int          // less those that are gone, since
}

func newPartedMap(seed maphash.Seed) *partedMap {
	p := &partedMap{seed: seed}
	for i := range p.part {
		p.part[i] = &part{m: map[string]string{}}
	}
	return p
}

func (p *partedMap) place(key []byte) uint8 { return uint8(maphash.Bytes(p.seed, key) % parts) }

func (p *partedMap) get(key []byte) (string, bool) {
	v, there := p.part[p.place(key)].m[string(key)]
	return v, there
}

func (p *partedMap) size() int      { return int(p.keys.Load()) }
func (p *partedMap) reader() glance { return p }
func (p *partedMap) empty() keyspace {
	return newPartedMap(p.seed)
}

// own returns the part of key, fit to be written to.
func (p *partedMap) own(key []byte) map[string]string {
	i := p.place(key)
	if p.part[i].views > 0 {
		p.part[i] = &part{m: maps.Clone(p.part[i].m)}
	}
	return p.part[i].m
}

func (p *partedMap) set(key []byte, value string) {
	m := p.own(key)
	before := len(m)
	m[string(key)] = value
	p.fresh += len(m) - before
}

func (p *partedMap) del(key []byte) bool {
	if _, there := p.get(key); !there {
		return false
	}
	delete(p.own(key), string(key))
	p.fresh--
	return true
}

// done counts the keys of a command together: a reader must not see half of them.
func (p *partedMap) done() {
	if p.fresh != 0 {
		p.keys.Add(int64(p.fresh))
		p.fresh = 0
	}
}

func (p *partedMap) publish() { p.done() }

func (p *partedMap) replace(with keyspace) {
	w := with.(*partedMap)
	w.done()
	p.part, p.fresh = w.part, 0
	p.keys.Store(w.keys.Load())
}

func (p *partedMap) freeze() frozen {
	f := &frozenParts{part: p.part, keys: p.size()}
	for _, s := range f.part {
		s.views++
	}
	return f
}

type frozenParts struct {
	part [parts]*part
	keys int
}

func (f *frozenParts) size() int { return f.keys }

func (f *frozenParts) all() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, s := range f.part {
			for k, v := range s.m {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

func (f *frozenParts) release() {
	for _, s := range f.part {
		s.views--
	}
}
