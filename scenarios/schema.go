package scenarios

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// schemaID names the schema; nothing is fetched from it.
const schemaID = "https://brownout.invalid/schema/scenario-1.json"

// Schema returns the JSON schema (draft 2020-12) of scenario files, for
// editors. It is made from the tables that the parser reads. What it accepts
// may still be refused by the parser, which also knows how fields depend on
// each other; what it refuses, the parser refuses.
func Schema() ([]byte, error) {
	s := schemaOf(shape(new(Scenario)))
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = schemaID
	s["title"] = "brownout scenario"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	return append(b, '\n'), nil
}

// object is a JSON object.
type object = map[string]any

func schemaOf(s *spec) object {
	var forms []any
	if s.leaf != nil {
		forms = append(forms, s.leaf.forms()...)
	}
	if len(s.fields) > 0 {
		forms = append(forms, s.mappingSchema())
	}
	if s.item != nil {
		forms = append(forms, object{"type": "array", "items": schemaOf(s.item(0)), "maxItems": s.most})
	}
	out := object{}
	if len(forms) == 1 {
		out = forms[0].(object)
	} else {
		out["anyOf"] = forms
	}
	if s.doc != "" {
		out["description"] = s.doc
	}
	return out
}

func (s *spec) mappingSchema() object {
	properties, required := object{}, []string{}
	for _, f := range s.fields {
		properties[f.name] = schemaOf(f.spec)
		if f.required {
			required = append(required, f.name)
		}
	}
	out := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	if either := slices.Concat(s.oneOf, s.choice); len(either) > 0 {
		var one []any
		for _, name := range either {
			one = append(one, object{"required": []string{name}})
		}
		out["oneOf"] = one
	}
	return out
}

// forms are the ways in which a value may be written.
func (l *leaf) forms() (out []any) {
	if l.flag {
		return []any{object{"type": "boolean"}}
	}
	if l.integer {
		number := object{"type": "integer", "minimum": l.least, "maximum": l.most}
		if v, err := strconv.ParseInt(l.example, 10, 64); err == nil {
			number["examples"] = []int64{v}
		}
		out = append(out, number)
		if l.pattern == "" {
			return out
		}
	}
	text := object{"type": "string", "examples": []string{l.example}}
	if len(l.words) > 0 {
		text["enum"] = l.words
		delete(text, "examples")
	}
	if l.pattern != "" {
		text["pattern"] = l.pattern
	}
	return append(out, text)
}
