package proc

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetParentDeathSignal makes the kernel send this thread's process sig when the
// *thread* that started it ends: whoever starts a process with it must keep the
// starting thread alive. parent is the pid that is expected; if it ended before
// the call, sig would never come, and the error is ESRCH.
func SetParentDeathSignal(sig syscall.Signal, parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent death signal: %w", err)
	}
	if parent != 0 && unix.Getppid() != parent {
		return fmt.Errorf("set parent death signal: parent %d is gone: %w", parent, syscall.ESRCH)
	}
	return nil
}

// Drop takes all privileges from this thread for good, so that a program it
// then executes has none and cannot get any: supplementary groups, gid and uid,
// every capability (effective, permitted, inheritable, ambient, bounding) and
// the right to gain some by exec (no_new_privs). uid 0 keeps the user but
// not its powers.
//
// It is for a stub that calls [syscall.Exec] next, from the same goroutine: the
// thread stays locked to it, and the other threads of this process, which keep
// their privileges, end with the exec. Done by raw system calls, since Go's
// setuid would change all threads but leave the bounding set of the others.
//
// What this host does not allow is returned in notes: a container without
// CAP_SETPCAP cannot drop from its bounding set. An error means that user or
// group did not change.
func Drop(uid, gid int) (notes []error, err error) {
	runtime.LockOSThread() // never unlocked
	if err := DropBounding(); err != nil {
		notes = append(notes, err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		notes = append(notes, fmt.Errorf("clear ambient capabilities: %w", err))
	}
	for _, c := range []struct {
		what string
		trap uintptr
		a, b uintptr
	}{
		{"set groups", syscall.SYS_SETGROUPS, 0, 0},
		{"set gid", syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid)},
		{"set uid", syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid)},
	} {
		if _, _, e := syscall.RawSyscall(c.trap, c.a, c.b, c.b); e != 0 {
			if c.trap == syscall.SYS_SETGROUPS && uid == unix.Getuid() {
				notes = append(notes, fmt.Errorf("%s: %w", c.what, e)) // already nobody
				continue
			}
			return notes, fmt.Errorf("%s: %w", c.what, e)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return notes, fmt.Errorf("set no_new_privs: %w", err)
	}
	if uid == 0 { // else an exec would give root all of its bounding set again
		const locked = 1<<0 | 1<<1 // SECBIT_NOROOT and its lock, capabilities(7)
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, locked, 0, 0, 0); err != nil {
			notes = append(notes, fmt.Errorf("keep capabilities from root: %w", err))
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0); e != 0 {
		return notes, fmt.Errorf("drop capabilities: %w", e)
	}
	return notes, nil
}

// DropBounding empties the calling thread's capability bounding set, so that no
// file and no change of user gives its children any.
func DropBounding() error {
	for c := uintptr(0); c < 64; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last one
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}
