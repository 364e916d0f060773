// Package cluster launches the nodes of a target on one host: each a process in
// its own network, PID, mount, UTS and IPC namespaces and cgroup, on one private
// switch, with a private disk. It knows nothing of faults and of what runs on
// the nodes beyond [Target].
//
// A node is a box: an init process of ours ([InitMain]) that was cloned into
// new namespaces, builds a root directory out of memory and read-only views of
// the host, serves the node's disk, starts the target as a user of its own
// without any privileges, and reaps. It obeys its supervisor, the process that
// called [Up], over a socket pair. The target, and nothing else, is in the
// node's cgroup, so limits and freezers hit the target alone.
//
// Nothing of a cluster outlives its supervisor but empty cgroups: namespaces
// are held by processes and open files only, mounts are inside mount
// namespaces, init dies with the thread that started it and takes its PID
// namespace along. The cgroups are removed by a small process that waits for
// the supervisor's end ([ReaperMain]), or by "brownout clean". There are no
// files outside the run's directory.
//
// [Select] turns the words of a selector into nodes; it is pure.
package cluster
