package faultfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A journal knows what is not durable yet, and how to take it back.
//
// Bytes are durable when an fsync or fdatasync of their file that began after
// they were written has returned; the file's size with them. What is written
// while an fsync goes on belongs to the next.
//
// Names (create, link, unlink, rename, mkdir, rmdir) become durable in the order
// in which they were made, as in a journaling file system: by an fsync of a
// directory, all up to the last that changed it; by an fsync of a file, all up
// to the last that gave it a name, as ext4, xfs and btrfs do. A rename or an
// unlink is thus not durable before its directory is synced. Modes, owners and
// times are never taken back.
type journal struct {
	root int // backing directory
	torn bool

	written atomic.Uint64 // bytes given up by writeBack

	mu    sync.Mutex // of names and of the table of files
	names []naming
	seq   uint64
	files map[uint64]*unsynced // by inode
	held  atomic.Int64         // bytes of all before-images
}

// Trash is the directory, in the one below slowfs, that holds what was unlinked
// or replaced and may have to come back.
const Trash = ".slowfs-undo"

// mostHeld bounds the memory for before-images. What is beyond is made durable,
// as a kernel that is short of memory would do; it is counted.
const mostHeld = 128 << 20

// A naming is a change of a name that is not durable.
type naming struct {
	seq   uint64
	dirs  [2]uint64 // inodes of the directories
	file  uint64    // inode of what got a name; 0 if nothing did
	undo  func() error
	Trash string // below the root; "" for nothing
}

// An unsynced is a file with bytes that are not durable.
type unsynced struct {
	mu   sync.Mutex
	fd   int // to read and write
	gens []*generation
	last *lastWrite // for a torn write
	gone bool       // it has no name and never will: nothing is kept
}

// A generation is what was written between two fsyncs' beginnings.
type generation struct {
	size   int64 // of the file before
	images []image
}

// An image is what a part of a file was before; images do not overlap and are
// in order.
type image struct {
	off  int64
	data []byte
}

type lastWrite struct {
	off, n int64
	before []byte // from off on, as far as the file went
	size   int64  // of the file before
}

func newJournal(root int, torn bool) (*journal, error) {
	j := &journal{root: root, torn: torn, files: map[uint64]*unsynced{}}
	if err := j.removeTrash(); err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(root, Trash, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", Trash, err)
	}
	return j, nil
}

func (j *journal) removeTrash() error {
	return os.RemoveAll(fmt.Sprintf("/proc/self/fd/%d/%s", j.root, Trash))
}

// file returns the account of an inode, made from an open file or a path if
// there is none.
func (j *journal) file(ino uint64, from string) (*unsynced, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if u := j.files[ino]; u != nil {
		return u, nil
	}
	fd, err := unix.Open(from, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	u := &unsynced{fd: fd}
	j.files[ino] = u
	return u, nil
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// change lets f change the bytes from off to end, and the size, of a file, by a
// write or otherwise. A negative end is the file's.
func (j *journal) change(ino uint64, from string, off, end int64, write bool, f func() (int, error)) (int, error) {
	u, err := j.file(ino, from)
	if err != nil {
		return 0, fmt.Errorf("remember what was there: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return f()
	}
	var st unix.Stat_t
	if err := unix.Fstat(u.fd, &st); err != nil {
		return 0, err
	}
	if end < 0 {
		end = st.Size
	}
	if j.held.Load() > mostHeld {
		if err := j.writeBack(u); err != nil {
			return 0, err
		}
	}
	if len(u.gens) == 0 {
		u.gens = append(u.gens, &generation{size: st.Size})
	}
	g := u.gens[len(u.gens)-1]
	held, err := g.save(u.fd, off, min(end, st.Size, g.size))
	j.held.Add(held)
	if err != nil {
		return 0, err
	}
	if j.torn && write {
		last := &lastWrite{off: off, n: end - off, size: st.Size}
		if n := min(end, st.Size) - off; n > 0 {
			last.before = make([]byte, n)
			if _, err := readFull(u.fd, last.before, off); err != nil {
				return 0, err
			}
		}
		u.last = last
	}
	return f()
}

// save keeps what is from off to end, as far as it is not kept yet.
func (g *generation) save(fd int, off, end int64) (held int64, err error) {
	for off < end {
		i, _ := slices.BinarySearchFunc(g.images, off, func(m image, off int64) int {
			if m.off+int64(len(m.data)) <= off {
				return -1
			}
			return 1
		})
		// images[i] is the first that ends after off.
		to := end
		if i < len(g.images) {
			if g.images[i].off <= off {
				off = g.images[i].off + int64(len(g.images[i].data))
				continue
			}
			to = min(end, g.images[i].off)
		}
		data := make([]byte, to-off)
		if _, err := readFull(fd, data, off); err != nil {
			return held, err
		}
		g.images = slices.Insert(g.images, i, image{off, data})
		held += int64(len(data))
		off = to
	}
	return held, nil
}

func readFull(fd int, b []byte, off int64) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 { // a hole's end
			return n, nil
		}
		n += m
	}
	return n, nil
}

func writeFull(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// writeBack makes a file durable that nobody asked for. The caller holds it.
func (j *journal) writeBack(u *unsynced) error {
	if err := unix.Fdatasync(u.fd); err != nil {
		return err
	}
	for _, g := range u.gens {
		for _, m := range g.images {
			j.written.Add(uint64(len(m.data)))
		}
	}
	j.drop(u, len(u.gens))
	return nil
}

// drop forgets the oldest n generations. The caller holds the file.
func (j *journal) drop(u *unsynced, n int) {
	for _, g := range u.gens[:n] {
		for _, m := range g.images {
			j.held.Add(-int64(len(m.data)))
		}
	}
	u.gens = slices.Delete(u.gens, 0, n)
	if len(u.gens) == 0 {
		u.last = nil
	}
}

// sync lets f make a file durable.
func (j *journal) sync(ino uint64, f func() syscall.Errno) syscall.Errno {
	j.mu.Lock()
	u, names := j.files[ino], j.seq
	j.mu.Unlock()
	var upTo *generation // the newest that f covers
	if u != nil {
		u.mu.Lock()
		if n := len(u.gens); n > 0 { // none if it is gone
			upTo = u.gens[n-1]
			var st unix.Stat_t
			if err := unix.Fstat(u.fd, &st); err != nil {
				u.mu.Unlock()
				return fsErrno(err)
			}
			u.gens = append(u.gens, &generation{size: st.Size})
		}
		u.mu.Unlock()
	}
	if errno := f(); errno != 0 {
		return errno // what it covers stays as it was: not durable
	}
	if upTo != nil {
		u.mu.Lock()
		if i := slices.Index(u.gens, upTo); i >= 0 {
			j.drop(u, i+1)
		}
		if !u.gone && len(u.gens) == 1 && u.gens[0].empty(u.fd) {
			j.drop(u, 1)
		}
		u.mu.Unlock()
	}
	j.commit(ino, names)
	return 0
}

// empty reports whether nothing has changed since.
func (g *generation) empty(fd int) bool {
	var st unix.Stat_t
	return len(g.images) == 0 && unix.Fstat(fd, &st) == nil && st.Size == g.size
}

// commit makes names durable up to the last one, no later than seq, that has to
// do with an inode.
func (j *journal) commit(ino, seq uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for i, o := range j.names {
		if o.seq <= seq && (o.file == ino || o.dirs[0] == ino || o.dirs[1] == ino) {
			n = i + 1
		}
	}
	for _, o := range j.names[:n] {
		j.forget(o)
	}
	j.names = slices.Delete(j.names, 0, n)
}

// forget lets go of what an undone name would have needed.
func (j *journal) forget(o naming) {
	if o.Trash == "" {
		return
	}
	var st unix.Stat_t
	if unix.Fstatat(j.root, o.Trash, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Nlink == 1 {
		if u := j.files[st.Ino]; u != nil { // nobody will find it again
			u.mu.Lock()
			j.drop(u, len(u.gens))
			u.gone = true
			unix.Close(u.fd)
			u.mu.Unlock()
			delete(j.files, st.Ino)
		}
	}
	_ = unix.Unlinkat(j.root, o.Trash, 0)
}

// A change of names is made by one of the following, each of which makes it and
// notes how to take it back. Paths are below the root.

// note keeps a change. The caller holds j.
func (j *journal) note(o naming) {
	j.seq++
	o.seq = j.seq
	j.names = append(j.names, o)
}

// made notes that f gave a name to something new.
func (j *journal) made(dir uint64, name string, isDir bool, f func() (ino uint64, errno syscall.Errno)) syscall.Errno {
	j.mu.Lock()
	defer j.mu.Unlock()
	ino, errno := f()
	if errno != 0 {
		return errno
	}
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	j.note(naming{dirs: [2]uint64{dir}, file: ino, undo: func() error { return unix.Unlinkat(j.root, name, flags) }})
	return 0
}

// aside is a new name in the Trash.
func (j *journal) aside() string { return path.Join(Trash, strconv.FormatUint(j.seq+1, 10)) }

// unlink takes a name away.
func (j *journal) unlink(dir uint64, name string) syscall.Errno {
	j.mu.Lock()
	defer j.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstatat(j.root, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fsErrno(err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return syscall.EISDIR
	}
	to := j.aside()
	if err := unix.Renameat(j.root, name, j.root, to); err != nil {
		return fsErrno(err)
	}
	j.note(naming{dirs: [2]uint64{dir}, Trash: to, undo: func() error { return unix.Renameat(j.root, to, j.root, name) }})
	return 0
}

// rmdir takes an empty directory away.
func (j *journal) rmdir(dir uint64, name string) syscall.Errno {
	j.mu.Lock()
	defer j.mu.Unlock()
	again, err := j.emptyDir(name)
	if err != nil {
		return fsErrno(err)
	}
	if err := unix.Unlinkat(j.root, name, unix.AT_REMOVEDIR); err != nil {
		return fsErrno(err)
	}
	j.note(naming{dirs: [2]uint64{dir}, undo: again})
	return 0
}

// emptyDir says how to make a directory again that is about to go.
func (j *journal) emptyDir(name string) (func() error, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(j.root, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	return func() error {
		return errors.Join(
			unix.Mkdirat(j.root, name, st.Mode&0o7777),
			unix.Fchownat(j.root, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW),
			unix.Fchmodat(j.root, name, st.Mode&0o7777, 0))
	}, nil
}

// rename gives something another name.
func (j *journal) rename(dirs [2]uint64, from, to string, flags uint32) syscall.Errno {
	j.mu.Lock()
	defer j.mu.Unlock()
	var what, there unix.Stat_t
	if err := unix.Fstatat(j.root, from, &what, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fsErrno(err)
	}
	o := naming{dirs: dirs, file: what.Ino}
	again := func() error { return nil } // makes what was replaced
	switch err := unix.Fstatat(j.root, to, &there, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, fs.ErrNotExist), flags&(unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE) != 0:
	case err != nil:
		return fsErrno(err)
	case there.Ino == what.Ino: // two names of one file: nothing happens
		return fsErrno(unix.Renameat2(j.root, from, j.root, to, uint(flags)))
	case there.Mode&unix.S_IFMT == unix.S_IFDIR:
		if again, err = j.emptyDir(to); err != nil {
			return fsErrno(err)
		}
	default:
		o.Trash = j.aside()
		if err := unix.Linkat(j.root, to, j.root, o.Trash, 0); err != nil {
			return fsErrno(err)
		}
		again = func() error { return unix.Renameat(j.root, o.Trash, j.root, to) }
	}
	if err := unix.Renameat2(j.root, from, j.root, to, uint(flags)); err != nil {
		if o.Trash != "" {
			_ = unix.Unlinkat(j.root, o.Trash, 0)
		}
		return fsErrno(err)
	}
	o.undo = func() error {
		return errors.Join(unix.Renameat2(j.root, to, j.root, from, uint(flags&unix.RENAME_EXCHANGE)), again())
	}
	j.note(o)
	return 0
}

func fsErrno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return syscall.EIO
}

// A Loss is what a power loss took.
type Loss struct {
	Files       int    `json:"files"` // that had bytes or a size that were not durable
	Bytes       uint64 `json:"bytes"` // taken back or cut off
	Names       int    `json:"names"` // taken back
	Torn        int    `json:"torn"`  // files whose last write was cut short
	WrittenBack uint64 `json:"written_back,omitempty"`
}

// lose takes everything back that is not durable. Nobody may use the files
// meanwhile, nor the journal later.
func (j *journal) lose() (loss Loss, err error) {
	var errs []error
	for _, u := range j.files {
		lost, err := u.lose()
		if lost >= 0 {
			loss.Files++
			loss.Bytes += uint64(lost)
		}
		errs = append(errs, err)
	}
	for _, o := range slices.Backward(j.names) {
		loss.Names++
		errs = append(errs, o.undo())
	}
	return j.end(loss, errs)
}

// lose returns -1 if there was nothing to lose.
func (u *unsynced) lose() (lost int64, err error) {
	if len(u.gens) == 0 {
		return -1, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(u.fd, &st); err != nil {
		return 0, err
	}
	for _, g := range slices.Backward(u.gens) {
		if err := unix.Ftruncate(u.fd, g.size); err != nil {
			return lost, err
		}
		for _, m := range g.images {
			if err := writeFull(u.fd, m.data, m.off); err != nil {
				return lost, err
			}
			lost += int64(len(m.data))
		}
	}
	return lost + max(st.Size-u.gens[0].size, 0), unix.Fsync(u.fd)
}

// tear cuts the last write of each file that is not durable to a share, in
// whole sectors; all that came before survives.
func (j *journal) tear(share float64) (loss Loss, err error) {
	const sector = 512
	var errs []error
	for _, u := range j.files {
		w := u.last
		if w == nil || w.n <= 0 {
			continue
		}
		end := max((w.off+int64(share*float64(w.n)))/sector*sector, w.off)
		loss.Files++
		loss.Torn++
		loss.Bytes += uint64(w.off + w.n - end)
		if err := unix.Ftruncate(u.fd, max(w.size, end)); err != nil {
			errs = append(errs, err)
			continue
		}
		if from := end - w.off; from < int64(len(w.before)) {
			errs = append(errs, writeFull(u.fd, w.before[from:], end))
		}
		errs = append(errs, unix.Fsync(u.fd))
	}
	return j.end(loss, errs)
}

func (j *journal) end(loss Loss, errs []error) (Loss, error) {
	loss.WrittenBack = j.written.Load()
	for _, u := range j.files {
		unix.Close(u.fd)
	}
	j.files = nil
	return loss, errors.Join(append(errs, j.removeTrash())...)
}
