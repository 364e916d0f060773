package plan

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write docs/FAULTS.md")

const faultsDoc = "../../docs/FAULTS.md"

func TestFaultsDocIsWhatTheVocabularySays(t *testing.T) {
	var b bytes.Buffer
	if err := Markdown(&b); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(faultsDoc, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(faultsDoc)
	if err != nil || !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s differs from internal/plan/kinds_*.go (%v): go test ./internal/plan -update", faultsDoc, err)
	}
}

func TestKindsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds {
		if k.Doc == "" || k.Mechanism == "" || k.Probe == "" || seen[k.Name] {
			t.Errorf("kind %s: twice, or without words", k.Name)
		}
		if len(Providers[k.Name]) == 0 {
			t.Errorf("kind %s: no providers in providers.go", k.Name)
		}
		seen[k.Name] = true
		if got, ok := KindNamed(k.Name); !ok || got.Name != k.Name {
			t.Errorf("KindNamed(%q) = %q, %v", k.Name, got.Name, ok)
		}
		for _, p := range k.Params {
			if p.Doc == "" || p.Type == Word && p.Words == nil {
				t.Errorf("%s %s: no doc, or a word without words", k.Name, p.Name)
			}
		}
	}
}

func TestParamsReadBackWhatJSONMadeOfThem(t *testing.T) {
	p := Params{"add_ns": int64(20e6), "percent": 12.5, "op": "fsync", "one_way": true}
	q := Params{"add_ns": 20e6, "percent": 12.5, "op": "fsync", "one_way": true}
	for _, x := range []Params{p, q} {
		if x.Duration("add") != 20e6 || x.Float("percent") != 12.5 || x.String("op") != "fsync" || !x.Bool("one_way") || x.Has("jitter") {
			t.Errorf("%v does not read back", x)
		}
	}
}
