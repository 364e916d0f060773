// Package link makes the devices of a private network: veth pairs, a bridge, a
// TAP, their addresses and permanent neighbours, by netlink and ioctl.
//
// Everything happens through a [Conn], a netlink socket inside one namespace,
// so that nothing is ever done to the host's own devices by a forgotten
// argument. Devices die with their namespace; nothing here needs an undo.
package link
