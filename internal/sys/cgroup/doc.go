// Package cgroup makes named groups of processes, limits and freezes them, and
// reads what they used, on hosts with cgroup v1, v2 or both at once.
//
// A [Host] says where each controller lives: it is found out from
// /proc/self/mountinfo and /proc/self/cgroup and checked with statfs, not
// guessed from the look of /sys/fs/cgroup. Files can be made in a tmpfs over
// /sys/fs/cgroup without any error and mean nothing, a controller can be in v1
// while its neighbour is in v2, and a container sees its own group as the root.
//
// A [Group] is one name in every hierarchy that brownout uses, so that a
// caller needs not know which controller is where. Its files are read back
// after each write: the kernel rounds, clamps and inherits.
//
// containerd/cgroups creates, sets and reads groups where it can. It does not
// know of controllers in both versions at once, of hierarchies mounted in
// unusual places, and of waiting until something is frozen or empty; that is
// done here, where the code says so.
//
// The package touches no group whose name does not begin with [Prefix], but for
// one file: on v2, cgroup.subtree_control of the group that ours are made in.
package cgroup

// Prefix begins the name of every group that this package makes or removes.
const Prefix = "bo-"
