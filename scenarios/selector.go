package scenarios

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"brownout/internal/nearest"
)

// selectorWords are the words of selectors besides node names. What they mean
// is decided when the fault fires; see cluster.Select.
var selectorWords = []string{"leader", "follower", "followers", "one follower", "all", "all but leader", "minority", "majority"}

// Words that only some selectors take.
const (
	wordClient    = "client"     // links: the load generator's place
	wordEveryPair = "every pair" // from or to
	wordOthers    = "others"     // the last group of a split
)

// checkSelector says what is wrong with one selector in a cluster of so many
// nodes; extra are words beyond [selectorWords].
func checkSelector(words string, nodes int, extra ...string) error {
	known := slices.Concat(selectorWords, extra)
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
			if i < 1 || i > nodes {
				return &hinted{fmt.Sprintf("there is no %s: the cluster has %s", w, count(nodes, "node")), fmt.Sprintf("n1 to n%d", nodes)}
			}
			continue
		}
		if !slices.Contains(known, w) {
			hint := nearest.Hint(strings.ToLower(w), append(known, "n1", "n2", "n3"))
			if hint == "" {
				hint = "want n1, n2, ... or one of " + strings.Join(known, ", ")
			}
			return &hinted{fmt.Sprintf("unknown selector %q", w), hint}
		}
		if err := populated(w, nodes); err != nil {
			return err
		}
	}
	if len(seen) > 1 && (seen["all"] || seen[wordEveryPair]) {
		return fmt.Errorf("%q: all is everybody already", words)
	}
	return nil
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
func checkSplit(split string, nodes int) error {
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
		if err := checkSelector(g, nodes, extra...); err != nil {
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
