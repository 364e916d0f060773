package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// SelectorWords are the words of a selector, for error messages and documentation.
const SelectorWords = "n1 (or n1,n2), all, leader, follower, one follower, followers, all but leader (each with of shard 1), minority, majority, client, cache"

// Select says which nodes the words of a selector mean, given what the nodes
// say of themselves now. The names are in the nodes' order and all different.
//
//	n3 | n1,n2        these nodes, whatever they do
//	all               every node
//	leader            who leads in the highest term; nobody is an error
//	follower          one of the nodes that follow, drawn; also "one follower"
//	followers         every node that says it follows
//	all but leader    every node but the leader, also those that do not answer
//	minority          the most nodes that a quorum can do without, drawn from all
//	majority          a smallest quorum, drawn from all
//	client            the load generator's place on the network, which is no node
//	cache             the box beside the nodes, which is none of them
//
// Where the nodes have several shards, the words for roles are about shard 0
// unless "of shard N" follows them, as in "leader of shard 2".
//
// The draws take from rng what they need and nothing else matters to them, so
// the same rng and statuses give the same nodes. Words joined by commas are
// united.
func Select(words string, st []Status, rng *rand.Rand) ([]string, error) {
	var names []string
	for _, word := range strings.Split(words, ",") {
		word = strings.Join(strings.Fields(word), " ")
		picked, err := selectWord(word, st, rng)
		if err != nil {
			return nil, fmt.Errorf("select %q: %w", words, err)
		}
		names = append(names, picked...)
	}
	order := func(name string) int {
		i := slices.IndexFunc(st, func(s Status) bool { return s.Node == name })
		if i < 0 {
			return len(st) // the client
		}
		return i
	}
	slices.SortStableFunc(names, func(a, b string) int { return order(a) - order(b) })
	return slices.Compact(names), nil
}

// ofShard stands between a role and its shard's number.
const ofShard = " of shard "

// SplitShard takes "of shard N" from the end of a selector's word; without it, it is shard 0.
func SplitShard(word string) (role string, shard int, given bool) {
	role, number, given := strings.Cut(word, ofShard)
	shard, err := strconv.Atoi(number)
	if !given || err != nil {
		return word, 0, false
	}
	return role, shard, true
}

func selectWord(word string, st []Status, rng *rand.Rand) ([]string, error) {
	var everyone, followers, others []string
	word, shard, given := SplitShard(word)
	if given && !slices.Contains(roleWords, word) {
		return nil, fmt.Errorf("%s has no shard; a role has, as in leader of shard 1", word)
	}
	st = Shard(st, shard)
	leader, _ := leaderOf(st)
	for _, s := range st {
		everyone = append(everyone, s.Node)
		if s.Err == nil && s.Role == RoleFollower && s.Node != leader {
			followers = append(followers, s.Node)
		}
		if s.Node != leader {
			others = append(others, s.Node)
		}
	}
	if slices.Contains(everyone, word) {
		return []string{word}, nil
	}
	switch word {
	case "all":
		return everyone, nil
	case "leader", "all but leader":
		if leader == "" {
			return nil, fmt.Errorf("no node leads: %s", seen(st))
		}
		if word == "leader" {
			return []string{leader}, nil
		}
		return others, nil
	case "follower", "one follower", "followers":
		if len(followers) == 0 {
			return nil, fmt.Errorf("no node follows: %s", seen(st))
		}
		if word == "followers" {
			return followers, nil
		}
		return draw(followers, 1, rng), nil
	case "minority":
		return draw(everyone, (len(everyone)-1)/2, rng), nil
	case "majority":
		return draw(everyone, len(everyone)/2+1, rng), nil
	case ClientName, CacheName:
		return []string{word}, nil
	}
	return nil, fmt.Errorf("%q is neither a node (%s) nor a word of: %s", word, strings.Join(everyone, " "), SelectorWords)
}

// roleWords are the words that depend on who has which role.
var roleWords = []string{"leader", "follower", "one follower", "followers", "all but leader"}

// draw returns n of names, every subset as likely as any other, in names' order.
// It uses Uint64 alone, whose values are promised to stay across Go releases.
func draw(names []string, n int, rng *rand.Rand) []string {
	left := slices.Clone(names)
	var drawn []string
	for range n {
		i := int(rng.Uint64() % uint64(len(left))) // at most 25 names: the bias is below 2^-59
		drawn = append(drawn, left[i])
		left = slices.Delete(left, i, i+1)
	}
	slices.SortFunc(drawn, func(a, b string) int { return slices.Index(names, a) - slices.Index(names, b) })
	return drawn
}

// seen puts what the nodes say in words.
func seen(st []Status) string {
	if len(st) == 0 {
		return "there are no nodes"
	}
	words := make([]string, len(st))
	for i, s := range st {
		switch {
		case s.Err != nil:
			words[i] = fmt.Sprintf("%s could not be asked (%v)", s.Node, s.Err)
		case s.Role == "":
			words[i] = s.Node + " has no role"
		default:
			words[i] = fmt.Sprintf("%s is %s in term %d", s.Node, s.Role, s.Term)
		}
	}
	return strings.Join(words, ", ")
}
