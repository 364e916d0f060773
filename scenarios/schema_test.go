package scenarios

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func schema(t testing.TB) object {
	t.Helper()
	b, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var s object
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaAcceptsWhatTheParserAccepts(t *testing.T) {
	s := schema(t)
	sources := map[string]string{"small": small, "styled": strings.Replace(styled, "  keys:\n", "  keys: {}\n", 1)}
	for _, e := range List() {
		src, _ := Get(e.Name)
		sources[e.Name] = string(src)
	}
	for name, src := range sources {
		n, err := parseYAML(src)
		if err != nil {
			t.Fatal(err)
		}
		if why := invalid(s, n, ""); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
}

// TestSchemaRefusesTypos: of the parser's mistakes that are in the form and not
// in the meaning, the schema refuses each; and it refuses nothing else.
func TestSchemaRefusesTypos(t *testing.T) {
	s := schema(t)
	refused := 0
	for _, m := range mistakes {
		n, err := parseYAML(strings.Replace(small, m.old, m.new, 1))
		if err != nil {
			continue
		}
		form := strings.Contains(m.msg, "unknown field") || strings.Contains(m.msg, " what?") || strings.Contains(m.msg, "none of") ||
			strings.Contains(m.msg, "has no ") && !strings.Contains(m.msg, "workload has no") || strings.Contains(m.msg, "unknown unit") || strings.Contains(m.msg, "is not in this version") && strings.Contains(m.new, ".")
		if strings.Contains(m.new, "endpoints") || strings.Contains(m.msg, "closed load") { // rules beyond the schema
			form = false
		}
		why := invalid(s, n, "")
		if form && why == "" {
			t.Errorf("%q for %q is accepted", m.new, m.old)
		}
		if why != "" {
			refused++
		}
	}
	if refused < 30 {
		t.Errorf("only %d mistakes refused", refused)
	}
}

// invalid says why n is not valid by the part of JSON Schema that Schema uses.
func invalid(s object, n *node, path string) string {
	if forms, ok := s["anyOf"].([]any); ok {
		var why []string
		for _, f := range forms {
			w := invalid(f.(object), n, path)
			if w == "" {
				return ""
			}
			why = append(why, w)
		}
		return strings.Join(why, ", and ")
	}
	switch s["type"] {
	case "object":
		return invalidObject(s, n, path)
	case "array":
		if n.kind != list || float64(len(n.items)) > s["maxItems"].(float64) {
			return path + " is no list, or too long"
		}
		for i, item := range n.items {
			if why := invalid(s["items"].(object), item, fmt.Sprintf("%s[%d]", path, i)); why != "" {
				return why
			}
		}
		return ""
	case "boolean":
		if n.kind != scalar || n.raw != "true" && n.raw != "false" {
			return path + " is no flag"
		}
		return ""
	case "integer":
		v, ok := new(big.Float).SetString(n.text)
		if n.kind != scalar || !ok || n.raw != n.text || v.Cmp(big.NewFloat(s["minimum"].(float64))) < 0 || v.Cmp(big.NewFloat(s["maximum"].(float64))) > 0 {
			return path + " is no such integer"
		}
		return ""
	case "string":
		return invalidString(s, n, path)
	}
	return fmt.Sprintf("%s: schema without type: %v", path, s)
}

func invalidString(s object, n *node, path string) string {
	if _, isNumber := new(big.Float).SetString(n.raw); n.kind != scalar || isNumber {
		return path + " is no string"
	}
	if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(n.text) {
		return fmt.Sprintf("%s: %q does not match %s", path, n.text, p)
	}
	if words, ok := s["enum"].([]any); ok && !slices.Contains(words, any(n.text)) {
		return fmt.Sprintf("%s: %q is none of %v", path, n.text, words)
	}
	return ""
}

func invalidObject(s object, n *node, path string) string {
	if n.kind != mapping {
		return path + " is no mapping"
	}
	properties := s["properties"].(object)
	for _, e := range n.keys {
		p, ok := properties[e.key].(object)
		if !ok {
			return path + " may not have " + e.key
		}
		if why := invalid(p, e.value, join(path, e.key)); why != "" {
			return why
		}
	}
	required, _ := s["required"].([]any)
	for _, r := range required {
		if n.entry(r.(string)) == nil {
			return path + " has no " + r.(string)
		}
	}
	if one, ok := s["oneOf"].([]any); ok {
		found := 0
		for _, o := range one {
			if n.entry(o.(object)["required"].([]any)[0].(string)) != nil {
				found++
			}
		}
		if found != 1 {
			return fmt.Sprintf("%s has %d of %v", path, found, one)
		}
	}
	return ""
}

// TestEveryFieldIsExplained: a field without a sentence is a field nobody can use.
func TestEveryFieldIsExplained(t *testing.T) {
	var walk func(s *spec, path string)
	walk = func(s *spec, path string) {
		if s.doc == "" {
			t.Errorf("%s has no words of explanation", path)
		}
		if s.begin != nil {
			s.begin(&node{})
		}
		for _, f := range s.fields {
			walk(f.spec, join(path, f.name))
		}
		if s.item != nil {
			walk(s.item(0), path+"[]")
		}
		if s.leaf != nil && len(s.leaf.words) == 0 {
			if msg, _ := s.leaf.read(s.leaf.example); msg != "" {
				t.Errorf("%s: the example %q is refused: %s", path, s.leaf.example, msg)
			}
			if p := s.leaf.pattern; p != "" && !regexp.MustCompile(p).MatchString(s.leaf.example) {
				t.Errorf("%s: the example %q does not match the schema's %s", path, s.leaf.example, p)
			}
		}
	}
	walk(shape(new(Scenario)), "")
}
