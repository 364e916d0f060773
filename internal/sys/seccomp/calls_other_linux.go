//go:build !amd64 && !arm64

package seccomp

const auditArch = 0 // not known: nothing is trapped

// Opens and Renames are not known.
var Opens, Renames map[int]Path
