package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/internal/sys/proc"
)

// Stuck tasks are threads of a node that a freeze does not reach, since they are
// in uninterruptible sleep: behind a disk that hangs, for example. They run
// nothing before they have been frozen, so that the node stands still without
// them, although the kernel does not call it frozen.
type stuckTasks struct {
	stops   bool      // by SIGSTOP: who sleeps otherwise may wake up
	when    time.Time // of the latest look
	asleep  map[int]string
	running bool // some thread was, then
	said    bool // that they are all that is left
}

const (
	stuckAfter = 10 * time.Millisecond // from the freeze to the first look, which is dear: nearly all take less
	stuckLook  = 2 * time.Millisecond  // between two looks: who was just woken, to be frozen, is running in one of them
)

// only says whether in two looks no thread of n ran, and the same one was in
// uninterruptible sleep.
func (s *stuckTasks) only(n *cluster.Node) bool {
	if time.Since(s.when) < stuckLook {
		return false
	}
	before := *s
	*s = stuckTasks{stops: s.stops, when: time.Now(), asleep: map[int]string{}}
	pids, err := n.Pids()
	for _, pid := range pids {
		tasks, e := proc.Tasks(pid)
		s.running = s.running || err != nil || e != nil // who cannot be seen may run
		for _, t := range tasks {
			switch {
			case t.State == 'R', s.stops && t.State == 'S':
				s.running = true
			case t.State == 'D' && t.Waiting != "__refrigerator": // which is where v1 freezes
				s.asleep[t.TID] = fmt.Sprintf("thread %d (%s) of %s in uninterruptible sleep", t.TID, t.Name, n.Name())
				if t.Waiting != "" {
					s.asleep[t.TID] += " in " + t.Waiting
				}
			}
		}
	}
	for tid := range s.asleep {
		_, was := before.asleep[tid]
		s.said = s.said || was && !s.running && !before.running
	}
	return s.said
}

// String tells of them, if only they were left; "" if all stand still.
func (s *stuckTasks) String() string {
	if !s.said {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Values(s.asleep)), ", ")
}

// named adds to a freeze's error which tasks did not stand still.
func (s *stuckTasks) named(err error) error {
	if err == nil || len(s.asleep) == 0 {
		return err
	}
	return fmt.Errorf("%w; %s", err, strings.Join(slices.Sorted(maps.Values(s.asleep)), ", "))
}
