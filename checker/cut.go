package checker

import (
	"math"

	"brownout/internal/history"
)

// minPiece is how many operations a piece has at least, where there are so
// many: below it the engine's fixed cost outweighs what a cut saves.
const minPiece = 48

// A piece is a part of a key's history that is judged alone.
type piece struct {
	init *string // the state it starts from; nil means absent
	ops  []op    // by call
}

// cut divides a key's operations at instants at which none is open and the
// state is forced: the same in every linearization. It is exact, as every
// linearization passes through that state at that instant. A piece has at least
// so many operations, but for the last.
//
// The state is forced after a write that overlaps no other write, unless it is
// an append to a state that is not, and by a read that overlaps no write. What
// a completed read found is forced whether or not it is right: a wrong one
// makes its own piece illegal.
func cut(ops []op, least int) []piece {
	var pieces []piece
	s := forced{known: true, lastWrite: math.MinInt64, lastRead: math.MinInt64}
	start, init := 0, (*string)(nil)
	open := int64(math.MinInt64) // the latest return so far
	for i := range ops {
		o := &ops[i]
		if s.known && open < o.Call && i-start >= least {
			pieces = append(pieces, piece{init, ops[start:i]})
			start, init = i, s.state
		}
		s.take(o)
		open = max(open, o.ret)
	}
	if start < len(ops) {
		pieces = append(pieces, piece{init, ops[start:]})
	}
	return pieces
}

// forced follows the state that all linearizations share once all operations
// taken so far have returned.
type forced struct {
	known     bool
	state     *string
	lastWrite int64 // the latest return of a write
	lastRead  int64 // return of the read that told the state; -∞ if a write did
}

func (s *forced) take(o *op) {
	alone := o.Call > s.lastWrite
	switch {
	case !o.writes():
		if alone && !s.known && o.observes() {
			s.known, s.state, s.lastRead = true, o.Result, o.ret
		}
		return
	case !alone:
		s.known = false // two writes at once: either may be the last
	case o.Kind != history.Append: // its effect does not depend on the state before it
		s.known, s.state = true, o.Value
	case s.known && s.lastRead < o.Call: // else the read may have seen this append already
		s.state = concat(s.state, *o.Value)
	default:
		s.known = false
	}
	s.lastRead = math.MinInt64
	s.lastWrite = max(s.lastWrite, o.ret)
}

func concat(state *string, elem string) *string {
	if state != nil {
		elem = *state + elem
	}
	return &elem
}
