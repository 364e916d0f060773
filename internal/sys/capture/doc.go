// Package capture listens on devices of other network namespaces by packet(7)
// sockets, with the kernel's time stamps.
package capture
