package scenarios

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"brownout/internal/nearest"
	"brownout/internal/plan"
)

// handFault is the length a fault by hand is parsed with if none was given.
const handFault = time.Hour

// ParseFault reads a fault as the command line gives it: a kind and words like
// "on=leader", "add=20ms", "for=30s". It is held against the same vocabulary as
// a scenario of a cluster of so many nodes and shards, and perhaps a cache; "profile.flap=2s" is its profile. Without "for" its End is its Start:
// it lasts until it is removed, or by itself if its kind is instant.
func ParseFault(kind string, words []string, nodes, shards int, cache bool) (plan.Fault, error) {
	if _, ok := plan.KindNamed(kind); !ok {
		err := fmt.Errorf("unknown fault %q", kind)
		if hint := nearest.Hint(kind, kindNames()); hint != "" {
			err = fmt.Errorf("%w — %s", err, hint)
		}
		return plan.Fault{}, err
	}
	length := ""
	var body, profile []string
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" || value == "" {
			return plan.Fault{}, fmt.Errorf("fault %s: %q is not NAME=VALUE, as in on=leader or add=20ms", kind, w)
		}
		if name == "for" {
			length = value
			continue
		}
		if field, ok := strings.CutPrefix(name, "profile."); ok {
			profile = append(profile, fmt.Sprintf("%s: %s", field, quoted(value)))
			continue
		}
		body = append(body, fmt.Sprintf("%s: %s", name, quoted(value)))
	}
	given := length
	if given == "" && needsLength(kind, words) {
		given = handFault.String()
	}
	if given != "" {
		given = "for: " + quoted(given) + ", "
	}
	if profile != nil {
		given += "profile: {" + strings.Join(profile, ", ") + "}, "
	}
	downstream := ""
	if cache {
		downstream = ", downstream: {}"
	}
	src := fmt.Sprintf("version: 1\nname: by-hand\ntarget: {kind: kvserver, nodes: %d, config: {shards: %d}%s}\nworkload: {keys: {count: 1}, load: {rate: 1/s}}\n"+
		"timeline: {baseline: 1s, faults: [{at: 0s, %s%s: {%s}}]}\nexpect: [linearizable]\n", nodes, shards, downstream, given, kind, strings.Join(body, ", "))
	s, err := Parse([]byte(src), "fault")
	if err != nil {
		return plan.Fault{}, byHand(kind, err)
	}
	p, err := Resolve(s, 0, "")
	if err != nil {
		return plan.Fault{}, byHand(kind, err)
	}
	f := p.Faults[0]
	f.ID, f.Line = "", 0
	f.End -= f.Start
	f.Start = 0
	if length == "" {
		f.End = 0
	}
	return f, nil
}

// needsLength reports whether a scenario would insist on a "for".
func needsLength(kind string, words []string) bool {
	k, ok := plan.KindNamed(kind)
	if !ok || !k.Instant {
		return true
	}
	for _, w := range words {
		if strings.HasPrefix(w, "every=") {
			return true
		}
	}
	_, restarts := param(k, "restart")
	return restarts && !strings.Contains(strings.Join(words, " "), "restart=")
}

// quoted makes any text one YAML scalar; plain words stay plain, so that
// numbers and flags keep their type.
func quoted(v string) string {
	if strings.ContainsAny(v, ",:|{}[]#&*!%@`'\"\\\n\t ") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(v) + `"`
	}
	return v
}

// byHand says mistakes without the places of a file that nobody wrote.
func byHand(kind string, err error) error {
	list, ok := errors.AsType[Errors](err)
	if !ok {
		return fmt.Errorf("fault %s: %w", kind, err)
	}
	var out []error
	for _, e := range list {
		msg := e.Msg
		if e.Hint != "" {
			msg += " — " + e.Hint
		}
		out = append(out, fmt.Errorf("fault %s: %s", kind, msg))
	}
	return errors.Join(out...)
}
