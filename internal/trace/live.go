package trace

import (
	"io/fs"

	"brownout/internal/history"
	"brownout/internal/run"
)

// Live reads what the nodes of a running cluster noted of one operation, whose
// times are of the host's monotonic clock and whose values are as on the wire. inForce are
// the faults that are there now. The operation in the result counts from its due time.
func Live(fsys fs.FS, op history.Op, inForce []run.Event) (*Notes, error) {
	n := newNotes()
	n.live = true
	zero := op.Due - 1 // a time of 0 is none
	if err := n.readNodes(fsys, zero); err != nil {
		return nil, err
	}
	op.Due, op.Call, op.Return = 1, op.Call-zero, op.Return-zero
	n.Ops = []history.Op{op}
	for _, e := range inForce {
		e.T, e.Type = 0, run.FaultFired
		n.Events = append(n.Events, e)
	}
	return n, nil
}

// Whole reports whether all that will be noted of an operation has been: its own
// way, and the answers of all other members.
func (s *Story) Whole() bool {
	if s == nil || s.Unexplained() > 0 {
		return false
	}
	for _, c := range s.Copies {
		if c.Acked == 0 {
			return false
		}
	}
	return true
}
