package plan

import (
	"maps"
	"slices"
	"time"
)

// Params are a fault's dose: names with their unit, as "add_ns", "percent",
// "limit_bits_per_s", "op". Values are numbers, strings or booleans, so that a
// plan, an event and a result hold the very same words.
type Params map[string]any

// Duration returns the parameter name+"_ns", or 0.
func (p Params) Duration(name string) time.Duration { return time.Duration(p.Float(name + "_ns")) }

// Float returns a number, or 0.
func (p Params) Float(name string) float64 {
	switch v := p[name].(type) {
	case float64:
		return v
	case int64:
		return float64(v)
	case int:
		return float64(v)
	case time.Duration:
		return float64(v)
	}
	return 0
}

// String returns a word, or "".
func (p Params) String(name string) string { s, _ := p[name].(string); return s }

// Bool returns a flag, or false.
func (p Params) Bool(name string) bool { b, _ := p[name].(bool); return b }

// Has reports whether the parameter was given or defaulted.
func (p Params) Has(name string) bool { _, ok := p[name]; return ok }

// Clone returns a copy that can be changed.
func (p Params) Clone() Params { return maps.Clone(p) }

// Names returns the parameters' names in order.
func (p Params) Names() []string { return slices.Sorted(maps.Keys(p)) }
