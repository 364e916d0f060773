package trace

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// A Perfetto is a trace in the Chrome trace event format, which
// ui.perfetto.dev and chrome://tracing open. Times are in µs.
type Perfetto struct {
	TraceEvents []PerfettoEvent `json:"traceEvents"`
	Unit        string          `json:"displayTimeUnit"`
}

// A PerfettoEvent is a stage, or the name of a row.
type PerfettoEvent struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	TS    float64        `json:"ts"`
	Dur   float64        `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   int64          `json:"tid"`
	Args  map[string]any `json:"args,omitempty"`
}

// NewPerfetto puts stories into one trace: a process a node, a row an operation.
func NewPerfetto(stories []*Story) Perfetto {
	p := Perfetto{TraceEvents: []PerfettoEvent{}, Unit: "ns"}
	pids := map[string]int{}
	pid := func(node string) int {
		id, ok := pids[node]
		if !ok {
			id = len(pids) + 1
			pids[node] = id
			p.TraceEvents = append(p.TraceEvents, PerfettoEvent{Name: "process_name", Phase: "M", PID: id, Args: map[string]any{"name": node}})
		}
		return id
	}
	for _, s := range stories {
		us := func(ns int64) float64 { return float64(ns) / 1000 }
		p.TraceEvents = append(p.TraceEvents, PerfettoEvent{
			Name: fmt.Sprintf("%s %s", s.Op.Kind, s.Op.Key), Phase: "X", TS: us(s.Op.Due), Dur: us(s.response()), PID: pid("client"), TID: s.Op.ID,
			Args: map[string]any{"op": s.Op.ID, "outcome": s.Op.Outcome, "node": s.Node, "index": s.Index},
		})
		for _, st := range s.everything() {
			p.TraceEvents = append(p.TraceEvents, PerfettoEvent{Name: st.Name, Phase: "X", TS: us(st.Start), Dur: us(st.Length()), PID: pid(st.Node), TID: s.Op.ID})
		}
	}
	return p
}

// everything is all stages of a story, also those that nobody waited for.
func (s *Story) everything() []Stage {
	out := slices.Clone(s.Stages)
	add := func(prefix string, stages []Stage) {
		for _, st := range stages {
			st.Name = prefix + st.Name
			if !slices.Contains(out, st) {
				out = append(out, st)
			}
		}
	}
	add("leader's log: ", s.Log)
	for _, c := range s.Copies {
		add("follower: ", c.Stages)
	}
	return out
}

// OTLP is a trace as the OpenTelemetry protocol's JSON encoding has it
// (opentelemetry-proto, trace/v1), for a collector's /v1/traces.
type OTLP struct {
	ResourceSpans []otlpResource `json:"resourceSpans"`
}

type otlpResource struct {
	Resource   otlpAttributes `json:"resource"`
	ScopeSpans []otlpScope    `json:"scopeSpans"`
}

type otlpScope struct {
	Scope struct {
		Name string `json:"name"`
	} `json:"scope"`
	Spans []otlpSpan `json:"spans"`
}

type otlpSpan struct {
	TraceID    string          `json:"traceId"`
	SpanID     string          `json:"spanId"`
	ParentID   string          `json:"parentSpanId,omitempty"`
	Name       string          `json:"name"`
	Kind       int             `json:"kind"` // 1 internal, 3 client
	Start      string          `json:"startTimeUnixNano"`
	End        string          `json:"endTimeUnixNano"`
	Attributes []otlpAttribute `json:"attributes,omitempty"`
}

type otlpAttributes struct {
	Attributes []otlpAttribute `json:"attributes"`
}

type otlpAttribute struct {
	Key   string    `json:"key"`
	Value otlpValue `json:"value"`
}

type otlpValue struct {
	String *string `json:"stringValue,omitempty"`
	Int    *string `json:"intValue,omitempty"` // 64-bit integers are strings in JSON
}

// NewOTLP puts stories into one trace document. id names the run, zero is the
// wall clock at its zero.
func NewOTLP(id string, zero time.Time, stories []*Story) OTLP {
	text := func(k, v string) otlpAttribute { return otlpAttribute{k, otlpValue{String: &v}} }
	number := func(k string, v int64) otlpAttribute {
		s := strconv.FormatInt(v, 10)
		return otlpAttribute{k, otlpValue{Int: &s}}
	}
	digest := func(n int, parts ...any) string {
		sum := sha256.Sum256(fmt.Append(nil, parts...))
		return hex.EncodeToString(sum[:n])
	}
	at := func(ns int64) string { return strconv.FormatInt(zero.UnixNano()+ns, 10) }
	byNode := map[string][]otlpSpan{}
	nodes := []string{}
	add := func(node string, s otlpSpan) {
		if byNode[node] == nil {
			nodes = append(nodes, node)
		}
		byNode[node] = append(byNode[node], s)
	}
	for _, s := range stories {
		traceID := digest(16, id, s.Op.ID)
		root := digest(8, id, s.Op.ID, "root")
		add("client", otlpSpan{
			TraceID: traceID, SpanID: root, Name: fmt.Sprintf("%s %s", s.Op.Kind, s.Op.Key), Kind: 3, Start: at(s.Op.Due), End: at(s.Op.Return),
			Attributes: []otlpAttribute{number("brownout.op", s.Op.ID), text("brownout.outcome", string(s.Op.Outcome)), text("db.node", s.Node), number("raft.index", int64(s.Index))},
		})
		for i, st := range s.everything() {
			add(st.Node, otlpSpan{TraceID: traceID, SpanID: digest(8, id, s.Op.ID, i), ParentID: root, Name: st.Name, Kind: 1, Start: at(st.Start), End: at(st.End)})
		}
	}
	out := OTLP{ResourceSpans: []otlpResource{}}
	for _, node := range nodes {
		scope := otlpScope{Spans: byNode[node]}
		scope.Scope.Name = "brownout"
		out.ResourceSpans = append(out.ResourceSpans, otlpResource{
			Resource:   otlpAttributes{[]otlpAttribute{text("service.name", node), text("service.namespace", "brownout"), text("brownout.run", id)}},
			ScopeSpans: []otlpScope{scope},
		})
	}
	return out
}
