// Package proc reads what the kernel says of processes and of the host's CPUs,
// and does the few things to processes that Go's library does not: waiting on
// and signalling by pidfd, and dropping privileges for good before an exec.
//
// Parsers are pure functions of a file's bytes, as proc(5) describes them; the
// readers beside them only add the path. Counters are returned as the kernel
// keeps them, since the start of the process or of the host: rates are made by
// whoever samples.
//
// It does not cache, poll or follow anything.
package proc
