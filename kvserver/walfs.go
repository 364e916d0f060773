package kvserver

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
)

// A walFS makes the wal's files cheap to sync.
//
// The wal preallocates its files with fallocate, whose extents are marked
// unwritten: the first write into each makes the next fsync commit the file
// system's journal, which costs as much again as the data. So this file system
// writes zeros a little ahead of the wal, which reads the same as before, unless
// one write is larger than they are: so at most half of what reaches the disk is
// zeros. And it uses fdatasync, since neither size nor any time of the file matters.
type walFS struct {
	*fs.FS
	times   *diskTimes
	bug     string       // planted
	trouble func() error // if not nil, what a write or a sync says before it is done
}

func (w walFS) troubled() error {
	if w.trouble == nil {
		return nil
	}
	return w.trouble()
}

// Zeros reach so far ahead: for several large writes further, for their journal is
// dearer, but no further than must be, for whoever writes next waits for them too.
const (
	leastAhead = 256 << 10
	mostAhead  = 512 << 10
)

var zeros [mostAhead]byte

// Create implements [types.VFS].
func (w walFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := w.FS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	file, ok := f.(*fs.File)
	if !ok {
		return f, nil
	}
	return &walFile{walFS: w, File: &file.File, first: file.Sync, size: int64(size)}, nil
}

// OpenWriter implements [types.VFS].
func (w walFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := w.FS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	file, ok := f.(*os.File)
	if !ok {
		return f, nil
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("stat segment: %w", err)
	}
	return &walFile{walFS: w, File: file, first: file.Sync, size: info.Size()}, nil
}

// A walFile is one segment. The wal writes it from front to back.
type walFile struct {
	*os.File
	walFS  walFS
	mu     sync.Mutex
	first  func() error // the first sync, which makes the directory entry durable too; nil afterwards
	size   int64
	synced time.Time
	zeroed int64 // everything from here to size has never been written by this process
}

// WriteAt implements [io.WriterAt].
func (f *walFile) WriteAt(p []byte, off int64) (int, error) {
	f.walFS.times.write(time.Now())
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.walFS.troubled(); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(p, off)
	end := off + int64(len(p))
	if err != nil || end <= f.zeroed {
		return n, err
	}
	// What lies behind the end is not the wal's yet, so it may be overwritten.
	ahead := min(max(leastAhead, 8*int64(len(p))), mostAhead, f.size-end)
	if ahead > 0 && len(p) < mostAhead {
		if _, err := f.File.WriteAt(zeros[:ahead], end); err != nil {
			return n, err
		}
		end += ahead
	}
	f.zeroed = end
	return n, nil
}

// Sync implements [types.WritableFile].
func (f *walFile) Sync() error {
	asked := time.Now()
	defer func() { f.walFS.times.sync(asked, time.Now()) }()
	if err := f.walFS.troubled(); err != nil {
		return err
	}
	f.mu.Lock()
	first := f.first
	f.first = nil
	if first == nil && lazily(f.walFS.bug, f.synced, asked) {
		f.mu.Unlock()
		return nil
	}
	f.synced = asked
	f.mu.Unlock()
	if first != nil {
		return first()
	}
	return datasync(f.File)
}
