package scenarios

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"slices"

	"brownout/internal/sys/netns"
	systems "brownout/internal/target"
)

// Ask sends one command to a running cluster, as its clients do and from their
// namespace, and says which node answered.
func Ask(ctx context.Context, info Info, words []string) (a systems.Answer, node string, err error) {
	ns, err := os.Open(info.Client)
	if err != nil {
		return a, "", fmt.Errorf("enter client: %w", err)
	}
	defer ns.Close()
	nodes := slices.Clone(info.Nodes)
	slices.SortStableFunc(nodes, func(a, b NodeInfo) int { // the leader first: it need not redirect
		return cmp.Compare(follows(a), follows(b))
	})
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.Client)
	}
	dial := func(ctx context.Context, addr string) (net.Conn, error) { return netns.Dial(ctx, ns, "tcp", addr) }
	if a, err = systems.Ask(ctx, dial, addrs, words); err != nil {
		return a, "", err
	}
	for _, n := range nodes {
		if n.Client == a.Addr {
			node = n.Name
		}
	}
	return a, node, nil
}

func follows(n NodeInfo) int {
	if n.Role == "leader" {
		return 0
	}
	return 1
}
