package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"brownout/cluster"
	"brownout/internal/faultfs"
	"brownout/internal/sys/seccomp"
)

// Bounds of a look at what a disk that can be hurt costs while it is not.
const (
	costRounds = 60
	costWithin = 400 * time.Millisecond
	costBlock  = 4096
	costTraps  = 200
)

// DiskCost says in words what the nodes pay, on this host and now, for disks
// that can be hurt: an append with fdatasync on the first node's disk against
// one beside it on the disk below, by turns; and what a trapped call costs more.
// It is "" where the targets have their disks to themselves.
func DiskCost(ctx context.Context, c *cluster.Cluster) (string, error) {
	n := c.Nodes()[0]
	if len(n.Trapped()) > 0 {
		cost, err := seccomp.Cost(costTraps)
		return fmt.Sprintf("a trapped call takes %s more (p50, n=%d)", short(cost), costTraps), err
	}
	if _, err := n.DiskStats(ctx); errors.Is(err, errors.ErrUnsupported) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	var files [2]*os.File
	for i, p := range []*diskProber{newProberAt(n, n.Dir(), faultfs.Fsync), newProberAt(n, n.Data(), faultfs.Fsync)} {
		f, err := os.OpenFile(p.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return "", fmt.Errorf("look at what slowfs costs: %w", err)
		}
		defer func() { f.Close(); os.Remove(p.path) }()
		files[i] = f
	}
	var took [2][]time.Duration
	block := filling(costBlock)
	for i, begin := 0, time.Now(); i < costRounds && (i < 3 || time.Since(begin) < costWithin) && ctx.Err() == nil; i++ {
		for j, f := range files {
			from := time.Now()
			_, err := f.WriteAt(block, int64(i)*costBlock)
			if err = cmp.Or(err, unix.Fdatasync(int(f.Fd()))); err != nil {
				return "", fmt.Errorf("look at what slowfs costs: %w", err)
			}
			took[j] = append(took[j], time.Since(from))
		}
	}
	for _, t := range took {
		slices.Sort(t)
	}
	if len(took[0]) == 0 {
		return "", ctx.Err()
	}
	native, ours := took[0][len(took[0])/2], took[1][len(took[1])/2]
	return fmt.Sprintf("append of 4 KiB and fdatasync: %s through slowfs, %s below it (p50, n=%d): %.2fx", short(ours), short(native), len(took[0]), float64(ours)/float64(native)), ctx.Err()
}
