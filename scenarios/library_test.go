package scenarios

import (
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

// TestEveryKindIsShown: each in a scenario of its own, and those with a role's
// name in theirs hit that role.
func TestEveryKindIsShown(t *testing.T) {
	shown := map[string]bool{}
	for _, e := range List() {
		s, _, err := Load(e.Name, nil)
		if err != nil || len(s.Timeline.Faults) != 1 {
			continue
		}
		f := s.Timeline.Faults[0]
		shown[f.Kind] = true
		for _, role := range []string{"leader", "follower"} {
			if strings.HasSuffix(e.Name, "-"+role) && !strings.Contains(f.On+f.From+f.To+f.Split+f.Params.String("isolate"), role) {
				t.Errorf("%s does not hit a %s", e.Name, role)
			}
		}
	}
	for _, k := range plan.Kinds {
		if !shown[k.Name] {
			t.Errorf("no scenario shows %s alone", k.Name)
		}
	}
}
