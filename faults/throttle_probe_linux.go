package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"brownout/internal/faultfs"
	"brownout/internal/sys/cgroup"
)

// A groupCount is what the kernel says that a cgroup had asked of a device.
type groupCount struct {
	at time.Time
	n  int64 // operations, or bytes
}

// An account is where that is to be read.
type account struct {
	file  string
	dev   uint64
	op    faultfs.Op
	bytes bool
}

func (a account) read() (int64, error) {
	b, err := os.ReadFile(a.file)
	if err != nil {
		return 0, err
	}
	word, key := "Read", "rios"
	switch {
	case a.op == faultfs.Write && a.bytes:
		word, key = "Write", "wbytes"
	case a.op == faultfs.Write:
		word, key = "Write", "wios"
	case a.bytes:
		key = "rbytes"
	}
	return cgroup.Account(string(b), a.dev, word, key)
}

// workInTurns reads or writes some files at once, past the cache, and tells how
// each operation ended, and what the
// cgroup's account was at the begin of each lump.
func workInTurns(op faultfs.Op, file string, all account, size int, busy, rest time.Duration, tell func(fileEvent)) int {
	start := time.Now()
	var last atomic.Int64 // when an operation ended
	lump := func(now int64) {
		if now-last.Swap(now) < int64(throttleWait) {
			return
		}
		if n, err := all.read(); err == nil { // else the meter does without
			tell(fileEvent{fileCounted, now, n})
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, throttleDepth)
	for i := range throttleDepth {
		p := &diskProber{node: "this", path: file, op: op, size: size, train: 1, bare: true, direct: true}
		if i > 0 {
			p.path += "-" + strconv.Itoa(i)
		}
		p.begin = func() {
			if at := time.Since(start) % (busy + rest); at > busy {
				sleep(context.Background(), busy+rest-at)
			}
		}
		p.judge = func(_ []byte, err error) any {
			errno, _ := errors.AsType[syscall.Errno](err)
			now := monotonic()
			lump(now)
			tell(fileEvent{fileEnded, now, int64(errno)})
			return nil
		}
		wg.Go(func() { errs[i] = p.run(context.Background()) })
	}
	wg.Wait()
	fmt.Fprintln(os.Stderr, "_fileprobe:", errors.Join(errs...)) // they end for nothing else
	return 1
}
