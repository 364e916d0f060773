package scenarios

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.yaml bugs/*.yaml
var library embed.FS

// An Entry is one built-in scenario.
type Entry struct {
	Name    string   `json:"name"`
	Summary string   `json:"summary"` // one line: what it teaches
	Kinds   []string `json:"kinds"`   // of its faults, without repetition
}

// Scenarios that find a planted bug are no lessons, but tests of the testbed:
// bug-NAME is in bugs/NAME.yaml.
const (
	bugPrefix = "bug-"
	bugDir    = "bugs/"
)

// List returns the built-in scenarios: quickstart and everything first, the
// others by name.
func List() []Entry { return entries(names()) }

// ListBugs returns the scenarios of planted bugs, by name.
func ListBugs() []Entry {
	files, _ := fs.Glob(library, bugDir+"*.yaml") // the pattern is good
	for i := range files {
		files[i] = bugPrefix + strings.TrimSuffix(strings.TrimPrefix(files[i], bugDir), ".yaml")
	}
	return entries(files)
}

func entries(names []string) []Entry {
	var out []Entry
	for _, name := range names {
		src, _ := builtin(name)
		e := Entry{Name: name, Summary: summary(string(src)), Kinds: []string{}}
		if s, err := Parse(src, "builtin:"+name); err == nil { // a test parses them all
			for _, f := range s.Timeline.Faults {
				if !slices.Contains(e.Kinds, f.Kind) {
					e.Kinds = append(e.Kinds, f.Kind)
				}
			}
		}
		out = append(out, e)
	}
	return out
}

// Get returns the source of a built-in scenario.
func Get(name string) ([]byte, bool) { return builtin(name) }

func builtin(name string) ([]byte, bool) {
	if strings.ContainsAny(name, `/\.`) {
		return nil, false
	}
	if bug, ok := strings.CutPrefix(name, bugPrefix); ok {
		name = bugDir + bug
	}
	b, err := library.ReadFile(name + ".yaml")
	return b, err == nil
}

func names() []string {
	files, _ := fs.Glob(library, "*.yaml") // the pattern is good
	out := []string{"quickstart", "everything"}
	for _, f := range files {
		if n := strings.TrimSuffix(f, ".yaml"); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return slices.DeleteFunc(out, func(n string) bool { _, ok := builtin(n); return !ok })
}

// summary is the first comment line of a scenario.
func summary(src string) string {
	for line := range strings.Lines(src) {
		if text, ok := strings.CutPrefix(line, "# "); ok && !strings.HasPrefix(text, "yaml-language-server") {
			return strings.TrimSpace(text)
		}
	}
	return ""
}
