// Package mount arranges what a process sees as its file system, inside a mount
// namespace of its own: read-only views of the host, memory, /proc, a few
// devices, and a root made of them.
//
// Everything here changes the calling process's mount namespace. It is for
// processes that were born into a new one (CLONE_NEWNS) and begin with
// [Private]; then nothing is seen outside, and all of it goes away with the
// namespace's last process. The package does not make namespaces and undoes
// nothing.
package mount
