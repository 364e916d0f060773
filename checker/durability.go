package checker

import (
	"fmt"
	"math"

	"brownout/internal/history"
)

// Lost is the verdict of [Durability] when an acknowledged write is gone.
const Lost Verdict = "lost"

// final is the phase of the reads after healing and quiescence.
const final = "final"

// A DurabilityResult compares acknowledged writes with the final reads.
type DurabilityResult struct {
	Verdict      Verdict // OK, Lost or Unknown
	Acknowledged int     // puts, swapped cas, appends and deletes that were acknowledged
	Lost         []LostWrite
	Why          string // of Unknown
}

// A LostWrite is an acknowledged write that a final read cannot explain.
type LostWrite struct {
	Op   int64
	Key  string
	Text string
}

// Durability tells which acknowledged writes are certainly gone, by the reads
// of phase "final". It has no false alarms; a write that was overwritten cannot
// be missed, which is why appends show the most.
//
// The rule, for a final read r of a value that was made by a base write b and
// the elements after it: an acknowledged write w that is none of them and
// returned before r was called must have come before b in any order. If it was
// called after b returned (or after the return of an operation that saw b), it
// cannot have: it is lost. Where there is no base, the value grew from the
// absent key: then w must precede a delete that left the key absent.
func Durability(ops []history.Op) DurabilityResult {
	res := DurabilityResult{Verdict: OK}
	var unread, unclear []string
	told := map[int64]bool{}
	for _, k := range split(ops) {
		acked := 0
		for i := range k.ops {
			if o := &k.ops[i]; o.completed() && o.writes() {
				acked++
			}
		}
		if res.Acknowledged += acked; acked == 0 {
			continue
		}
		kept, w, _, _ := prune(k.ops)
		reads := 0
		for i := range kept {
			r := &kept[i]
			if r.Phase != final || !r.observes() {
				continue
			}
			reads++
			lost, p, clear := lostBy(r, kept, w)
			if !clear {
				unclear = append(unclear, k.key)
			}
			for _, x := range lost {
				if !told[x.ID] {
					told[x.ID] = true
					res.Lost = append(res.Lost, tellLost(x, r, p))
				}
			}
		}
		if reads == 0 {
			unread = append(unread, k.key)
		}
	}
	switch {
	case len(res.Lost) > 0:
		res.Verdict = Lost
	case len(unread) > 0:
		res.Verdict = Unknown
		res.Why = fmt.Sprintf("no final read of %d keys with acknowledged writes: %s", len(unread), some(unread))
	case len(unclear) > 0:
		res.Verdict = Unknown
		res.Why = fmt.Sprintf("the final value of %d keys does not tell which writes made it: %s", len(unclear), some(unclear))
	}
	return res
}

// lostBy returns the acknowledged writes that final read r proves lost, and how
// what it found was made. Not clear: it cannot be traced to its writes.
func lostBy(r *op, ops []op, w *words) (lost []*op, p parse, clear bool) {
	p = w.parse(r.Result)
	if p.ways != 1 {
		return nil, p, false
	}
	since := int64(math.MinInt64) // writes called later cannot precede the value's beginning
	switch {
	case p.based:
		for _, i := range w.owners[p.words[0]] {
			since = max(since, ops[i].ret)
		}
	case w.bare:
		for i := range ops {
			if ops[i].bare() {
				since = max(since, ops[i].ret)
			}
		}
	}
	made := make(map[string]bool, len(p.words))
	for _, v := range p.words {
		made[v] = true
	}
	for i := range ops {
		x := &ops[i]
		if !x.completed() || !x.writes() || x.Return >= r.Call || x.Call <= since {
			continue
		}
		// A bare delete that left nothing behind was called before since.
		if x.Value == nil || !made[*x.Value] {
			lost = append(lost, x)
		}
	}
	return lost, p, true
}

// tellLost puts the loss of x into words, which r proves by finding p.
func tellLost(x, r *op, p parse) LostWrite {
	why := "although nothing could have removed it"
	if p.based {
		why = fmt.Sprintf("which begins with %s, written before it", show(&p.words[0]))
	}
	return LostWrite{x.ID, x.Key, fmt.Sprintf("%s: %s was acknowledged, but %s found %s, %s", x.Key, what(x), telling{}.who(r), show(r.Result), why)}
}

func what(o *op) string {
	if o.Value == nil {
		return telling{}.who(o)
	}
	return show(o.Value) + " of " + telling{}.who(o)
}

// some names the first few of names.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return fmt.Sprint(names)
	}
	return fmt.Sprintf("%v and %d more", names[:most], len(names)-most)
}
