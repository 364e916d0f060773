package scenarios

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"brownout/internal/plan"
	"brownout/internal/quantity"
)

// Version is the version of the scenario format.
const Version = 1

// Bounds of a scenario.
const (
	maxNodes   = 25
	maxFaults  = 100
	maxExpect  = 200
	maxClients = 10_000
	maxKeys    = 1_000_000
	maxValue   = 1 << 20
	maxRate    = 1_000_000
	longestRun = 24 * time.Hour
)

// The kinds of operation, in the order of a plan's mix.
var opKinds = []string{"get", "put", "cas", "append", "delete"}

// kvserver is the one target of this version.
const kvserver = "kvserver"

// later are targets and faults that are planned and not in this version.
var (
	laterTargets = []string{"etcd", "redis", "zookeeper", "exec"}
	laterFaults  = []string{
		"net.loss", "net.duplicate", "net.reorder", "net.corrupt", "net.reset", "net.halfopen", "net.flood",
		"cpu.contend", "cpu.steal", "cpu.pin",
		"memory.limit", "memory.pressure", "memory.oom",
		"memory.stall", "gc.storm", "process.crashloop", "clock.offset", "clock.skew", "lock.hold", "codec.switch", "neighbour.noisy",
	}
)

// Patterns of the schema. The parsers of package quantity are the law; these
// catch what an editor can.
const (
	numberPattern   = `[0-9]+(\.[0-9]+)?`
	durationPattern = `^(` + numberPattern + ` ?(h|m|s|ms|us|µs|ns))+$`
	sizePattern     = `^` + numberPattern + ` ?(B|[KMGT]iB|[kMGT]B)$`
	bitRatePattern  = `^` + numberPattern + ` ?[kMGT]?bit/s$`
	percentPattern  = `^` + numberPattern + ` ?%$`
	byteRatePattern = `^` + numberPattern + ` ?([KMG]i)?B/s$`
	cpusPattern     = `^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`
	ratePattern     = `^(` + numberPattern + ` ?k?/s|` + numberPattern + ` ?% of max)$`
	countPattern    = `^` + numberPattern + ` ?[kM]?$`
	spreadPattern   = `^(` + numberPattern + ` ?(h|m|s|ms|us|µs|ns))+( ?(±|\+-) ?(` + numberPattern + ` ?(h|m|s|ms|us|µs|ns))+)?$`
)

// text is a leaf that is stored as it is.
func text(doc, example string, v *string, words ...string) *spec {
	return &spec{doc: doc, leaf: &leaf{example: example, words: words, set: func(s string) error {
		if s == "" {
			return errors.New("the text is empty")
		}
		*v = s
		return nil
	}}}
}

// parsed is a leaf that one of package quantity's parsers reads.
func parsed[T any](doc, example, pattern string, v *T, parse func(string) (T, error)) *spec {
	return &spec{doc: doc, leaf: &leaf{example: example, pattern: pattern, set: func(s string) error {
		got, err := parse(s)
		if err == nil {
			*v = got
		}
		return err
	}}}
}

func duration(doc, example string, v *time.Duration) *spec {
	return parsed(doc, example, durationPattern, v, quantity.ParseDuration)
}

// integer is a leaf for a whole number without a unit.
func integer(doc, example string, least, most int64, set func(int64) error) *spec {
	return &spec{doc: doc, leaf: &leaf{example: example, integer: true, least: least, most: most, set: func(s string) error {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number, as in %s", s, example)
		}
		return set(v)
	}}}
}

// shape is the whole format. Decoding root with it fills s.
func shape(s *Scenario) *spec {
	return &spec{doc: "A brownout scenario: what to break, when, and what must hold.", fields: []field{
		{"version", true, integer("version of this format", strconv.Itoa(Version), Version, Version, func(v int64) error {
			if v != Version {
				return fmt.Errorf("version %d is not known; this brownout reads version %d", v, Version)
			}
			return nil
		})},
		{"name", true, text("names runs and reports", "slow-leader-disk", &s.Name)},
		{"target", false, targetShape(&s.Target)},
		{"network", false, networkShape(&s.Network)},
		{"workload", false, workloadShape(&s.Workload)},
		{"timeline", true, timelineShape(&s.Timeline)},
		{"expect", false, &spec{doc: "what must hold, one sentence each; linearizability and durability are judged anyway", most: maxExpect, item: func(int) *spec {
			s.Expect = append(s.Expect, Expectation{})
			e := &s.Expect[len(s.Expect)-1]
			sp := text("a sentence", "p99(put) during disk.delay < 3x baseline", &e.Text)
			sp.begin = func(n *node) { e.Line, e.Col = n.at.line, n.at.col }
			return sp
		}}},
		{"seed", false, &spec{doc: "of all that is drawn", leaf: &leaf{example: "42", integer: true, most: 1<<63 - 1, set: func(t string) error {
			v, err := strconv.ParseUint(t, 10, 64)
			if err != nil {
				return fmt.Errorf("%q is not a whole number from 0 to 18446744073709551615", t)
			}
			s.Seed = v
			return nil
		}}}},
	}}
}

func targetShape(t *Target) *spec {
	config := &spec{doc: "settings of kvserver", absent: map[string]string{"codec": "codec is not in this version: kvserver has one"}}
	for _, c := range kvserverConfig {
		config.fields = append(config.fields, field{c.name, false, c.spec(func(v string) {
			if t.Config == nil {
				t.Config = map[string]string{}
			}
			t.Config[c.name] = v
		})})
	}
	downstream := &spec{doc: "a cache beside the nodes that the leader writes through to, after applying and before it answers; {} has one with all defaults", begin: func(*node) { t.Downstream = map[string]string{} }}
	for _, c := range downstreamConfig {
		downstream.fields = append(downstream.fields, field{c.name, false, c.spec(func(v string) { t.Downstream[c.name] = v })})
	}
	kind := text("what runs on the nodes", kvserver, &t.Kind)
	kind.leaf.words = nil
	kind.leaf.set = func(v string) error { t.Kind = v; return checkTarget(v) }
	return &spec{doc: "what runs on the nodes", fields: []field{
		{"kind", false, kind},
		{"nodes", false, integer("how many nodes", "3", 1, maxNodes, func(v int64) error {
			if v < 1 || v > maxNodes {
				return fmt.Errorf("%d nodes; a cluster has 1 to %d", v, maxNodes)
			}
			t.Nodes = int(v)
			return nil
		})},
		{"config", false, config},
		{"downstream", false, downstream},
	}}
}

// checkTarget says what is wrong with a target's kind.
func checkTarget(kind string) error {
	switch {
	case kind == kvserver:
		return nil
	case slices.Contains(laterTargets, kind):
		return fmt.Errorf("target %s is not in this version; it runs %s only", kind, kvserver)
	}
	return &hinted{fmt.Sprintf("unknown target %q", kind), fmt.Sprintf("this version runs %s", kvserver)}
}

func workloadShape(w *Workload) *spec {
	l := &w.Load
	load := &spec{doc: "how many operations are offered: open loop with Poisson arrivals, or closed", fields: []field{
		{"rate", false, parsed("operations a second, or a share of the calibrated maximum", "2000/s", ratePattern, new(quantity.Rate), func(t string) (quantity.Rate, error) {
			r, err := quantity.ParseRate(t)
			l.Rate, l.OfMax = r.PerS, r.OfMax
			if err == nil && r.PerS == 0 && r.OfMax == 0 {
				err = errors.New("0/s offers nothing")
			}
			return r, err
		})},
		{"clients", false, integer("connections; in a closed loop, concurrent callers", "16", 1, maxClients, func(v int64) error {
			if v < 1 || v > maxClients {
				return fmt.Errorf("%d clients; 1 to %d", v, maxClients)
			}
			l.Clients = int(v)
			return nil
		})},
		{"closed", false, yesNo("every client waits for its answer before it asks again", func(v bool) { l.Closed = v })},
	}}
	load.leaf = &leaf{example: "closed", words: []string{"closed"}, set: func(string) error { l.Closed = true; return nil }}

	mix := &spec{doc: "shares of operations; they sum to 100%"}
	for _, k := range opKinds {
		mix.fields = append(mix.fields, field{k, false, parsed("share of "+k, "50%", percentPattern, new(float64), func(t string) (float64, error) {
			p, err := quantity.ParsePercent(t)
			if err == nil {
				w.Mix = append(w.Mix, plan.Share{Kind: k, P: p / 100})
			}
			return p, err
		})})
	}
	return &spec{doc: "what clients do", fields: []field{
		{"keys", false, &spec{doc: "what operations are spread over", fields: []field{
			{"count", false, countSpec("how many keys", "1000", &w.Keys.Count)},
			{"dist", false, distSpec(&w.Keys)},
		}}},
		{"value", false, parsed("size of a written value", "256B", sizePattern, &w.Value, func(t string) (int64, error) {
			v, err := quantity.ParseSize(t)
			if err == nil && (v < 1 || v > maxValue) {
				err = fmt.Errorf("a value of %s; 1B to %s", t, quantity.Size(maxValue))
			}
			return v, err
		})},
		{"mix", false, mix},
		{"load", false, load},
		{"endpoints", false, text("which node a client talks to: leader, any, nearest, or a node", "leader", &w.Endpoints)},
		{"timeout", false, parsed("of one operation", "1s", durationPattern, &w.Timeout, func(t string) (time.Duration, error) {
			v, err := quantity.ParseDuration(t)
			if err == nil && v == 0 {
				err = errors.New("a timeout of 0s would fail every operation")
			}
			return v, err
		})},
	}}
}

func countSpec(doc, example string, v *int64) *spec {
	sp := parsed(doc, example, countPattern, v, func(t string) (int64, error) {
		n, err := quantity.ParseCount(t)
		if err == nil && n < 1 {
			err = fmt.Errorf("%s is too few", t)
		}
		return n, err
	})
	sp.leaf.integer, sp.leaf.least, sp.leaf.most = true, 1, maxKeys
	return sp
}

func distSpec(k *Keys) *spec {
	return &spec{doc: "which keys are asked for: uniform, sequential, or zipf with an exponent", leaf: &leaf{
		example: "zipf 0.99", pattern: `^(uniform|sequential|zipf( ` + numberPattern + `)?)$`,
		set: func(t string) error {
			name, exp, _ := strings.Cut(t, " ")
			switch {
			case name == "zipf":
				k.Dist, k.Zipf = name, 0.99
				if exp == "" {
					return nil
				}
				v, err := strconv.ParseFloat(exp, 64)
				if err != nil || !(v > 0 && v <= 10) {
					return fmt.Errorf("zipf %s: the exponent is a number above 0 and up to 10, as in zipf 0.99", exp)
				}
				k.Zipf = v
				return nil
			case t == "uniform" || t == "sequential":
				k.Dist = t
				return nil
			}
			return &hinted{fmt.Sprintf("%q is none of uniform, sequential, zipf 0.99", t), ""}
		},
	}}
}

func yesNo(doc string, set func(bool)) *spec {
	return &spec{doc: doc, leaf: &leaf{example: "true", words: []string{"true", "false"}, flag: true, set: func(t string) error {
		set(t == "true")
		return nil
	}}}
}

func timelineShape(t *Timeline) *spec {
	return &spec{doc: "what happens when; at counts from the end of the baseline", fields: []field{
		{"warmup", false, duration("load without faults, compared with nothing", "2s", &t.Warmup)},
		{"baseline", false, duration("load without faults, that the faults are compared with", "6s", &t.Baseline)},
		{"faults", false, &spec{doc: "what gets broken", most: maxFaults, item: func(int) *spec {
			t.Faults = append(t.Faults, Fault{})
			return faultShape(&t.Faults[len(t.Faults)-1])
		}}},
		{"recovery", false, duration("load after the last fault", "6s", &t.Recovery)},
	}}
}
