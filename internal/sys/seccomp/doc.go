// Package seccomp stops system calls of a program before they are done and lets
// another process say what becomes of each (SECCOMP_RET_USER_NOTIF,
// seccomp_unotify(2)).
//
// A filter belongs to a thread and all that it starts, and cannot be taken away
// again. A [Listener] must be served for as long as any of them lives: a call
// that nobody answers waits, and when the listener is closed it fails with
// ENOSYS.
package seccomp
