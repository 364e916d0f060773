// Package stamp sends and receives UDP datagrams many at a time, with the time
// at which the kernel took each of them in.
//
// It goes round the runtime's poller: nobody is woken by a datagram, because the
// kernel stamps it anyway, and to be woken by each would cost more, and disturb
// what is measured more, than the datagram itself.
package stamp
