package scenarios

import (
	"fmt"
	"net"
	"strconv"

	"brownout/cluster"
	"brownout/internal/plan"
	systems "brownout/internal/target"
)

// targetFor makes the target that a plan names.
func targetFor(t plan.Target) (cluster.Target, error) {
	switch t.Kind {
	case "kvserver":
		kv, err := systems.NewKVServer(t.Config)
		if err == nil && t.Downstream != nil {
			err = kv.Through(t.Downstream)
		}
		return kv, err
	}
	return nil, fmt.Errorf("target.kind %q: this version runs kvserver", t.Kind)
}

// clientAddr is where clients reach a node.
func clientAddr(n *cluster.Node) string {
	return net.JoinHostPort(n.IP4().String(), strconv.Itoa(systems.KVClientPort))
}
