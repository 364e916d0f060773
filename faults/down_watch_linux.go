package faults

import (
	"context"
	"slices"
	"sync"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/proc"
)

// A downWatch times how long a node is without its program: from the end of
// the last of its processes, told by their pidfds, to the birth of another
// child of the box's init in the node's cgroup. It asks only the kernel, not
// whoever kills and starts. How long the new program then takes to serve is the
// program's own matter, which pings tell.
type downWatch struct {
	n   *cluster.Node
	old []*proc.Pidfd

	mu         sync.Mutex
	died, born time.Time // zero until it is so
}

// bornPoll is how often one looks for a new process. It is the error of a downtime.
const bornPoll = time.Millisecond

// run returns when a new process was seen, or with the end of ctx.
func (w *downWatch) run(ctx context.Context) {
	for _, fd := range w.old {
		if fd.Wait(ctx) != nil {
			return
		}
	}
	w.mu.Lock()
	w.died = time.Now()
	w.mu.Unlock()
	for !w.another() {
		if !sleep(ctx, bornPoll) {
			return
		}
	}
	w.mu.Lock()
	w.born = time.Now()
	w.mu.Unlock()
}

// another says whether the node has a process that the box's init started
// since. Others may be in its cgroup: a tenant that takes its memory, a probe.
func (w *downWatch) another() bool {
	pids, err := w.n.Pids()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(pids, func(pid int) bool {
		if slices.ContainsFunc(w.old, func(fd *proc.Pidfd) bool { return fd.PID() == pid }) {
			return false
		}
		st, err := proc.ReadStat(pid)
		return err == nil && st.PPID == w.n.InitPid()
	})
}

// down is how long the node has been, or was, without its program, and whether
// that is over.
func (w *downWatch) down() (d time.Duration, over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.died.IsZero():
		return 0, false
	case w.born.IsZero():
		return time.Since(w.died), false
	}
	return w.born.Sub(w.died), true
}
