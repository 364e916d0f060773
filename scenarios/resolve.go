package scenarios

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"brownout/internal/plan"
	"brownout/internal/workload"
)

// Resolve turns a scenario into a plan: every time, every parameter, every
// operation. It is pure: the same scenario, seed and version give the same
// bytes of [Encode]. Its errors are [Errors].
func Resolve(s *Scenario, seed uint64, version string) (*plan.Plan, error) {
	return resolve(s, seed, version, workload.Describe)
}

func resolve(s *Scenario, seed uint64, version string, describe func(plan.Load, uint64) plan.Ops) (*plan.Plan, error) {
	full := s.withDefaults()
	var errs Errors
	for _, p := range full.problems() {
		errs = append(errs, &Error{File: s.File, Path: p.path, Msg: p.msg, Hint: p.hint})
	}
	if errs != nil {
		return nil, errs
	}
	p := &plan.Plan{
		Schema: plan.Schema, Scenario: full.Name, File: full.File, SHA256: full.Hash,
		Seed: seed, Version: version,
		Target:  plan.Target{Kind: full.Target.Kind, Nodes: full.Target.Nodes, Config: full.Target.Config, Downstream: full.Target.Downstream},
		Network: full.Network, Load: full.load(),
		Faults: []plan.Fault{}, Expect: []plan.Expectation{},
	}
	if p.SHA256 == "" {
		p.SHA256 = literalHash(full)
	}
	zero := full.Timeline.Warmup + full.Timeline.Baseline
	end := zero
	for i, f := range full.Timeline.Faults {
		r := f.resolve(zero, p.Target.Shards())
		r.ID = faultID(i)
		p.Faults = append(p.Faults, r)
		end = max(end, r.End)
	}
	p.Phases = phases(full.Timeline.Warmup, zero, end, end+full.Timeline.Recovery)
	for _, e := range full.Expect {
		p.Expect = append(p.Expect, plan.Expectation{Text: e.Text, Line: e.Line, Col: e.Col})
	}
	if err := workload.Check(p.Load); err != nil {
		return nil, Errors{{File: s.File, Path: "workload", Msg: err.Error()}}
	}
	p.Ops = describe(p.Load, seed)
	return p, nil
}

// phases cuts the run at the ends of its phases; one without length is left out.
func phases(ends ...time.Duration) []plan.Phase {
	out := []plan.Phase{}
	var start time.Duration
	for i, name := range []string{"warmup", "baseline", "fault", "recovery"} {
		if ends[i] > start {
			out = append(out, plan.Phase{Name: name, Start: start, End: ends[i]})
		}
		start = ends[i]
	}
	return out
}

// resolve counts a fault's time from the run's zero and fills in what its kind
// defaults to. Selectors stay words: who has a role is known when it fires. Only
// which shard a key is on is known already.
func (f Fault) resolve(baselineEnd time.Duration, shards int) plan.Fault {
	k, _ := plan.KindNamed(f.Kind) // problems has seen to it
	r := plan.Fault{
		Kind: f.Kind, Start: baselineEnd + f.At, End: baselineEnd + f.At + f.length(),
		On: placed(f.On, shards), From: placed(f.From, shards), To: placed(f.To, shards), Split: placed(f.Split, shards), Plane: f.Plane, Follow: f.Follow,
		Provider: f.Provider, Params: plan.Params{}, Line: f.Line,
	}
	if f.Profile != nil {
		profile := *f.Profile
		if profile.Flap > 0 && profile.Duty == 0 {
			profile.Duty = 0.5
		}
		r.Profile = &profile
	}
	for _, p := range k.Params {
		if v, ok := f.Params[p.Key()]; ok {
			r.Params[p.Key()] = v
		} else if p.Default != "" {
			v, err := parseParam(p, p.Default)
			if err != nil {
				panic(fmt.Sprintf("scenarios: default of %s %s: %v", k.Name, p.Name, err)) // a test reads all defaults
			}
			r.Params[p.Key()] = v
		}
	}
	for _, shape := range []string{"isolate", "bridge"} {
		if words := r.Params.String(shape); words != "" {
			r.Params[shape] = placed(words, shards)
		}
	}
	return r
}

// load is the workload as the stream reads it; the order of the mix is ours,
// so that reordering a file's fields changes no operation.
func (s *Scenario) load() plan.Load {
	w := s.Workload
	l := plan.Load{
		Keys: int(w.Keys.Count), Dist: w.Keys.Dist, ValueSize: int(w.Value),
		Closed: w.Load.Closed, Rate: w.Load.Rate, OfMax: w.Load.OfMax / 100, Clients: w.Load.Clients,
		Endpoints: w.Endpoints, Timeout: w.Timeout,
	}
	if l.Dist == "zipf" {
		l.Zipf = w.Keys.Zipf
	}
	for _, kind := range opKinds {
		if i := slices.IndexFunc(w.Mix, func(m plan.Share) bool { return m.Kind == kind && m.P > 0 }); i >= 0 {
			l.Mix = append(l.Mix, w.Mix[i])
		}
	}
	return l
}

// literalHash identifies a scenario that came from no file.
func literalHash(s Scenario) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("scenarios: encode literal: %v", err)) // plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Encode returns the bytes of plan.json: indented, one operation a line.
func Encode(p *plan.Plan) []byte {
	head := *p
	head.Ops.Rows = []plan.Row{}
	b := encodeJSON(head, "  ")
	if len(p.Ops.Rows) == 0 {
		return b
	}
	var rows bytes.Buffer
	rows.WriteString(`"rows": [`)
	for i, r := range p.Ops.Rows {
		if i > 0 {
			rows.WriteByte(',')
		}
		rows.WriteString("\n      ")
		rows.Write(bytes.TrimSpace(encodeJSON(r, "")))
	}
	rows.WriteString("\n    ]")
	const empty = `"rows": []`
	at := bytes.LastIndex(b, []byte(empty)) // ops is the last field, rows its last
	return slices.Concat(b[:at], rows.Bytes(), b[at+len(empty):])
}

func encodeJSON(v any, indent string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("scenarios: encode plan: %v", err)) // plain data without NaN; problems has seen to it
	}
	return b.Bytes()
}
