package cluster

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"brownout/internal/seed"
)

// five nodes of which n2 leads.
func five() []Status {
	st := make([]Status, 5)
	for i := range st {
		st[i] = Status{Node: NodeName(i), Ready: true, Role: RoleFollower, Leader: "n2", Term: 7}
	}
	st[1].Role = RoleLeader
	return st
}

// threeShards are five nodes of which n2, n3 and n4 lead a shard each.
func threeShards() []Status {
	st := five()
	for i := range st {
		for shard := range 3 {
			one := ShardStatus{Role: RoleFollower, Leader: NodeName(1 + shard), Term: uint64(7 + shard)}
			if i == 1+shard {
				one.Role = RoleLeader
			}
			st[i].Shards = append(st[i].Shards, one)
		}
	}
	return st
}

func with(st []Status, i int, s Status) []Status {
	s.Node = st[i].Node
	st[i] = s
	return st
}

func TestSelect(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words string
		st    []Status
		want  string // names, or part of the error after "error: "
	}{
		{"a node is itself", "n3", five(), "n3"},
		{"a list keeps the nodes' order and names nobody twice", "n3, n1,n3", five(), "n1 n3"},
		{"all are all", "all", five(), "n1 n2 n3 n4 n5"},
		{"the leader is who says so", "leader", five(), "n2"},
		{"a deposed leader that does not know it is not the leader", "leader", with(five(), 4, Status{Role: RoleLeader, Leader: "n5", Term: 6}), "n2"},
		{"a new leader wins over who has not heard yet", "leader", with(five(), 4, Status{Role: RoleLeader, Leader: "n5", Term: 8}), "n5"},
		{"a leader that does not answer is who the others follow", "leader", with(five(), 1, Status{Err: errors.New("timeout")}), "n2"},
		{"a leader that stepped down is none, whatever the others still believe", "leader", with(five(), 1, Status{Role: RoleFollower, Term: 7}), "error: no node leads: "},
		{"followers follow", "followers", five(), "n1 n3 n4 n5"},
		{"a candidate does not follow", "followers", with(five(), 0, Status{Role: RoleCandidate, Term: 8}), "n3 n4 n5"},
		{"a node that cannot be asked is not known to follow", "followers", with(five(), 0, Status{Err: errors.New("refused")}), "n3 n4 n5"},
		{"all but the leader include who does not answer", "all but leader", with(five(), 0, Status{Err: errors.New("refused")}), "n1 n3 n4 n5"},
		{"spaces do not matter", " all  but  leader ", five(), "n1 n3 n4 n5"},
		{"leader and a node are united", "leader,n1", five(), "n1 n2"},
		{"the client is no node and comes last", "client,n5", five(), "n5 client"},
		{"one node has no minority", "minority", five()[:1], ""},
		{"one node is its majority", "majority", five()[:1], "n1"},
		{"nobody leads", "leader", []Status{{Node: "n1", Role: RoleCandidate, Term: 3}, {Node: "n2", Err: errors.New("timeout")}}, "error: no node leads: n1 is candidate in term 3, n2 could not be asked (timeout)"},
		{"no roles at all", "follower", []Status{{Node: "n1", Ready: true}}, "error: no node follows: n1 has no role"},
		{"a node that is not there", "n6", five(), `error: "n6" is neither a node (n1 n2 n3 n4 n5) nor a word of: n1`},
		{"a shard's leader", "leader of shard 1", threeShards(), "n3"},
		{"shard 0's, if none is named", "leader", threeShards(), "n2"},
		{"leaders of several shards", "leader of  shard 2, leader of shard 0", threeShards(), "n2 n4"},
		{"a shard's followers", "followers of shard 2", threeShards(), "n1 n2 n3 n5"},
		{"all but a shard's leader", "all but leader of shard 1", threeShards(), "n1 n2 n4 n5"},
		{"the one shard of who has no others", "leader of shard 0", five(), "n2"},
		{"a shard that is not there", "leader of shard 3", threeShards(), "error: no node leads: n1 could not be asked (it has no shard 3)"},
		{"a shard of who has no role", "minority of shard 1", threeShards(), "error: minority has no shard"},
		{"a word that does not exist", "leaders", five(), `error: "leaders" is neither a node`},
		{"nothing", "", five(), `error: "" is neither a node`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Select(tt.words, tt.st, seed.Stream(1, "select"))
			if part, ok := strings.CutPrefix(tt.want, "error: "); ok {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Fatalf("Select(%q) = %v, %v; want an error with %q", tt.words, got, err, part)
				}
				return
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("Select(%q) = %v, %v; want %s", tt.words, got, err, tt.want)
			}
		})
	}
}

func TestDrawsAreFairAndRepeatable(t *testing.T) {
	for _, tt := range []struct {
		words string
		size  int
		from  []string
	}{
		{"one follower", 1, []string{"n1", "n3", "n4", "n5"}},
		{"follower", 1, []string{"n1", "n3", "n4", "n5"}},
		{"minority", 2, []string{"n1", "n2", "n3", "n4", "n5"}},
		{"majority", 3, []string{"n1", "n2", "n3", "n4", "n5"}},
	} {
		t.Run(tt.words, func(t *testing.T) {
			rng, again := seed.Stream(3, tt.words), seed.Stream(3, tt.words)
			count := map[string]int{}
			const rounds = 4000
			for range rounds {
				got, err := Select(tt.words, five(), rng)
				if err != nil || len(got) != tt.size || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != tt.size {
					t.Fatalf("Select(%q) = %v, %v; want %d different nodes in order", tt.words, got, err, tt.size)
				}
				if same, _ := Select(tt.words, five(), again); !slices.Equal(got, same) {
					t.Fatalf("the same stream drew %v and %v", got, same)
				}
				for _, n := range got {
					count[n]++
				}
			}
			want := float64(rounds*tt.size) / float64(len(tt.from))
			for _, n := range tt.from {
				// Five standard deviations of a binomial count.
				if d := float64(count[n]) - want; d*d > 25*want {
					t.Errorf("%s drawn %d times, want about %.0f", n, count[n], want)
				}
			}
			if len(count) != len(tt.from) {
				t.Errorf("drew %v, want only %v", count, tt.from)
			}
		})
	}
}

func TestAgreed(t *testing.T) {
	for _, tt := range []struct {
		name string
		st   []Status
		want bool
	}{
		{"all follow one", five(), true},
		{"one is not ready", with(five(), 0, Status{Role: RoleFollower, Leader: "n2", Term: 7}), false},
		{"one follows another", with(five(), 0, Status{Ready: true, Role: RoleFollower, Leader: "n3", Term: 7}), false},
		{"all follow one in each shard", threeShards(), true},
		{"one follows another in one shard", func() []Status {
			st := threeShards()
			st[0].Shards[2].Leader = "n1"
			return st
		}(), false},
		{"one cannot be asked", with(five(), 4, Status{Err: errors.New("refused")}), false},
		{"nobody leads yet", []Status{{Node: "n1", Ready: true, Role: RoleFollower}}, false},
		{"a target without roles is agreed when it lives", []Status{{Node: "n1", Ready: true}, {Node: "n2", Ready: true}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := agreed(tt.st); got != tt.want {
				t.Errorf("agreed(%+v) = %v, want %v", tt.st, got, tt.want)
			}
		})
	}
}

func TestConfigTellsAllMistakesAtOnce(t *testing.T) {
	_, err := Config{ID: "A-b", Dir: "out", Nodes: 26, Disk: "ramdisk", Ready: -1}.withDefaults()
	for _, part := range []string{"id: ", "dir: ", "nodes: 26 is not in 1..25", "target: missing", "journal: missing", "disk: ", "ready: "} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("err = %v; want it to say %q", err, part)
		}
	}
}
