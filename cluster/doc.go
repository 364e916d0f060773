// Package cluster launches the nodes of a target on one host: each a process in
// its own network, PID, mount, UTS and IPC namespaces and cgroup, on one private
// switch, with a private disk. It knows nothing of faults and of what runs on
// the nodes beyond [Target].
package cluster
