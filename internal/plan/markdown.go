package plan

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes the reference of all faults, docs/FAULTS.md.
func Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Faults

<!-- Written by go test ./internal/plan -update; change internal/plan/kinds_*.go instead. -->

Every fault is requested *and* measured. The probe never uses the mechanism that
gives the fault, and compares with a reading taken just before. A fault that its
probe did not see as asked makes the run inconclusive; so does one that is not seen
gone after its heal.

In a scenario a fault is one entry of ` + "`timeline.faults`" + `: ` + "`at`" + ` (from the end of the
baseline), ` + "`for`" + `, and the kind with its words:

    - {at: 0s, for: 8s, disk.delay: {on: one follower, op: fsync, add: 20ms}}

By hand, on a cluster that ` + "`brownout up`" + ` started, the same words:

    brownout fault add disk.delay on=leader op=fsync add=20ms

Selectors: ` + "`n3`, `n1,n2`, `leader`, `follower`, `one follower`, `followers`, `all but leader`,\n`minority`, `majority`, `all`, `client`, and `cache` where the target has a `downstream`" + `.
Where the target has several shards, a role is shard 0's unless it says whose it is, as in
` + "`leader of shard 1`" + `, or ` + "`followers of key k7`" + ` for the shard of that key.
They are resolved when the fault fires; ` + "`follow: role`" + `
moves the fault with the role. ` + "`provider`" + ` pins a mechanism; ` + "`brownout doctor`" + ` lists them.
Faults on the same link or node add up: delays add, the lowest rate or quota wins,
a cut beats all. A packet meets what is on its link in one order, whatever came first:
partition, loss, duplication, the rate's queue, delay with jitter, overtaking, damage.
Healing one of several leaves exactly the others. What a wire holds when a delay is healed
is let go at once, in order; what waits before a rate leaves by the new one. A packet
that is sent while its link leaves the wire, for some 0.1 ms, may be overtaken by the next.

Without a ` + "`profile`" + ` a fault has its full dose from its start to its end. With one, its
severity goes over time; the dose is measured while it is highest, each change is an event:

    - {at: 0s, for: 20s, profile: {ramp: 5s}, net.delay: {from: leader, to: followers, add: 20ms}}

| profile | severity |
|---|---|
| ` + "`{ramp: 5s}`" + ` | from nothing to the full dose in this time, then on |
| ` + "`{step: 4, every: 2s}`" + ` | equal steps up to the full dose |
| ` + "`{sine: 4s}`" + ` | from nothing to the full dose and back, once in this time |
| ` + "`{flap: 2s, duty: 50%}`" + ` | the full dose for this share of each turn, nothing for the rest; its meter looks that it is away then |
| ` + "`{trace: \"0s 10%, 2s 100%, 4s 0%\"}`" + ` | a recorded course |

Half the severity halves a delay and doubles a limit: the parameters marked ↑ and ↓ below.
Faults without such a parameter take ` + "`flap`" + ` and traces of 0% and 100%. By hand:
` + "`profile.flap=2s`" + `.
`)
	for _, k := range Kinds {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n", k.Name, upper(k.Doc))
		fmt.Fprintf(&b, "- **Mechanism**: %s.\n- **Providers**: `%s`.\n- **Probe**: %s.\n", k.Mechanism, strings.Join(Providers[k.Name], "`, `"), k.Probe)
		for _, name := range Providers[k.Name] {
			for _, l := range limitations[k.Name][name] {
				fmt.Fprintf(&b, "- **Not by `%s`** (`%s`): %s; %s.\n", name, l.Param, l.Why, l.Cure)
			}
		}
		if k.Instant {
			b.WriteString("- `for` is not needed: it is over by itself.\n")
		}
		b.WriteString("\n| parameter | | default | bounds | meaning |\n|---|---|---|---|---|\n")
		switch k.Where {
		case OnNodes:
			b.WriteString("| `on` | selector, required | | | which nodes |\n")
		case Cut:
			b.WriteString("| `split` | groups | | | `\"n1 \\| n2,n3\"`: nothing passes between groups; instead of from and to |\n")
			fallthrough
		default:
			b.WriteString("| `from`, `to` | selectors | | | directed links; `every pair` as from means all |\n")
			b.WriteString("| `plane` | word | peer | peer, client, both | traffic between nodes, with clients, or both |\n")
		}
		for _, p := range k.Params {
			mark := map[Worse]string{Higher: " ↑", Lower: " ↓"}[p.Worse]
			fmt.Fprintf(&b, "| `%s`%s | %s | %s | %s | %s |\n", p.Name, mark, p.kind(), p.Default, p.bounds(), p.Doc)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p Param) kind() string {
	if p.Required {
		return string(p.Type) + ", required"
	}
	return string(p.Type)
}

func (p Param) bounds() string {
	switch {
	case p.Words != nil:
		return strings.Join(p.Words, ", ")
	case p.Min != "" && p.Max != "":
		return p.Min + " … " + p.Max
	case p.Max != "":
		return "≤ " + p.Max
	}
	return ""
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
