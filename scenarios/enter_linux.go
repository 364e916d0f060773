package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter runs argv (a shell if empty) inside the namespaces of a running
// cluster's node, or in the clients' network namespace if node is "client".
// It returns the command's exit code.
//
// A thread that shares its root directory with others may not change its mount
// namespace, and every Go thread does: so one thread is split off for it
// (unshare(2), CLONE_FS) and never given back to the runtime.
func Enter(ctx context.Context, info Info, node string, argv []string) (int, error) {
	type joining struct {
		path string
		kind int
	}
	var join []joining
	if node == "client" {
		join = []joining{{info.Client, unix.CLONE_NEWNET}}
	} else {
		init := 0
		for _, n := range info.Nodes {
			if n.Name == node {
				init = n.Init
			}
		}
		if info.Cache != nil && node == info.Cache.Name {
			init = info.Cache.Init
		}
		if init == 0 {
			return 0, fmt.Errorf("cluster %s has no node %q", info.ID, node)
		}
		for _, ns := range []joining{
			{"net", unix.CLONE_NEWNET},
			{"uts", unix.CLONE_NEWUTS},
			{"ipc", unix.CLONE_NEWIPC},
			{"pid", unix.CLONE_NEWPID},
			{"mnt", unix.CLONE_NEWNS}, // the last one takes /proc away
		} {
			join = append(join, joining{fmt.Sprintf("/proc/%d/ns/%s", init, ns.path), ns.kind})
		}
	}
	files := make([]*os.File, len(join))
	for i, j := range join {
		f, err := os.Open(j.path)
		if err != nil {
			return 0, fmt.Errorf("enter %s: %w", node, err)
		}
		defer f.Close()
		files[i] = f
	}
	if len(argv) == 0 {
		argv = []string{"/bin/sh"}
		if sh := os.Getenv("SHELL"); sh != "" && node == "client" {
			argv[0] = sh
		}
	}
	type outcome struct {
		code int
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with its namespaces
		code, err := func() (int, error) {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return 0, fmt.Errorf("enter %s: unshare: %w", node, err)
			}
			for i, j := range join {
				if err := unix.Setns(int(files[i].Fd()), j.kind); err != nil {
					return 0, fmt.Errorf("enter %s: setns %s: %w", node, j.path, err)
				}
			}
			if node == "client" {
				if err := nameNodes(info); err != nil {
					return 0, fmt.Errorf("enter client: %w", err)
				}
			}
			return runInside(ctx, node, argv)
		}()
		done <- outcome{code, err}
	}()
	o := <-done
	return o.code, o.err
}

// nameNodes lets this thread, and what it starts, know the nodes by name: it
// lays the cluster's hosts file over /etc/hosts in a mount namespace of its own.
func nameNodes(info Info) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(info.Hosts, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", info.Hosts, err)
	}
	return nil
}

func runInside(ctx context.Context, node string, argv []string) (int, error) {
	// The terminal sends its signals to the command as well, and it decides. They
	// are caught here, not ignored: what is ignored stays so across execve(2).
	signal.Reset(os.Interrupt, syscall.SIGQUIT)
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, os.Interrupt, syscall.SIGQUIT)
	defer signal.Stop(caught)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "BROWNOUT_NODE="+node)
	if node != "client" {
		cmd.Dir = "/"
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 127, fmt.Errorf("enter %s: %w", node, err)
	}
	return 0, nil
}
