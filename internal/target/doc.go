// Package target knows the systems under test: how each is started on a node
// and asked for its state (a cluster.Target), and how clients speak to it (a
// workload.Client). One file a system.
//
// The client is where outcomes are decided: fail means that the operation
// certainly did not happen and never will, and everything else that is not an
// answer is unknown. A client that calls an operation failed when it may have
// happened makes the checker blame the target for the client's mistake.
package target
