// Package freezer stops all processes of a group and lets them run again, by
// whichever mechanism the kernel has.
//
// There are three, in order of preference ([Ways]):
//
//   - freezer2, the freezer of cgroup v2: one write, children and those born
//     meanwhile included, invisible to the processes and their parents, and a
//     frozen process can be killed. It needs no controller, so it works on hybrid
//     hosts, where all controllers are in v1.
//   - sigstop, SIGSTOP to each process: works without cgroup v2, but parents
//     that ask for it see it (WUNTRACED), and a process born between two looks
//     has to be caught.
//   - freezer1, the freezer of cgroup v1: last, because a process that it holds
//     ignores SIGKILL. If the testbed dies meanwhile, its nodes do not.
//
// None of them stops a process in the middle of a system call that cannot be
// interrupted, one that waits for a slow disk for example: it stands still
// when the call ends, and Pause waits for that.
package freezer
