package faults

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type probeOnly struct{ err error }

func (p probeOnly) Probe(context.Context) error { return p.err }
func (p probeOnly) Inject(context.Context, Site, Dose) (Injection, error) {
	return nil, errors.ErrUnsupported
}

func TestChoose(t *testing.T) {
	missing := &Unsupported{What: "x", Why: "kernel has no x", Cure: "modprobe x"}
	unknown := errors.New("probe timed out")
	for _, tt := range []struct {
		name        string
		pin         string
		cands       []candidate
		want        string
		refused     map[string]string
		unsupported bool
	}{
		{"the first that works", "", []candidate{{"a", probeOnly{}}, {"b", probeOnly{}}}, "a", map[string]string{}, false},
		{
			"who was refused is told", "",
			[]candidate{{"a", probeOnly{missing}}, {"b", probeOnly{unknown}}, {"c", probeOnly{}}},
			"c",
			map[string]string{"a": "kernel has no x", "b": "unknown: probe timed out"},
			false,
		},
		{"a pin passes by better ones", "b", []candidate{{"a", probeOnly{}}, {"b", probeOnly{}}}, "b", map[string]string{}, false},
		{"a pin allows no fallback", "a", []candidate{{"a", probeOnly{missing}}, {"b", probeOnly{}}}, "", nil, true},
		{"an unknown pin is unsupported", "z", []candidate{{"a", probeOnly{}}}, "", nil, true},
		{"none that works", "", []candidate{{"a", probeOnly{missing}}, {"b", probeOnly{unknown}}}, "", nil, true},
		{"nothing known is not unsupported", "", []candidate{{"b", probeOnly{unknown}}}, "", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, refused, err := choose(t.Context(), "net.delay", tt.pin, tt.cands)
			if c.name != tt.want || (err == nil) != (tt.want != "") || errors.Is(err, errors.ErrUnsupported) != tt.unsupported {
				t.Errorf("choose = %q, %v; want %q", c.name, err, tt.want)
			}
			if err == nil {
				if diff := cmp.Diff(tt.refused, refused); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestSurveyTellsReasonsAndCures(t *testing.T) {
	missing := &Unsupported{What: "x", Why: "kernel has no x", Cure: "modprobe x"}
	got := survey(t.Context(), "k", []candidate{{"a", probeOnly{missing}}, {"b", probeOnly{}}, {"c", probeOnly{}}})
	if diff := cmp.Diff(Row{Kind: "k", Provider: "b", Verdict: RowOK, Why: "not by a: kernel has no x", Others: Names{"c"}}, got); diff != "" {
		t.Error(diff)
	}
	got = survey(t.Context(), "k", []candidate{{"a", probeOnly{missing}}, {"b", probeOnly{missing}}})
	if diff := cmp.Diff(Row{Kind: "k", Verdict: RowUnavailable, Why: "not by a: kernel has no x; not by b: kernel has no x", Cure: "modprobe x"}, got); diff != "" {
		t.Error(diff)
	}
}
