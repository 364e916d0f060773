package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"brownout/checker"
	"brownout/cluster"
	"brownout/faults"
	"brownout/internal/wire"
	"brownout/internal/workload"
	"brownout/kvserver"
	"brownout/scenarios"
)

// helper runs one of our own helper processes, which are this same binary
// started again, before cobra sees the command line. kvserver is one of them:
// it is the target, and knows nothing of the rest.
func helper(argv []string) (code int, ok bool) {
	if len(argv) < 2 {
		return 0, false
	}
	args := argv[2:]
	switch argv[1] {
	case "_init":
		return cluster.InitMain(args), true
	case "_reaper":
		return cluster.ReaperMain(args), true
	case "_wire":
		return wire.Main(args), true
	case "_load":
		workload.NewChecker = func() workload.Checker { return checker.NewOnline() }
		return workload.LoadMain(args), true
	case "_tenant":
		return faults.TenantMain(args), true
	case "_fileprobe":
		return faults.FileProbeMain(args), true
	case "_spin":
		return faults.SpinMain(args), true
	case "_flood":
		return faults.FloodMain(args), true
	case "_up":
		return scenarios.ServeMain(args), true
	case "kvserver":
		return kvserverMain(args), true
	}
	return 0, false
}

func kvserverMain(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := kvserver.Main(ctx, args, os.Stdout, os.Stderr); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "kvserver:", err)
		return 1
	}
	return 0
}
