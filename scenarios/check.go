package scenarios

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"brownout/internal/expect"
	"brownout/internal/nearest"
	"brownout/internal/plan"
	"brownout/internal/quantity"
	"brownout/internal/sys/cgroup"
)

// A problem is a mistake in what a scenario means, at a path of it.
type problem struct {
	path      string
	msg, hint string
	start     int      // characters into the value, for a mistake inside a sentence
	width     int      // 0: all of the value
	needs     []string // paths that must be sound for the problem to be one
}

func problemAt(path string, err error, needs ...string) problem {
	if h, ok := err.(*hinted); ok {
		return problem{path: path, msg: h.msg, hint: h.hint, needs: needs}
	}
	return problem{path: path, msg: err.Error(), needs: needs}
}

var validName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`) })

// problems returns everything that is wrong with a scenario that has its defaults.
func (s *Scenario) problems() (out []problem) {
	if !validName().MatchString(s.Name) {
		out = append(out, problem{path: "name", msg: fmt.Sprintf("name %q; want a-z, 0-9, ., _ and -, at most 64", s.Name), hint: "it names directories and files"})
	}
	if err := checkTarget(s.Target.Kind); err != nil {
		out = append(out, problemAt("target.kind", err))
	}
	if s.Target.Nodes < 1 || s.Target.Nodes > maxNodes {
		out = append(out, problem{path: "target.nodes", msg: fmt.Sprintf("%d nodes; a cluster has 1 to %d", s.Target.Nodes, maxNodes)})
	}
	out = append(out, checkConfig(s.Target.Config)...)
	_, p := checkSettings("target.downstream.", downstreamConfig, s.Target.Downstream)
	out = append(out, p...)
	out = append(out, networkProblems(s.Network)...)
	out = append(out, s.Workload.problems(s.Target.Nodes)...)
	out = append(out, s.Timeline.problems(s.Target.extent())...)
	for i, e := range s.Expect {
		out = append(out, s.checkSentence(fmt.Sprintf("expect[%d]", i), e.Text)...)
	}
	return out
}

func checkTimes(path string, d, most time.Duration) []problem {
	switch {
	case d < 0:
		return []problem{{path: path, msg: fmt.Sprintf("%v is negative", d)}}
	case d > most:
		return []problem{{path: path, msg: fmt.Sprintf("%s is more than %s", quantity.Duration(d), quantity.Duration(most))}}
	}
	return nil
}

func (w *Workload) problems(nodes int) (out []problem) {
	add := func(path, format string, a ...any) {
		out = append(out, problem{path: "workload." + path, msg: fmt.Sprintf(format, a...)})
	}
	if w.Keys.Count < 1 || w.Keys.Count > maxKeys {
		add("keys.count", "%d keys; 1 to %s", w.Keys.Count, quantity.Count(maxKeys))
	}
	if !slices.Contains([]string{"uniform", "zipf", "sequential"}, w.Keys.Dist) || w.Keys.Dist == "zipf" && !(w.Keys.Zipf > 0 && w.Keys.Zipf <= 10) {
		add("keys.dist", "dist %s with exponent %v; want uniform, sequential, or zipf above 0 and up to 10", w.Keys.Dist, w.Keys.Zipf)
	}
	if w.Value < 1 || w.Value > maxValue {
		add("value", "a value of %d bytes; 1B to %s", w.Value, quantity.Size(maxValue))
	}
	var sum float64
	for i, m := range w.Mix {
		if !slices.Contains(opKinds, m.Kind) || !(m.P >= 0 && m.P <= 1) {
			add("mix", "share %v of %q; want shares from 0 to 1 of %s", m.P, m.Kind, strings.Join(opKinds, ", "))
		} else if slices.ContainsFunc(w.Mix[:i], func(o plan.Share) bool { return o.Kind == m.Kind }) {
			add("mix", "%s twice", m.Kind)
		}
		sum += m.P
	}
	if !(math.Abs(sum-1) <= 1e-9) {
		out = append(out, problem{path: "workload.mix", msg: fmt.Sprintf("the shares sum to %s, not 100%%", quantity.Percent(math.Round(sum*1e11)/1e9)), needs: []string{"workload.mix"}})
	}
	l := w.Load
	set := 0
	for _, given := range []bool{l.Rate != 0, l.OfMax != 0, l.Closed} {
		if given {
			set++
		}
	}
	switch {
	case set > 1:
		add("load", "a closed load has no rate: its clients ask as fast as they are answered")
	case !(l.Rate >= 0 && l.Rate <= maxRate):
		add("load.rate", "%s is not in 0/s..%s", quantity.PerSecond(l.Rate), quantity.PerSecond(maxRate))
	case !(l.OfMax >= 0 && l.OfMax <= 100):
		add("load.rate", "%s of max is more than there is", quantity.Percent(l.OfMax))
	}
	if l.Clients < 1 || l.Clients > maxClients {
		add("load.clients", "%d clients; 1 to %d", l.Clients, maxClients)
	}
	if words := []string{"leader", "any", "nearest"}; !slices.Contains(words, w.Endpoints) {
		if i, ok := nodeNumber(w.Endpoints); !ok {
			out = append(out, problem{path: "workload.endpoints", msg: fmt.Sprintf("%q is none of %s, n1", w.Endpoints, strings.Join(words, ", ")), hint: nearest.Hint(strings.ToLower(w.Endpoints), words)})
		} else if i < 1 || i > nodes {
			out = append(out, problem{path: "workload.endpoints", msg: fmt.Sprintf("there is no %s: the cluster has %s", w.Endpoints, count(nodes, "node")), needs: []string{"target.nodes"}})
		}
	}
	if w.Timeout < time.Millisecond || w.Timeout > 10*time.Minute {
		add("timeout", "%v is not in 1ms..10m", w.Timeout)
	}
	return out
}

func (t *Timeline) problems(in extent) (out []problem) {
	for _, p := range []struct {
		name string
		d    time.Duration
	}{{"warmup", t.Warmup}, {"baseline", t.Baseline}, {"recovery", t.Recovery}} {
		out = append(out, checkTimes("timeline."+p.name, p.d, longestRun)...)
	}
	if t.Warmup+t.Baseline+t.Recovery <= 0 && len(t.Faults) == 0 {
		out = append(out, problem{path: "timeline", msg: "the timeline is empty: nothing would be measured", hint: "add baseline: 6s", needs: []string{"timeline"}})
	}
	if len(t.Faults) > maxFaults {
		out = append(out, problem{path: "timeline.faults", msg: fmt.Sprintf("%d faults; at most %d", len(t.Faults), maxFaults)})
	}
	for i := range t.Faults {
		path := "timeline.faults[" + strconv.Itoa(i) + "]"
		for _, p := range t.Faults[i].problems(in, true) {
			p.path = join(path, p.path)
			for j, n := range p.needs {
				if !slices.Contains(inExtent, n) {
					p.needs[j] = join(path, n)
				}
			}
			p.path = strings.TrimSuffix(p.path, ".")
			out = append(out, p)
		}
	}
	return out
}

// problems returns what is wrong with a fault, by paths below it. A fault of a
// scenario must end; one put on a live cluster may last until it is removed.
func (f *Fault) problems(in extent, mustEnd bool) (out []problem) {
	k, ok := plan.KindNamed(f.Kind)
	if !ok {
		return []problem{{path: "", msg: fmt.Sprintf("unknown fault %q", f.Kind), hint: nearest.Hint(f.Kind, kindNames())}}
	}
	out = append(out, checkTimes("at", f.At, longestRun)...)
	out = append(out, checkTimes("for", f.For, longestRun)...)
	out = append(out, f.checkParams(k)...)
	out = append(out, f.checkDuration(k, mustEnd)...)
	out = append(out, f.checkProfile(k)...)
	out = append(out, f.checkNet()...)
	out = append(out, f.checkQuota()...)
	if names := plan.Providers[f.Kind]; f.Provider != "" && !slices.Contains(names, f.Provider) {
		out = append(out, problem{path: join(k.Name, "provider"), msg: fmt.Sprintf("%s is not given by %q, but by %s", k.Name, f.Provider, strings.Join(names, ", "))})
	}
	if r := plan.Cannot(f.Kind, f.Provider, f.Params); r != nil {
		path, needs := join(k.Name, r.Param), []string(nil)
		if p, _ := param(k, r.Param); !f.Params.Has(p.Key()) { // its default is meant
			path, needs = join(k.Name, "provider"), []string{k.Name}
		}
		out = append(out, problem{path: path, msg: fmt.Sprintf("%s cannot give this %s: %s", f.Provider, k.Name, r.Why), hint: "write " + r.Cure, needs: needs})
	}
	return append(out, f.checkWhere(k, in)...)
}

// checkParams checks what a file's decoder has checked already, for literals.
func (f *Fault) checkParams(k plan.Kind) (out []problem) {
	known := map[string]bool{}
	for _, p := range k.Params {
		known[p.Key()] = true
		path := join(k.Name, p.Name)
		v, ok := f.Params[p.Key()]
		switch {
		case !ok && p.Required:
			out = append(out, problem{path: path, msg: fmt.Sprintf("%s has no %s", k.Name, p.Name)})
		case ok && len(p.Words) > 0 && !slices.Contains(p.Words, f.Params.String(p.Name)):
			out = append(out, problem{path: path, msg: fmt.Sprintf("%v is none of %s", v, strings.Join(p.Words, ", "))})
		case ok && p.Type != plan.Flag && p.Type != plan.Word:
			if err := outside(p, v); err != nil {
				out = append(out, problem{path: path, msg: err.Error()})
			}
		}
	}
	has := func(name string) bool {
		p, _ := param(k, name)
		return f.Params.Has(p.Key())
	}
	for _, p := range k.Params {
		path := join(k.Name, p.Name)
		switch {
		case !has(p.Name):
		case p.With != nil && !slices.ContainsFunc(p.With, has):
			out = append(out, problem{path: path, msg: fmt.Sprintf("%s says nothing without %s", p.Name, strings.Join(p.With, " or "))})
		case p.Needs != "" && !has(p.Needs):
			out = append(out, problem{path: path, msg: fmt.Sprintf("%s needs %s beside it", p.Name, p.Needs), needs: []string{k.Name}})
		}
	}
	var given []string
	for _, name := range k.OneOf {
		if p, _ := param(k, name); f.Params.Has(p.Key()) {
			given = append(given, name)
		}
	}
	switch {
	case len(k.OneOf) > 0 && len(given) == 0:
		out = append(out, problem{path: k.Name, msg: fmt.Sprintf("%s has none of %s", k.Name, strings.Join(k.OneOf, ", ")), hint: "write one of them", needs: []string{k.Name}})
	case len(k.AnyOf) > 0 && !slices.ContainsFunc(k.AnyOf, func(name string) bool { p, _ := param(k, name); return f.Params.Has(p.Key()) }):
		out = append(out, problem{path: k.Name, msg: fmt.Sprintf("%s has none of %s", k.Name, strings.Join(k.AnyOf, ", ")), hint: "write one or more of them", needs: []string{k.Name}})
	case len(given) > 1:
		out = append(out, problem{path: join(k.Name, given[1]), msg: fmt.Sprintf("%s beside %s; they are two ways to say one thing", given[1], given[0])})
	}
	for _, name := range f.Params.Names() {
		if !known[name] {
			out = append(out, problem{path: k.Name, msg: fmt.Sprintf("%s has no parameter %q", k.Name, name)})
		}
	}
	return out
}

// checkQuota checks that the kernel takes the quota of a cpu.quota.
func (f *Fault) checkQuota() []problem {
	percent := f.Params.Float("percent")
	if f.Kind != "cpu.quota" || percent <= 0 {
		return nil
	}
	period := f.Params.Duration("period")
	if period <= 0 {
		period = cgroup.DefaultPeriod
	}
	q, err := cgroup.QuotaFor(percent, period)
	if err != nil {
		return []problem{{path: join(f.Kind, "percent"), msg: err.Error()}}
	}
	if burst := f.Params.Duration("burst"); burst > q.Quota {
		return []problem{{path: join(f.Kind, "burst"), msg: fmt.Sprintf("a burst of %v is more than %v, the share of one period, which the kernel takes at most", burst, q.Quota)}}
	}
	return nil
}

// checkNet checks what parameters of network faults mean together.
func (f *Fault) checkNet() (out []problem) {
	bad := func(name, format string, args ...any) {
		out = append(out, problem{path: join(f.Kind, name), msg: fmt.Sprintf(format, args...)})
	}
	p := f.Params
	if add := p.Duration("add"); (f.Kind == "net.delay" || f.Kind == "net.reorder") && f.For > 0 && add >= f.For {
		bad("add", "no packet that is held for %s arrives within the %s of the fault, so nobody could see it", quantity.Duration(add), quantity.Duration(f.For))
	}
	switch f.Kind {
	case "net.delay":
		add, jitter := p.Duration("add"), p.Duration("jitter")
		// Half of a normal or Pareto jitter lies below add, though most of it not far.
		if p.Has("add_ns") && jitter > add {
			bad("jitter", "jitter %s is more than add %s: no packet can be early by more than it is late", quantity.Duration(jitter), quantity.Duration(add))
		}
	case "net.loss":
		percent, burst := p.Float("percent"), p.Float("burst")
		if burst > 0 && percent < 100 && percent/(100-percent) > burst {
			bad("burst", "bursts of %g on average cannot make up a loss of %g %%: it takes %.4g", burst, percent, percent/(100-percent))
		}
		if p.Has("to_bad") && p.Float("to_bad") > 0 && p.Has("bad") && p.Float("bad") == 0 && p.Float("good") == 0 {
			bad("bad", "nothing is lost in either state")
		}
	case "net.rate":
		if p.Has("queue_bytes") && p.Has("queue_time_ns") {
			bad("queue_time", "queue_time beside queue; they are two ways to say one thing")
		}
		if limit := p.Float("limit_bits_per_s"); p.Has("queue_time_ns") && limit > 0 {
			if room := p.Duration("queue_time").Seconds() * limit / 8; room < 1514 {
				bad("queue_time", "in %s the link carries %.0f bytes, less than one packet of 1514", quantity.Duration(p.Duration("queue_time")), room)
			}
		}
	}
	return out
}

// length is how long a fault lasts; 0 if nothing says so.
func (f *Fault) length() time.Duration {
	switch {
	case f.For != 0:
		return f.For
	case f.Params.Has("length_ns"):
		return f.Params.Duration("length")
	}
	return f.Params.Duration("restart")
}

func (f *Fault) checkDuration(k plan.Kind, mustEnd bool) (out []problem) {
	length, every, restart := f.Params.Duration("length"), f.Params.Duration("every"), f.Params.Duration("restart")
	_, hasLength := param(k, "length")
	_, hasRestart := param(k, "restart")
	switch {
	case f.For == 0 && (!k.Instant || every != 0) && mustEnd:
		out = append(out, problem{path: "for", msg: fmt.Sprintf("%s does not end by itself: for is missing", k.Name), hint: "write for: 10s", needs: []string{"for", join(k.Name, "every")}})
	case f.length() == 0 && mustEnd && hasRestart:
		out = append(out, problem{path: k.Name, msg: fmt.Sprintf("%s does not end: nothing says when the node comes back", k.Name), hint: "write restart: 3s, or for: 10s", needs: []string{k.Name, "for"}})
	case hasLength && every == 0 && f.For != 0 && f.For < length:
		out = append(out, problem{path: "for", msg: fmt.Sprintf("for %s ends before a pause of %s does", quantity.Duration(f.For), quantity.Duration(length))})
	case every != 0 && every < length:
		out = append(out, problem{path: join(k.Name, "every"), msg: fmt.Sprintf("a pause of %s every %s would never end", quantity.Duration(length), quantity.Duration(every))})
	case restart != 0 && f.For != 0 && f.For < restart:
		out = append(out, problem{path: "for", msg: fmt.Sprintf("for %s ends before the restart after %s", quantity.Duration(f.For), quantity.Duration(restart))})
	}
	return out
}

func (f *Fault) checkWhere(k plan.Kind, in extent) (out []problem) {
	at := func(name string, err error) {
		if err != nil {
			out = append(out, problemAt(join(k.Name, name), err, inExtent...))
		}
	}
	if k.Where == plan.OnNodes {
		if f.On == "" {
			out = append(out, problem{path: join(k.Name, "on"), msg: k.Name + " has no on", hint: "write on: leader"})
		} else {
			at("on", checkSelector(f.On, in))
		}
		if f.From+f.To+f.Split+f.Plane != "" {
			out = append(out, problem{path: k.Name, msg: k.Name + " has no from, to, split or plane"})
		}
	} else {
		for _, p := range f.checkLinks(k, in) {
			p.path = strings.TrimSuffix(join(k.Name, p.path), ".")
			out = append(out, p)
		}
	}
	if f.Follow != "" && f.Follow != "role" {
		out = append(out, problem{path: join(k.Name, "follow"), msg: fmt.Sprintf("follow %q; the only word is role", f.Follow)})
	} else if f.Follow != "" && !usesRole(strings.Join([]string{f.On, f.From, f.To, f.Split, f.Params.String("isolate"), f.Params.String("bridge")}, " ")) {
		out = append(out, problem{path: join(k.Name, "follow"), msg: "follow: role, but no selector names a role"})
	}
	return out
}

// checkLinks checks from, to, split and plane; paths are below the kind.
func (f *Fault) checkLinks(k plan.Kind, in extent) (out []problem) {
	if f.On != "" {
		out = append(out, problem{path: "", msg: k.Name + " has no on", hint: "write from: and to:"})
	}
	if !slices.Contains([]string{"", "peer", "client", "both"}, f.Plane) {
		out = append(out, problem{path: "plane", msg: fmt.Sprintf("%q is none of peer, client, both", f.Plane)})
	}
	isolate, bridge := f.Params.String("isolate"), f.Params.String("bridge")
	if k.Where == plan.Cut && isolate+bridge != "" {
		return append(out, f.checkShape(isolate, bridge, in)...)
	}
	if f.Split != "" {
		if k.Where != plan.Cut {
			return append(out, problem{path: "", msg: k.Name + " has no split"})
		}
		if f.From+f.To != "" {
			out = append(out, problem{path: "split", msg: "split beside from or to; it says both sides already"})
		}
		if err := checkSplit(f.Split, in); err != nil {
			out = append(out, problemAt("split", err, inExtent...))
		}
		return out
	}
	if f.From+f.To == "" {
		hint := "write from: leader, to: followers, or from: every pair"
		if k.Where == plan.Cut {
			hint = `write split: "minority | majority", or from: leader, to: followers`
		}
		return append(out, problem{path: "", msg: k.Name + " does not say between whom", hint: hint, needs: []string{k.Name}})
	}
	for _, side := range []struct{ name, words string }{{"from", f.From}, {"to", f.To}} {
		if side.words == "" {
			continue
		}
		extra := []string{wordClient, wordEveryPair}
		if err := checkSelector(side.words, in, extra...); err != nil {
			out = append(out, problemAt(side.name, err, inExtent...))
		} else if strings.Contains(side.words, wordClient) && strings.TrimSpace(side.words) != wordClient {
			out = append(out, problem{path: side.name, msg: "client stands alone in from and to"})
		}
	}
	from, one := onlyNode(f.From)
	to, other := onlyNode(f.To)
	switch {
	case one && other && from == to:
		out = append(out, problem{path: "to", msg: fmt.Sprintf("there is no link from %s to itself", from)})
	case f.From == wordClient && f.To == wordClient:
		out = append(out, problem{path: "to", msg: "there is no link from client to client"})
	case f.From == wordCache && f.To == wordCache:
		out = append(out, problem{path: "to", msg: "there is no link from cache to cache"})
	case f.From == f.To && strings.HasPrefix(f.From, "leader"):
		out = append(out, problem{path: "to", msg: "there is one leader, and no link from it to itself"})
	case in.nodes == 1 && f.From != wordClient && f.To != wordClient && f.From != wordCache && f.To != wordCache && (f.Plane == "" || f.Plane == "peer"):
		out = append(out, problem{path: "", msg: "one node has no links to others", hint: "plane: client, or more nodes", needs: []string{"target.nodes"}})
	}
	return out
}

// checkShape checks the words for shapes of a partition.
func (f *Fault) checkShape(isolate, bridge string, in extent) (out []problem) {
	shape, words := "isolate", isolate
	if isolate == "" {
		shape, words = "bridge", bridge
	}
	switch {
	case isolate != "" && f.Split != "":
		out = append(out, problem{path: "isolate", msg: "isolate beside split; they are two ways to say one thing"})
	case f.From+f.To != "":
		out = append(out, problem{path: shape, msg: shape + " beside from or to; it says both sides already"})
	}
	for _, s := range []struct{ name, words string }{{"isolate", isolate}, {"bridge", bridge}} {
		if s.words == "" {
			continue
		}
		if err := checkSelector(s.words, in); err != nil {
			out = append(out, problemAt(s.name, err, inExtent...))
		} else if strings.Join(strings.Fields(s.words), " ") == "all" {
			out = append(out, problem{path: s.name, msg: s.name + ": all leaves nobody on the other side"})
		}
	}
	least := 2
	if bridge != "" {
		least = 3
	}
	if out == nil && in.nodes < least && (bridge != "" || f.Plane == "" || f.Plane == "peer") {
		out = append(out, problem{path: shape, msg: fmt.Sprintf("%s: %s of %d nodes leaves no two groups", shape, words, in.nodes), hint: "more nodes", needs: []string{"target.nodes"}})
	}
	if f.Split != "" {
		if err := checkSplit(f.Split, in); err != nil {
			out = append(out, problemAt("split", err, inExtent...))
		}
	}
	return out
}

// checkSentence says what is wrong with one sentence of expect in this scenario.
func (s *Scenario) checkSentence(path, text string) []problem {
	sentence, err := expect.Parse(text)
	if e, ok := err.(*expect.Error); ok {
		return []problem{{path: path, msg: e.Msg, hint: e.Hint, start: e.Start, width: e.Width}}
	}
	var out []problem
	within := func(word, msg, hint string, needs ...string) {
		at, width := strings.Index(text, word), len(word)
		if word == "" || at < 0 {
			at, width = 0, 0
		}
		at = utf8.RuneCountInString(text[:at])
		out = append(out, problem{path: path, msg: msg, hint: hint, start: at, width: width, needs: needs})
	}
	if f := sentence.Fault(); f != "" && !s.hasFault(f) {
		within(f, fmt.Sprintf("there is no %s in this timeline", f), s.faultHint(), "timeline.faults")
	} else if sentence.NeedsFault() && f == "" && len(s.Timeline.Faults) == 0 && sentence.Period.Name == "" {
		within("", "it counts while faults last, and this timeline has none", "write in baseline, in recovery or in run", "timeline.faults")
	}
	if sentence.NeedsBaseline() && s.Timeline.Baseline == 0 {
		within("", "it compares with the baseline, and timeline.baseline is 0s", "", "timeline.baseline")
	}
	if sentence.Period.Name == "recovery" && s.Timeline.Recovery == 0 {
		within("recovery", "timeline.recovery is 0s", "", "timeline.recovery")
	}
	if sentence.Period.Name == "warmup" && s.Timeline.Warmup == 0 {
		within("warmup", "timeline.warmup is 0s", "", "timeline.warmup")
	}
	if sentence.Metric.Name == "time_to_recover" && s.Timeline.Recovery == 0 {
		within("", "timeline.recovery is 0s: there is no time to recover in", "", "timeline.recovery")
	}
	if op := sentence.Metric.Op; op != "" && op != "all" && !slices.ContainsFunc(s.Workload.Mix, func(m plan.Share) bool { return m.Kind == op && m.P > 0 }) {
		within("("+op, fmt.Sprintf("the workload has no %s", op), "", "workload.mix")
	}
	if shard := sentence.Metric.Shard; shard != "" {
		if err := checkShard("shard "+shard, s.Target.extent().shards); err != nil {
			p := problemAt("", err)
			within("shard "+shard, p.msg, p.hint, "target.config.shards")
		}
	}
	if i, ok := nodeNumber(sentence.At); ok && (i < 1 || i > s.Target.Nodes) {
		within(sentence.At, fmt.Sprintf("there is no %s: the cluster has %s", sentence.At, count(s.Target.Nodes, "node")), "", "target.nodes")
	}
	return out
}

// hasFault reports whether a sentence's kind or id is in the timeline.
func (s *Scenario) hasFault(name string) bool {
	for i, f := range s.Timeline.Faults {
		if f.Kind == name || faultID(i) == name {
			return true
		}
	}
	return false
}

func (s *Scenario) faultHint() string {
	var words []string
	for i, f := range s.Timeline.Faults {
		words = append(words, faultID(i)+" "+f.Kind)
	}
	if words == nil {
		return "the timeline has no faults"
	}
	return "it has " + strings.Join(words, ", ")
}

// faultID is the name of the fault at an index.
func faultID(i int) string { return "f" + strconv.Itoa(i+1) }
