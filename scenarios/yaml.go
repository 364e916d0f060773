package scenarios

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a scenario file. The YAML library needs time that grows with the
// square of the number of tokens.
const (
	maxBytes  = 1 << 20
	maxTokens = 20_000
	maxDepth  = 32
)

// A nodeKind says what a node is.
type nodeKind int

const (
	scalar nodeKind = iota
	mapping
	list
	null
)

func (k nodeKind) String() string {
	return [...]string{"a value", "a mapping", "a list", "nothing"}[k]
}

// A place is a line and a column, both from 1, the column in characters.
type place struct{ line, col int }

// A node is a piece of YAML: only what a scenario may consist of.
type node struct {
	kind  nodeKind
	at    place
	text  string  // of a scalar
	raw   string  // of a scalar, as the file has it; "" if it goes over several lines
	flow  bool    // of a mapping or list: written with brackets
	end   place   // of a flow mapping or list: its closing bracket
	items []*node // of a list
	keys  []entry // of a mapping
}

// An entry is a key with its value.
type entry struct {
	key   string
	at    place
	colon place
	value *node
}

// width is how many characters of its line a node's error should underline.
func (n *node) width() int {
	switch {
	case n.kind == scalar && n.raw != "":
		return utf8.RuneCountInString(n.raw)
	case n.flow && n.end.line == n.at.line:
		return n.end.col - n.at.col + 1
	}
	return 1
}

// normalize returns the text of a file with \n line ends and without a byte
// order mark.
func normalize(src []byte) string {
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	return strings.ReplaceAll(strings.ReplaceAll(string(src), "\r\n", "\n"), "\r", "\n")
}

// A yamlError is a mistake in the YAML itself.
type yamlError struct {
	at        place
	msg, hint string
}

func (e *yamlError) Error() string { return fmt.Sprintf("%d:%d %s", e.at.line, e.at.col, e.msg) }

// parseYAML reads one document. Its errors are all [*yamlError].
func parseYAML(text string) (n *node, err error) {
	defer func() { // the library is not ours, and a file may be anything
		if r := recover(); r != nil {
			n, err = nil, &yamlError{at: place{1, 1}, msg: fmt.Sprintf("not understood as YAML (%v)", r)}
		}
	}()
	if err := checkText(text); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(text)
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(err)
	}
	if len(file.Docs) > 1 && file.Docs[1].Body != nil {
		return nil, &yamlError{at: placeOf(file.Docs[1].Body.GetToken()), msg: "a second document; one file is one scenario"}
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil || file.Docs[0].Body.Type() == ast.CommentType {
		return nil, &yamlError{at: place{1, 1}, msg: "the file is empty", hint: "a scenario begins with version: 1"}
	}
	return convert(file.Docs[0].Body, 0)
}

// checkText refuses what is no text before anything else looks at it.
func checkText(text string) error {
	if len(text) > maxBytes {
		return &yamlError{at: place{1, 1}, msg: fmt.Sprintf("%d bytes; a scenario has at most %d", len(text), maxBytes)}
	}
	line, col := 1, 1
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"):
			return &yamlError{at: place{line, col}, msg: fmt.Sprintf("not a text file: byte 0x%02x is no UTF-8", text[i])}
		case r < ' ' && r != '\n' && r != '\t' || r == 0x7f:
			return &yamlError{at: place{line, col}, msg: fmt.Sprintf("not a text file: control character 0x%02x", r)}
		case r == '\t' && strings.TrimSpace(lineUpTo(text, i)) == "":
			return &yamlError{at: place{line, col}, msg: "a tab in the indentation", hint: "YAML indents with spaces"}
		}
		if col++; r == '\n' {
			line, col = line+1, 1
		}
	}
	return nil
}

func lineUpTo(text string, i int) string {
	return text[strings.LastIndexByte(text[:i], '\n')+1 : i]
}

// checkTokens refuses what would take the parser too long or too deep.
func checkTokens(tokens token.Tokens) error {
	if len(tokens) > maxTokens {
		return &yamlError{at: placeOf(tokens[maxTokens]), msg: fmt.Sprintf("too much for a scenario: more than %d words and signs", maxTokens)}
	}
	depth, dashes, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			dashes++
		}
		if depth > maxDepth || dashes > maxDepth || t.Position.IndentLevel > maxDepth {
			return &yamlError{at: placeOf(t), msg: fmt.Sprintf("nested deeper than %d levels", maxDepth)}
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return &yamlError{at: placeOf(t), msg: "anchors, aliases and merge keys are not used in scenarios", hint: "write it out"}
		case token.TagType, token.DirectiveType:
			return &yamlError{at: placeOf(t), msg: "tags and directives are not used in scenarios"}
		}
	}
	return nil
}

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(1, t.Position.Line), max(1, t.Position.Column)}
}

func syntaxError(err error) error {
	var y yaml.Error
	if errors.As(err, &y) {
		return &yamlError{at: placeOf(y.GetToken()), msg: y.GetMessage()}
	}
	return &yamlError{at: place{1, 1}, msg: err.Error()}
}

// convert turns the library's tree into ours.
func convert(a ast.Node, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, &yamlError{at: placeOf(a.GetToken()), msg: fmt.Sprintf("nested deeper than %d levels", maxDepth)}
	}
	n := &node{at: placeOf(a.GetToken())}
	switch a := a.(type) {
	case *ast.MappingNode:
		return n, n.fillMapping(a, depth)
	case *ast.SequenceNode:
		n.kind, n.flow = list, a.IsFlowStyle
		if n.at = placeOf(a.Start); a.End != nil {
			n.end = placeOf(a.End)
		}
		for _, v := range a.Values {
			item, err := convert(v, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case *ast.NullNode:
		n.kind = null
		return n, nil
	case *ast.LiteralNode:
		n.at = placeOf(a.Start)
		n.text = a.Value.Value
		return n, nil
	case ast.ScalarNode:
		t := a.GetToken()
		n.text, n.raw = t.Value, strings.TrimSpace(t.Origin)
		if strings.Contains(n.raw, "\n") {
			n.raw = ""
		}
		if s, ok := a.(*ast.StringNode); ok {
			n.text = s.Value
		}
		return n, nil
	}
	return nil, &yamlError{at: n.at, msg: fmt.Sprintf("%s is not used in scenarios", strings.ToLower(a.Type().String()))}
}

func (n *node) fillMapping(a *ast.MappingNode, depth int) error {
	n.kind, n.flow = mapping, a.IsFlowStyle
	if a.IsFlowStyle && a.Start != nil {
		n.at = placeOf(a.Start)
	}
	if a.End != nil {
		n.end = placeOf(a.End)
	}
	for i, v := range a.Values {
		key, ok := v.Key.(ast.ScalarNode)
		if !ok {
			return &yamlError{at: placeOf(v.GetToken()), msg: "a key must be a plain word"}
		}
		value, err := convert(v.Value, depth+1)
		if err != nil {
			return err
		}
		e := entry{key: key.GetToken().Value, at: placeOf(key.GetToken()), colon: placeOf(v.Start), value: value}
		if i == 0 && !n.flow {
			n.at = e.at
		}
		n.keys = append(n.keys, e)
	}
	return nil
}
