// Package qdisc puts the kernel's network emulator (sch_netem, S. Hemminger,
// "Network Emulation with NetEm", 2005) on devices, with the attributes that
// vishvananda/netlink lacks: Gilbert-Elliott loss, distribution tables,
// nanoseconds and the seed.
package qdisc
