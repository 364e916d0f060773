package scenarios

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"brownout/internal/nearest"
	"brownout/internal/plan"
)

// Load reads the scenario that arg names, a file or a built-in one, after the
// overrides set, each PATH=VALUE. It returns the source with the overrides
// applied, which gives the same scenario when it is read again. All mistakes of
// a scenario come as one [Errors].
func Load(arg string, set []string) (*Scenario, []byte, error) {
	src, ok := builtin(arg)
	if ok {
		return parse(src, "builtin:"+arg, set)
	}
	src, err := readFile(arg)
	if errors.Is(err, os.ErrNotExist) && arg == filepath.Base(arg) && filepath.Ext(arg) == "" {
		hint := nearest.Hint(arg, names())
		if hint == "" {
			hint = "brownout list names the built-in ones"
		}
		return nil, nil, &Error{File: arg, Msg: "no such scenario: neither a built-in one nor a file", Hint: hint}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read scenario: %w", err)
	}
	return parse(src, arg, set)
}

// readFile reads a file of any kind, but never more than a scenario can be.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, fmt.Errorf("%s is a directory", name)
	}
	return io.ReadAll(io.LimitReader(f, maxBytes+2))
}

// Parse reads a scenario file. name is what the user called it. All mistakes
// come as one [Errors], each with its place.
func Parse(src []byte, name string) (*Scenario, error) {
	s, _, err := parse(src, name, nil)
	return s, err
}

func parse(src []byte, name string, set []string) (*Scenario, []byte, error) {
	doc := &document{name: name, text: normalize(src)}
	if err := doc.read(); err != nil {
		return nil, nil, Errors{doc.yamlMistake(err)}
	}
	errs := doc.apply(set)
	if len(doc.set) > 0 {
		src = []byte(doc.text)
	}
	s, more := doc.scenario()
	if errs = append(errs, more...); len(errs) > 0 {
		return nil, nil, errs
	}
	sum := sha256.Sum256(src)
	s.File, s.Hash = name, hex.EncodeToString(sum[:])
	return s, src, nil
}

// A document is a scenario's text and its tree, with the overrides so far.
type document struct {
	name     string
	text     string
	root     *node
	set      []override // applied
	inserted []int      // lines that overrides added; the user's file does not have them
}

func (doc *document) read() (err error) {
	doc.root, err = parseYAML(doc.text)
	return err
}

func (doc *document) lines() []string { return strings.Split(doc.text, "\n") }

// shown returns the user's number of a line, 0 for one that an override added.
func (doc *document) shown(line int) int {
	if slices.Contains(doc.inserted, line) {
		return 0
	}
	before := 0
	for _, l := range doc.inserted {
		if l < line {
			before++
		}
	}
	return line - before
}

func (doc *document) yamlMistake(err error) *Error {
	var y *yamlError
	if !errors.As(err, &y) {
		y = &yamlError{at: place{1, 1}, msg: err.Error()}
	}
	return doc.place(&Error{Line: y.at.line, Col: y.at.col, Width: 1, Msg: y.msg, Hint: y.hint})
}

// place gives an error whose Line and Col count in the text its file and its
// excerpt. A mistake within an override is the override's.
func (doc *document) place(e *Error) *Error {
	e.File = doc.name
	for _, o := range doc.set {
		if e.Path == o.path || under(e.Path, o.path) {
			return &Error{File: "--set " + o.text, Path: e.Path, Msg: e.Msg, Hint: e.Hint}
		}
	}
	if e.Line > 0 {
		e.Excerpt = excerpt(doc.lines(), doc.shown, e.Line, e.Col, e.Width)
		e.Line = doc.shown(e.Line)
	}
	return e
}

// besideIt makes the files that parameters name as @FILE relative to the
// scenario's own directory, wherever brownout is started.
func (doc *document) besideIt() {
	dir := filepath.Dir(doc.name)
	faults := doc.root.find("timeline.faults")
	if faults == nil || strings.HasPrefix(doc.name, "builtin:") {
		return
	}
	for _, f := range faults.items {
		for _, e := range f.keys {
			k, _ := plan.KindNamed(e.key)
			for _, p := range k.Params {
				if v := e.value.entry(p.Name); p.Type == plan.Durations && v != nil && v.value.kind == scalar {
					if name, ok := strings.CutPrefix(v.value.text, "@"); ok && !filepath.IsAbs(name) {
						v.value.text = "@" + filepath.Join(dir, name)
					}
				}
			}
		}
	}
}

// scenario decodes and checks the tree.
func (doc *document) scenario() (*Scenario, Errors) {
	s := &Scenario{}
	doc.besideIt()
	d := &decoder{marks: map[string]mark{}}
	d.decode(doc.root, shape(s), "")
	full := s.withDefaults()
	for _, p := range full.problems() {
		if d.bad(p.path) || slices.ContainsFunc(p.needs, d.bad) {
			continue // said already, or nothing to say
		}
		m := d.mark(p.path)
		e := &Error{Path: p.path, Line: m.at.line, Col: m.at.col, Width: m.width, Msg: p.msg, Hint: p.hint}
		if p.width > 0 {
			e.Col, e.Width = inside(doc.root.find(p.path), m, p)
		}
		d.errs = append(d.errs, e)
	}
	slices.SortStableFunc(d.errs, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	for i, e := range d.errs {
		d.errs[i] = doc.place(e)
	}
	for i := range full.Expect {
		full.Expect[i].Line = doc.shown(full.Expect[i].Line)
	}
	for i := range full.Timeline.Faults {
		full.Timeline.Faults[i].Line = doc.shown(full.Timeline.Faults[i].Line)
	}
	return &full, d.errs
}

// mark returns where a path stands, or the nearest thing above it.
func (d *decoder) mark(path string) mark {
	for {
		if m, ok := d.marks[path]; ok {
			return m
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return d.marks[""]
		}
		path = path[:i]
	}
}

// inside returns column and width of a mistake within a sentence. A quoted
// sentence begins one character later; one over several lines is marked as a whole.
func inside(n *node, m mark, p problem) (col, width int) {
	if n == nil || n.raw == "" {
		return m.at.col, m.width
	}
	shift := 0
	if n.raw != n.text {
		shift = strings.Index(n.raw, n.text)
		if shift < 0 {
			return m.at.col, m.width
		}
	}
	return m.at.col + shift + p.start, p.width
}
