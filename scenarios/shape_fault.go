package scenarios

import (
	"fmt"
	"slices"
	"strings"

	"brownout/internal/plan"
	"brownout/internal/quantity"
)

// faultShape is one entry of timeline.faults.
func faultShape(fault *Fault) *spec {
	sp := &spec{doc: "one fault", noun: "fault", absent: map[string]string{}, fields: []field{
		{"at", true, duration("when, from the end of the baseline", "5s", &fault.At)},
		{"for", false, duration("how long", "10s", &fault.For)},
		{"profile", false, profileShape(&fault.Profile)},
	}}
	sp.begin = func(n *node) { fault.Line = n.at.line }
	for _, k := range plan.Kinds {
		sp.oneOf = append(sp.oneOf, k.Name)
		sp.fields = append(sp.fields, field{k.Name, false, kindShape(k, fault)})
	}
	for _, name := range laterFaults {
		if _, ok := plan.KindNamed(name); ok {
			continue
		}
		sp.absent[name] = name + " is not in this version; it has " + strings.Join(kindNames(), ", ")
	}
	return sp
}

func kindNames() []string {
	var names []string
	for _, k := range plan.Kinds {
		names = append(names, k.Name)
	}
	return names
}

// kindShape is where and how much of one kind of fault.
func kindShape(k plan.Kind, f *Fault) *spec {
	sp := &spec{doc: k.Doc, choice: k.OneOf}
	sp.begin = func(*node) {
		f.Kind = k.Name
		f.Params = plan.Params{}
	}
	add := func(name string, required bool, s *spec) { sp.fields = append(sp.fields, field{name, required, s}) }
	switch k.Where {
	case plan.OnNodes:
		add("on", true, text("which nodes: n1 (or n1,n2), leader, one follower, followers, all but leader, minority, majority, all; roles also of shard 1, or of key k7", "leader", &f.On))
	default:
		add("from", false, text("senders: nodes as in on, client, every pair", "leader", &f.From))
		add("to", false, text("receivers: nodes as in on, client", "followers", &f.To))
		if k.Where == plan.Cut {
			add("split", false, text("groups that cannot reach each other", "n1 | n2,n3", &f.Split))
		}
		add("plane", false, text("traffic between nodes (default), between nodes and clients, or both", "peer", &f.Plane, "peer", "client", "both"))
	}
	for _, p := range k.Params {
		add(p.Name, p.Required, paramShape(k, p, f))
	}
	add("follow", false, text("role: move with the role while the fault lasts; without it, stay with the node", "role", &f.Follow, "role"))
	names := plan.Providers[k.Name]
	add("provider", false, text("pins a mechanism; without it, the first that works", slices.Concat(names, []string{"wire"})[0], &f.Provider, names...))
	return sp
}

// parseParam reads a parameter's value and checks its bounds.
func parseParam(p plan.Param, t string) (any, error) {
	switch p.Type {
	case plan.Duration:
		v, err := quantity.ParseDuration(t)
		return int64(v), err
	case plan.Percent:
		return wrapAny(quantity.ParsePercent(t))
	case plan.BitRate:
		return wrapAny(quantity.ParseBitRate(t))
	case plan.ByteSize:
		return wrapAny(quantity.ParseSize(t))
	case plan.Count:
		return wrapAny(quantity.ParseCount(t))
	case plan.ByteRate:
		return wrapAny(quantity.ParseByteRate(t))
	case plan.CPUs:
		_, err := plan.ParseCPUs(t)
		return t, err
	case plan.Durations:
		return durations(t)
	case plan.Flag:
		return t == "true", nil
	}
	return t, nil
}

// durations reads a list of times, or a file of them after an @: the plan holds
// what was in it then.
func durations(t string) (any, error) {
	if name, ok := strings.CutPrefix(t, "@"); ok {
		b, err := readFile(name)
		if err != nil {
			return nil, err
		}
		t = strings.Join(strings.Fields(strings.ReplaceAll(string(b), ",", " ")), ", ")
	}
	_, err := plan.ParseDurations(t)
	return t, err
}

func wrapAny[T any](v T, err error) (any, error) { return v, err }

// outside says that a value is beyond a parameter's bounds; nil if it is not.
func outside(p plan.Param, v any) error {
	if p.Type == plan.CPUs {
		_, err := plan.ParseCPUs(fmt.Sprint(v))
		return err
	}
	number := plan.Params{"v": v}.Float("v")
	if p.Type == plan.Durations {
		all, err := plan.ParseDurations(fmt.Sprint(v))
		if err != nil {
			return err
		}
		number = float64(slices.Max(all))
	}
	for _, b := range []struct {
		text string
		out  func(bound float64) bool
		word string
	}{
		{p.Min, func(b float64) bool { return number < b }, "less than"},
		{p.Max, func(b float64) bool { return number > b }, "more than"},
	} {
		if b.text == "" {
			continue
		}
		of := p
		if p.Type == plan.Durations {
			of.Type = plan.Duration
		}
		bound, err := parseParam(of, b.text)
		if err != nil {
			return fmt.Errorf("bound of %s: %w", p.Name, err)
		}
		if b.out(plan.Params{"v": bound}.Float("v")) {
			return fmt.Errorf("%s is %s %s", printParam(p, v), b.word, b.text)
		}
	}
	return nil
}

// printParam prints a stored value as a scenario would write it.
func printParam(p plan.Param, v any) string {
	number := plan.Params{"v": v}.Float("v")
	switch p.Type {
	case plan.Duration:
		return quantity.Duration(plan.Params{"v_ns": v}.Duration("v"))
	case plan.Percent:
		return quantity.Percent(number)
	case plan.BitRate:
		return quantity.BitRate(int64(number))
	case plan.ByteSize:
		return quantity.Size(int64(number))
	case plan.ByteRate:
		return quantity.ByteRate(int64(number))
	}
	return fmt.Sprint(v)
}

// paramExample is a value that a parameter could have.
func paramExample(p plan.Param) string {
	switch {
	case p.Default != "":
		return p.Default
	case p.Type == plan.Duration:
		return "20ms"
	case p.Type == plan.Percent:
		return "30%"
	case p.Type == plan.BitRate:
		return "10Mbit/s"
	case p.Type == plan.ByteSize && p.Min != "":
		return p.Min
	case p.Type == plan.ByteSize:
		return "64KiB"
	case p.Type == plan.Count:
		return "8"
	case p.Type == plan.ByteRate:
		return "1MiB/s"
	case p.Type == plan.CPUs:
		return "0-1"
	case p.Type == plan.Durations:
		return "5ms, 5ms, 80ms"
	case p.Type == plan.Selector:
		return "leader"
	case p.Type == plan.Flag:
		return "true"
	case len(p.Words) > 0:
		return p.Words[0]
	}
	return "a word"
}

var paramPatterns = map[plan.Type]string{
	plan.Duration: durationPattern, plan.Percent: percentPattern, plan.BitRate: bitRatePattern, plan.ByteSize: sizePattern,
	plan.Count: countPattern, plan.ByteRate: byteRatePattern, plan.CPUs: cpusPattern,
}

// paramShape is one parameter. The delay of a kind that has jitter may be
// written as 5ms ± 1ms.
func paramShape(k plan.Kind, p plan.Param, f *Fault) *spec {
	if p.Type == plan.Flag {
		return yesNo(p.Doc, func(v bool) { f.Params[p.Name] = v })
	}
	jitter, spread := param(k, "jitter")
	spread = spread && p.Name == "add"
	sp := &spec{doc: p.Doc, leaf: &leaf{example: paramExample(p), words: p.Words, pattern: paramPatterns[p.Type]}}
	if spread {
		sp.leaf.pattern = spreadPattern
	}
	// A number without a unit is a number in YAML; its bounds are the schema's, too.
	sp.leaf.integer = p.Type == plan.Count || p.Type == plan.CPUs
	sp.leaf.least, sp.leaf.most = 0, 1<<53
	sp.leaf.set = func(t string) error {
		if spread {
			s, err := quantity.ParseSpread(t)
			if err != nil {
				return err
			}
			if s.Dev != 0 {
				if f.Params.Has(jitter.Key()) {
					return fmt.Errorf("%s says the jitter a second time", t)
				}
				f.Params[jitter.Key()] = int64(s.Dev)
				if err := outside(jitter, int64(s.Dev)); err != nil {
					return err
				}
			}
			t = quantity.Duration(s.Mean)
		}
		if p.Name == "jitter" && f.Params.Has(p.Key()) {
			return fmt.Errorf("%s says the jitter a second time", t)
		}
		v, err := parseParam(p, t)
		if err != nil {
			return err
		}
		f.Params[p.Key()] = v
		return outside(p, v)
	}
	return sp
}

func param(k plan.Kind, name string) (plan.Param, bool) {
	for _, p := range k.Params {
		if p.Name == name {
			return p, true
		}
	}
	return plan.Param{}, false
}
