package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	store := filepath.Join(t.TempDir(), StoreDir)
	ids := []string{
		NewID(time.Unix(1000, 0), "quickstart", "aa11"),
		NewID(time.Unix(2000, 0), "everything", "bb22"),
		NewID(time.Unix(3000, 0), "quickstart", "ab33"),
	}
	for _, id := range ids {
		dir := filepath.Join(store, id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ManifestFile), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := MarkLatest(store, id); err != nil {
			t.Fatal(err)
		}
	}
	up := filepath.Join(store, NewID(time.Unix(4000, 0), "up", "cc44")) // a standing cluster's
	if err := os.MkdirAll(up, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(up, PlanFile), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(filepath.Join(store, "latest")); err != nil || to != ids[2] {
		t.Errorf("latest = %q, %v; want %q", to, err, ids[2])
	}
	for _, tt := range []struct {
		name, word, want, err string
	}{
		{"the newest", "latest", ids[2], ""},
		{"the one before", "latest~1", ids[1], ""},
		{"too far back", "latest~3", "", "holds 3 runs"},
		{"no count", "latest~x", "", "is no count"},
		{"a whole id", ids[0], ids[0], ""},
		{"a prefix of the suffix", "bb", ids[1], ""},
		{"a prefix that is not unique", "a", "", "2 match"},
		{"a prefix of the time", ids[1][:19], ids[1], ""},
		{"no word", "", "", "no name"},
		{"nothing", "zz", "", "none of the 3"},
		{"a path", filepath.Join(store, ids[0]), ids[0], ""},
		{"a path to something else", store, "", "not a run's directory"},
		{"a standing cluster's directory", up, "", "not a run's directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Find(store, tt.word)
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("Find(%q) = %q, %v; want an error with %q", tt.word, got, err, tt.err)
				}
			case err != nil || filepath.Base(got) != tt.want:
				t.Errorf("Find(%q) = %q, %v; want %q", tt.word, got, err, tt.want)
			}
		})
	}
}
