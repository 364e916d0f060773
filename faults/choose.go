package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"brownout/internal/plan"
)

// A candidate is a provider under its name in the table.
type candidate struct {
	name string
	Provider
}

// probeWithin bounds one probe. Probes make what they need and undo it; none
// takes more than some milliseconds on a healthy host.
const probeWithin = 5 * time.Second

// choose returns the first candidate, in order of preference, whose probe
// passes, and why those before it were refused. A pin leaves one candidate. If
// none is left, the error is an [*Unsupported] with all reasons, unless nothing
// is known of any of them.
func choose(ctx context.Context, kind, pin string, cands []candidate) (candidate, map[string]string, error) {
	if pin != "" {
		var names []string
		var pinned []candidate
		for _, c := range cands {
			names = append(names, c.name)
			if c.name == pin {
				pinned = append(pinned, c)
			}
		}
		if pinned == nil {
			return candidate{}, nil, &Unsupported{
				What: kind + " by " + pin, Why: "there is no such provider",
				Cure: "provider: " + strings.Join(names, " or "),
			}
		}
		cands = pinned
	}
	refused := map[string]string{}
	var whys, cures []string
	var unknown []error
	for _, c := range cands {
		err := probe(ctx, c)
		switch u, ok := errors.AsType[*Unsupported](err); {
		case err == nil:
			return c, refused, nil
		case ok:
			refused[c.name] = u.Why
			whys = append(whys, c.name+": "+u.Why)
			cures = append(cures, u.Cure)
		case errors.Is(err, errors.ErrUnsupported):
			refused[c.name] = err.Error()
			whys = append(whys, c.name+": "+err.Error())
		default:
			refused[c.name] = "unknown: " + err.Error()
			unknown = append(unknown, fmt.Errorf("probe %s by %s: %w", kind, c.name, err))
		}
	}
	if whys == nil && unknown != nil {
		return candidate{}, refused, errors.Join(unknown...)
	}
	for _, err := range unknown {
		whys = append(whys, err.Error())
	}
	return candidate{}, refused, &Unsupported{What: kind, Why: strings.Join(whys, "; "), Cure: joinCures(cures)}
}

// cannot is an [*Unsupported] if a provider cannot give a dose; see [plan.Cannot].
func cannot(kind, provider string, d Dose) error {
	if r := plan.Cannot(kind, provider, d); r != nil {
		return &Unsupported{What: kind + " by " + provider, Why: r.Why, Cure: r.Cure}
	}
	return nil
}

func probe(ctx context.Context, p Provider) error {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	return p.Probe(ctx)
}

// joinCures keeps each cure once.
func joinCures(cures []string) string {
	var once []string
	seen := map[string]bool{}
	for _, c := range cures {
		if c != "" && !seen[c] {
			seen[c] = true
			once = append(once, c)
		}
	}
	return strings.Join(once, ", or ")
}

// survey says which candidate would be chosen for a kind, and which others work.
func survey(ctx context.Context, kind string, cands []candidate) Row {
	row := Row{Kind: kind, Verdict: RowUnavailable}
	var refused []string
	var cures []string
	for _, c := range cands {
		err := probe(ctx, c)
		u, _ := errors.AsType[*Unsupported](err)
		switch {
		case err == nil && row.Provider == "":
			row.Provider, row.Verdict = c.name, RowOK
		case err == nil:
			row.Others = append(row.Others, c.name)
		case u != nil:
			refused = append(refused, "not by "+c.name+": "+u.Why)
			cures = append(cures, u.Cure)
		default:
			refused = append(refused, "not by "+c.name+": "+err.Error())
		}
	}
	row.Why = strings.Join(refused, "; ")
	if row.Verdict == RowUnavailable {
		row.Cure = joinCures(cures)
	}
	return row
}
