package scenarios

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"brownout/internal/nearest"
)

// A spec says what may stand at one place of a scenario: fields, items or a
// value. The decoder, the overrides and the JSON schema are loops over specs.
type spec struct {
	doc    string
	fields []field           // of a mapping
	oneOf  []string          // of a mapping: exactly one of these fields
	noun   string            // what one of oneOf is
	choice []string          // of a mapping: exactly one of these as well, which whoever checks the whole says
	item   func(i int) *spec // of a list
	most   int               // items of a list
	leaf   *leaf             // of a value; beside fields, a short form for them
	begin  func(n *node)     // told the node before it is decoded
	absent map[string]string // of a mapping: known words that are no fields here, and why
}

// A field is a named member of a mapping.
type field struct {
	name     string
	required bool
	spec     *spec
}

// A leaf is a value written as text.
type leaf struct {
	example string
	words   []string // the only ones, if any
	pattern string   // regular expression of the schema; "" for any text
	integer bool     // written without quotes in the schema
	flag    bool     // true or false
	least   int64    // of an integer
	most    int64
	set     func(text string) error
}

func (s *spec) field(name string) *field {
	for i := range s.fields {
		if s.fields[i].name == name {
			return &s.fields[i]
		}
	}
	return nil
}

func (s *spec) names() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.name
	}
	return names
}

// expected says what may be written here.
func (s *spec) expected() string {
	switch {
	case s.leaf != nil && len(s.fields) > 0:
		return s.leaf.example + " or fields: " + strings.Join(s.names(), ", ")
	case s.leaf != nil:
		return s.leaf.example
	case s.item != nil:
		return "a list"
	}
	return "fields: " + strings.Join(s.names(), ", ")
}

// wanted suggests how to write a field that is missing.
func (s *spec) wanted(name string) string {
	if s.leaf != nil {
		return "write " + name + ": " + s.leaf.example
	}
	return name + " has " + s.expected()
}

// A mark is where a path's node stands.
type mark struct {
	at    place
	width int
}

// A decoder fills a scenario from nodes and collects every mistake.
type decoder struct {
	marks  map[string]mark
	failed []string // paths that could not be decoded; what depends on them is not judged
	errs   []*Error
	above  []level // the mappings around what is being decoded
}

// A level is a mapping and its path.
type level struct {
	spec *spec
	path string
}

// fail records a mistake at a place.
func (d *decoder) fail(path string, at place, width int, msg, hint string) {
	d.failed = append(d.failed, path)
	d.errs = append(d.errs, &Error{Path: path, Line: at.line, Col: at.col, Width: width, Msg: msg, Hint: hint})
}

// bad reports whether something at, above or below path could not be decoded.
func (d *decoder) bad(path string) bool {
	return slices.ContainsFunc(d.failed, func(f string) bool { return f == path || under(f, path) || under(path, f) })
}

// under reports whether path lies below top.
func under(path, top string) bool {
	rest, ok := strings.CutPrefix(path, top)
	return ok && (top == "" || strings.HasPrefix(rest, ".") || strings.HasPrefix(rest, "["))
}

// join appends a field's name to a path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// decode reads n as s says.
func (d *decoder) decode(n *node, s *spec, path string) {
	d.marks[path] = mark{n.at, n.width()}
	if s.begin != nil {
		s.begin(n)
	}
	switch {
	case n.kind == null:
		d.fail(path, n.at, 1, last(path)+" is empty", "write "+s.expected())
	case n.kind == mapping && len(s.fields) > 0:
		d.mapping(n, s, path)
	case n.kind == list && s.item != nil:
		d.list(n, s, path)
	case n.kind == scalar && s.leaf != nil:
		if msg, hint := s.leaf.read(n.text); msg != "" {
			d.fail(path, n.at, n.width(), msg, hint)
		}
	default:
		hint := ""
		if n.kind == mapping && s.leaf != nil && n.flow {
			hint = "quote text that begins with {"
		} else if n.kind == mapping && s.leaf != nil && len(n.keys) == 1 {
			hint = "quote text that holds a colon"
		}
		d.fail(path, n.at, n.width(), fmt.Sprintf("%s is %s; expected %s", last(path), n.kind, s.expected()), hint)
	}
}

// last returns the name at the end of a path.
func last(path string) string {
	if path == "" {
		return "the scenario"
	}
	for _, kind := range kindNames() { // a name with a dot
		if strings.HasSuffix(path, "."+kind) {
			return kind
		}
	}
	if i := strings.LastIndexByte(path, '['); i >= 0 && strings.HasSuffix(path, "]") {
		return path[strings.LastIndexByte(path[:i], '.')+1:]
	}
	return path[strings.LastIndexByte(path, '.')+1:]
}

// read sets the leaf, or says what is wrong with text.
func (l *leaf) read(text string) (msg, hint string) {
	if len(l.words) > 0 && !slices.Contains(l.words, text) {
		return fmt.Sprintf("%q is none of %s", text, strings.Join(l.words, ", ")), nearest.Hint(strings.ToLower(text), l.words)
	}
	if err := l.set(text); err != nil {
		if h, ok := err.(*hinted); ok {
			return h.msg, h.hint
		}
		return err.Error(), ""
	}
	return "", ""
}

// hinted is an error with a suggestion.
type hinted struct{ msg, hint string }

func (h *hinted) Error() string { return h.msg }

func (d *decoder) mapping(n *node, s *spec, path string) {
	d.above = append(d.above, level{s, path})
	defer func() { d.above = d.above[:len(d.above)-1] }()
	seen := map[string]entry{}
	for _, e := range n.keys {
		f := s.field(e.key)
		if f == nil {
			d.unknown(e, s, path)
			continue
		}
		if first, twice := seen[e.key]; twice {
			d.fail(join(path, e.key), e.at, len([]rune(e.key)), fmt.Sprintf("%s is written twice; first on line %d", e.key, first.at.line), "")
			continue
		}
		seen[e.key] = e
		if i := slices.IndexFunc(s.oneOf, func(o string) bool { _, ok := seen[o]; return ok && o != e.key }); i >= 0 && slices.Contains(s.oneOf, e.key) {
			d.fail(join(path, e.key), e.at, len([]rune(e.key)), fmt.Sprintf("%s beside %s; one entry is one %s", e.key, s.oneOf[i], s.noun), "write two entries")
			continue
		}
		if e.value.kind == null { // point at the key, the value is not there
			e.value = &node{kind: null, at: e.at}
		}
		d.decode(e.value, f.spec, join(path, e.key))
	}
	for _, f := range s.fields {
		if _, ok := seen[f.name]; f.required && !ok && !slices.Contains(d.failed, join(path, f.name)) {
			d.fail(join(path, f.name), n.at, n.width(), fmt.Sprintf("%s has no %s", last(path), f.name), f.spec.wanted(f.name))
		}
	}
	if len(s.oneOf) > 0 && !slices.ContainsFunc(s.oneOf, func(o string) bool { _, ok := seen[o]; return ok }) && !d.bad(path) {
		d.fail(path, n.at, n.width(), "no "+s.noun+" in this entry", "add one of "+strings.Join(s.oneOf, ", "))
	}
}

// unknown records a key that is no field.
func (d *decoder) unknown(e entry, s *spec, path string) {
	msg, hint := fmt.Sprintf("unknown field %q", e.key), nearest.Hint(strings.ToLower(e.key), s.names())
	if why, ok := s.absent[e.key]; ok {
		msg, hint = why, ""
	} else if hint == "" {
		hint = cmp.Or(d.elsewhere(e.key), "here may be "+strings.Join(s.names(), ", "))
	}
	d.fail(join(path, e.key), e.at, len([]rune(e.key)), msg, hint)
	if meant := nearest.Word(strings.ToLower(e.key), s.names()); meant != "" {
		d.failed = append(d.failed, join(path, meant)) // it is there, misspelt
	}
}

// elsewhere says where a field of this name may be written: around the mapping that
// is being decoded, or in one place of the whole scenario; empty if there is none.
func (d *decoder) elsewhere(name string) string {
	here := d.above[len(d.above)-1]
	for _, l := range slices.Backward(d.above[:len(d.above)-1]) {
		if l.spec.field(name) != nil {
			return fmt.Sprintf("%s is a field of %s, beside %s", name, last(l.path), next(l.path, here.path))
		}
	}
	if all := d.above[0].spec.find(name, ""); len(all) == 1 {
		return "did you mean " + all[0] + "?"
	}
	return ""
}

// find returns the paths of all fields of this name but those in lists.
func (s *spec) find(name, path string) (paths []string) {
	for _, f := range s.fields {
		if f.name == name {
			paths = append(paths, join(path, name))
		}
		paths = append(paths, f.spec.find(name, join(path, f.name))...)
	}
	return paths
}

// next is the first name on the way from top down to path.
func next(top, path string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(path, top), ".")
	for _, kind := range kindNames() { // a name with a dot
		if rest == kind || under(rest, kind) {
			return kind
		}
	}
	return rest[:strings.IndexAny(rest+".", ".[")]
}

func (d *decoder) list(n *node, s *spec, path string) {
	for i, item := range n.items {
		if i == s.most {
			d.fail(path, item.at, 1, fmt.Sprintf("%d entries; %s has at most %d", len(n.items), last(path), s.most), "")
			return
		}
		d.decode(item, s.item(i), path+"["+strconv.Itoa(i)+"]")
	}
}
