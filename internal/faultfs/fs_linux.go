package faultfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A node is a file or directory. What it does not say is done by go-fuse's
// loopback node on the backing path.
type node struct {
	*fs.LoopbackNode
	s *Server

	mu   sync.Mutex
	open []*file
}

var (
	_ fs.NodeOpener         = (*node)(nil)
	_ fs.NodeLookuper       = (*node)(nil)
	_ fs.NodeWrapChilder    = (*node)(nil)
	_ fs.NodeCreater        = (*node)(nil)
	_ fs.NodeOpendirHandler = (*node)(nil)
	_ fs.NodeRenamer        = (*node)(nil)
	_ fs.NodeUnlinker       = (*node)(nil)
	_ fs.NodeRmdirer        = (*node)(nil)
	_ fs.NodeMkdirer        = (*node)(nil)
	_ fs.NodeMknoder        = (*node)(nil)
	_ fs.NodeLinker         = (*node)(nil)
	_ fs.NodeSymlinker      = (*node)(nil)
	_ fs.NodeGetattrer      = (*node)(nil)
	_ fs.NodeSetattrer      = (*node)(nil)
	_ fs.NodeStatxer        = (*node)(nil)
	_ fs.NodeStatfser       = (*node)(nil)
	_ fs.NodeCopyFileRanger = (*node)(nil)
)

// newRoot makes the tree's root. Backing paths go through the open directory,
// so that the server does not care what is mounted over its path later.
func (s *Server) newRoot() (fs.InodeEmbedder, error) {
	root, err := fs.NewLoopbackRoot(fmt.Sprintf("/proc/self/fd/%d", s.root.Fd()))
	if err != nil {
		return nil, err
	}
	return s.wrap(root), nil
}

func (s *Server) wrap(ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: ops.(*fs.LoopbackNode), s: s}
}

// WrapChild makes the loopback nodes that go-fuse finds ours.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return n.s.wrap(ops)
}

// do decides on an operation, waits, does it on the backing files, and counts.
func (s *Server) do(ctx context.Context, op Op, f func() (bytes int, errno syscall.Errno)) syscall.Errno {
	return s.transfer(ctx, op, 0, func(Decision) (int, syscall.Errno) { return f() })
}

// transfer does an operation of so many bytes.
func (s *Server) transfer(ctx context.Context, op Op, bytes int, f func(Decision) (bytes int, errno syscall.Errno)) syscall.Errno {
	c := &s.ops[index(op)]
	c.n.Add(1)
	begin := time.Now()
	d := s.engine.Load().Decide(op, bytes, begin.Sub(s.epoch))
	if d.Hang || d.Until > 0 || d.Delay > 0 {
		if errno := s.holdBack(ctx, op, d, begin); errno != 0 {
			return errno
		}
		now := time.Now()
		c.delays.add(now.Sub(begin))
		begin = now
	}
	if d.Errno != 0 {
		c.errors.Add(1)
		return d.Errno
	}
	if d.Lie {
		return 0
	}
	n, errno := s.on(func() (int, syscall.Errno) { return f(d) })
	c.backings.add(time.Since(begin))
	if n > 0 {
		c.bytes.Add(uint64(n))
	}
	if errno != 0 {
		c.errors.Add(1)
	}
	return errno
}

// on does something with the backing files, unless the power is off.
func (s *Server) on(f func() (int, syscall.Errno)) (int, syscall.Errno) {
	s.power.RLock()
	defer s.power.RUnlock()
	if s.off {
		return 0, syscall.EIO
	}
	return f()
}

// below is the path of a name in this directory from the root on.
func (n *node) below(name string) string { return filepath.Join(n.Path(n.Root()), name) }

func (n *node) ino() uint64 { return n.StableAttr().Ino }

// path returns the backing path.
func (n *node) path() string { return filepath.Join(n.RootData.Path, n.Path(n.Root())) }

func (n *node) Open(ctx context.Context, flags uint32) (fh fs.FileHandle, fuseFlags uint32, errno syscall.Errno) {
	errno = n.s.do(ctx, Open, func() (int, syscall.Errno) {
		// O_DIRECT would need the alignment of the backing device, which our
		// buffers do not have. O_APPEND: the kernel names the offset itself.
		flags &^= unix.O_DIRECT | unix.O_APPEND | fuse.FMODE_EXEC
		fd, err := n.s.openBelow(n.Path(n.Root()), int(flags))
		if err != nil {
			return 0, fs.ToErrno(err)
		}
		fh = n.file(os.NewFile(uintptr(fd), n.Path(n.Root())))
		return 0, 0
	})
	return fh, 0, errno
}

// openBelow opens a path below the backing directory. It follows no link on the
// way: the node's user can make links, and we open as root.
func (s *Server) openBelow(path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	for {
		fd, err := unix.Openat2(int(s.root.Fd()), path, &unix.OpenHow{
			Flags:   uint64(flags|unix.O_CLOEXEC|unix.O_NOFOLLOW) &^ unix.O_CREAT,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: renamed meanwhile
			continue
		case errors.Is(err, unix.ENOSYS): // before Linux 5.6
			return unix.Openat(int(s.root.Fd()), path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		}
		return fd, err
	}
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (child *fs.Inode, fh fs.FileHandle, fuseFlags uint32, errno syscall.Errno) {
	errno = n.s.do(ctx, Open, func() (int, syscall.Errno) {
		var h fs.FileHandle
		var errno syscall.Errno
		create := func() (uint64, syscall.Errno) {
			child, h, fuseFlags, errno = n.LoopbackNode.Create(ctx, name, flags&^unix.O_DIRECT, mode, out)
			if errno != 0 {
				return 0, errno
			}
			return child.StableAttr().Ino, 0
		}
		if j := n.s.journal; j != nil && !n.has(name) {
			errno = j.made(n.ino(), n.below(name), false, create)
		} else {
			_, errno = create()
		}
		if errno != 0 {
			return 0, errno
		}
		lf := h.(*fs.LoopbackFile)
		fd, ok := lf.PassthroughFd()
		if !ok {
			return 0, syscall.EBADF
		}
		// The caller's umask is in mode already; ours was applied, too.
		if err := unix.Fchmod(fd, mode&0o7777); err == nil {
			out.Mode = out.Mode&^0o7777 | mode&0o7777
		}
		// A file of our own: go-fuse's may not outlive its finalizer.
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		lf.Release(ctx)
		if err != nil {
			return 0, fs.ToErrno(err)
		}
		fh = child.Operations().(*node).file(os.NewFile(uintptr(own), name))
		return 0, 0
	})
	return child, fh, fuseFlags, errno
}

// has reports whether the directory has a name already.
func (n *node) has(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(n.s.root.Fd()), n.below(name), &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// Lookup hides what only the journal needs.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if name == Trash && n.IsRoot() {
		return nil, syscall.ENOENT
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fh, ff, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	if h, ok := fh.(dirStream); ok {
		return &dir{h, n}, ff, 0
	}
	return fh, ff, 0
}

func (n *node) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.s.do(ctx, Rename, func() (int, syscall.Errno) {
		if j, into := n.s.journal, to.(*node); j != nil {
			return 0, j.rename([2]uint64{n.ino(), into.ino()}, n.below(name), into.below(newName), flags)
		}
		return 0, n.LoopbackNode.Rename(ctx, name, to, newName, flags)
	})
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.s.do(ctx, Meta, func() (int, syscall.Errno) {
		if j := n.s.journal; j != nil {
			return 0, j.unlink(n.ino(), n.below(name))
		}
		return 0, n.LoopbackNode.Unlink(ctx, name)
	})
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return n.s.do(ctx, Meta, func() (int, syscall.Errno) {
		if j := n.s.journal; j != nil {
			return 0, j.rmdir(n.ino(), n.below(name))
		}
		return 0, n.LoopbackNode.Rmdir(ctx, name)
	})
}

// make makes something new in the directory, which the journal is told of.
func (n *node) make(name string, isDir bool, f func() (*fs.Inode, syscall.Errno)) (child *fs.Inode, errno syscall.Errno) {
	made := func() (uint64, syscall.Errno) {
		if child, errno = f(); errno != 0 {
			return 0, errno
		}
		return child.StableAttr().Ino, 0
	}
	if j := n.s.journal; j != nil {
		return child, j.made(n.ino(), n.below(name), isDir, made)
	}
	_, errno = made()
	return child, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = n.s.do(ctx, Meta, func() (int, syscall.Errno) {
		var errno syscall.Errno
		child, errno = n.make(name, true, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Mkdir(ctx, name, mode, out) })
		if errno == 0 && unix.Chmod(filepath.Join(n.path(), name), mode&0o7777) == nil {
			out.Mode = out.Mode&^0o7777 | mode&0o7777
		}
		return 0, errno
	})
	return child, errno
}

func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = n.s.do(ctx, Meta, func() (int, syscall.Errno) {
		var errno syscall.Errno
		child, errno = n.make(name, false, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Mknod(ctx, name, mode, dev, out) })
		if errno == 0 && unix.Chmod(filepath.Join(n.path(), name), mode&0o7777) == nil {
			out.Mode = out.Mode&^0o7777 | mode&0o7777
		}
		return 0, errno
	})
	return child, errno
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = n.s.do(ctx, Meta, func() (int, syscall.Errno) {
		var errno syscall.Errno
		child, errno = n.make(name, false, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Link(ctx, target, name, out) })
		return 0, errno
	})
	return child, errno
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = n.s.do(ctx, Meta, func() (int, syscall.Errno) {
		var errno syscall.Errno
		child, errno = n.make(name, false, func() (*fs.Inode, syscall.Errno) { return n.LoopbackNode.Symlink(ctx, target, name, out) })
		return 0, errno
	})
	return child, errno
}

// handle returns the handle to use where the kernel names none: fstat(2) of a
// file that was unlinked does not, and there is no path to look at.
func (n *node) handle(fh fs.FileHandle) fs.FileHandle {
	if fh != nil {
		return fh
	}
	if _, parent := n.Parent(); parent != nil || n.IsRoot() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.open) > 0 {
		return n.open[0] // it is not closed meanwhile: the caller has one open, too
	}
	return nil
}

func (n *node) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.LoopbackNode.Getattr(ctx, n.handle(fh), out)
}

func (n *node) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.s.do(ctx, Meta, func() (int, syscall.Errno) {
		h, open := n.handle(fh).(*file)
		set := func() (int, error) {
			errno := syscall.Errno(0)
			if open {
				errno = h.LoopbackFile.Setattr(ctx, in, out)
			} else {
				errno = n.LoopbackNode.Setattr(ctx, fh, in, out)
			}
			if errno != 0 {
				return 0, errno
			}
			return 0, nil
		}
		size, resized := in.GetSize()
		if j := n.s.journal; j != nil && resized {
			from := ""
			if open {
				from = procFD(h.fd)
			} else {
				fd, err := n.s.openBelow(n.Path(n.Root()), unix.O_RDWR)
				if err != nil {
					return 0, fs.ToErrno(err)
				}
				defer unix.Close(fd)
				from = procFD(fd)
			}
			_, err := j.change(n.ino(), from, int64(size), -1, false, set)
			return 0, fsErrno(err)
		}
		_, err := set()
		return 0, fsErrno(err)
	})
}

// Statx is not offered: the kernel then asks by Getattr, where unlinked files are found.
func (n *node) Statx(context.Context, fs.FileHandle, uint32, uint32, *fuse.StatxOut) syscall.Errno {
	return syscall.ENOSYS
}

// Statfs shows a full disk as one.
func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	errno := n.LoopbackNode.Statfs(ctx, out)
	if free := n.s.engine.Load().Free(); errno == 0 && free >= 0 && out.Bsize > 0 {
		out.Bavail = min(out.Bavail, uint64(free)/uint64(out.Bsize))
		out.Bfree = min(out.Bfree, out.Bavail)
	}
	return errno
}

// CopyFileRange is not offered: the kernel then reads and writes, which we see.
func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOSYS
}

// A file is an open file.
type file struct {
	*fs.LoopbackFile // Lseek, Getattr, Setattr; locks are not asked for
	n                *node
	fd               int // valid until Release, which the kernel sends after the last operation
	passes           bool
}

var (
	_ fs.FileReader          = (*file)(nil)
	_ fs.FileWriter          = (*file)(nil)
	_ fs.FileWritever        = (*file)(nil)
	_ fs.FileFsyncer         = (*file)(nil)
	_ fs.FileFlusher         = (*file)(nil)
	_ fs.FileAllocater       = (*file)(nil)
	_ fs.FileReleaser        = (*file)(nil)
	_ fs.FileIoctler         = (*file)(nil)
	_ fs.FilePassthroughFder = (*file)(nil)
)

func (n *node) file(f *os.File) *file {
	h := &file{LoopbackFile: fs.NewLoopbackFileFromOS(f), n: n, fd: int(f.Fd())}
	n.mu.Lock()
	n.open = append(n.open, h)
	n.mu.Unlock()
	return h
}

func (h *file) PassthroughFd() (int, bool) {
	if !h.n.s.opt.Passthrough || h.n.s.armed.Load() {
		return -1, false
	}
	if !h.passes {
		h.passes = true
		h.n.s.passthrough.Add(1)
	}
	return h.fd, true
}

func (h *file) Read(ctx context.Context, buf []byte, off int64) (res fuse.ReadResult, errno syscall.Errno) {
	errno = h.n.s.transfer(ctx, Read, len(buf), func(d Decision) (int, syscall.Errno) {
		// Into a buffer, not by splice, which would happen after we return and count.
		n, err := unix.Pread(h.fd, buf, off)
		if err != nil {
			return 0, fs.ToErrno(err)
		}
		res = fuse.ReadResultData(flipped(buf[:n], d.Flip))
		return n, 0
	})
	return res, errno
}

func (h *file) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	return h.write(ctx, off, len(data), func() (int, error) { return unix.Pwrite(h.fd, data, off) })
}

func (h *file) Writev(ctx context.Context, data [][]byte, off int64) (uint32, syscall.Errno) {
	bytes := 0
	for _, d := range data {
		bytes += len(d)
	}
	return h.write(ctx, off, bytes, func() (int, error) { return unix.Pwritev(h.fd, data, off) })
}

func (h *file) write(ctx context.Context, off int64, bytes int, f func() (int, error)) (n uint32, errno syscall.Errno) {
	errno = h.n.s.transfer(ctx, Write, bytes, func(Decision) (int, syscall.Errno) {
		if errno := h.n.s.grow(h.fd, off+int64(bytes)); errno != 0 {
			return 0, errno
		}
		var w int
		var err error
		if j := h.n.s.journal; j != nil {
			w, err = j.change(h.n.ino(), procFD(h.fd), off, off+int64(bytes), true, f)
		} else {
			w, err = f()
		}
		n = uint32(max(w, 0))
		return w, fsErrno(err)
	})
	return n, errno
}

// grow takes what a file needs to have a size from what is free.
func (s *Server) grow(fd int, size int64) syscall.Errno {
	e := s.engine.Load()
	if e.full == nil {
		return 0
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fs.ToErrno(err)
	}
	if more := size - st.Size; more > 0 && !e.Take(more) {
		return syscall.ENOSPC
	}
	return 0
}

func (h *file) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	sync := func() syscall.Errno {
		const dataOnly = 1 // FUSE_FSYNC_FDATASYNC; go-fuse's own loopback ignores it
		if flags&dataOnly != 0 {
			return fs.ToErrno(unix.Fdatasync(h.fd))
		}
		return fs.ToErrno(unix.Fsync(h.fd))
	}
	return h.n.s.do(ctx, Fsync, func() (int, syscall.Errno) { return 0, h.n.sync(sync) })
}

// sync lets f make the node durable.
func (n *node) sync(f func() syscall.Errno) syscall.Errno {
	if j := n.s.journal; j != nil {
		return j.sync(n.ino(), f)
	}
	return f()
}

// Flush is not needed, and after the first ENOSYS not asked for: it comes with
// every close(2) and has nothing to say where data is written through.
func (h *file) Flush(context.Context) syscall.Errno { return syscall.ENOSYS }

func (h *file) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	return h.n.s.do(ctx, Meta, func() (int, syscall.Errno) {
		if mode == 0 || mode == unix.FALLOC_FL_KEEP_SIZE {
			if errno := h.n.s.grow(h.fd, int64(off+size)); errno != 0 {
				return 0, errno
			}
		}
		allocate := func() (int, error) { return 0, unix.Fallocate(h.fd, mode, int64(off), int64(size)) }
		if j := h.n.s.journal; j != nil {
			end := int64(off + size)
			if mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
				end = -1
			}
			_, err := j.change(h.n.ino(), procFD(h.fd), int64(off), end, false, allocate)
			return 0, fsErrno(err)
		}
		_, err := allocate()
		return 0, fsErrno(err)
	})
}

// Ioctl is not offered: it would be done with our rights, not the caller's.
func (h *file) Ioctl(context.Context, uint32, uint64, []byte, []byte) (int32, syscall.Errno) {
	return 0, syscall.ENOTTY
}

func (h *file) Release(ctx context.Context) syscall.Errno {
	h.n.mu.Lock()
	h.n.open = slices.DeleteFunc(h.n.open, func(o *file) bool { return o == h })
	h.n.mu.Unlock()
	if h.passes {
		h.n.s.passthrough.Add(-1)
	}
	return h.LoopbackFile.Release(ctx)
}

// dirStream is what go-fuse's loopback directory can do.
type dirStream interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
	fs.FileFsyncdirer
}

// A dir is an open directory.
type dir struct {
	dirStream
	n *node
}

func (d *dir) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.n.s.do(ctx, Fsync, func() (int, syscall.Errno) {
		return 0, d.n.sync(func() syscall.Errno { return d.dirStream.Fsyncdir(ctx, flags) })
	})
}

// Readdirent leaves out what only the journal needs.
func (d *dir) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	e, errno := d.dirStream.Readdirent(ctx)
	if errno == 0 && e != nil && e.Name == Trash && d.n.IsRoot() {
		return d.dirStream.Readdirent(ctx)
	}
	return e, errno
}
