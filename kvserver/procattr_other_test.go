//go:build !linux

package kvserver

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
