//go:build arm64

package seccomp

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// System calls that begin where a path is, by the place of the path among their
// arguments and of the directory that it is relative to (-1: the current one).
var (
	Opens   = map[int]Path{unix.SYS_OPENAT: {1, 0}, unix.SYS_OPENAT2: {1, 0}}
	Renames = map[int]Path{unix.SYS_RENAMEAT: {1, 0}, unix.SYS_RENAMEAT2: {1, 0}}
)
