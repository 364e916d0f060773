package main

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"brownout/internal/plan"
	"brownout/internal/run"
)

// A progress tells a person what a run is doing: a line per event, and on a
// terminal one line below them that is redrawn.
type progress struct {
	mu    sync.Mutex
	o     *output
	plan  *plan.Plan
	began time.Time
	drawn bool // the status line stands on the terminal
}

func newProgress(o *output, p *plan.Plan) *progress {
	return &progress{o: o, plan: p, began: time.Now()}
}

// event prints what is worth a line.
func (p *progress) event(e run.Event) {
	text := describe(e)
	if text == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.o.talk, "%7.1fs  %s\n", time.Since(p.began).Seconds(), text)
}

// status redraws the live line; it prints nothing where nothing can be redrawn.
func (p *progress) status(text string) {
	if !p.o.tty {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.o.talk, "          %s", text)
	p.drawn = true
}

func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

func (p *progress) erase() {
	if p.drawn {
		fmt.Fprint(p.o.talk, "\r\x1b[K")
		p.drawn = false
	}
}

// describe puts an event into words; "" for those that only machines want.
func describe(e run.Event) string {
	switch e.Type {
	case run.PhaseStarted:
		return "── " + e.Phase
	case run.LoadStarted:
		if m := e.Data["max_per_s"]; m != nil && fmt.Sprint(m) != "0" {
			return fmt.Sprintf("load       %.0f op/s, of a maximum of %.0f", e.Data["rate_per_s"], m)
		}
		return fmt.Sprintf("load       %.0f op/s", e.Data["rate_per_s"])
	case run.FaultFired:
		return fmt.Sprintf("▼ %s %s  %s by %s  %s", e.Fault, e.Kind, strings.Join(e.Nodes, " "), e.Provider, values(e.Requested))
	case run.FaultMeasured:
		return fmt.Sprintf("  %s %s  bit: %s  %s", e.Fault, e.Kind, e.Bit, e.Text)
	case run.FaultChanged:
		// The ends of its range only: a sine has forty levels.
		if v := e.Data["severity"]; v == 0.0 || v == 1.0 {
			return fmt.Sprintf("  %s %s  at %.0f%% of its dose", e.Fault, e.Kind, v.(float64)*100)
		}
	case run.FaultHealed:
		return fmt.Sprintf("▲ %s %s  healed", e.Fault, e.Kind)
	case run.FaultVerified:
		return fmt.Sprintf("  %s %s  gone: %s  %s", e.Fault, e.Kind, e.Healed, e.Text)
	case run.FaultFailed, run.RoleMoved:
		return fmt.Sprintf("! %s %s  %s", e.Fault, e.Kind, e.Text)
	case run.LeaderChanged:
		if e.Node == "" {
			return "leader     none" + ofShard(e)
		}
		return fmt.Sprintf("leader     %s (term %v)%s", e.Node, e.Data["term"], ofShard(e))
	case run.NodeExited:
		if expected, _ := e.Data["expected"].(bool); expected {
			return fmt.Sprintf("node %s    ended: %s", e.Node, firstLine(e.Text))
		}
		return fmt.Sprintf("! node %s ended by itself: %s", e.Node, firstLine(e.Text))
	case run.TestbedFailed:
		return "! testbed  " + e.Text
	case run.Violated:
		return "! violation " + e.Text
	case run.Interrupted:
		return "! interrupted: " + e.Text
	case run.Note:
		return e.Text
	}
	return ""
}

// ofShard says whose leader it is, where there are several shards.
func ofShard(e run.Event) string {
	switch shard := e.Data["shard"].(type) {
	case int, float64:
		return fmt.Sprintf(" of shard %v", shard)
	}
	return ""
}

func firstLine(s string) string { s, _, _ = strings.Cut(s, "\n"); return s }

// values prints a dose: "add 20ms, op fsync".
func values(m map[string]any) string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	sort.Strings(names)
	out := make([]string, 0, len(m))
	for _, k := range names {
		if name, ok := strings.CutSuffix(k, "_ns"); ok {
			out = append(out, fmt.Sprintf("%s %v", name, time.Duration(plan.Params(m).Float(k))))
		} else {
			out = append(out, fmt.Sprintf("%s %v", k, m[k]))
		}
	}
	return strings.Join(out, ", ")
}
