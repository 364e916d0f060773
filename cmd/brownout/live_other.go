//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// errNeedsLinux is what every command of the live half says elsewhere.
var errNeedsLinux = fmt.Errorf("needs Linux, this is %s; check, show and ls work here: %w", runtime.GOOS, errors.ErrUnsupported)

func helper([]string) (int, bool) { return 0, false }

func liveRun(context.Context, loaded, *keeper) error                { return errNeedsLinux }
func up(context.Context, string, upOptions) error                   { return errNeedsLinux }
func down(context.Context, string) error                            { return errNeedsLinux }
func enter(context.Context, string, string, []string) error         { return errNeedsLinux }
func faultAdd(context.Context, string, string, []string) error      { return errNeedsLinux }
func faultList(context.Context, string, string) error               { return errNeedsLinux }
func faultRemove(context.Context, string, string) error             { return errNeedsLinux }
func clean(context.Context, string, bool, bool) error               { return errNeedsLinux }
func doctor(context.Context, string, bool) error                    { return errNeedsLinux }
func calibrate(context.Context, []string, string) error             { return errNeedsLinux }
func probePath(context.Context, string, string, probeOptions) error { return errNeedsLinux }
func pcap(context.Context, string, string, pcapOptions) error       { return errNeedsLinux }
func traceLive(context.Context, string, string, traceOptions) error { return errNeedsLinux }
