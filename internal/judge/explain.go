package judge

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"brownout/checker"
	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/kvserver/slots"
)

// explain tells what went on around a conflict: the faults that were in force
// from its first operation on, and who led.
func (rec *record) explain(out *run.Conflict, c *checker.Conflict, faults []run.Fault) {
	from, to := int64(math.MaxInt64), c.At
	byID := map[int64]*history.Op{}
	for i := range c.Core {
		byID[c.Core[i].ID] = &c.Core[i]
	}
	for _, id := range c.Ops {
		if o := byID[id]; o != nil {
			from = min(from, o.Call)
			if o.Outcome == history.OK {
				to = max(to, o.Return)
			}
		}
	}
	for _, f := range faults {
		if f.Start == 0 && f.End == 0 || f.Start > to || f.End < from {
			continue
		}
		out.Context = append(out.Context, fmt.Sprintf("%s %s on %s was in force from %s to %s", f.ID, f.Kind, strings.Join(f.Nodes, ", "), seconds(f.Start), seconds(f.End)))
	}
	shard := 0
	if len(c.Core) > 0 {
		shard = slots.ShardOf(c.Core[0].Key, rec.plan.Target.Shards())
	}
	out.Context = append(out.Context, rec.leadersIn(shard, from, to)...)
	if rec.splitBrain(c, shard, byID) {
		out.Text = strings.Replace(out.Text, ": ", ": two leaders acknowledged writes at the same time: ", 1)
		out.Label = "split brain"
	}
	out.Again = rec.again()
}

// A reign is the time from which a node led in a term.
type reign struct {
	node string
	term int64
	from int64
}

// reigns returns who led a shard, in the order of time.
func (rec *record) reigns(shard int) []reign {
	var out []reign
	for _, e := range sortedEvents(rec.events) {
		if e.Type == run.LeaderChanged && e.Node != "" && int(number(e.Data, "shard")) == shard {
			out = append(out, reign{e.Node, int64(number(e.Data, "term")), e.T})
		}
	}
	return out
}

func (rec *record) leadersIn(shard int, from, to int64) (out []string) {
	all := rec.reigns(shard)
	for i, r := range all {
		if r.from > to || i+1 < len(all) && all[i+1].from < from {
			continue
		}
		out = append(out, fmt.Sprintf("%s led%s in term %d, as the nodes said since %s", r.node, rec.shardName(shard), r.term, seconds(r.from)))
	}
	return out
}

// splitBrain reports whether the contradicting writes were acknowledged by two
// leaders, and the one of the older term after the other had been seen to lead.
func (rec *record) splitBrain(c *checker.Conflict, shard int, byID map[int64]*history.Op) bool {
	switch c.Label {
	case "lost update", "diverging appends", "lost append", "lost acknowledged write":
	default:
		return false
	}
	all := rec.reigns(shard)
	led := func(node string, t int64) (r reign, ok bool) {
		for _, x := range all {
			if x.node == node && x.from <= t {
				r, ok = x, true
			}
		}
		return r, ok
	}
	for i, a := range c.Ops {
		for _, b := range c.Ops[:i] {
			x, y := byID[a], byID[b]
			if x == nil || y == nil || x.Node == y.Node || x.Outcome != history.OK || y.Outcome != history.OK || x.Kind == history.Get || y.Kind == history.Get {
				continue
			}
			if x.Return > y.Return {
				x, y = y, x
			}
			old, ok1 := led(y.Node, y.Return)
			young, ok2 := led(x.Node, x.Return)
			if ok1 && ok2 && old.term < young.term && y.Return > young.from {
				return true
			}
		}
	}
	return false
}

// again is the command that repeats the run, with what its command line changed
// of the scenario.
func (rec *record) again() string {
	name := strings.TrimPrefix(rec.plan.File, "builtin:")
	if name == "" {
		name = run.ScenarioFile
	}
	words := []string{"brownout", "run", quoted(name)}
	changes := []string{"--set", "--nodes", "--target"}
	argv := rec.manifest.Argv
	for i, w := range argv {
		flag, _, joined := strings.Cut(w, "=")
		switch {
		case !slices.Contains(changes, flag):
		case joined:
			words = append(words, quoted(w))
		case i+1 < len(argv):
			words = append(words, w, quoted(argv[i+1]))
		}
	}
	return strings.Join(append(words, "--seed", fmt.Sprint(rec.plan.Seed)), " ")
}

// quoted makes a word one word for a shell.
func quoted(w string) string {
	if w != "" && !strings.ContainsAny(w, " \t\n'\"\\|&;<>()$`*?#~{}[]!") {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
