package faults

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"brownout/cluster"
	"brownout/internal/plan"
	"brownout/internal/seed"
)

// five nodes; n2 leads in term 7.
func five() []cluster.Status {
	st := make([]cluster.Status, 5)
	for i := range st {
		st[i] = cluster.Status{Node: cluster.NodeName(i), Ready: true, Role: "follower", Leader: "n2", Term: 7}
	}
	st[1].Role = "leader"
	return st
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    plan.Fault
		want string // sorted by construction; "!" begins a part of an error
	}{
		{"a fault on nodes hits what its selector means", plan.Fault{Kind: "disk.delay", On: "leader"}, "n2"},
		{"a delay has one direction", plan.Fault{Kind: "net.delay", From: "leader", To: "n1,n3"}, "n2>n1 n2>n3"},
		{"no link leads from a node to itself", plan.Fault{Kind: "net.delay", From: "n1,n2", To: "n1,n2"}, "n1>n2 n2>n1"},
		{"what is not said means all", plan.Fault{Kind: "net.delay", To: "leader"}, "n1>n2 n3>n2 n4>n2 n5>n2"},
		{"a partition cuts both directions", plan.Fault{Kind: "net.partition", From: "n1", To: "n2"}, "n1>n2 n2>n1"},
		{"unless it is one_way", plan.Fault{Kind: "net.partition", From: "n1", To: "n2", Params: plan.Params{"one_way": true}}, "n1>n2"},
		{
			"the client plane of a leader is what it sends to clients",
			plan.Fault{Kind: "net.delay", From: "leader", Plane: "client"},
			"n2>client",
		},
		{
			"and what clients send to it",
			plan.Fault{Kind: "net.delay", To: "leader", Plane: "client"},
			"client>n2",
		},
		{
			"both planes of a link to the leader",
			plan.Fault{Kind: "net.delay", From: "n1", To: "leader", Plane: "both"},
			"n1>n2 n1>client client>n2",
		},
		{"the client can be named", plan.Fault{Kind: "net.partition", From: "client", To: "n1"}, "client>n1 n1>client"},
		{
			"a split cuts all links between its groups",
			plan.Fault{Kind: "net.partition", Split: "n1 | n2, n3"},
			"n1>n2 n1>n3 n2>n1 n3>n1",
		},
		{
			"a one-way split silences the first group",
			plan.Fault{Kind: "net.partition", Split: "n1 | n2,n3", Params: plan.Params{"one_way": true}},
			"n1>n2 n1>n3",
		},
		{
			"the client belongs to the last group",
			plan.Fault{Kind: "net.partition", Split: "n1 | n2", Plane: "both"},
			"n1>n2 n1>client n2>n1 client>n1",
		},
		{
			"or to the one that names it",
			plan.Fault{Kind: "net.partition", Split: "n1,client | n2", Plane: "client"},
			"client>n2 n2>client",
		},
		{
			"a node belongs to the first group that means it",
			plan.Fault{Kind: "net.partition", Split: "leader | all", Params: plan.Params{"one_way": true}},
			"n2>n1 n2>n3 n2>n4 n2>n5",
		},
		{
			"isolated from everybody",
			plan.Fault{Kind: "net.partition", Plane: "both", Params: plan.Params{"isolate": "leader"}},
			"n2>n1 n2>n3 n2>n4 n2>n5 n2>client n1>n2 n3>n2 n4>n2 n5>n2 client>n2",
		},
		{
			"silenced only",
			plan.Fault{Kind: "net.partition", Params: plan.Params{"isolate": "leader", "one_way": true}},
			"n2>n1 n2>n3 n2>n4 n2>n5",
		},
		{
			"a bridge keeps its links to all groups",
			plan.Fault{Kind: "net.partition", Split: "n1,n2 | others", Params: plan.Params{"bridge": "n3"}},
			"n1>n4 n1>n5 n2>n4 n2>n5 n4>n1 n4>n2 n5>n1 n5>n2",
		},
		{"a bridge between nobody", plan.Fault{Kind: "net.partition", Params: plan.Params{"bridge": "n1,n2,n3,n4"}}, "!no two groups"},
		{"one group is no split", plan.Fault{Kind: "net.partition", Split: "n1,n2"}, "!one group"},
		{"a group of nobody is an error", plan.Fault{Kind: "net.partition", Split: "all | n2"}, "!nobody is left"},
		{"the client has no disk", plan.Fault{Kind: "disk.delay", On: "client"}, "!no node"},
		{"from a node to itself is no link", plan.Fault{Kind: "net.delay", From: "n1", To: "n1"}, "!means nobody"},
		{"an unknown kind is an error", plan.Fault{Kind: "net.magic"}, "!unknown kind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site, err := resolve(tt.f, five(), seed.Stream(1, "test"))
			if want, ok := strings.CutPrefix(tt.want, "!"); ok {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("resolve = %v, %v; want an error with %q", site.Names(), err, want)
				}
				return
			}
			if diff := cmp.Diff(strings.Fields(tt.want), site.Names()); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func TestMinorityAndMajorityShareTheNodes(t *testing.T) {
	for s := range uint64(20) {
		site, err := resolve(plan.Fault{Kind: "net.partition", Split: "minority | majority", Params: plan.Params{"one_way": true}}, five(), seed.Stream(s, "test"))
		if err != nil || len(site.Links) != 6 { // 2 × 3
			t.Fatalf("seed %d: %v, %v; want 6 links", s, site.Names(), err)
		}
	}
}

// TestABridgeJoinsTwoHalves checks that the bridge has all its links, that the
// others see the half of them, and that chance decides which half.
func TestABridgeJoinsTwoHalves(t *testing.T) {
	seen := map[string]bool{}
	for s := range uint64(20) {
		f := plan.Fault{Kind: "net.partition", Params: plan.Params{"bridge": "leader"}}
		site, err := resolve(f, five(), seed.Stream(s, "test"))
		if err != nil || len(site.Links) != 8 || site.touches("n2") { // 2 × 2 both ways
			t.Fatalf("seed %d: %v, %v; want 8 links without n2", s, site.Names(), err)
		}
		seen[strings.Join(site.Names(), " ")] = true
	}
	if len(seen) < 2 {
		t.Error("the halves are always the same")
	}
}

func TestTheSameRolesMeanTheSameSite(t *testing.T) {
	f := plan.Fault{Kind: "disk.delay", On: "one follower"}
	a, err := resolve(f, five(), seed.Stream(7, "fault/f1"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := resolve(f, five(), seed.Stream(7, "fault/f1"))
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
}

func TestShapesOfAPartitionAreBoundToRoles(t *testing.T) {
	for name, tt := range map[string]struct {
		params plan.Params
		bound  bool
	}{
		"isolate leader":      {plan.Params{"isolate": "leader"}, true},
		"isolate n1":          {plan.Params{"isolate": "n1"}, false},
		"bridge one follower": {plan.Params{"bridge": "one follower"}, true},
	} {
		f := plan.Fault{ID: "f1", Kind: "net.partition", Params: tt.params}
		site, err := resolve(f, five(), seed.Stream(1, "f1"))
		if err != nil {
			t.Fatal(err)
		}
		if got := roleBound(f); got != tt.bound {
			t.Errorf("%s is bound to roles: %v, want %v", name, got, tt.bound)
		}
		if got := seats(f, site, five()) != nil; got != tt.bound {
			t.Errorf("%s has seats: %v, want %v", name, got, tt.bound)
		}
	}
}

func TestMoved(t *testing.T) {
	was := []seat{{"n2", "leader", 0, 7}, {"n3", "follower", 0, 7}}
	for _, tt := range []struct {
		name   string
		change func([]cluster.Status)
		want   string
	}{
		{"nothing happened", func([]cluster.Status) {}, ""},
		{"a leader that cannot be asked may still lead", func(st []cluster.Status) { st[1].Err = errors.New("no answer") }, ""},
		{
			"another leads in a later term", func(st []cluster.Status) { st[0].Role, st[0].Term = "leader", 8 },
			"n2 no longer leads: n1 does since term 8",
		},
		{
			"the follower leads now", func(st []cluster.Status) { st[2].Role, st[2].Term = "leader", 9 },
			"n2 no longer leads: n3 does since term 9; n3 was follower and leads now, since term 9",
		},
		{"an old leader that does not know yet changes nothing", func(st []cluster.Status) { st[0].Role, st[0].Term = "leader", 6 }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := five()
			tt.change(st)
			if got := moved(was, st); got != tt.want {
				t.Errorf("moved = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMovedInAShard(t *testing.T) {
	shards := func() []cluster.Status {
		st := five() // n2 leads shard 0 in term 7
		for i := range st {
			st[i].Shards = []cluster.ShardStatus{{Role: st[i].Role, Leader: "n2", Term: 7}, {Role: "follower", Leader: "n4", Term: 3}}
		}
		st[3].Shards[1].Role = "leader"
		return st
	}
	f := plan.Fault{Kind: "disk.delay", On: "leader of shard 1"}
	site, err := resolve(f, shards(), seed.Stream(7, "fault/f1"))
	if err != nil || len(site.Nodes) != 1 || site.Nodes[0] != "n4" {
		t.Fatalf("site = %v, %v; want n4", site.Nodes, err)
	}
	was := seats(f, site, shards())
	if len(was) != 1 || was[0] != (seat{"n4", "leader", 1, 3}) {
		t.Fatalf("seats = %v, want that of n4 in shard 1", was)
	}
	st := shards()
	st[4].Role, st[4].Term = "leader", 9
	st[4].Shards[0] = cluster.ShardStatus{Role: "leader", Leader: "n5", Term: 9}
	if got := moved(was, st); got != "" {
		t.Errorf("moved = %q after a change in another shard", got)
	}
	st[0].Shards[1] = cluster.ShardStatus{Role: "leader", Leader: "n1", Term: 4}
	if got, want := moved(was, st), "n4 no longer leads shard 1: n1 does since term 4"; got != want {
		t.Errorf("moved = %q, want %q", got, want)
	}
}

func TestDisturbs(t *testing.T) {
	nodes := func(names ...string) Site { return Site{Nodes: names} }
	links := func(from, to string) Site { return Site{Links: []Link{{from, to}}} }
	for _, tt := range []struct {
		name   string
		a      string
		at     Site
		b      string
		bt     Site
		expect bool
	}{
		{"two delays of one link", "net.delay", links("n1", "n2"), "net.rate", links("n1", "n2"), true},
		{"not the other direction", "net.delay", links("n1", "n2"), "net.delay", links("n2", "n1"), false},
		{"a probe's socket does not stop with the node", "net.delay", links("n1", "n2"), "process.pause", nodes("n1"), false},
		{"two faults of one disk", "disk.delay", nodes("n1"), "disk.delay", nodes("n1"), true},
		{"not of two disks", "disk.delay", nodes("n1"), "disk.delay", nodes("n2"), false},
		{"a throttled node answers pings late", "gc.pause", nodes("n1"), "cpu.quota", nodes("n1"), true},
		{"the client's link carries the pings", "process.pause", nodes("n1"), "net.delay", links("client", "n1"), true},
		{"the peers' links do not", "process.pause", nodes("n1"), "net.delay", links("n2", "n1"), false},
		{"a write that is seen needs a quorum's disks", "lock.hold", nodes("n1"), "disk.delay", nodes("n2"), true},
		{"no lock waits for a clock", "lock.hold", nodes("n1"), "clock.skew", nodes("n1"), false},
		{"who waits for a lock answers pings", "process.pause", nodes("n1"), "lock.hold", nodes("n2"), false},
		{"a frozen node cannot be throttled", "cpu.quota", nodes("n1"), "process.pause", nodes("n1"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := disturbs(tt.a, tt.at, tt.b, tt.bt); got != tt.expect {
				t.Errorf("disturbs = %v, want %v", got, tt.expect)
			}
		})
	}
}

// TestEveryPairIsEveryPairOfItsPlane: "every pair" leaves out no direction.
func TestEveryPairIsEveryPairOfItsPlane(t *testing.T) {
	st := []cluster.Status{{Node: "n1", Role: "leader"}, {Node: "n2", Role: "follower"}, {Node: "n3", Role: "follower"}}
	for plane, want := range map[string]int{PlanePeer: 6, PlaneClient: 6, PlaneBoth: 12} {
		for _, from := range []string{"", everyPair} {
			site, err := resolve(plan.Fault{Kind: "net.delay", From: from, Plane: plane}, st, seed.Stream(1, "fault/f1"))
			if err != nil || len(site.Links) != want {
				t.Errorf("from %q, plane %s: %d links (%v), want %d", from, plane, len(site.Links), err, want)
			}
		}
	}
}
