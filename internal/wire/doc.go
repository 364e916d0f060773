// Package wire emulates links: it holds frames back, drops, duplicates,
// reorders and corrupts them, and limits their rate.
//
// [Engine] is pure: it has no clock, no goroutine and no socket. The caller says
// what time it is, so every statistic is tested in virtual time, without root.
// [Main] is the process around it: one real-time thread that moves real frames
// through a TAP. [Client] talks to that process.
//
// Which frames come here, and that frames of a dead wire go nowhere instead of
// past it, is the business of package cluster's switch.
package wire
