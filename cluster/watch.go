package cluster

// leaderOf says who leads by what all nodes said: who claims it in the highest
// term, or else whom the nodes of the highest term believe to lead, unless that
// one denies it. A deposed leader that does not know it yet, because it was cut
// off or frozen, is outvoted by its term.
func leaderOf(st []Status) (node string, term uint64) {
	claimed := false
	for _, s := range st {
		if s.Err != nil {
			continue
		}
		claims := s.Role == RoleLeader
		switch {
		case claims && (!claimed || s.Term > term):
			node, term, claimed = s.Node, s.Term, true
		case !claims && !claimed && s.Leader != "" && (node == "" || s.Term > term) && !denies(st, s.Leader, s.Term):
			node, term = s.Leader, s.Term
		}
	}
	return node, term
}

// denies says whether a node that others believe to lead in a term says itself
// that it does not: it stepped down, and they have not noticed.
func denies(st []Status, node string, term uint64) bool {
	for _, s := range st {
		if s.Node == node {
			return s.Err == nil && s.Role != "" && s.Role != RoleLeader && s.Term >= term
		}
	}
	return false
}

// agreed says whether all nodes are ready and name one leader of each shard, or have no such notion.
func agreed(st []Status) bool {
	for shard := range Shards(st) {
		all := Shard(st, shard)
		for _, s := range all {
			if s.Err != nil || !s.Ready || s.Leader != all[0].Leader || s.Role != "" && s.Leader == "" {
				return false
			}
		}
	}
	return true
}

// Roles of a node.
const (
	RoleLeader    = "leader"
	RoleFollower  = "follower"
	RoleCandidate = "candidate"
)
