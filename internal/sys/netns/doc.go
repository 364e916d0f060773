// Package netns makes network namespaces that have no name, and opens sockets
// in namespaces of others.
//
// A namespace belongs to a thread, a socket to the namespace it was opened in.
// So everything here borrows one operating system thread for a moment, enters,
// does its work and leaves; what comes back (files, sockets, connections) can be
// used from any goroutine. A namespace lives as long as a process, a socket or
// an open file refers to it: closing the last file is its whole cleanup.
//
// The package names nothing under /run/netns and mounts nothing.
package netns
