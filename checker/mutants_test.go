package checker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// judging are the files whose every comparison and rule decides about a verdict.
var judging = []string{"blocks.go", "check.go", "core.go", "cut.go", "durability.go", "levels.go", "online.go", "porcupine.go", "prune.go", "shrink.go", "table.go"}

// A mutant is one change to the checker that a test must notice.
type mutant struct {
	id   int
	file string
	line int
	was  string // the text that is changed
	now  string
}

func (m mutant) String() string {
	return fmt.Sprintf("%s:%d: %s  instead of  %s", m.file, m.line, m.now, m.was)
}

// harmless mutants, by the text of the change, and the file if it is harmless in that
// one: nobody can notice them, or only by how long the checker takes. Each says why.
var harmless = map[string]string{
	"v < 0  instead of  v < 0 && e.bad == nil":                                                                        "a later stranger is told of in place of the first",
	"v < 0  instead of  v < 0 || e.bad != nil":                                                                        "more is learnt of a key that is bad already",
	"e.bad != nil  instead of  v < 0 || e.bad != nil":                                                                 "a stranger has made it bad one case before",
	"f.ret <= e.facts[x.least].ret  instead of  f.ret < e.facts[x.least].ret":                                         "one of two that returned at the same time",
	"f.call >= e.facts[x.latest].call  instead of  f.call > e.facts[x.latest].call":                                   "one of two that were called at the same time",
	"o.Kind == history.CAS  instead of  o.Kind == history.CAS && !x.linked":                                           "what a completed swap expected is what it found",
	"!x.linked  instead of  !x.effective || !x.linked":                                                                "only versions that were seen are linked",
	"x.writer < 0  instead of  x.writer < 0 || e.ops[x.writer].completed() && e.ops[x.writer].Kind != history.Append": "who is named, not what is decided",
	"e.ops[x.writer].completed() && e.ops[x.writer].Kind != history.Append  instead of  x.writer < 0 || e.ops[x.writer].completed() && e.ops[x.writer].Kind != history.Append": "who is named, not what is decided",
	"without the rule  instead of  if x.writer < 0 || e.ops[x.writer].completed() && e.ops[x.writer].Kind != history.Append":                                                   "who is named, not what is decided",
	"y.effective  instead of  y.effective && y.linked":                                                                                 "who is named, not what is decided",
	"y.linked  instead of  y.effective && y.linked":                                                                                    "who is named, not what is decided",
	"y.pred == v  instead of  y.effective && y.linked && y.pred == v":                                                                  "who is named, not what is decided",
	"!(o.Kind == history.Append)  instead of  o.Kind == history.Append":                                                                "values are taken apart although nothing was appended: slower, and the same",
	"from <= len(e.ops)  instead of  from < len(e.ops)":                                                                                "no operations are looked at once more",
	"o.Result != nil  instead of  o.Result != nil && !appends":                                                                         "a hash that nobody asks for",
	"f.observes && o.Result != nil  instead of  f.observes && o.Result != nil && !appends":                                             "a hash that nobody asks for",
	"o.Kind == history.CAS  instead of  o.Kind == history.CAS && f.observes":                                                           "asked of who observes only",
	"!(o.ret == never)  instead of  o.ret == never":                                                                                    "takes the long way to the same",
	"without the rule  instead of  if !slices.ContainsFunc(ops, func(o op) bool { return o.ret == never })":                            "takes the long way to the same",
	"pruned >= 0  instead of  pruned > 0":                                                                                              "the same words once more",
	"o.Kind == history.CAS  instead of  o.Kind == history.CAS && o.Outcome == history.Unknown":                                         "what a completed swap expected it has found",
	"o.Outcome == history.Unknown  instead of  o.Kind == history.CAS && o.Outcome == history.Unknown":                                  "others expect nothing",
	"byCall[n].call() <= o.Call  instead of  byCall[n].call() < o.Call":                                                                "what is there before has been called before",
	"n < len(byCall)  instead of  n < len(byCall) && byCall[n].call() < o.Call":                                                        "what is there before has been called before",
	"s.floor.call() <= v.call()  instead of  s.floor.call() < v.call()":                                                                "one of two that were called at the same time",
	"v.call() <= last.call()  instead of  v.call() < last.call()":                                                                      "a client calls one at a time",
	"l.ctx.Err() != nil  instead of  l.ctx.Err() != nil || time.Now().After(l.deadline)":                                               "when a search gives up, not what it finds",
	"!(l.ctx.Err() != nil)  instead of  l.ctx.Err() != nil":                                                                            "when a search gives up, not what it finds",
	"time.Now().After(l.deadline)  instead of  l.ctx.Err() != nil || time.Now().After(l.deadline)":                                     "when a search gives up, not what it finds",
	"without the rule  instead of  if w.steps&0x3ff != 0":                                                                              "when a search gives up, not what it finds",
	"!(w.steps&0x3ff != 0)  instead of  w.steps&0x3ff != 0":                                                                            "when a search gives up, not what it finds",
	"w.entries*w.size >= mayWaste  instead of  w.entries*w.size > mayWaste":                                                            "when a search gives up, not what it finds",
	"!(w.entries*w.size > mayWaste)  instead of  w.entries*w.size > mayWaste":                                                          "when a search gives up, not what it finds",
	"heapBytes() >= w.limit.heap  instead of  heapBytes() > w.limit.heap":                                                              "when a search gives up, not what it finds",
	"heapBytes() > w.limit.heap  instead of  w.entries*w.size > mayWaste && heapBytes() > w.limit.heap":                                "when a search gives up, not what it finds",
	"s.lastRead < o.Call  instead of  s.known && s.lastRead < o.Call":                                                                  "what is not known stays so",
	"o.Result != nil  instead of  f.observes && o.Result != nil":                                                                       "only who observes has a result",
	"without the rule  instead of  if !appends":                                                                                        "what is not found is looked for later",
	"without the rule  instead of  if next == 0":                                                                                       "who is named, not what is decided",
	"x.linked  instead of  !x.effective || x.linked":                                                                                   "what did not exist has neither readers nor successors",
	"f.call >= called  instead of  f.call > called":                                                                                    "one of two that were called at the same time",
	"v == start  instead of  v == start || !e.versions[v].linked":                                                                      "a chain's first version is not linked",
	"!e.versions[v].linked  instead of  v == start || !e.versions[v].linked":                                                           "who is named, not what is decided",
	"without the rule  instead of  if !e.versions[v].linked":                                                                           "a circle comes back to where it began",
	"without the rule  instead of  if !x.linked || !x.effective":                                                                       "how much room is made",
	"!x.linked  instead of  !x.linked || !x.effective":                                                                                 "how much room is made",
	"!x.effective  instead of  !x.linked || !x.effective":                                                                              "how much room is made",
	"x.writer > 0  instead of  x.writer >= 0":                                                                                          "what nobody saw stands alone, at the end if its outcome is unknown",
	"!(x.writer >= 0)  instead of  x.writer >= 0":                                                                                      "what nobody saw stands alone, at the end if its outcome is unknown",
	"!x.effective  instead of  x.writer >= 0 && !x.effective":                                                                          "version 0 existed",
	"f.appends  instead of  f.appends && !f.unknown":                                                                                   "of unknown outcome it stands at the end",
	"!f.unknown  instead of  f.appends && !f.unknown":                                                                                  "only an append is completed and yet nobody saw it",
	"f.ret <= b.f  instead of  f.ret < b.f":                                                                                            "one of two that returned at the same time",
	"f.call >= b.s  instead of  f.call > b.s":                                                                                          "one of two that were called at the same time",
	"b.f <= b.s  instead of  b.f < b.s":                                                                                                "a block that is one moment is either",
	"b.s >= a.s  instead of  b.s > a.s":                                                                                                "one of two that last as long",
	"without the rule  instead of  if e.collided == 0":                                                                                 "nothing to tell",
	"without the rule  instead of  if around != nil":                                                                                   "how much is told, not what is decided",
	"!(v == b)  instead of  v == b":                                                                                                    "who is named, not what is decided",
	"!(e.ops[i].Result == nil)  instead of  e.ops[i].Result == nil":                                                                    "who is named, not what is decided",
	"e.words == nil  instead of  e.words == nil || e.ops[i].Result == nil":                                                             "nobody is said to have written nothing",
	"without the rule  instead of  if id != 0":                                                                                         "every word was written by somebody",
	"without the rule  instead of  if o.writes()":                                                                                      "who is named, not what is decided",
	"without the rule  instead of  if x.linked && x.pred != 0 && !in[e.versions[x.pred].writer]":                                       "who is named, not what is decided",
	"x.pred != 0  instead of  x.linked && x.pred != 0":                                                                                 "what has a predecessor is linked",
	"without the rule  instead of  if len(in) >= maxAround":                                                                            "how much is told, not what is decided",
	"len(in) > maxAround  instead of  len(in) >= maxAround":                                                                            "how much is told, not what is decided",
	"without the rule  instead of  if v < 0":                                                                                           "who found what nobody wrote is told of elsewhere",
	"w > 0  instead of  w >= 0":                                                                                                        "who is named, not what is decided",
	"without the rule  instead of  if w >= 0":                                                                                          "who is named, not what is decided",
	"len(in) <= most  instead of  len(in) < most":                                                                                      "how much is told, not what is decided",
	"x.linked && x.pred != 0  instead of  x.linked && x.pred != 0 && len(in) < most":                                                   "how much is told, not what is decided",
	"o.Kind == history.Append  instead of  o.Kind == history.Append && e.versions[v].linked":                                           "who is named, not what is decided",
	"e.versions[v].linked  instead of  o.Kind == history.Append && e.versions[v].linked":                                               "who is named, not what is decided",
	"o.Kind == history.Append && e.versions[v].linked  instead of  !o.completed() || o.Kind == history.Append && e.versions[v].linked": "who is named, not what is decided",
	"o.writes()  instead of  o.writes() && (!o.completed() || o.Kind == history.Append && e.versions[v].linked)":                       "who is named, not what is decided",
	"(!o.completed() || o.Kind == history.Append && e.versions[v].linked)  instead of  o.writes() && (!o.completed() || o.Kind == history.Append && e.versions[v].linked)": "who is named, not what is decided",
	"x.writer <= 0  instead of  x.writer < 0":                                                                                      "who is named, not what is decided",
	"!f.writes  instead of  f.observes && !f.writes":                                                                               "what neither writes nor observes is not in a key's history",
	"without the rule  instead of  if (a.root == 0) != (b.root == 0)":                                                              "version 0 begins before all others",
	"!(id != 0)  instead of  id != 0":                                                                                              "who is named, not what is decided",
	"3*size <= 4*n  instead of  3*size < 4*n":                                                                                      "how much room is made",
	"without the rule  instead of  if v != nil && *v != \"\"":                                                                      "what is brought near, not what is found",
	"*t.texts[id] == *v  instead of  t.texts[id] == v || *t.texts[id] == *v":                                                       "one value is like itself: slower, and the same",
	"resets  instead of  resets && o.completed()":                                                                                  "a write of unknown outcome that nobody saw has a place at the end",
	"without the rule  instead of  if ok":                                                                                          "a value is taken apart once more: slower",
	"len(p.words) == 0  instead of  p.ways == 1 && len(p.words) == 0":                                                              "what can be taken apart in several ways has words",
	"without the rule  instead of  if e.bad != nil":                                                                                "the next step looks again, and the first contradiction stays",
	"alone  instead of  alone && !s.known":                                                                                         "a state that is known and read again is the same state, or its piece is illegal with this read in it",
	"len(picked) <= maxCore  instead of  len(picked) < maxCore":                                                                    "how much is told, not what is decided",
	"check.go: o.ID <= 0  instead of  o.ID < 0":                                                                                    "a thorough look where a quick one would do",
	"check.go: o.Client >= 16*len(r.ops)  instead of  o.Client > 16*len(r.ops)":                                                    "a thorough look where a quick one would do",
	"check.go: o.ID < 0 || o.Client < 0  instead of  o.ID < 0 || o.Client < 0 || o.Client > 16*len(r.ops)":                         "how much room is made",
	"check.go: 4*page*len(r.seen) >= 64*page+len(r.ops)  instead of  4*page*len(r.seen) > 64*page+len(r.ops)":                      "a thorough look where a quick one would do",
	"check.go: s.k <= 0  instead of  s.k < 0":                                                                                      "a name is looked up once more: slower",
	"check.go: without the rule  instead of  if o.Outcome == history.OK || o.Outcome != history.Fail && o.Kind != history.Get":     "how much room is made",
	"check.go: !(o.Kind != history.Get)  instead of  o.Kind != history.Get":                                                        "how much room is made",
	"check.go: !(o.Outcome != history.Fail)  instead of  o.Outcome != history.Fail":                                                "how much room is made",
	"check.go: o.Outcome != history.Fail  instead of  o.Outcome != history.Fail && o.Kind != history.Get":                          "how much room is made",
	"check.go: o.Kind != history.Get  instead of  o.Outcome != history.Fail && o.Kind != history.Get":                              "how much room is made",
	"check.go: o.Outcome == history.OK  instead of  o.Outcome == history.OK || o.Outcome != history.Fail && o.Kind != history.Get": "how much room is made",
	"check.go: o.Outcome != history.Fail && o.Kind != history.Get  instead of  o.Outcome == history.OK || o.Outcome != history.Fail && o.Kind != history.Get": "how much room is made",
	"check.go: without the rule  instead of  if r.around != nil && len(k.ops) > tellWhole":                                                                    "where the conflict to tell is looked for",
	"check.go: len(k.ops) > tellWhole  instead of  r.around != nil && len(k.ops) > tellWhole":                                                                 "where the conflict to tell is looked for",
	"check.go: !(r.around != nil)  instead of  r.around != nil":                                                                                               "where the conflict to tell is looked for",
	"check.go: len(k.ops) >= tellWhole  instead of  len(k.ops) > tellWhole":                                                                                   "where the conflict to tell is looked for",
	"check.go: without the rule  instead of  if r.verdict == Illegal":                                                                                         "the search finds what the blocks have found: slower",
	"check.go: without the rule  instead of  if limit.spent()":                                                                                                "when a search gives up, not what it finds",
	"online.go: len(c.recent) >= maxKeys  instead of  len(c.recent) > maxKeys":                                                                                "how much is remembered",
	"online.go: len(c.queue) >= maxZones  instead of  len(c.queue) > maxZones":                                                                                "how much is remembered",
	"online.go: without the rule  instead of  if k.buckets[i].s <= z.f":                                                                                       "those that do not contradict are asked: slower",
	"online.go: k.buckets[i].s < z.f  instead of  k.buckets[i].s <= z.f":                                                                                      "those that do not contradict are asked: slower",
	"online.go: without the rule  instead of  if i == 0 && len(k.buckets) >= most":                                                                            "it is taken in and is the first to go",
	"online.go: len(k.buckets) > most  instead of  len(k.buckets) >= most":                                                                                    "it is taken in and is the first to go",
	"online.go: over >= 0  instead of  over > 0":                                                                                                              "nothing goes",
	"online.go: top[0].s <= top[1].s  instead of  top[0].s < top[1].s":                                                                                        "one of two that last as long",
	"online.go: top[0].s <= z.s  instead of  top[0].s < z.s":                                                                                                  "one of two that last as long",
	"online.go: top[1].s <= z.s  instead of  top[1].s < z.s":                                                                                                  "one of two that last as long",
	"online.go: top[1].s < z.s  instead of  top[0].s >= top[1].s && top[1].s < z.s":                                                                           "what the case before has left",
	"shrink.go: without the rule  instead of  if len(ops) == 0 || now.After(stop)":                                                                            "when a search gives up, not what it finds",
	"shrink.go: len(ops) == 0  instead of  len(ops) == 0 || now.After(stop)":                                                                                  "when a search gives up, not what it finds",
	"shrink.go: now.After(stop)  instead of  len(ops) == 0 || now.After(stop)":                                                                                "nothing is linearizable",
	"shrink.go: without the rule  instead of  if until.After(stop)":                                                                                           "when a search gives up, not what it finds",
	"shrink.go: at <= len(ops)  instead of  at < len(ops)":                                                                                                    "no operations are taken away once more",
	"shrink.go: size >= len(ops)  instead of  size > len(ops)":                                                                                                "all are taken away once more",
	"shrink.go: !smaller  instead of  !smaller || size > len(ops)":                                                                                            "all are taken away once more",
	"check.go: !(o.Outcome == history.OK)  instead of  o.Outcome == history.OK":                                                                               "how much room is made",
	"!picked[i]  instead of  !picked[i] && len(picked) < maxCore":                                                                                             "how much is told, not what is decided",
}

// TestMutantsAreKilled changes the checker in one place after the other, every
// comparison (its bound, its sense) and every rule (as if it were not there), and
// wants a test to fail each time. All changes are compiled into one binary, which
// is told which of them to make.
func TestMutantsAreKilled(t *testing.T) {
	if os.Getenv("BROWNOUT_MUTANTS") == "" {
		t.Skip("takes minutes: make mutants")
	}
	all, binary := buildMutants(t)
	dies(t, binary, mutant{}) // or everything would be dead
	only := os.Getenv("BROWNOUT_MUTANTS_ONLY")
	var mu sync.Mutex
	killed, excused, survived := 0, 0, 0
	work := make(chan mutant)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for m := range work {
				text := m.String()[strings.Index(m.String(), ": ")+2:]
				_, known := harmless[text]
				if _, here := harmless[m.file+": "+text]; here {
					known = true
				}
				dead := !known && dies(t, binary, m)
				mu.Lock()
				switch {
				case known:
					excused++
				case dead:
					killed++
				default:
					t.Errorf("no test notices %v", m)
					survived++
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range all {
		if strings.Contains(m.String(), only) {
			work <- m
		}
	}
	close(work)
	wg.Wait()
	t.Logf("%d mutants killed, %d harmless, %d survived", killed, excused, survived)
}

// dies reports whether a test fails when m is made: the quickest first, and all
// if those notice nothing. A mutant that runs for ever is dead, too.
func dies(t *testing.T, binary string, m mutant) bool {
	for _, args := range [][]string{
		{"-test.short", "-test.run", "Agree|Cut|Refuse|Model|Durability|Words|Illegal|Levels|OnlineStories|OnlineInAnyOrder|OnlineBuckets|Conflicts|Keys|Shrunk|Shortest|Without|Minimize|Until|Telling|Counts"},
		{"-test.short", "-test.skip", "Mutant"},
		{"-test.skip", "Mutant"},
	} {
		if failsWith(t, binary, m, args...) {
			return true
		}
	}
	return false
}

func failsWith(t *testing.T, binary string, m mutant, args ...string) bool {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "-test.failfast")...)
	cmd.Env = append(os.Environ(), "BROWNOUT_MUTANT="+strconv.Itoa(m.id), "BROWNOUT_TEST_SEED=1")
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed && ctx.Err() == nil {
		t.Errorf("run %v: %v", m, err)
	}
	if err != nil && m.id == 0 {
		t.Fatalf("without any mutant: %v\n%s", err, out)
	}
	return err != nil
}

// buildMutants compiles the package's tests with all mutants in them.
func buildMutants(t *testing.T) ([]mutant, string) {
	dir := t.TempDir()
	replace := map[string]string{}
	var all []mutant
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, text []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, name)] = path
	}
	for _, name := range judging {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		mutated, found := mutate(t, name, text, len(all))
		all = append(all, found...)
		write(name, mutated)
	}
	write("mutant.go", []byte(`package checker

import "os"
import "strconv"

var mutantID = func() int { n, _ := strconv.Atoi(os.Getenv("BROWNOUT_MUTANT")); return n }()

func mutated(id int) bool { return mutantID == id }
`))
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "checker.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", list, "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build mutants: %v\n%s", err, out)
	}
	return all, binary
}

// mutate returns a file's text with all its mutants in it.
func mutate(t *testing.T, name string, text []byte, before int) ([]byte, []mutant) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var all []mutant
	add := func(n ast.Node, was, now string) int {
		all = append(all, mutant{before + len(all) + 1, name, fset.Position(n.Pos()).Line, was, now})
		return before + len(all)
	}
	// emit writes a node with its mutants: its text, in which its children's places are taken by theirs.
	var emit func(n ast.Node) string
	source := func(from, to token.Pos) string {
		return string(text[fset.Position(from).Offset:fset.Position(to).Offset])
	}
	inside := func(n ast.Node) string {
		var b strings.Builder
		at := n.Pos()
		for _, c := range outermost(n) {
			b.WriteString(source(at, c.Pos()))
			b.WriteString(emit(c))
			at = c.End()
		}
		b.WriteString(source(at, n.End()))
		return b.String()
	}
	emit = func(n ast.Node) string {
		was := strings.Join(strings.Fields(source(n.Pos(), n.End())), " ")
		switch n := n.(type) {
		case *ast.BinaryExpr:
			x, y := emit(n.X), emit(n.Y)
			plain := "(" + x + ") " + n.Op.String() + " (" + y + ")"
			l, r := strings.Join(strings.Fields(source(n.X.Pos(), n.X.End())), " "), strings.Join(strings.Fields(source(n.Y.Pos(), n.Y.End())), " ")
			switch n.Op {
			case token.LSS, token.GTR:
				bound := add(n, was, l+" "+n.Op.String()+"= "+r)
				sense := add(n, was, "!("+was+")")
				return fmt.Sprintf("(mutated(%d) != (%s) || mutated(%d) && (%s) == (%s))", sense, plain, bound, x, y)
			case token.LEQ, token.GEQ:
				bound := add(n, was, l+" "+n.Op.String()[:1]+" "+r)
				sense := add(n, was, "!("+was+")")
				return fmt.Sprintf("((mutated(%d) != (%s)) && !(mutated(%d) && (%s) == (%s)))", sense, plain, bound, x, y)
			case token.EQL, token.NEQ:
				return fmt.Sprintf("(mutated(%d) != (%s))", add(n, was, "!("+was+")"), plain)
			case token.LAND:
				left, right := add(n, was, l), add(n, was, r)
				return fmt.Sprintf("((mutated(%d) || (%s)) && (mutated(%d) || (%s)))", right, x, left, y)
			case token.LOR:
				left, right := add(n, was, l), add(n, was, r)
				return fmt.Sprintf("((!mutated(%d) && (%s)) || (!mutated(%d) && (%s)))", right, x, left, y)
			}
			return source(n.Pos(), n.X.Pos()) + x + source(n.X.End(), n.Y.Pos()) + y
		case *ast.IfStmt:
			var b strings.Builder
			b.WriteString("if ")
			if n.Init != nil {
				b.WriteString(inside(n.Init) + "; ")
			}
			cond := strings.Join(strings.Fields(source(n.Cond.Pos(), n.Cond.End())), " ")
			if stops(n.Cond) {
				b.WriteString(inside(n.Cond))
			} else {
				fmt.Fprintf(&b, "!mutated(%d) && (%s)", add(n, "if "+cond, "without the rule"), emit(n.Cond))
			}
			b.WriteString(" " + inside(n.Body))
			if n.Else != nil {
				if e, ok := n.Else.(*ast.IfStmt); ok {
					b.WriteString(" else " + emit(e))
				} else {
					b.WriteString(" else " + inside(n.Else))
				}
			}
			return b.String()
		}
		return inside(n)
	}
	out := []byte(source(file.FileStart, file.Name.End()))
	at := file.Name.End()
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		out = append(out, source(at, f.Body.Pos())...)
		out = append(out, inside(f.Body)...)
		at = f.Body.End()
	}
	out = append(out, source(at, file.FileEnd)...)
	return out, all
}

// outermost returns the nodes below n that have mutants, without those below them, in order.
func outermost(n ast.Node) (out []ast.Node) {
	ast.Inspect(n, func(c ast.Node) bool {
		switch c := c.(type) {
		case *ast.BinaryExpr:
			if c == n {
				return true
			}
			out = append(out, c)
			return false
		case *ast.IfStmt:
			if c == n {
				return true
			}
			out = append(out, c)
			return false
		}
		return true
	})
	return out
}

// stops reports a condition about errors or the end of the time, which says nothing about histories.
func stops(cond ast.Expr) bool {
	found := false
	ast.Inspect(cond, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && (id.Name == "err" || id.Name == "ctx") {
			found = true
		}
		return true
	})
	return found
}

func TestMutateKeepsWhatACodeDoes(t *testing.T) {
	text := []byte(`package p

func f(a, b int) bool {
	if x := a; x < b && b != 3 {
		return true
	} else if a >= 2*b {
		return a-b > 1
	}
	return false
}
`)
	out, all := mutate(t, "p.go", text, 10)
	fset := token.NewFileSet()
	if _, err := parser.ParseFile(fset, "p.go", out, 0); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for _, m := range all {
		got = append(got, m.String())
	}
	for _, want := range []string{
		"p.go:4: without the rule  instead of  if x < b && b != 3", "p.go:4: x <= b  instead of  x < b", "p.go:4: b != 3  instead of  x < b && b != 3",
		"p.go:4: !(b != 3)  instead of  b != 3", "p.go:6: a > 2*b  instead of  a >= 2*b", "p.go:7: a-b >= 1  instead of  a-b > 1",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no mutant %q among\n%s", want, strings.Join(got, "\n"))
		}
	}
	if !bytes.Contains(out, []byte("mutated(11)")) || bytes.Contains(out, []byte("mutated(10)")) {
		t.Errorf("numbers do not follow those before:\n%s", out)
	}
}
