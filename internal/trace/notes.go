// Package trace tells the life of one request: through the client, the leader,
// its log, its followers and back, stage by stage, from what the nodes noted
// and the history says.
//
// It belongs to the judging half: a run's files are all it reads. The nodes'
// notes are of [brownout/kvserver/stages]; their clock is the host's, so that
// the way between two nodes is one's arrival less the other's departure.
package trace

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"brownout/internal/history"
	"brownout/internal/plan"
	"brownout/internal/run"
	"brownout/kvserver/stages"
)

const notesFiles = "nodes/*/notes/stages.bin"

// ErrNoNotes says that a run's nodes noted nothing.
var ErrNoNotes = errors.New("the nodes of this run noted no stages")

// Notes are all that the nodes of a run noted, in run time, and the run's operations.
type Notes struct {
	Ops       []history.Op
	Events    []run.Event
	nodes     map[string]*node
	order     []string
	valueSize int // of the workload: values are padded to it on the wire
	byHash    map[uint64][]request
	entries   map[entry]int // how many requests were noted of it
	lost      uint64
	live      bool // of one operation just now, see [Live]
	sharded   bool // there are several Raft groups
}

// A position is where an entry is: in the log of one Raft group.
type position struct {
	group uint8
	index uint64
}

// An entry of a leader's log.
type entry struct {
	node string
	position
}

// A node's records, each kind in the order of its first time.
type node struct {
	name          string
	members       []string
	encode        []stages.Record
	store, apply  []stages.Record
	through       []stages.Record
	send, receive []stages.Record
}

type request struct {
	node *node
	stages.Record
}

func newNotes() *Notes {
	return &Notes{nodes: map[string]*node{}, byHash: map[uint64][]request{}, entries: map[entry]int{}}
}

// Read reads a run's notes, history and events.
func Read(fsys fs.FS) (*Notes, error) {
	n := newNotes()
	var err error
	if n.Events, err = run.ReadEvents(fsys); err != nil {
		return nil, err
	}
	zero, ok := int64(0), false
	for _, e := range n.Events {
		if v, is := e.Data["zero_monotonic_ns"].(float64); is && e.Type == run.LoadStarted {
			zero, ok = int64(v), true
		}
	}
	if !ok {
		return nil, fmt.Errorf("%w: its load never started, or it is of an older version", ErrNoNotes)
	}
	if err := n.readNodes(fsys, zero); err != nil {
		return nil, err
	}
	var p plan.Plan
	if err := run.ReadJSON(fsys, run.PlanFile, &p); err != nil {
		return nil, err
	}
	n.valueSize = p.Load.ValueSize
	if n.Ops, _, err = history.ReadFiles(fsys, run.HistoryFile, run.SpoolFile); err != nil {
		return nil, err
	}
	return n, nil
}

// readNodes reads what each node noted; times are counted from zero.
func (n *Notes) readNodes(fsys fs.FS, zero int64) error {
	var files []string
	for _, pattern := range []string{notesFiles, stages.Old(notesFiles)} {
		found, err := fs.Glob(fsys, pattern)
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return ErrNoNotes
	}
	for _, name := range files {
		if err := n.read(fsys, name, zero); err != nil {
			return err
		}
	}
	for _, nd := range n.nodes {
		for _, recs := range [][]stages.Record{nd.encode, nd.store, nd.apply, nd.send, nd.receive, nd.through} {
			slices.SortStableFunc(recs, func(a, b stages.Record) int { return cmp.Compare(a.T[0], b.T[0]) })
		}
	}
	return nil
}

func (n *Notes) read(fsys fs.FS, name string, zero int64) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	err = stages.Read(f, func(h *stages.Header, r *stages.Record) {
		nd := n.nodes[h.Node]
		if nd == nil {
			nd = &node{name: h.Node}
			n.nodes[h.Node] = nd
			n.order = append(n.order, h.Node)
		}
		nd.members = h.Members
		rec := *r
		if rec.Kind != stages.Lost && slices.Max(rec.T[:]) < zero {
			return // of before the run, or the operation
		}
		for i, t := range rec.T {
			if t != 0 {
				rec.T[i] = max(t-zero, 1) // 0 means that it did not happen; nothing of before the run is asked for
			}
		}
		n.sharded = n.sharded || rec.Group > 0
		switch rec.Kind {
		case stages.Request:
			n.entries[entry{nd.name, position{rec.Group, rec.B}}]++
			n.byHash[rec.A] = append(n.byHash[rec.A], request{nd, rec})
		case stages.Encode:
			nd.encode = append(nd.encode, rec)
		case stages.Store:
			nd.store = append(nd.store, rec)
		case stages.Apply:
			nd.apply = append(nd.apply, rec)
		case stages.Send:
			nd.send = append(nd.send, rec)
		case stages.Receive:
			nd.receive = append(nd.receive, rec)
		case stages.Through:
			nd.through = append(nd.through, rec)
		case stages.Lost:
			n.lost += rec.A
		}
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path.Clean(name), err)
	}
	return nil
}

// Lost is how many records the nodes could not keep.
func (n *Notes) Lost() uint64 { return n.lost }

// find returns the first record that began at from or later, before until, and holds
// an entry; nil if there is none.
func find(recs []stages.Record, at position, from, until int64, is func(*stages.Record) bool) *stages.Record {
	i, _ := slices.BinarySearchFunc(recs, from, func(r stages.Record, t int64) int { return cmp.Compare(r.T[0], t) })
	for ; i < len(recs) && recs[i].T[0] <= until; i++ {
		if r := &recs[i]; r.Group == at.group && r.A <= at.index && at.index <= r.B && (is == nil || is(r)) {
			return r
		}
	}
	return nil
}

// request returns what the node that answered an operation noted of it.
func (n *Notes) request(op *history.Op) *request {
	value := ""
	if op.Value != nil {
		value = history.OnWire(op.Kind, *op.Value, n.valueSize)
	}
	// A read has no value of its own: of several of one key under way at once, any is as good
	// if it was served between the call and the return.
	var best *request
	all := n.byHash[stages.Hash(op.Key, value)]
	for i := range all {
		r := &all[i]
		if r.T[stages.Received] >= op.Call && r.T[stages.Encoding] <= op.Return && (op.Node == "" || r.node.name == op.Node) {
			// The last is the one that was answered; earlier ones were sent elsewhere by a redirect.
			if best == nil || r.T[stages.Received] > best.T[stages.Received] {
				best = r
			}
		}
	}
	return best
}
