package seccomp

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/unsupported"
)

// Of linux/seccomp.h.
const (
	setModeFilter      = 1
	getActionAvail     = 2
	flagNewListener    = 1 << 3
	flagWaitKillable   = 1 << 5 // Linux 5.19: other signals do not interrupt a call that waits
	retUserNotif       = 0x7fc00000
	retAllow           = 0x7fff0000
	notifRecv          = 0xc0502100
	notifSend          = 0xc0182101
	notifIDValid       = 0x40082102
	notifSetFlags      = 0x40082104
	syncWakeUp         = 1 // Linux 6.6
	flagContinue       = 1
	archOffset, nrOffs = 4, 0
)

// A Call is a system call that waits for a verdict.
type Call struct {
	ID   uint64
	TID  int // of the caller, as this process sees it
	NR   int
	Args [6]uint64
}

type notif struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// A Listener gets the calls of all threads that have its filter.
type Listener struct{ fd int }

func seccomp(op, flags uintptr, arg unsafe.Pointer) (uintptr, error) {
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, op, flags, uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}

// Probe reports whether this kernel can do it.
func Probe() error {
	action := uint32(retUserNotif)
	no := func(why string) error {
		return &unsupported.Error{What: "seccomp user notification", Why: why, Cure: "Linux 5.0 with CONFIG_SECCOMP_FILTER, outside of a sandbox that forbids seccomp(2)"}
	}
	if auditArch == 0 {
		return no("not for " + runtime.GOARCH)
	}
	_, err := seccomp(getActionAvail, 0, unsafe.Pointer(&action))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM):
		return no(err.Error())
	}
	return fmt.Errorf("probe seccomp: %w", err)
}

// Install puts a filter for system calls on this OS thread and whatever it
// starts. The thread has no_new_privs, and should end soon: its own calls wait
// for a verdict, too.
func Install(calls []int) (*Listener, error) {
	prog := program(calls)
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, err := seccomp(setModeFilter, flagNewListener|flagWaitKillable, unsafe.Pointer(&f))
	if errors.Is(err, unix.EINVAL) {
		fd, err = seccomp(setModeFilter, flagNewListener, unsafe.Pointer(&f))
	}
	if err != nil {
		return nil, fmt.Errorf("install seccomp filter: %w", err)
	}
	unix.CloseOnExec(int(fd))
	// An answer then runs the caller on this CPU at once: half the time of a trap.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, notifSetFlags, syncWakeUp)
	return &Listener{int(fd)}, nil
}

// program asks for a verdict on calls and allows all others.
func program(calls []int) []unix.SockFilter {
	const load, jumpEq, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	p := []unix.SockFilter{
		{Code: load, K: archOffset},
		{Code: jumpEq, K: auditArch, Jt: 1},
		{Code: ret, K: retAllow},
		{Code: load, K: nrOffs},
	}
	for i, nr := range calls {
		p = append(p, unix.SockFilter{Code: jumpEq, K: uint32(nr), Jt: uint8(len(calls) - i)})
	}
	return append(p, unix.SockFilter{Code: ret, K: retAllow}, unix.SockFilter{Code: ret, K: retUserNotif})
}

// Serve hands every call to f until nobody is left who has the filter, or the
// listener is closed while nothing waits. f answers by Continue or Fail, then or
// later.
func (l *Listener) Serve(f func(Call)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A blocking receive would not end with the last caller on all kernels.
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait for system calls: %w", err)
		case fds[0].Revents&unix.POLLIN == 0:
			return nil
		}
		var n notif
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifRecv, uintptr(unsafe.Pointer(&n)))
		switch errno {
		case 0:
			f(Call{ID: n.id, TID: int(n.pid), NR: int(n.nr), Args: n.args})
		case unix.EINTR, unix.ENOENT: // it was killed meanwhile
		default:
			return fmt.Errorf("receive a system call: %w", errno)
		}
	}
}

// Continue lets a call be done.
func (l *Listener) Continue(id uint64) { l.send(response{id: id, flags: flagContinue}) }

// Fail has it return an error in place of being done.
func (l *Listener) Fail(id uint64, errno unix.Errno) {
	l.send(response{id: id, errno: -int32(errno)})
}

// send ignores that the caller may be gone.
func (l *Listener) send(r response) {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifSend, uintptr(unsafe.Pointer(&r)))
}

// Waits says whether the caller still does.
func (l *Listener) Waits(id uint64) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), notifIDValid, uintptr(unsafe.Pointer(&id)))
	return errno == 0
}

// Close is for when Serve has returned.
func (l *Listener) Close() error { return os.NewSyscallError("close", unix.Close(l.fd)) }
