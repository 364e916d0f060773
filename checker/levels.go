package checker

import (
	"cmp"
	"math"
	"slices"

	"brownout/internal/history"
)

// A Level is what reads of one mode (by the leader, by followers, ...) kept of
// what is weaker than linearizability. It is a diagnosis of a history that is
// not linearizable: of one that is, all of it holds.
//
// Everything counted is certain: version a is older than b only if a was there
// before b's write was called, and b is there only after its write, or a read of
// it, has returned. So numbers are lower bounds.
type Level struct {
	Mode  string
	Reads int

	Stale       int   // reads of a version that had been overwritten before they were called
	StaleMax    int64 // ns since then, at most
	StaleP99    int64 // of all reads
	VersionsMax int   // writes that a read missed, at most

	ReadYourWrites    Guarantee // a client finds its own last write, or a newer one
	MonotonicReads    Guarantee // and nothing older than what it found before
	MonotonicWrites   Guarantee // whoever finds a client's write does not then find an earlier one of the same client
	WritesFollowReads Guarantee // nor what that client had found before it wrote
}

// A Guarantee counts how often it could be broken, and was.
type Guarantee struct {
	Checked, Broken int
	First           int64 // the operation that first broke it
}

func (g *Guarantee) note(broken bool, id int64) {
	g.Checked++
	if broken {
		if g.Broken++; g.Broken == 1 {
			g.First = id
		}
	}
}

// A version is the state of a key from one write to the next.
type version struct {
	writer *op   // nil: absent from the start
	there  int64 // by then it had been written
	seen   *version
}

func (v *version) call() int64 {
	if v.writer == nil {
		return math.MinInt64
	}
	return v.writer.Call
}

// olderThan reports whether v was certainly replaced by w, or by what w replaced.
func (v *version) olderThan(w *version) bool { return v.there < w.call() }

// maxMissed bounds how many writes are counted that one read missed.
const maxMissed = 1000

// Levels says which weaker levels hold, by read mode, in the order of their
// names. mode may return "" for reads that are not to be judged.
func Levels(ops []history.Op, mode func(*history.Op) string) []Level {
	levels := map[string]*Level{}
	stale := map[string][]int64{}
	for _, k := range split(ops) {
		levelsOfKey(k.ops, mode, levels, stale)
	}
	out := []Level{}
	for name, l := range levels {
		s := stale[name]
		slices.Sort(s)
		l.Mode, l.Stale = name, len(s)
		if n := len(s); n > 0 {
			l.StaleMax = s[n-1]
			if late := n - 1 - l.Reads/100; late >= 0 {
				l.StaleP99 = s[late]
			}
		}
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b Level) int { return cmp.Compare(a.Mode, b.Mode) })
	return out
}

// A session is what one client did with one key.
type session struct {
	wrote *version // its last acknowledged write
	found *version // its last read
	floor *version // of all it found, the one written last
}

func levelsOfKey(ops []op, mode func(*history.Op) string, levels map[string]*Level, stale map[string][]int64) {
	w := newWords(ops)
	if w.empty {
		return
	}
	versions := map[*op]*version{nil: {there: math.MinInt64}}
	for i := range ops {
		if o := &ops[i]; o.writes() {
			versions[o] = &version{writer: o, there: o.ret}
		}
	}
	found := make([]*version, len(ops))
	for i := range ops {
		if o := &ops[i]; o.observes() {
			if found[i] = versionOf(ops, w, versions, o.Result); found[i] != nil {
				// A read from the future does not make it older than its write.
				found[i].there = max(found[i].call(), min(found[i].there, o.Return))
			}
		}
	}
	byCall := make([]*version, 0, len(versions)) // by the call of their writes, and from each on the one that was there first
	for _, v := range versions {
		if v.writer != nil {
			byCall = append(byCall, v)
		}
	}
	slices.SortFunc(byCall, func(a, b *version) int { return cmp.Compare(a.call(), b.call()) })
	first := make([]int64, len(byCall)+1)
	first[len(byCall)] = math.MaxInt64
	for i := len(byCall) - 1; i >= 0; i-- {
		first[i] = min(first[i+1], byCall[i].there)
	}
	sessions := map[int]*session{}
	for i := range ops { // by call, and a client has one operation at a time
		o := &ops[i]
		s := sessions[o.Client]
		if s == nil {
			s = &session{}
			sessions[o.Client] = s
		}
		if v := found[i]; v != nil && o.Kind == history.Get {
			if name := mode(o.Op); name != "" {
				l := levels[name]
				if l == nil {
					l = &Level{}
					levels[name] = l
				}
				l.Reads++
				after, _ := slices.BinarySearchFunc(byCall, v.there, func(b *version, t int64) int { return cmp.Compare(b.call(), t+1) })
				if since := first[after]; since < o.Call {
					stale[name] = append(stale[name], o.Call-since)
					missed := 0
					for n := after; n < len(byCall) && byCall[n].call() < o.Call && missed < maxMissed; n++ {
						if byCall[n].there < o.Call {
							missed++
						}
					}
					l.VersionsMax = max(l.VersionsMax, missed)
				}
				l.judge(s, v, o)
			}
		}
		if v := found[i]; v != nil {
			s.found = v
			if s.floor == nil || s.floor.call() < v.call() {
				s.floor = v
			}
		}
		if v := versions[o]; v != nil {
			v.seen = s.found
			if o.completed() {
				s.wrote = v
			}
		}
	}
}

// judge looks at a read of v within its session.
func (l *Level) judge(s *session, v *version, o *op) {
	if s.wrote != nil {
		l.ReadYourWrites.note(v.olderThan(s.wrote), o.ID)
	}
	if s.floor == nil {
		return
	}
	l.MonotonicReads.note(v.olderThan(s.floor), o.ID)
	last := s.found
	if last.writer == nil || v == last {
		return
	}
	if v.writer != nil && v.writer.Client == last.writer.Client {
		l.MonotonicWrites.note(v.call() < last.call(), o.ID)
	}
	if p := last.seen; p != nil {
		l.WritesFollowReads.note(v == p || v.olderThan(p), o.ID)
	}
}

// versionOf returns what a read found, or nil if that cannot be told.
func versionOf(ops []op, w *words, versions map[*op]*version, found *string) *version {
	if found == nil && w.bare {
		return nil
	}
	p := w.parse(found)
	if p.ways != 1 {
		return nil
	}
	if len(p.words) == 0 {
		return versions[nil]
	}
	i, only := w.owner(p.words[len(p.words)-1])
	if !only {
		return nil
	}
	return versions[&ops[i]]
}
