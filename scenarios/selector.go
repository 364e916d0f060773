package scenarios

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"brownout/internal/nearest"
	"brownout/internal/plan"
	"brownout/kvserver/slots"
)

// selectorWords are the words of selectors besides node names. What they mean
// is decided when the fault fires; see cluster.Select.
var selectorWords = []string{"leader", "follower", "followers", "one follower", "all", "all but leader", "minority", "majority"}

// Words that only some selectors take.
const (
	wordClient    = "client"     // links: the load generator's place
	wordEveryPair = "every pair" // from or to
	wordOthers    = "others"     // the last group of a split
	wordCache     = "cache"      // what nodes write through to, where they do
)

// An extent is what selectors are held against: how many nodes there are, how
// many shards, and whether there is a cache. inExtent are the fields that decide it.
type extent struct {
	nodes, shards int
	cache         bool
}

var inExtent = []string{"target.nodes", "target.config.shards", "target.downstream"}

func (t Target) extent() extent {
	return extent{t.Nodes, plan.Target{Config: t.Config}.Shards(), t.Downstream != nil}
}

// checkSelector says what is wrong with one selector in a cluster; extra are
// words beyond [selectorWords].
func checkSelector(words string, in extent, extra ...string) error {
	known := slices.Concat(selectorWords, extra)
	if in.cache {
		known = append(known, wordCache)
	}
	seen := map[string]bool{}
	for _, w := range strings.Split(words, ",") {
		w = strings.Join(strings.Fields(w), " ")
		switch {
		case w == "":
			return fmt.Errorf("%q names nobody between its commas", words)
		case seen[w]:
			return fmt.Errorf("%q names %s twice", words, w)
		}
		seen[w] = true
		if i, ok := nodeNumber(w); ok {
			if i < 1 || i > in.nodes {
				return &hinted{fmt.Sprintf("there is no %s: the cluster has %s", w, count(in.nodes, "node")), fmt.Sprintf("n1 to n%d", in.nodes)}
			}
			continue
		}
		if role, shard, ok := strings.Cut(w, " of "); ok && slices.Contains(roleWords, role) {
			if err := checkShard(shard, in.shards); err != nil {
				return err
			}
			w = role
		}
		if w == wordCache && !in.cache {
			return &hinted{"there is no cache: the nodes write through to nothing", "target.downstream makes one"}
		}
		if !slices.Contains(known, w) {
			hint := nearest.Hint(strings.ToLower(w), append(known, "n1", "n2", "n3"))
			if hint == "" {
				hint = "want n1, n2, ... or one of " + strings.Join(known, ", ")
			}
			return &hinted{fmt.Sprintf("unknown selector %q", w), hint}
		}
		if err := populated(w, in.nodes); err != nil {
			return err
		}
	}
	if len(seen) > 1 && (seen["all"] || seen[wordEveryPair]) {
		return fmt.Errorf("%q: all is everybody already", words)
	}
	return nil
}

// roleWords are the selectors that may be followed by "of shard 2" or "of key k7".
var roleWords = []string{"leader", "follower", "followers", "one follower", "all but leader"}

// checkShard says what is wrong with what follows "leader of".
func checkShard(words string, shards int) error {
	kind, name, _ := strings.Cut(words, " ")
	switch {
	case kind == "key" && name != "":
		return nil
	case kind != "shard" || name == "":
		return &hinted{fmt.Sprintf("%q is neither a shard nor a key", words), "write leader of shard 0, or leader of key k7"}
	}
	if i, err := strconv.Atoi(name); err != nil || i < 0 || i >= shards {
		hint := "target.config.shards makes more"
		if shards > 1 {
			hint = fmt.Sprintf("shard 0 to shard %d", shards-1)
		}
		return &hinted{fmt.Sprintf("there is no shard %s: the cluster has %s", name, count(shards, "shard")), hint}
	}
	return nil
}

// keyWords matches a key's place in a selector.
var keyWords = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\bof\s+key\s+([^\s,|]+)`) })

// placed returns a selector with keys replaced by their shards.
func placed(words string, shards int) string {
	return keyWords().ReplaceAllStringFunc(words, func(m string) string {
		return fmt.Sprintf("of shard %d", slots.ShardOf(keyWords().FindStringSubmatch(m)[1], shards))
	})
}

// populated says that a word means nobody in a cluster of so many nodes.
func populated(word string, nodes int) error {
	least := 1
	switch word {
	case "follower", "followers", "one follower", "all but leader", wordEveryPair, wordOthers:
		least = 2
	case "minority":
		least = 3
	}
	if nodes < least {
		return fmt.Errorf("%s means nobody in a cluster of %s", word, count(nodes, "node"))
	}
	return nil
}

func count(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "y"):
		what = strings.TrimSuffix(what, "y") + "ie"
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// nodeNumber returns 3 for n3.
func nodeNumber(w string) (int, bool) {
	digits, ok := strings.CutPrefix(w, "n")
	if !ok || digits == "" || len(digits) > 4 {
		return 0, false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	i, err := strconv.Atoi(digits)
	return i, err == nil && (digits[0] != '0' || digits == "0")
}

// checkSplit says what is wrong with groups of a split.
func checkSplit(split string, in extent) error {
	groups := strings.Split(split, "|")
	if len(groups) < 2 {
		return &hinted{fmt.Sprintf("split %q has one group", split), "write two or more with | between, as in n1 | n2,n3"}
	}
	seen := map[string]int{}
	for i, g := range groups {
		extra := []string{wordClient}
		if i == len(groups)-1 {
			extra = append(extra, wordOthers)
		}
		if strings.TrimSpace(g) == "" {
			return fmt.Errorf("split %q: group %d is empty", split, i+1)
		}
		if err := checkSelector(g, in, extra...); err != nil {
			return err
		}
		for _, w := range strings.Split(g, ",") {
			w = strings.Join(strings.Fields(w), " ")
			if w == "all" {
				return fmt.Errorf("split %q: all leaves nobody for another group", split)
			}
			if before, ok := seen[w]; ok {
				return fmt.Errorf("split %q: %s is in group %d and in group %d", split, w, before, i+1)
			}
			seen[w] = i + 1
		}
	}
	return nil
}

// onlyNode returns the single node that a selector names.
func onlyNode(words string) (string, bool) {
	w := strings.TrimSpace(words)
	_, ok := nodeNumber(w)
	return w, ok
}

// usesRole reports whether a selector depends on who has which role.
func usesRole(words string) bool {
	return strings.Contains(words, "leader") || strings.Contains(words, "follower")
}
