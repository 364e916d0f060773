package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"

	"brownout/cluster"
	"brownout/internal/plan"
)

// Planes of a network fault.
const (
	PlanePeer   = "peer"   // between nodes (default)
	PlaneClient = "client" // between nodes and the clients
	PlaneBoth   = "both"
)

const everyPair = "every pair"

// Names returns the site as events and results print it: nodes, or links as "n1>n2".
func (s Site) Names() []string {
	names := slices.Clone(s.Nodes)
	for _, l := range s.Links {
		names = append(names, l.From+">"+l.To)
	}
	return names
}

// touches reports whether the site has to do with a node, as itself or as an
// end of a link.
func (s Site) touches(node string) bool {
	return slices.Contains(s.Nodes, node) ||
		slices.ContainsFunc(s.Links, func(l Link) bool { return l.From == node || l.To == node })
}

// resolve says where a fault is to be applied, given what the nodes say of
// themselves at this instant. The generator must be the same fresh stream each
// time, so that the same statuses mean the same site.
func resolve(f plan.Fault, st []cluster.Status, rng *rand.Rand) (Site, error) {
	kind, ok := plan.KindNamed(f.Kind)
	if !ok {
		return Site{}, fmt.Errorf("unknown kind of fault %q", f.Kind)
	}
	pick := func(words string) ([]string, error) {
		if strings.TrimSpace(words) == cluster.ClientName {
			return []string{cluster.ClientName}, nil
		}
		return cluster.Select(words, st, rng)
	}
	var site Site
	var err error
	switch {
	case kind.Where == plan.OnNodes:
		site.Nodes, err = pick(f.On)
		if err == nil && slices.Contains(site.Nodes, cluster.ClientName) {
			err = errors.New("on: client: the client is no node")
		}
	case f.Split != "" || f.Params.Has("isolate"):
		site.Links, err = splitLinks(f, pick)
	case f.Params.Has("bridge"):
		f.Split, err = halves(f.Params.String("bridge"), pick, rng)
		if err == nil {
			site.Links, err = splitLinks(f, pick)
		}
	default:
		site.Links, err = betweenLinks(f, pick)
	}
	if err != nil {
		return Site{}, err
	}
	if len(site.Nodes)+len(site.Links) == 0 {
		return Site{}, fmt.Errorf("%s means nobody", selector(f))
	}
	return site, nil
}

// splitLinks are all links between nodes of different groups, in both
// directions unless the fault is one_way, and then from earlier groups to later
// ones. A node belongs to the first group that means it, and the last group
// may be "majority", "minority" or "others": whoever is left. On the client
// plane the client belongs to the last group, unless one names it.
// Whoever is a bridge belongs to none.
func splitLinks(f plan.Fault, pick func(string) ([]string, error)) ([]Link, error) {
	if words := f.Params.String("isolate"); words != "" {
		f.Split = words + " | others"
	}
	parts := strings.Split(f.Split, "|")
	if len(parts) < 2 {
		return nil, fmt.Errorf("split %q has one group; write A | B", f.Split)
	}
	var groups [][]string
	named := false
	in := map[string]bool{}
	if words := f.Params.String("bridge"); words != "" {
		nodes, err := pick(words)
		if err != nil {
			return nil, fmt.Errorf("bridge: %w", err)
		}
		for _, n := range nodes {
			in[n] = true
		}
	}
	for i, words := range parts {
		var group []string
		rest, client := withoutClient(words)
		if client {
			group, named = append(group, cluster.ClientName), true
		}
		if i == len(parts)-1 && (rest == "majority" || rest == "minority" || rest == "others") {
			rest = "all" // that is left
		}
		if rest != "" {
			nodes, err := pick(rest)
			if err != nil {
				return nil, err
			}
			group = append(group, nodes...)
		}
		group = slices.DeleteFunc(group, func(n string) bool { return in[n] })
		for _, n := range group {
			in[n] = true
		}
		if len(group) == 0 {
			return nil, fmt.Errorf("split %q: nobody is left for group %d", f.Split, i+1)
		}
		groups = append(groups, group)
	}
	if !named && (f.Plane == PlaneClient || f.Plane == PlaneBoth) {
		groups[len(groups)-1] = append(groups[len(groups)-1], cluster.ClientName)
	}
	var links []Link
	for i, a := range groups {
		for j, b := range groups {
			if i == j || i > j && f.Params.Bool("one_way") {
				continue
			}
			links = appendLinks(links, a, b)
		}
	}
	if f.Plane == PlaneClient {
		links = slices.DeleteFunc(links, func(l Link) bool {
			return l.From != cluster.ClientName && l.To != cluster.ClientName
		})
	}
	return links, nil
}

// halves draws a split of all nodes but the bridge into two groups of one size,
// or nearly.
func halves(bridge string, pick func(string) ([]string, error), rng *rand.Rand) (string, error) {
	between, err := pick(bridge)
	if err != nil {
		return "", fmt.Errorf("bridge: %w", err)
	}
	all, err := pick("all")
	if err != nil {
		return "", err
	}
	left := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(between, n) })
	if len(left) < 2 {
		return "", fmt.Errorf("bridge %q leaves %d nodes, which are no two groups", bridge, len(left))
	}
	var one []string
	for range len(left) / 2 {
		i := int(rng.Uint64() % uint64(len(left)))
		one = append(one, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return strings.Join(one, ",") + "|" + strings.Join(left, ","), nil
}

// withoutClient takes the word client out of a comma-separated list.
func withoutClient(words string) (rest string, found bool) {
	var kept []string
	for _, w := range strings.Split(words, ",") {
		if w = strings.TrimSpace(w); w == cluster.ClientName {
			found = true
		} else if w != "" {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, ","), found
}

// betweenLinks are the links from every node of from to every node of to; a
// partition cuts them in both directions unless it is one_way. On the client
// plane they are what from sends to the clients and what clients send to to.
func betweenLinks(f plan.Fault, pick func(string) ([]string, error)) ([]Link, error) {
	all := func(words string) string {
		if words == "" || words == everyPair {
			return "all"
		}
		return words
	}
	from, err := pick(all(f.From))
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	to, err := pick(all(f.To))
	if err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	var links []Link
	if f.Plane != PlaneClient {
		links = appendLinks(links, from, to)
	}
	if f.Plane == PlaneClient || f.Plane == PlaneBoth {
		client := []string{cluster.ClientName}
		given := func(words string) bool { return words != "" && words != everyPair }
		if given(f.From) || !given(f.To) {
			links = appendLinks(links, from, client)
		}
		if given(f.To) || !given(f.From) {
			links = appendLinks(links, client, to)
		}
	}
	if f.Kind == "net.partition" && !f.Params.Bool("one_way") {
		for _, l := range slices.Clone(links) {
			links = appendLinks(links, []string{l.To}, []string{l.From})
		}
	}
	return links, nil
}

// appendLinks adds all links from a to b that are not there yet, none from a
// node to itself.
func appendLinks(links []Link, a, b []string) []Link {
	for _, from := range a {
		for _, to := range b {
			if l := (Link{from, to}); from != to && !slices.Contains(links, l) {
				links = append(links, l)
			}
		}
	}
	return links
}

// selector is the fault's selectors as its author wrote them.
func selector(f plan.Fault) string {
	switch {
	case f.Split != "":
		return "split " + f.Split
	case f.Params.Has("isolate"):
		return "isolate " + f.Params.String("isolate")
	case f.Params.Has("bridge"):
		return "bridge " + f.Params.String("bridge")
	case f.On != "":
		return "on " + f.On
	}
	var words []string
	if f.From != "" {
		words = append(words, "from "+f.From)
	}
	if f.To != "" {
		words = append(words, "to "+f.To)
	}
	if f.Plane != "" && f.Plane != PlanePeer {
		words = append(words, "plane "+f.Plane)
	}
	if words == nil {
		return everyPair
	}
	return strings.Join(words, " ")
}

// byName matches selectors that mean the same nodes at all times.
var byName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(|all|client|cache|every pair|n[0-9]+(\s*[,|]\s*(n[0-9]+|client|cache))*)$`)
})

// roleBound reports whether the fault's selectors may mean other nodes when
// roles move.
func roleBound(f plan.Fault) bool {
	for _, words := range selectors(f) {
		if !byName().MatchString(strings.TrimSpace(words)) {
			return true
		}
	}
	return false
}

// selectors are all that a fault's author wrote to say where.
func selectors(f plan.Fault) []string {
	return []string{f.On, f.From, f.To, f.Split, f.Params.String("isolate"), f.Params.String("bridge")}
}

// A seat is a node with the role that it had in a shard when a fault was aimed
// at it, and the latest term of the shard that any node knew.
type seat struct {
	node, role string
	shard      int
	term       uint64
}

// roleShards are the shards whose roles a fault's selectors name.
func roleShards(f plan.Fault) (shards []int) {
	for _, words := range selectors(f) {
		for _, word := range strings.FieldsFunc(words, func(r rune) bool { return r == ',' || r == '|' }) {
			word, shard, _ := cluster.SplitShard(strings.Join(strings.Fields(word), " "))
			if named := strings.Contains(word, "leader") || strings.Contains(word, "follower"); named && !slices.Contains(shards, shard) {
				shards = append(shards, shard)
			}
		}
	}
	return shards
}

// seats are the nodes that selectors chose for their role.
func seats(f plan.Fault, site Site, st []cluster.Status) (out []seat) {
	for _, shard := range roleShards(f) {
		all := cluster.Shard(st, shard)
		term := topTerm(all)
		for _, s := range all {
			if s.Role != "" && site.touches(s.Node) {
				out = append(out, seat{s.Node, s.Role, shard, term})
			}
		}
	}
	return out
}

// moved says in words which of the seats have another role now, "" if none
// has. A node that cannot be asked has lost the lead when another claims it in
// a later term; otherwise nothing is known of it.
func moved(was []seat, st []cluster.Status) string {
	several := cluster.Shards(st) > 1
	var words []string
	for _, w := range was {
		lead, term := "", w.term
		for _, s := range cluster.Shard(st, w.shard) {
			if s.Err == nil && s.Role == "leader" && (s.Term > term || lead == "" && s.Term == term) {
				lead, term = s.Node, s.Term
			}
		}
		of := ""
		if several {
			of = fmt.Sprintf(" shard %d", w.shard)
		}
		switch {
		case w.role == "leader" && lead != "" && lead != w.node:
			words = append(words, fmt.Sprintf("%s no longer leads%s: %s does since term %d", w.node, of, lead, term))
		case w.role != "leader" && lead == w.node:
			words = append(words, fmt.Sprintf("%s was %s and leads%s now, since term %d", w.node, w.role, of, term))
		}
	}
	return strings.Join(words, "; ")
}

// topTerm is the latest term that any node knows.
func topTerm(st []cluster.Status) (term uint64) {
	for _, s := range st {
		if s.Err == nil {
			term = max(term, s.Term)
		}
	}
	return term
}

// disturbs reports whether a fault b changes what the meter of a fault a sees,
// so that a can only be measured while b is as it was at a's baseline.
func disturbs(a string, at Site, b string, bt Site) bool {
	family := func(kind string) string {
		f, _, _ := strings.Cut(kind, ".")
		if f == "power" {
			f = "disk"
		}
		return f
	}
	shareLink := func(client bool) bool {
		return slices.ContainsFunc(bt.Links, func(l Link) bool {
			if client { // pauses and deaths are seen from the client's place
				return l.From == cluster.ClientName && at.touches(l.To) || l.To == cluster.ClientName && at.touches(l.From)
			}
			return slices.Contains(at.Links, l)
		})
	}
	shareNode := slices.ContainsFunc(bt.Nodes, func(n string) bool { return slices.Contains(at.Nodes, n) })
	switch family(a) {
	case "net": // its probes have sockets of their own: only the network hurts them
		return family(b) == "net" && shareLink(false)
	case "disk":
		return family(b) == "disk" && shareNode || family(b) == "neighbour"
	case "cpu":
		return family(b) == "neighbour" || family(b) != "net" && (family(b) != "disk" || powerless(b)) && shareNode
	case "lock": // its probe's writes go through the leader, a quorum and their disks, wherever they are
		return family(b) != "clock"
	default: // gc, process: pings answered by the node itself
		return family(b) == "net" && shareLink(true) || family(b) != "net" && (family(b) != "disk" || powerless(b)) && shareNode
	}
}

// powerless reports whether a fault of the disk kills the node as well.
func powerless(kind string) bool { return kind == "power.loss" || kind == "disk.torn" }
