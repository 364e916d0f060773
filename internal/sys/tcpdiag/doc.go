// Package tcpdiag asks the kernel what its TCP knows of each connection of a
// network namespace: round-trip time, retransmissions, what is unacknowledged
// and unsent. It is what ss -ti prints, by sock_diag(7), without a process and
// without holding a thread in the namespace.
//
// It is read ten times a second for every node, so it parses only what is used.
package tcpdiag
