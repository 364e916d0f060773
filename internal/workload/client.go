// Package workload offers operations to a target and records what came of them.
//
// What is offered is a pure function of a load and a seed ([Stream]). How it is
// offered is open loop: operations are due by the clock, whatever the target
// does, and response time counts from when they were due; so a stall is seen
// by all operations that it held up, and not only by those that were in flight
// (the "coordinated omission" of closed loops). The generator is a process of
// its own, in the clients' network namespace.
//
// It judges nothing and knows no faults.
package workload

import (
	"context"

	"brownout/internal/history"
)

// A Client talks to one target system. Only the client knows whether an error
// means "certainly not" ([history.Fail]) or "perhaps" ([history.Unknown]).
//
// A Client is used by one goroutine at a time. After Unknown it must still be
// usable (it reconnects by itself). Do returns by ctx's deadline.
type Client interface {
	Do(ctx context.Context, req history.Request) history.Reply
	Close() error
}

// An Endpoint is a node that clients can reach.
type Endpoint struct {
	Node string `json:"node"`
	Addr string `json:"addr"` // host:port in the client's namespace
}

// A Cluster is what a client needs to know of one.
type Cluster struct {
	Endpoints []Endpoint
	Shards    int    // each with a leader of its own; 0 means 1
	Prefer    string // whom to ask: "leader", "any", "nearest" or a node's name
}

// A Dialer makes clients.
type Dialer interface {
	Dial(ctx context.Context, to Cluster) (Client, error)
}
