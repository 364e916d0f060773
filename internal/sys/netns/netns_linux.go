package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// current is the namespace of the calling thread; /proc/self would be that of
// the main thread.
const current = "/proc/thread-self/ns/net"

// New makes an empty network namespace: nothing but a loopback device that is down.
// It dies with the last process, socket or file that refers to it.
func New() (*os.File, error) {
	var ns *os.File
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		ns, err = open(current)
		return err
	})
	return ns, err
}

// open does not go through [os.Open]: a namespace cannot be polled, and trying costs two system calls.
func open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Do runs f on a thread inside ns and returns its error. f must not start
// goroutines that count on the namespace, and must not hand out the thread.
// What it reads under /proc/sys/net and /proc/thread-self/net is of ns.
func Do(ns *os.File, f func() error) error {
	return onThread(func() error {
		err := setns(ns)
		if err != nil {
			return err
		}
		return f()
	})
}

// setns enters ns through SyscallConn, because Fd would make the file blocking
// and, worse, let it be closed while we use its number.
func setns(ns *os.File) error {
	c, err := ns.SyscallConn()
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	var errno error
	if err := c.Control(func(fd uintptr) { errno = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	if errno != nil {
		return fmt.Errorf("enter network namespace: %w", errno)
	}
	return nil
}

// onThread runs f on a locked thread and brings the thread back to where it
// was. If that fails the thread stays locked and dies with its goroutine, so
// that no other goroutine ever runs in the wrong namespace.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := open(current)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		err = f()
		if setns(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
