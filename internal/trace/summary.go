package trace

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"brownout/internal/history"
	"brownout/internal/run"
)

// A Class is what a summary puts together: operations that go the same way.
type Class string

// Classes of operation.
const (
	Writes Class = "writes"
	Reads  Class = "reads"
)

// ClassOf is the class of a kind of operation.
func ClassOf(k history.Kind) Class {
	if k == history.Get {
		return Reads
	}
	return Writes
}

// A Mean is a stage's mean length among the operations around the median.
type Mean struct {
	Stage string  `json:"stage"`
	NS    float64 `json:"mean_ns"`
}

// A Summary says where the time of a typical operation of one class went in
// one phase. Only operations near the median are averaged: then the stages add
// up to the median response time, which means of all would not.
type Summary struct {
	Class     Class   `json:"class"`
	Phase     string  `json:"phase"`
	N         int     `json:"n"`           // operations that were noted, as a fair sample
	Of        int     `json:"of"`          // so many that were answered
	Response  float64 `json:"response_ns"` // mean of those around the median
	Stages    []Mean  `json:"stages"`
	Explained float64 `json:"explained"` // share of Response, 0..1

	Increase *Increase `json:"increase,omitempty"` // over the baseline; nil if there is none to speak of
}

// An Increase says by how much more time a typical operation took than in the
// baseline, and where. What got shorter meanwhile counts as less than nothing, so that
// stages add up to the whole here too.
type Increase struct {
	NS        float64 `json:"ns"`
	Stages    []Mean  `json:"stages"`    // by how much each grew, those that grew most first
	Explained float64 `json:"explained"` // share of NS, 0..1
}

// leastIncrease is the smallest share of the baseline's response time that is
// called an increase: less is the host's noise.
const leastIncrease = 0.2

const baseline = "baseline"

// Around the median: the operations from this share to that.
const (
	bandFrom = 0.40
	bandTo   = 0.60
)

// Summarize tells of every class and phase where the time went. Faults are
// phases of their own, named as "fault f1 disk.delay".
func (n *Notes) Summarize() []Summary {
	var out []Summary
	before := map[Class]Summary{}
	for _, p := range n.periods() {
		for _, c := range []Class{Reads, Writes} {
			s, ok := n.summary(c, p)
			if !ok {
				continue
			}
			if p.Name == baseline {
				before[c] = s
			} else if b, ok := before[c]; ok {
				s.Increase = s.over(b)
			}
			out = append(out, s)
		}
	}
	return out
}

// over compares s with the baseline.
func (s Summary) over(before Summary) *Increase {
	inc := &Increase{NS: s.Response - before.Response}
	if inc.NS < leastIncrease*before.Response {
		return nil
	}
	grown := map[string]float64{}
	for _, m := range s.Stages {
		grown[m.Stage] += m.NS
	}
	for _, m := range before.Stages {
		grown[m.Stage] -= m.NS
	}
	for name, ns := range grown {
		inc.Stages = append(inc.Stages, Mean{name, ns})
	}
	slices.SortFunc(inc.Stages, func(a, b Mean) int { return cmp.Or(cmp.Compare(b.NS, a.NS), cmp.Compare(a.Stage, b.Stage)) })
	inc.Explained = 1 - grown[Unseen]/inc.NS
	return inc
}

// A Period is a part of the run.
type Period struct {
	Name       string
	Start, End int64
}

// periods are the run's phases, and the faults that were in force.
func (n *Notes) periods() []Period {
	var out []Period
	events := slices.Clone(n.Events)
	slices.SortStableFunc(events, func(a, b run.Event) int { return cmp.Compare(a.T, b.T) })
	open := map[string]int{}
	var last int64
	for _, op := range n.Ops {
		last = max(last, op.Return)
	}
	for _, e := range events {
		switch e.Type {
		case run.PhaseStarted:
			if i, ok := open["phase"]; ok {
				out[i].End = e.T
			}
			open["phase"] = len(out)
			out = append(out, Period{e.Phase, e.T, last})
		case run.FaultFired:
			open[e.Fault] = len(out)
			out = append(out, Period{"fault " + e.Fault + " " + e.Kind, e.T, last})
		case run.FaultHealed:
			if i, ok := open[e.Fault]; ok {
				out[i].End = e.T
			}
		}
	}
	return out
}

func (n *Notes) summary(c Class, p Period) (Summary, bool) {
	var all []*Story
	of := 0
	for i := range n.Ops {
		op := &n.Ops[i]
		if op.Outcome != history.OK || ClassOf(op.Kind) != c || op.Due < p.Start || op.Due >= p.End || op.Phase != "" {
			continue
		}
		of++
		if s := n.Story(op); s != nil && !s.Slow {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return Summary{}, false
	}
	slices.SortFunc(all, func(a, b *Story) int { return cmp.Compare(a.response(), b.response()) })
	band := all[int(float64(len(all))*bandFrom) : int(float64(len(all))*bandTo)+1]
	out := Summary{Class: c, Phase: p.Name, N: len(all), Of: of}
	for _, s := range band {
		out.Response += float64(s.response()) / float64(len(band))
	}
	sums := map[string]float64{}
	for _, s := range band {
		for _, st := range s.Stages {
			name := st.general(s)
			sums[name] += float64(st.Length()) / float64(len(band))
		}
	}
	names := slices.Collect(maps.Keys(sums))
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b)) })
	for _, name := range names {
		out.Stages = append(out.Stages, Mean{name, sums[name]})
	}
	out.Explained = 1 - sums[Unseen]/out.Response
	return out, true
}

// order is that of the stages on a request's way.
var order = []string{
	"waits in the client", "network from the client", "decode", "hand over",
	"confirm leadership", "proposal queue", "encode commands", "raft takes it",
	"leader's log: write and sync", "leader's log: encode", "leader's log: write", "leader's log: fsync", "leader's log: index", "to the senders",
	"follower: send", "follower: network there", "follower: decode", "follower: raft takes it", "follower: write and sync",
	"follower: encode", "follower: write", "follower: fsync", "follower: index", "follower: answer", "follower: network back",
	"commit", "apply queue", "decode commands", "wake", "lock wait", "read", "apply", "downstream queue", "downstream", "answer queue", "encode and send", "network to the client",
}

// place is a stage's in order; what is not there comes last.
func place(stage string) int {
	if i := slices.Index(order, stage); i >= 0 {
		return i
	}
	return len(order)
}

// general is a stage's name without a node's, which differs from one story to the next.
func (st Stage) general(s *Story) string {
	switch {
	case st.Name == "network to "+s.Node:
		return "network from the client"
	case strings.HasPrefix(st.Name, "follower: network to ") && st.Node == s.Node:
		return "follower: network back"
	case strings.HasPrefix(st.Name, "follower: network to "):
		return "follower: network there"
	case strings.HasPrefix(st.Name, "follower: not seen"):
		return Unseen
	}
	return st.Name
}

func (s *Story) response() int64 { return s.Op.Return - s.Op.Due }

// Pick returns the operation of a run's notes that is asked for, among those
// that were noted and are not of the last reads.
type Pick struct {
	Op      int64  // the operation with this number, if not negative
	Slowest int    // the nth slowest, from 1
	Kind    string // of this kind only; "" for all
	Phase   string // due in this phase or fault ("f1", "disk.delay") only; "" for all
}

// Select returns the stories that a pick asks for: one, or the n slowest from
// the slowest on; without Op and Slowest the one with the median response time.
func (n *Notes) Select(p Pick) []*Story {
	var all []*Story
	for i := range n.Ops {
		op := &n.Ops[i]
		switch {
		case p.Op >= 0 && op.ID != p.Op:
			continue
		case p.Op < 0 && (op.Outcome != history.OK || op.Phase != ""):
			continue
		case p.Kind != "" && string(op.Kind) != p.Kind:
			continue
		case p.Phase != "" && !n.within(op, p.Phase):
			continue
		}
		if s := n.Story(op); s != nil {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b *Story) int { return cmp.Compare(b.response(), a.response()) })
	switch {
	case p.Op >= 0 || len(all) == 0:
		return all
	case p.Slowest > 0:
		return all[:min(p.Slowest, len(all))]
	}
	return all[len(all)/2 : len(all)/2+1]
}

func (n *Notes) within(op *history.Op, phase string) bool {
	for _, p := range n.periods() {
		if (p.Name == phase || slices.Contains(strings.Fields(p.Name), phase)) && p.Start <= op.Due && op.Due < p.End {
			return true
		}
	}
	return false
}
