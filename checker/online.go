package checker

import (
	"fmt"
	"math"
	"strings"
	"time"

	"brownout/internal/history"
)

// An Online looks for contradictions while a history is being recorded, with
// bounded memory. What it finds is certain (two versions of a key of which each
// would have to precede the other, as in finder.pairs; a cas whose answer
// contradicts itself; an append that is there twice), as far as values are unique
// and deletes write tombstones (a delete that is still open could explain an
// absent key); what it does not find may still be there. Operations come in any
// order, each when its outcome is known.
//
// It is not safe for concurrent use.
type Online struct {
	keys   map[string]*onlineKey
	queue  []queued // versions in the order of their first appearance
	recent []string // keys in that order
	forgot bool     // a key was forgotten
}

// Bounds of what is remembered, some 60 MB of it (BenchmarkOnline).
const (
	maxZones   = 200_000                      // versions, of all keys
	zoneWidth  = int64(50 * time.Millisecond) // of a bucket of versions by the time they were there
	maxBuckets = 200                          // of a key: 10 s, or longer where little is written
	allBuckets = 120_000                      // of all keys, for many keys have fewer each
	minBuckets = 4
	maxKeys    = 10_000
)

// A zone is what is known of a version: it was there by f, and still at s.
type zone struct {
	token string
	f, s  int64
}

type queued struct {
	key   *onlineKey
	token string
}

// A bucket holds, of the zones with f in it, the two with the largest s.
type bucket struct {
	at, s int64 // s is the larger of theirs, or what it was
	top   [2]*zone
}

type onlineKey struct {
	zones   map[string]*zone
	buckets []bucket // ascending
	blurred bool     // absent is no single version any more
}

// NewOnline returns an Online that has seen nothing.
func NewOnline() *Online { return &Online{keys: map[string]*onlineKey{}} }

// Add takes the next operation. bad reports that the history is not
// linearizable, and text why.
func (c *Online) Add(o *history.Op) (text string, bad bool) {
	if o.Outcome == history.Fail {
		return "", false
	}
	k := c.keys[o.Key]
	if k == nil {
		k = c.begin(o.Key)
	}
	x := op{Op: o}
	if x.bare() {
		k.blurred = true
	}
	if x.observes() {
		if text := amiss(o); text != "" {
			return text, true
		}
	}
	if x.writes() && o.Value != nil {
		ret := int64(never)
		if x.completed() {
			ret = o.Return
		}
		text, bad = c.note(k, o, lastToken(o.Value), ret)
	}
	if x.observes() && !(o.Result == nil && k.blurred) && !bad {
		text, bad = c.note(k, o, lastToken(o.Result), o.Return)
	}
	return text, bad
}

// begin remembers a new key, and forgets the oldest for it if there are too many.
func (c *Online) begin(key string) *onlineKey {
	// A key that was forgotten may have had bare deletes.
	k := &onlineKey{zones: map[string]*zone{"": {f: math.MinInt64, s: math.MinInt64}}, blurred: c.forgot}
	c.keys[key] = k
	c.recent = append(c.recent, key)
	if len(c.recent) > maxKeys {
		old := c.keys[c.recent[0]]
		old.zones, old.buckets = nil, nil // the queue may still know it
		delete(c.keys, c.recent[0])
		c.recent[0] = ""
		c.recent = c.recent[1:]
		c.forgot = true
	}
	return k
}

// tail bounds how much of a value is searched, in bytes.
const tail = 4 << 10

// amiss says what is wrong with an answer by itself; empty if nothing is.
func amiss(o *history.Op) string {
	if o.Kind == history.CAS && o.Swapped != equal(o.Expect, o.Result) {
		return fmt.Sprintf("%s: the cas of operation %d found %s and expected %s, and swapped: %t", o.Key, o.ID, show(o.Result), show(o.Expect), o.Swapped)
	}
	last := lastToken(o.Result)
	if !strings.HasPrefix(last, "+") {
		return ""
	}
	v := *o.Result
	if end := v[max(0, len(v)-tail):]; strings.Contains(end, last+"+") { // the last one ends the value
		return fmt.Sprintf("%s: operation %d found %q twice (%s by client %d)", o.Key, o.ID, last, o.Kind, o.Client)
	}
	return ""
}

// lastToken names a version by the write that made it: "v1+a2+a3" by "+a3".
func lastToken(v *string) string {
	if v == nil {
		return ""
	}
	return (*v)[max(0, strings.LastIndexByte(*v, '+')):]
}

// note says that a version was there by ret, and still, or not before, when o was called.
func (c *Online) note(k *onlineKey, o *history.Op, token string, ret int64) (string, bool) {
	z := k.zones[token]
	if z == nil {
		token = strings.Clone(token) // it may be the end of a long value
		z = &zone{token: token, f: never, s: math.MinInt64}
		k.zones[token] = z
		c.queue = append(c.queue, queued{k, token})
		if len(c.queue) > maxZones {
			delete(c.queue[0].key.zones, c.queue[0].token)
			c.queue[0] = queued{}
			c.queue = c.queue[1:]
		}
	}
	z.f, z.s = min(z.f, ret), max(z.s, o.Call)
	if z.f == never {
		return "", false
	}
	k.offer(z, max(min(maxBuckets, allBuckets/len(c.keys)), minBuckets))
	other := k.against(z)
	if other == nil {
		return "", false
	}
	return fmt.Sprintf("%s: %s and %s would each have to come before the other, as operation %d shows (%s by client %d)",
		o.Key, name(z), name(other), o.ID, o.Kind, o.Client), true
}

func name(z *zone) string {
	if z.token == "" {
		return "absent"
	}
	return fmt.Sprintf("%q", z.token)
}

// against returns a zone that contradicts z, or nil.
func (k *onlineKey) against(z *zone) *zone {
	if first := k.zones[""]; first != z && !k.blurred && contradict(z, first) {
		return first
	}
	for i := len(k.buckets) - 1; i >= 0; i-- {
		if k.buckets[i].s <= z.f {
			continue // none of these was there later than z
		}
		for _, other := range k.buckets[i].top {
			if other != nil && other != z && contradict(z, other) {
				return other
			}
		}
	}
	return nil
}

func contradict(a, b *zone) bool { return a.f < b.s && b.f < a.s }

// offer puts a zone where others find it, in one of at most so many buckets.
func (k *onlineKey) offer(z *zone, most int) {
	if z.f == math.MinInt64 {
		return
	}
	at := z.f / zoneWidth
	i := len(k.buckets)
	for i > 0 && k.buckets[i-1].at > at {
		i--
	}
	if i == 0 || k.buckets[i-1].at != at {
		if i == 0 && len(k.buckets) >= most {
			return // older than what is remembered
		}
		k.buckets = append(k.buckets, bucket{})
		copy(k.buckets[i+1:], k.buckets[i:])
		k.buckets[i] = bucket{at: at, s: math.MinInt64}
		i++
		if over := len(k.buckets) - most; over > 0 {
			k.buckets = append(k.buckets[:0], k.buckets[over:]...)
			if i -= over; i <= 0 {
				return // there was a rush of keys, and this one is older than what is left
			}
		}
	}
	b := &k.buckets[i-1]
	b.s = max(b.s, z.s)
	top := &b.top
	switch {
	case top[0] == z || top[1] == z:
	case top[0] == nil:
		top[0] = z
	case top[1] == nil:
		top[1] = z
	case top[0].s < top[1].s && top[0].s < z.s:
		top[0] = z
	case top[0].s >= top[1].s && top[1].s < z.s:
		top[1] = z
	}
}
