// Package bpf steers frames between the ports of a switch with two small eBPF
// programs, written as instructions: no compiler, no object files.
//
// The pair program runs on what comes in at a port. It looks up the rule of
// the frame's directed pair: pass (go on to the bridge), drop, or wire (send it
// to the TAP behind which frames are held back). The out program runs on what
// the wire writes to its TAP and sends it to the port it is for. Both count.
//
// A frame's pair is read from its MAC addresses, see [MAC]. Frames to a group
// (broadcast, multicast) have no pair and are dropped, which is what makes a
// partition complete: everybody knows everybody by permanent neighbours.
//
// The programs are attached to the device's clsact hook by netlink, not as TCX
// links: attaching a TCX link waits for an RCU grace period under the lock that
// all of the system's network configuration shares (8 to 16 ms a port, against
// 0.15 ms), closing it waits for another one, and a link
// falls off with the process that made it, so that a partition would heal by
// a crash.
package bpf
