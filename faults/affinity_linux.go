package faults

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/plan"
	"brownout/internal/sys/proc"
)

var (
	parseCPUs  = plan.ParseCPUs
	formatCPUs = plan.FormatCPUs
)

func contains(list []int, c int) bool { return slices.Contains(list, c) }

// usableCPUs are the CPUs that this process may use.
func usableCPUs() []int {
	var set unix.CPUSet
	var cpus []int
	if err := unix.SchedGetaffinity(0, &set); err == nil {
		for c := range 8 * len(set) * 8 {
			if set.IsSet(c) {
				cpus = append(cpus, c)
			}
		}
	}
	if cpus == nil {
		cpus = []int{0}
	}
	return cpus
}

// setAffinity binds all threads of a node.
func setAffinity(n *cluster.Node, cpus []int) error {
	pids, err := n.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := pinProcess(pid, cpus); err != nil {
			return fmt.Errorf("bind %s to CPUs %s: %w", n.Name(), formatCPUs(cpus), err)
		}
	}
	return nil
}

// pinProcess binds all threads of a process, and those that they start
// meanwhile: a new thread has the affinity of who started it.
func pinProcess(pid int, cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	done := map[int]bool{}
	for fresh := true; fresh; {
		fresh = false
		tids, err := proc.Threads(pid)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, tid := range tids {
			if done[tid] {
				continue
			}
			done[tid], fresh = true, true
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return os.NewSyscallError("sched_setaffinity", err)
			}
		}
	}
	return nil
}
