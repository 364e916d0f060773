package scenarios

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"brownout/internal/nearest"
)

// An override is one --set that was applied.
type override struct {
	path string
	text string // as the user wrote it
}

// apply puts overrides into the text, one after the other, and reads it again,
// so that the text with its overrides is a scenario file of its own. Comments,
// order and the user's line numbers stay.
func (doc *document) apply(set []string) (errs Errors) {
	for _, text := range set {
		if err := doc.override(text); err != nil {
			e := &Error{File: "--set " + text, Msg: err.Error()}
			if h, ok := err.(*hinted); ok {
				e.Msg, e.Hint = h.msg, h.hint
			}
			errs = append(errs, e)
		}
	}
	return errs
}

func (doc *document) override(text string) error {
	path, value, ok := strings.Cut(text, "=")
	if !ok || path == "" {
		return &hinted{"want PATH=VALUE", "as in workload.load.rate=500/s"}
	}
	path = strings.TrimSpace(path)
	t, err := doc.locate(path)
	if err != nil {
		return err
	}
	yaml, err := asYAML(value)
	if err != nil {
		return err
	}
	before := *doc
	if err := doc.splice(t, yaml); err != nil {
		return err
	}
	if err := doc.read(); err != nil {
		*doc = before
		return fmt.Errorf("%s does not fit here: %v", value, err)
	}
	if n := doc.root.find(path); n == nil || n.kind == scalar && n.text != value {
		*doc = before
		return fmt.Errorf("%s cannot be set in the way that this file is written", path)
	}
	doc.set = append(doc.set, override{path, text})
	return nil
}

// A target is where an override goes.
type target struct {
	node  *node    // to be replaced, or the mapping that lacks the rest
	entry *entry   // that holds node, if it is in a mapping
	rest  []string // fields that are missing below node
}

// locate follows a path through format and file.
func (doc *document) locate(path string) (target, error) {
	sp := shape(new(Scenario))
	t := target{node: doc.root}
	for rest, done := path, ""; rest != ""; {
		if len(sp.fields) == 0 && sp.item == nil {
			return t, fmt.Errorf("%s is a value and has nothing below it", done)
		}
		if sp.item != nil {
			i, after, err := index(rest, done)
			if err != nil {
				return t, err
			}
			n := 0
			if len(t.rest) == 0 && t.node.kind == list {
				n = len(t.node.items)
			}
			if i >= n {
				return t, fmt.Errorf("%s[%d] does not exist: %s has %s", done, i, done, count(n, "entry"))
			}
			t.node, t.entry = t.node.items[i], nil
			sp, done, rest = sp.item(i), path[:len(path)-len(after)], strings.TrimPrefix(after, ".")
			continue
		}
		f, after := sp.match(rest)
		if f == nil {
			return t, doc.unknownPath(sp, rest, done)
		}
		switch e := t.node.entry(f.name); {
		case len(t.rest) > 0 || t.node.kind == mapping && e == nil:
			t.rest = append(t.rest, f.name)
		case t.node.kind != mapping:
			return t, fmt.Errorf("%s is %s in this file and has no %s; set it as a whole, as in %s={%s: ...}", done, t.node.kind, f.name, done, f.name)
		default:
			t.node, t.entry = e.value, e
		}
		sp, done, rest = f.spec, path[:len(path)-len(after)], strings.TrimPrefix(after, ".")
	}
	return t, nil
}

// match returns the field that a path begins with and what follows it. Names
// may hold dots, as disk.delay does.
func (s *spec) match(path string) (*field, string) {
	for i := range s.fields {
		if after, ok := strings.CutPrefix(path, s.fields[i].name); ok && (after == "" || after[0] == '.' || after[0] == '[') {
			return &s.fields[i], after
		}
	}
	return nil, ""
}

// index reads "[2].more" and returns 2 and ".more".
func index(rest, done string) (int, string, error) {
	digits, after, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]")
	i, err := strconv.Atoi(digits)
	if !ok || rest[0] != '[' || err != nil || i < 0 {
		return 0, "", &hinted{fmt.Sprintf("%s is a list", done), fmt.Sprintf("name an entry, as in %s[0]", done)}
	}
	return i, after, nil
}

// unknownPath says which part of a path does not exist, and what was meant:
// a neighbour, or a field of that name elsewhere.
func (doc *document) unknownPath(sp *spec, rest, done string) error {
	name := rest
	if i := strings.IndexAny(rest, ".["); i > 0 {
		name = rest[:i]
	}
	where := "a scenario"
	if done != "" {
		where = done
	}
	hint := ""
	for _, p := range paths(shape(new(Scenario)), "") {
		if strings.HasSuffix(p, "."+name) {
			hint = fmt.Sprintf("did you mean %q?", p+rest[len(name):])
			break
		}
	}
	if hint == "" {
		hint = nearest.Hint(name, sp.names())
	}
	if hint == "" {
		hint = "there are " + strings.Join(sp.names(), ", ")
	}
	return &hinted{fmt.Sprintf("%s has no field %q", where, name), hint}
}

// paths lists all fields that are not inside lists.
func paths(sp *spec, at string) (out []string) {
	for _, f := range sp.fields {
		p := join(at, f.name)
		out = append(append(out, p), paths(f.spec, p)...)
	}
	return out
}

// entry returns the mapping's entry for a key, or nil.
func (n *node) entry(key string) *entry {
	for i := range n.keys {
		if n.keys[i].key == key {
			return &n.keys[i]
		}
	}
	return nil
}

// find returns the node at a path, or nil.
func (n *node) find(path string) *node {
	for path != "" && n != nil {
		if strings.HasPrefix(path, "[") {
			i, after, err := index(path, "")
			if err != nil || i >= len(n.items) {
				return nil
			}
			n, path = n.items[i], strings.TrimPrefix(after, ".")
			continue
		}
		var next *node
		for _, e := range n.keys {
			if after, ok := strings.CutPrefix(path, e.key); ok && (after == "" || after[0] == '.' || after[0] == '[') {
				next, path = e.value, strings.TrimPrefix(after, ".")
				break
			}
		}
		n = next
	}
	return n
}

// plain matches text that means itself anywhere in YAML.
var plain = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9 ./%_+-]*[A-Za-z0-9%])?$`) })

// asYAML writes a value so that it fits anywhere, also between braces.
func asYAML(value string) (string, error) {
	if strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[") {
		n, err := parseYAML(value)
		if err != nil {
			return "", err
		}
		if !n.flow || strings.Contains(value, "\n") {
			return "", fmt.Errorf("%s is not one YAML mapping or list on one line", value)
		}
		return value, nil
	}
	if plain().MatchString(value) {
		return value, nil
	}
	return strconv.Quote(value), nil
}

// splice writes value to where t is.
func (doc *document) splice(t target, value string) error {
	if len(t.rest) > 0 {
		return doc.insert(t, value)
	}
	from, to, err := doc.extent(t)
	if err != nil {
		return err
	}
	if doc.text[from-1] == ':' {
		value = " " + value
	}
	lost := strings.Count(doc.text[from:to], "\n") // lines keep their numbers
	doc.text = doc.text[:from] + value + strings.Repeat("\n", lost) + doc.text[to:]
	return nil
}

// insert adds fields that are not in the file, behind the opening brace of a
// mapping or as a line above its first field.
func (doc *document) insert(t target, value string) error {
	last := len(t.rest) - 1
	added := t.rest[last] + ": " + value
	for i := last - 1; i >= 0; i-- {
		added = t.rest[i] + ": {" + added + "}"
	}
	if t.node.kind != mapping {
		return fmt.Errorf("%s cannot be added to %s", strings.Join(t.rest, "."), t.node.kind)
	}
	if t.node.flow {
		at := doc.offset(t.node.at) + 1
		if len(t.node.keys) > 0 {
			added += ", "
		}
		doc.text = doc.text[:at] + added + doc.text[at:]
		return nil
	}
	first := t.node.keys[0].at
	at := doc.offset(first)
	doc.text = doc.text[:at] + added + "\n" + strings.Repeat(" ", first.col-1) + doc.text[at:]
	for i, l := range doc.inserted {
		if l >= first.line {
			doc.inserted[i]++
		}
	}
	doc.inserted = append(doc.inserted, first.line)
	return nil
}

// extent returns the bytes of the text that a node consists of.
func (doc *document) extent(t target) (from, to int, err error) {
	n := t.node
	from = doc.offset(n.at)
	switch {
	case n.kind == scalar && n.raw != "" && strings.HasPrefix(doc.text[from:], n.raw):
		return from, from + len(n.raw), nil
	case n.flow && n.end.line > 0:
		return from, doc.offset(n.end) + 1, nil
	case n.kind == null && t.entry != nil:
		from = doc.offset(t.entry.colon) + 1
		line, _, _ := strings.Cut(doc.text[from:], "\n")
		for _, word := range []string{"~", "null", "Null", "NULL"} {
			if strings.HasPrefix(strings.TrimLeft(line, " "), word) {
				return from, from + strings.Index(line, word) + len(word), nil
			}
		}
		return from, from, nil
	case n.kind == mapping || n.kind == list:
		last, ok := n.lastLine()
		if !ok {
			break
		}
		if t.entry != nil {
			from = doc.offset(t.entry.colon) + 1
		}
		to = doc.offset(place{last + 1, 1})
		if to > 0 && to <= len(doc.text) && doc.text[to-1] == '\n' {
			to--
		}
		return from, to, nil
	}
	return 0, 0, fmt.Errorf("it goes over several lines; change the file, or set a part of it")
}

// lastLine returns the line on which a node ends; false if that is not known.
func (n *node) lastLine() (int, bool) {
	line := n.at.line
	switch {
	case n.flow:
		return n.end.line, n.end.line > 0
	case n.kind == scalar && n.raw == "":
		return 0, false
	}
	for _, item := range n.items {
		l, ok := item.lastLine()
		if !ok {
			return 0, false
		}
		line = max(line, l)
	}
	for _, e := range n.keys {
		l, ok := e.value.lastLine()
		if !ok {
			return 0, false
		}
		line = max(line, l, e.at.line)
	}
	return line, true
}

// offset returns where in the text a place is.
func (doc *document) offset(p place) int {
	at := 0
	for line := 1; line < p.line; line++ {
		i := strings.IndexByte(doc.text[at:], '\n')
		if i < 0 {
			return len(doc.text)
		}
		at += i + 1
	}
	col := 1
	for i, r := range doc.text[at:] {
		if col == p.col || r == '\n' {
			return at + i
		}
		col++
	}
	return len(doc.text)
}
