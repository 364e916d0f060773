package undo

import (
	"os"

	"brownout/internal/sys/proc"
)

// Self returns this process as the owner of run id.
func Self(id string) (Owner, error) {
	born, err := proc.StartTime(os.Getpid())
	return Owner{ID: id, PID: os.Getpid(), Born: born}, err
}

// Alive says whether the process that owns the run still lives. A zombie does not.
func (o Owner) Alive() bool {
	born, ok := lives(o.PID)
	return ok && born == o.Born
}

// lives returns the start time of a process, if there is one that has not ended.
func lives(pid int) (born uint64, ok bool) {
	st, err := proc.ReadStat(pid)
	return st.Start, err == nil && st.State != 'Z' && st.State != 'X'
}
