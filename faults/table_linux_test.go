package faults

import (
	"slices"
	"testing"

	"brownout/internal/plan"
)

func TestProvidersHaveTheNamesThatFilesUse(t *testing.T) {
	for _, r := range table {
		var names []string
		for _, s := range r.sources {
			names = append(names, s.name)
		}
		if want := plan.Providers[r.kind]; !slices.Equal(names, want) {
			t.Errorf("%s is given by %q, plan.Providers has %q", r.kind, names, want)
		}
	}
}
