// Package faultfs is slowfs: a file system that shows a directory as it is, but
// slower. It serves a node's data directory, so that the node's disk can be
// hurt without hurting anybody else's.
//
// What happens to an operation is decided by an [Engine] from [Rules], which is
// pure: no clock, no files, its chance from a seed. The rest is a FUSE server
// over the backing directory (fs_linux.go) that asks the engine, waits, does the
// operation on the backing files and counts both ([Stats]). Data, durability and
// errors are those of the backing file system: fsync is fsync and fdatasync is
// fdatasync there, also of directories.
//
// The wait comes before the operation, so an fsync that is cut off by kill -9
// has not happened. A wait that has begun goes on to its end when the rules
// change, as a slow disk's would, unless the new rules say [Rules.Release]. It
// ends at once when its caller is killed.
//
// The server must not live in a process that uses files below the mount point.
// When it dies, callers get ENOTCONN ("transport endpoint is not connected"): a
// failure of the testbed, never a finding.
//
// Limits: extended attributes, and advisory locks between mounts, are not
// passed on (locks work within the mount; the kernel keeps them). O_DIRECT
// bypasses the cache of the mount, but not that of the backing file system.
// Reads that the kernel answers from its cache are not delayed, as they would
// not be on a slow disk.
package faultfs
