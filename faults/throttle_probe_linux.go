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

// A groupCount is what a cgroup has had of a device, by the kernel's account.
type groupCount struct {
	at time.Time
	n  int64 // operations, or bytes; or [rested]
}

// rested says that a turn begins: before it, less than what is allowed may have been asked for.
const rested = -1

// An account is where that is to be read.
type account struct {
	file  string
	dev   uint64
	op    faultfs.Op
	bytes bool
	asked bool // it counts what is asked for, not what is had
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

// had is what the group has had by now, when an operation of own size was served
// before which so much had been asked for.
func (a account) had(before, own int64) (int64, error) {
	if a.asked {
		return before + own, nil
	}
	return a.read()
}

// workInTurns reads or writes some files at once, past the cache, and tells how
// each operation ended, and what the cgroup has had at the begin of each lump.
//
// Where the account counts what is asked for, that is what it was when the probe's
// operation was asked for, and this one: the kernel serves them in their order
// (blk-throttle, a queue for each group and direction), so that all before it have
// had their turn, and none after it. A node's megabyte that waits is not yet had.
func workInTurns(op faultfs.Op, file string, all account, size int, busy, rest time.Duration, tell func(fileEvent)) int {
	start := time.Now()
	var last atomic.Int64 // when an operation ended
	own := int64(1)
	if all.bytes {
		own = int64(size)
	}
	lump := func(now, before int64) {
		if now-last.Swap(now) < int64(throttleWait) {
			return
		}
		if n, err := all.had(before, own); err == nil { // else the meter does without
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
		var before int64
		p.begin = func() {
			if at := time.Since(start) % (busy + rest); at > busy {
				sleep(context.Background(), busy+rest-at)
				tell(fileEvent{fileCounted, monotonic(), rested})
			}
			if all.asked {
				before, _ = all.read() // it could be read when the helper began
			}
		}
		p.judge = func(_ []byte, err error) any {
			errno, _ := errors.AsType[syscall.Errno](err)
			now := monotonic()
			lump(now, before)
			tell(fileEvent{fileEnded, now, int64(errno)})
			return nil
		}
		wg.Go(func() { errs[i] = p.run(context.Background()) })
	}
	wg.Wait()
	fmt.Fprintln(os.Stderr, "_fileprobe:", errors.Join(errs...)) // they end for nothing else
	return 1
}
