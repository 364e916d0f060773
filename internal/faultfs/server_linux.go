package faultfs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/unsupported"
)

// Options of a mount. The zero value is the default.
type Options struct {
	// Passthrough lets the kernel read and write the backing files itself, at
	// nearly native speed (Linux 6.9, FUSE_PASSTHROUGH), where it can. It is
	// fixed when a file is opened: rules for read and write do not reach files
	// that are open that way; all other classes do.
	Passthrough bool
	Log         io.Writer     // complaints; default os.Stderr
	CacheFor    time.Duration // of names and attributes in the kernel; default 1s
}

const maxWrite = 1 << 20 // bytes in one request; the kernel's limit

// A Server serves one mount.
type Server struct {
	backing, point string
	opt            Options
	log            *log.Logger
	fuse           *fuse.Server
	engine         atomic.Pointer[Engine]
	release        atomic.Pointer[chan struct{}] // closed to end waits
	change         atomic.Pointer[chan struct{}] // closed when the rules change
	epoch          time.Time                     // of the engine's clock
	mu             sync.Mutex                    // SetRules, Unmount
	done           chan struct{}                 // closed by Unmount
	root           *os.File                      // backing directory
	tree           fs.InodeEmbedder              // its node

	power   sync.RWMutex // held for reading while the backing files are used
	off     bool         // there is none
	silent  atomic.Bool  // then nobody is there to be answered
	armed   atomic.Bool  // there is a journal
	journal *journal     // of what power loss would take; nil if nothing is kept. Changed with power held.

	ops              [6]counters // by index
	waiting          atomic.Int64
	killed, released atomic.Uint64
	panics           atomic.Uint64
	passthrough      atomic.Int64
}

// Probe reports whether this process can mount: nil, or an error that says
// what is missing; it matches [errors.ErrUnsupported] if this host cannot.
func Probe() error {
	no := func(why, cure string) error {
		return &unsupported.Error{What: "slowfs (FUSE)", Why: why, Cure: cure}
	}
	if b, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(b), "\tfuse\n") {
		return no("the kernel has no FUSE", "modprobe fuse, or use a kernel with CONFIG_FUSE_FS")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		defer f.Close()
	case errors.Is(err, os.ErrNotExist):
		return no("/dev/fuse does not exist", "modprobe fuse; in a container: --device /dev/fuse or --privileged")
	case errors.Is(err, os.ErrPermission): // EACCES by its mode, EPERM by the devices cgroup
		return no(fmt.Sprintf("/dev/fuse cannot be opened (%v)", err), "run as root; in a container: --device /dev/fuse or --privileged")
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return no("/dev/fuse has no driver behind it", "modprobe fuse")
	default:
		return fmt.Errorf("probe FUSE: %w", err)
	}
	const sysAdmin = 21
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("probe FUSE: %w", err)
	}
	if data[0].Effective&(1<<sysAdmin) == 0 {
		return no("mounting needs CAP_SYS_ADMIN", "run as root; in a container: --privileged or --cap-add SYS_ADMIN")
	}
	return nil
}

// Mount shows the directory backing at the directory mountpoint and serves it
// until [Server.Unmount] or the end of the process, without rules at first. All
// users may use it, with the rights that the backing files give them; what they
// create is theirs. Both are looked at now: backing may be mounted over later,
// also by this.
//
// Mounting is done by mount(2) itself; no fusermount is needed. The caller has
// to be in the mount namespace in which the mount shall be seen.
func Mount(backing, mountpoint string, opt Options) (_ *Server, err error) {
	opt.CacheFor = cmp.Or(opt.CacheFor, time.Second)
	if opt.Log == nil {
		opt.Log = os.Stderr
	}
	s := &Server{opt: opt, done: make(chan struct{})}
	s.log = log.New(s, "slowfs: ", log.LstdFlags|log.Lmicroseconds)
	release, change := make(chan struct{}), make(chan struct{})
	s.release.Store(&release)
	s.change.Store(&change)
	s.epoch = time.Now()
	if err := s.SetRules(Rules{}); err != nil {
		return nil, err
	}
	if s.backing, err = filepath.Abs(backing); err != nil {
		return nil, err
	}
	if s.point, err = filepath.Abs(mountpoint); err != nil {
		return nil, err
	}
	if s.root, err = os.OpenFile(s.backing, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("mount slowfs: %w", err)
	}
	defer func() {
		if err != nil {
			s.root.Close()
		}
	}()
	root, err := s.newRoot()
	if err != nil {
		return nil, fmt.Errorf("mount slowfs: %w", err)
	}
	s.tree = root
	fd, err := mount(s.point)
	if err != nil {
		return nil, errors.Join(err, Probe())
	}
	s.fuse, err = fuse.NewServer(fs.NewNodeFS(root, s.nodeOptions()), fmt.Sprintf("/dev/fd/%d", fd), s.mountOptions())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve slowfs: %w", err), unix.Unmount(s.point, unix.MNT_DETACH)) // it closed fd
	}
	go s.fuse.Serve() // Wait waits for it
	return s, nil
}

// mount mounts at a directory and returns the connection. go-fuse could do it
// (DirectMountStrict), but would leave the descriptor open to every program
// that this process starts: one that has it keeps the mount from failing when
// the server dies, and its callers hang instead.
func mount(point string) (fd int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(point, &st); err != nil {
		return 0, fmt.Errorf("mount slowfs at %s: %w", point, err)
	}
	fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("mount slowfs at %s: open /dev/fuse: %w", point, err)
	}
	// default_permissions: the kernel checks owner and mode, since we act as root.
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d,allow_other,default_permissions",
		fd, st.Mode&unix.S_IFMT, os.Geteuid(), os.Getegid(), maxWrite)
	if err := unix.Mount("slowfs", point, "fuse.slowfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("mount slowfs at %s: %w", point, err)
	}
	return fd, nil
}

func (s *Server) mountOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxWrite:      maxWrite,
		MaxBackground: 64,
		// Else every write would ask for security.capability first.
		DisableXAttrs: true,
		// Nobody else changes the backing files, so the kernel need not drop
		// its pages whenever their times change. Opening drops them still.
		ExplicitDataCacheControl: true,
		Logger:                   s.log,
		PanicHandler: func(v any) fuse.Status {
			s.panics.Add(1)
			s.log.Printf("handler panicked: %v\n%s", v, debug.Stack())
			return fuse.EIO
		},
	}
}

func (s *Server) nodeOptions() *fs.Options {
	return &fs.Options{
		MountOptions:    *s.mountOptions(),
		EntryTimeout:    &s.opt.CacheFor,
		AttrTimeout:     &s.opt.CacheFor,
		NullPermissions: true, // a file of mode 0 is one
		Logger:          s.log,
	}
}

// SetRules puts r in force for all operations that begin from now on. On error
// the old rules stay.
func (s *Server) SetRules(r Rules) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.engine.Load()
	e, err := NewEngine(r, before)
	if err != nil {
		return fmt.Errorf("set rules: %w", err)
	}
	s.engine.Store(e)
	next := make(chan struct{})
	close(*s.change.Swap(&next))
	if before != nil && (len(r.Corrupt) > 0 || len(before.rules.Corrupt) > 0) {
		go s.forget() // may wait for reads that hang
	}
	if r.Release {
		next := make(chan struct{})
		close(*s.release.Swap(&next))
	}
	return nil
}

// forget drops what the kernel has cached of all files, so that they are read
// again: what was read while reads were corrupted must not stay, nor hide them.
func (s *Server) forget() {
	if s.fuse == nil || s.tree == nil {
		return
	}
	var walk func(n *fs.Inode)
	walk = func(n *fs.Inode) {
		if !n.IsDir() {
			_ = n.NotifyContent(0, 0) // ENOENT: the kernel has none of it
		}
		for _, c := range n.Children() {
			walk(c)
		}
	}
	walk(s.tree.EmbeddedInode())
}

// Stats returns what the server did so far.
func (s *Server) Stats() Stats {
	st := Stats{
		Ops:     make(map[Op]OpStats, len(Ops)),
		Waiting: s.waiting.Load(), Killed: s.killed.Load(), Released: s.released.Load(),
		Passthrough: s.passthrough.Load(), Panics: s.panics.Load(),
	}
	for i, op := range Ops {
		st.Ops[op] = s.ops[i].stats()
	}
	return st
}

// Arm keeps from now on what is needed to lose what is not durable; for a torn
// write, also of the last one to each file. What was there before counts as
// durable. It costs every write of old bytes a read, see [journal].
func (s *Server) Arm(torn bool) error {
	s.power.Lock()
	defer s.power.Unlock()
	if s.off {
		return errPowerless
	}
	if s.journal != nil {
		s.journal.torn = s.journal.torn || torn
		return nil
	}
	if n := s.passthrough.Load(); n > 0 {
		return fmt.Errorf("arm slowfs: %d files are open whose writes pass it by", n)
	}
	root, err := unix.Openat(int(s.root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("arm slowfs: %w", err)
	}
	if s.journal, err = newJournal(root, torn); err != nil {
		return errors.Join(fmt.Errorf("arm slowfs: %w", err), unix.Close(root))
	}
	s.armed.Store(true)
	return nil
}

var errPowerless = errors.New("slowfs has lost power")

// Lose is a power loss: what is not durable is gone from the backing files, and
// every operation from now on fails. If torn is not negative, all that was
// written survives but the last write to each file, of which this share does.
// The mount is taken away; a new one shows what is left.
func (s *Server) Lose(torn float64) (loss Loss, err error) {
	s.power.Lock()
	defer s.power.Unlock()
	j := s.journal
	switch {
	case s.off:
		return loss, errPowerless
	case j == nil:
		return loss, errors.New("slowfs was not armed: it does not know what is not durable")
	case torn >= 0 && !j.torn:
		return loss, errors.New("slowfs was not armed for a torn write")
	}
	s.off = true
	s.silent.Store(true)
	if torn >= 0 {
		loss, err = j.tear(torn)
	} else {
		loss, err = j.lose()
	}
	s.journal = nil
	err = errors.Join(err, unix.Close(j.root))
	s.mu.Lock()
	select {
	case <-s.done:
	default:
		close(s.done) // what waits need wait no longer
	}
	s.mu.Unlock()
	// The connection is aborted: files that are open are of a disk that is gone.
	return loss, errors.Join(err, unix.Unmount(s.point, unix.MNT_DETACH|unix.MNT_FORCE))
}

// Write writes to the log, unless the power is off.
func (s *Server) Write(line []byte) (int, error) {
	if s.silent.Load() {
		return len(line), nil
	}
	return s.opt.Log.Write(line)
}

// Lost reports whether power was lost.
func (s *Server) Lost() bool { return s.silent.Load() }

// Unmount takes the mount away and ends the server. If files are open, the
// mount is only hidden, the server goes on until they are closed, and the error
// matches EBUSY.
func (s *Server) Unmount() error {
	err := unix.Unmount(s.point, 0)
	if errors.Is(err, unix.EBUSY) {
		err = errors.Join(fmt.Errorf("unmount %s: files are open: %w", s.point, err), unix.Unmount(s.point, unix.MNT_DETACH))
		return err
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", s.point, err)
	}
	s.mu.Lock()
	select {
	case <-s.done:
	default:
		close(s.done)
	}
	s.mu.Unlock()
	return s.Wait()
}

// Wait returns when the server has ended: nil if by [Server.Unmount], else an
// error, since somebody else unmounted it or aborted the connection.
func (s *Server) Wait() error {
	s.fuse.Wait()
	s.root.Close()
	select {
	case <-s.done:
		return nil
	default:
		return fmt.Errorf("slowfs at %s: the connection ended: %w", s.point, syscall.ENOTCONN)
	}
}
