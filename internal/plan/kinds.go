package plan

import "slices"

// A Type says how a parameter is written in a scenario and stored in [Params].
type Type string

// Parameter types. A stored key is the parameter's name plus the type's suffix.
const (
	Duration Type = "duration" // "20ms"        → name_ns, int64
	Percent  Type = "percent"  // "30%"         → name, float64, 30 means 30 %
	BitRate  Type = "bitrate"  // "10Mbit/s"    → name_bits_per_s, int64
	ByteSize Type = "bytes"    // "64KiB"       → name_bytes, int64
	ByteRate Type = "byterate" // "1MiB/s"      → name_bytes_per_s, int64
	CPUs     Type = "cpus"     // "0", "0-1,3"  → name, string
	Word     Type = "word"     // one of Words  → name, string
	Flag     Type = "flag"     // true or false → name, bool
	Count    Type = "count"    // "8", "2k"     → name, int64
	Selector Type = "selector" // "leader"      → name, string; resolved when the fault fires

	Durations Type = "durations" // "5ms, 20ms" → name, string; see [ParseDurations]
)

// Worse says in which direction of a parameter a fault gets worse. A [Profile]
// scales every parameter that has one.
type Worse string

// Directions.
const (
	Higher Worse = "higher" // severity 50% halves it
	Lower  Worse = "lower"  // severity 50% doubles it: a limit
)

// A Param is one parameter of a fault kind.
type Param struct {
	Name     string
	Type     Type
	Required bool
	Default  string   // as written in a scenario; "" for none
	Words    []string // of a Word; nil means any
	Min, Max string   // inclusive bounds as written; "" for none
	With     []string // it is only for a fault that has one of these, too
	Needs    string   // a fault that has it must have that, too
	Worse    Worse    // which way the fault gets worse, if its profile scales this
	Doc      string
}

// Where says which selectors a kind takes.
type Where string

// Places of a fault.
const (
	OnNodes Where = "on"      // on: SELECTOR
	Links   Where = "from,to" // from: SELECTOR, to: SELECTOR
	Cut     Where = "cut"     // from/to, or split: "n1 | n2,n3"
)

// A Kind is a fault that a scenario can name: its vocabulary, without mechanism.
// The mechanisms are in package faults, whose table has one row for each Kind.
type Kind struct {
	Name      string
	Doc       string
	Mechanism string // how it is done; for the docs
	Probe     string // how its dose is measured, independently of that; for the docs
	Where     Where
	Params    []Param
	Instant   bool     // needs no `for`
	OneOf     []string // parameters of which exactly one is to be given
	AnyOf     []string // of which at least one is
}

// Kinds is the vocabulary of faults. Parser, schema, docs and doctor are loops over it.
// Each family has a file of its own.
var Kinds = slices.Concat(netKinds, netTCPKinds, cpuKinds, diskKinds, memoryKinds, processKinds, clockKinds, serverKinds, neighbourKinds)

// KindNamed returns the kind called name.
func KindNamed(name string) (Kind, bool) {
	for _, k := range Kinds {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}
