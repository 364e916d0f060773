// Package timerfd waits for instants more exactly than the Go runtime's timers.
//
// The runtime sleeps in epoll_wait, whose timeout is in milliseconds, so that
// [time.Sleep] is late by up to one. A timerfd(2) has the kernel's
// high-resolution timers behind it and wakes the same epoll: no thread is held
// and no CPU time is spun away, and whoever waits runs some 50 µs late.
package timerfd
