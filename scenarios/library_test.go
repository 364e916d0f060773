package scenarios

import (
	"slices"
	"strings"
	"testing"
	"time"

	"brownout/internal/plan"
)

func TestBuiltInScenariosAreSound(t *testing.T) {
	all := List()
	if len(all) < 18 || all[0].Name != "quickstart" {
		t.Fatalf("%d scenarios, first %+v", len(all), all[0])
	}
	for _, e := range all {
		s, src, err := Load(e.Name, nil)
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		if s.Name != e.Name || s.File != "builtin:"+e.Name || e.Summary == "" || len(e.Summary) > 100 || len(e.Kinds) == 0 {
			t.Errorf("%s: name %q, file %q, summary %q, kinds %v", e.Name, s.Name, s.File, e.Summary, e.Kinds)
		}
		p, err := Resolve(s, s.Seed, "v0")
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		longest := 25 * time.Second
		if e.Name == "quickstart" || e.Name == "everything" {
			longest = 35 * time.Second
		}
		if end := p.Phases[len(p.Phases)-1].End; end > longest {
			t.Errorf("%s takes %v", e.Name, end)
		}
		for _, must := range []string{"  - linearizable\n", "  - no acknowledged write is lost\n", "time_to_recover("} {
			if !strings.Contains(string(src), must) {
				t.Errorf("%s does not expect %q", e.Name, must)
			}
		}
		if lines := strings.Count(string(src), "\n# ") + 1; lines < 3 {
			t.Errorf("%s explains itself in %d lines", e.Name, lines)
		}
	}
}

// TestEveryKindIsShownOnLeaderAndFollower: where a fault hits is half of what it teaches.
func TestEveryKindIsShownOnLeaderAndFollower(t *testing.T) {
	for _, k := range plan.Kinds {
		for _, role := range []string{"leader", "follower"} {
			found := slices.ContainsFunc(List(), func(e Entry) bool {
				s, _, err := Load(e.Name, nil)
				if err != nil || !strings.Contains(e.Name, role) {
					return false
				}
				f := s.Timeline.Faults
				return len(f) == 1 && f[0].Kind == k.Name && strings.Contains(f[0].On+f[0].From+f[0].To+f[0].Split, role)
			})
			if !found {
				t.Errorf("no scenario shows %s on a %s", k.Name, role)
			}
		}
	}
}
