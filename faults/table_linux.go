package faults

import (
	"context"
	"errors"
	"slices"

	"brownout/cluster"
)

// A source is one provider of a row. Its constructor is also called without a
// bench, to be probed only.
type source struct {
	name string
	new  func(*bench) Provider
}

// A row is all that this package knows of a kind of fault. The words for it
// are [plan.Kinds].
type row struct {
	kind    string
	meter   func(*bench, Site, Dose) (Meter, error)
	sources []source // in order of preference
}

// The table. Adding a fault is adding a row to its family; doctor, calibrate and
// the nemesis are loops over it.
var table = slices.Concat(netRows, netTCPRows, cpuRows, diskRows, memoryRows, processRows, clockRows, serverRows, neighbourRows)

// Survey says of every kind of fault what this host can do. It needs no
// cluster; every probe really makes what its mechanism needs, where nobody sees
// it, and takes it away again.
func Survey(ctx context.Context) []Row {
	var rows []Row
	base := cluster.Probe(ctx)
	for _, r := range table {
		var cands []candidate
		for _, s := range r.sources {
			cands = append(cands, candidate{s.name, s.new(nil)})
		}
		row := Row{Kind: r.kind, Verdict: RowUnavailable}
		if base == nil {
			row = survey(ctx, r.kind, cands)
		} else if u, ok := errors.AsType[*Unsupported](base); ok { // no nodes, no faults
			row.Why, row.Cure = u.What+": "+u.Why, u.Cure
		} else {
			row.Why = base.Error()
		}
		rows = append(rows, row)
	}
	return rows
}
