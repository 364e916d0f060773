package faults

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A ledger lets several faults be in force at one place. It holds what each
// of them asks for and applies what they are together: healing one leaves the
// others, and nothing is ever read back from the kernel and subtracted.
type ledger[K comparable, V any] struct {
	// apply puts in force at one place what is asked for there, oldest first:
	// all of it together. With nothing asked for, the place is to be healthy.
	apply func(context.Context, K, []V) error

	mu      sync.Mutex
	entries map[K][]entry[V]
	last    int
}

// applyWithin bounds one change. It takes a millisecond where all is well.
const applyWithin = 5 * time.Second

type entry[V any] struct {
	id int
	v  V
}

// id returns a new number under which a fault asks for things.
func (l *ledger[K, V]) id() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	return l.last
}

// set makes v what id asks for at all places, or changes it. On error
// everything is as before.
func (l *ledger[K, V]) set(ctx context.Context, id int, places []K, v V) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// Once begun it is not cut short: half a change is worse than a late one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyWithin)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries == nil {
		l.entries = map[K][]entry[V]{}
	}
	before := map[K][]entry[V]{}
	for _, k := range places {
		before[k] = l.entries[k]
		now := slices.Clone(before[k])
		if i := slices.IndexFunc(now, func(e entry[V]) bool { return e.id == id }); i >= 0 {
			now[i].v = v
		} else {
			now = append(now, entry[V]{id, v})
		}
		l.entries[k] = now
		if err := l.put(ctx, k); err != nil {
			back, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyWithin)
			defer cancel()
			for k, was := range before {
				l.entries[k] = was
				_ = l.put(back, k) // the first error tells what is wrong
			}
			return err
		}
	}
	return nil
}

// remove takes what id asked for away from all places, past errors; the first
// of them is returned. What could not be applied is tried again by the next
// remove.
func (l *ledger[K, V]) remove(ctx context.Context, id int, places []K) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first error
	for _, k := range places {
		was := l.entries[k]
		i := slices.IndexFunc(was, func(e entry[V]) bool { return e.id == id })
		if i < 0 {
			continue
		}
		l.entries[k] = slices.Delete(slices.Clone(was), i, i+1)
		if err := l.put(ctx, k); err != nil {
			l.entries[k] = was
			if first == nil {
				first = err
			}
		}
	}
	return first
}

// asked reports whether something is asked for at a place.
func (l *ledger[K, V]) asked(k K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries[k]) > 0
}

// alone reports whether one fault at most asks for something at a place.
func (l *ledger[K, V]) alone(k K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries[k]) <= 1
}

func (l *ledger[K, V]) put(ctx context.Context, k K) error {
	vs := make([]V, len(l.entries[k]))
	for i, e := range l.entries[k] {
		vs[i] = e.v
	}
	return l.apply(ctx, k, vs)
}

// A post is one fault's entry in a ledger: an [Injection] for every mechanism
// whose faults compose.
type post[K comparable, V any] struct {
	l      *ledger[K, V]
	id     int
	places []K
	value  func(Dose) (V, error)
}

// inject posts d and returns it as an Injection.
func (l *ledger[K, V]) inject(ctx context.Context, places []K, d Dose, value func(Dose) (V, error)) (Injection, error) {
	p := &post[K, V]{l: l, id: l.id(), places: places, value: value}
	if err := p.Set(ctx, d); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *post[K, V]) Set(ctx context.Context, d Dose) error {
	v, err := p.value(d)
	if err != nil {
		return err
	}
	return p.l.set(ctx, p.id, p.places, v)
}

func (p *post[K, V]) Heal(ctx context.Context) error { return p.l.remove(ctx, p.id, p.places) }

// pulse is a post for the length that a dose asks for.
func (p *post[K, V]) pulse(ctx context.Context, d Dose, begun func()) error {
	if err := p.Set(ctx, d); err != nil {
		return err
	}
	begun()
	sleep(ctx, d.Duration("length"))
	return p.Heal(context.WithoutCancel(ctx))
}
